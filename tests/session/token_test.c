#include <criterion/criterion.h>
#include <string.h>

#include "session/token.h"

TestSuite(token, .timeout = 20);

enum { CHANNELS = 8 };

static void issue_all(struct token tokens[CHANNELS])
{
    for (unsigned i = 0; i < CHANNELS; i++)
        cr_assert_eq(token_issue(&tokens[i], HELLO_DATA, (uint16_t)i, 0, NULL), GODWIT_OK);
}

static struct hello hello_for(const struct token *token)
{
    struct hello hello = {.role = token->role, .channel = token->channel, .epoch = token->epoch};
    memcpy(hello.token, token->bytes, TOKEN_SIZE);
    return hello;
}

Test(token, issued_ones_all_differ)
{
    struct token tokens[CHANNELS];
    static const uint8_t nothing[TOKEN_SIZE];
    issue_all(tokens);
    for (unsigned i = 0; i < CHANNELS; i++) {
        cr_assert_eq(tokens[i].state, TOKEN_ISSUED);
        cr_assert_neq(memcmp(tokens[i].bytes, nothing, TOKEN_SIZE), 0);
        for (unsigned j = 0; j < i; j++)
            cr_assert_neq(memcmp(tokens[i].bytes, tokens[j].bytes, TOKEN_SIZE), 0);
    }
}

Test(token, reserves_exactly_the_one_that_the_hello_shows)
{
    struct token tokens[CHANNELS], *got = NULL;
    issue_all(tokens);
    struct hello hello = hello_for(&tokens[5]);
    cr_assert_eq(token_reserve(tokens, CHANNELS, &hello, &got, NULL), GODWIT_OK);
    cr_assert_eq(got, &tokens[5]);
    for (unsigned i = 0; i < CHANNELS; i++)
        cr_assert_eq(tokens[i].state, i == 5 ? TOKEN_RESERVED : TOKEN_ISSUED);
}

Test(token, is_good_once_and_again_only_when_given_back)
{
    struct token tokens[CHANNELS], *got = NULL, *other = NULL;
    struct godwit_error error;
    issue_all(tokens);
    struct hello hello = hello_for(&tokens[2]);
    cr_assert_eq(token_reserve(tokens, CHANNELS, &hello, &got, NULL), GODWIT_OK);
    cr_assert_eq(token_reserve(tokens, CHANNELS, &hello, &other, &error), GODWIT_ERR_NOT_ADMITTED, "while reserved");
    cr_assert_null(other);
    cr_assert(strstr(error.text, "used before"), "%s", error.text);
    got->state = TOKEN_ISSUED;
    cr_assert_eq(token_reserve(tokens, CHANNELS, &hello, &got, NULL), GODWIT_OK, "given back");
    got->state = TOKEN_CONSUMED;
    cr_assert_eq(token_reserve(tokens, CHANNELS, &hello, &other, &error), GODWIT_ERR_NOT_ADMITTED, "when consumed");
    cr_assert_eq(got->state, TOKEN_CONSUMED);
    cr_assert_null(other);
}

Test(token, with_any_wrong_bit_is_refused_and_stays_good)
{
    struct token tokens[CHANNELS], *got = NULL;
    struct godwit_error error;
    issue_all(tokens);
    struct hello hello = hello_for(&tokens[2]);
    for (unsigned bit = 0; bit < TOKEN_SIZE * 8; bit++) {
        hello.token[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(token_reserve(tokens, CHANNELS, &hello, &got, &error), GODWIT_ERR_NOT_ADMITTED, "bit %u", bit);
        cr_assert_eq(tokens[2].state, TOKEN_ISSUED);
        hello.token[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_assert_eq(token_reserve(tokens, CHANNELS, &hello, &got, NULL), GODWIT_OK);
}

Test(token, wrong_bytes_do_not_learn_whether_it_was_used)
{
    struct token tokens[CHANNELS], *got = NULL;
    struct godwit_error fresh, used;
    issue_all(tokens);
    struct hello hello = hello_for(&tokens[2]), wrong = hello;
    wrong.token[0] ^= 1;
    token_reserve(tokens, CHANNELS, &wrong, &got, &fresh);
    cr_assert_eq(token_reserve(tokens, CHANNELS, &hello, &got, NULL), GODWIT_OK);
    token_reserve(tokens, CHANNELS, &wrong, &got, &used);
    cr_assert_str_eq(fresh.text, used.text);
}

Test(token, of_another_channel_role_or_epoch_is_refused)
{
    struct token tokens[CHANNELS], *got = NULL;
    struct godwit_error error;
    issue_all(tokens);
    for (unsigned i = 0; i < 4; i++) {
        struct hello hello = hello_for(&tokens[2]);
        if (i == 0)
            hello.channel = CHANNELS;
        else if (i == 1)
            hello.role = HELLO_CONTROL;
        else if (i == 2)
            hello.epoch = 1;
        else
            hello.channel = 3;
        cr_assert_eq(token_reserve(tokens, CHANNELS, &hello, &got, &error), GODWIT_ERR_NOT_ADMITTED, "case %u", i);
        cr_assert(error.text[0]);
    }
    struct hello hello = hello_for(&tokens[0]);
    cr_assert_eq(token_reserve(tokens, 0, &hello, &got, NULL), GODWIT_ERR_NOT_ADMITTED, "no tokens at all");
    cr_assert_null(got);
    for (unsigned i = 0; i < CHANNELS; i++)
        cr_assert_eq(tokens[i].state, TOKEN_ISSUED);
}
