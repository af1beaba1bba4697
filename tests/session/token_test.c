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

static const uint8_t session[SESSION_ID_SIZE] = "a session of ...", other[SESSION_ID_SIZE] = "another one ....";

/* ---- later connections ---- */

/* Computed by Python's hmac module. */
Test(token, next_is_an_hmac_of_what_it_is_for_under_the_one_before)
{
    static const uint8_t expected[TOKEN_SIZE] = {0x95, 0x76, 0xde, 0xe1, 0xd6, 0x21, 0xda, 0x72,
                                                    0x45, 0x44, 0x60, 0x4d, 0x27, 0xd9, 0xe9, 0x7f,
                                                    0xf8, 0xbf, 0x78, 0xd6, 0x7c, 0xc3, 0xe9, 0x10,
                                                    0x45, 0x36, 0x22, 0xe8, 0x6d, 0x3c, 0xa2, 0x2d};
    struct token token = {.role = HELLO_DATA, .channel = 0x0102, .epoch = 0x03040506, .state = TOKEN_CONSUMED,
                          .shown = true};
    for (unsigned i = 0; i < TOKEN_SIZE; i++)
        token.bytes[i] = (uint8_t)(0x40 + i);
    token_next(&token, session, &token);
    cr_assert_eq(memcmp(token.bytes, expected, sizeof expected), 0);
    cr_assert(token.role == HELLO_DATA && token.channel == 0x0102 && token.epoch == 0x03040507);
    cr_assert(token.state == TOKEN_ISSUED && !token.shown);
}

Test(token, next_is_another_one_for_any_other_token_channel_role_epoch_or_session_and_is_no_ticket)
{
    struct token tokens[6], made[6];
    uint8_t ticket[TICKET_SIZE];
    cr_assert_eq(token_issue(&tokens[0], HELLO_DATA, 3, 0, NULL), GODWIT_OK);
    for (unsigned i = 1; i < 6; i++)
        tokens[i] = tokens[0];
    tokens[1].bytes[31] ^= 1;
    tokens[2].channel++;
    tokens[3].role = HELLO_URGENT;
    tokens[4].epoch++;
    for (unsigned i = 0; i < 6; i++) {
        token_next(&tokens[i], i == 5 ? other : session, &made[i]);
        for (unsigned k = 0; k < i; k++)
            cr_assert_neq(memcmp(made[i].bytes, made[k].bytes, TOKEN_SIZE), 0, "%u, %u", i, k);
    }
    struct token later = tokens[0];
    later.epoch++; /* the ticket that is for the same connection */
    token_ticket(&later, session, ticket);
    cr_assert_neq(memcmp(ticket + SESSION_ID_SIZE, made[0].bytes, TOKEN_SIZE), 0);
}

Test(token, of_an_earlier_connection_was_used_before_and_of_a_later_one_is_unknown)
{
    struct token tokens[CHANNELS], later, *got = NULL;
    struct godwit_error error;
    issue_all(tokens);
    struct hello before = hello_for(&tokens[1]);
    token_next(&tokens[1], session, &tokens[1]);
    token_next(&tokens[1], session, &later);
    cr_assert_eq(token_reserve(tokens, CHANNELS, &before, &got, &error), GODWIT_ERR_NOT_ADMITTED);
    cr_assert(strstr(error.text, "used before"), "%s", error.text);
    struct hello after = hello_for(&later);
    cr_assert_eq(token_reserve(tokens, CHANNELS, &after, &got, &error), GODWIT_ERR_NOT_ADMITTED);
    cr_assert(strstr(error.text, "no such channel"), "%s", error.text);
    cr_assert_null(got);
    struct hello due = hello_for(&tokens[1]);
    cr_assert_eq(token_reserve(tokens, CHANNELS, &due, &got, &error), GODWIT_OK);
    cr_assert_eq(got, &tokens[1]);
}

/* ---- tickets ---- */

/* Computed by Python's hmac module: the form of a ticket is part of the protocol. */
Test(token, ticket_is_the_session_and_an_hmac_of_what_it_is_for)
{
    static const uint8_t expected[] = {0x31, 0x48, 0x5d, 0xfa, 0xdf, 0x90, 0x23, 0x2e,
                                       0x11, 0x07, 0x1c, 0x78, 0x36, 0x93, 0x19, 0xac,
                                       0x40, 0x5b, 0x63, 0x23, 0x3b, 0x71, 0x08, 0xc9,
                                       0x84, 0x29, 0xc8, 0x04, 0x4f, 0x30, 0xcd, 0x82};
    struct token token = {.role = HELLO_DATA, .channel = 0x0102, .epoch = 0x03040506};
    uint8_t ticket[TICKET_SIZE];
    for (unsigned i = 0; i < TOKEN_SIZE; i++)
        token.bytes[i] = (uint8_t)(0x40 + i);
    token_ticket(&token, session, ticket);
    cr_assert_eq(memcmp(ticket, session, SESSION_ID_SIZE), 0);
    cr_assert_eq(memcmp(ticket + SESSION_ID_SIZE, expected, sizeof expected), 0);
}

Test(token, ticket_is_another_one_for_any_other_token_channel_role_epoch_or_session)
{
    uint8_t tickets[6][TICKET_SIZE];
    struct token tokens[6];
    cr_assert_eq(token_issue(&tokens[0], HELLO_DATA, 3, 0, NULL), GODWIT_OK);
    for (unsigned i = 1; i < 6; i++)
        tokens[i] = tokens[0];
    tokens[1].bytes[31] ^= 1;
    tokens[2].channel++;
    tokens[3].role = HELLO_URGENT;
    tokens[4].epoch++;
    for (unsigned i = 0; i < 6; i++) {
        token_ticket(&tokens[i], i == 5 ? other : session, tickets[i]);
        for (unsigned k = 0; k < i; k++)
            cr_assert_neq(memcmp(tickets[i] + SESSION_ID_SIZE, tickets[k] + SESSION_ID_SIZE,
                                 TICKET_SIZE - SESSION_ID_SIZE),
                          0, "%u, %u", i, k);
    }
}

Test(token, ticket_opens_one_connection_and_leaves_the_token_to_its_hello)
{
    struct token tokens[CHANNELS], *got = NULL;
    struct godwit_error error;
    uint8_t ticket[TICKET_SIZE];
    issue_all(tokens);
    token_ticket(&tokens[4], session, ticket);
    cr_assert_eq(token_show(tokens, CHANNELS, session, ticket, NULL), GODWIT_OK);
    for (unsigned i = 0; i < CHANNELS; i++)
        cr_assert_eq(tokens[i].shown, i == 4);
    cr_assert_eq(token_show(tokens, CHANNELS, session, ticket, &error), GODWIT_ERR_NOT_ADMITTED);
    cr_assert(strstr(error.text, "used before"), "%s", error.text);
    struct hello hello = hello_for(&tokens[4]);
    cr_assert_eq(token_reserve(tokens, CHANNELS, &hello, &got, NULL), GODWIT_OK);
}

Test(token, ticket_of_a_token_that_is_reserved_or_consumed_is_refused)
{
    for (enum token_state state = TOKEN_RESERVED; state <= TOKEN_CONSUMED; state++) {
        struct token tokens[CHANNELS];
        uint8_t ticket[TICKET_SIZE];
        issue_all(tokens);
        token_ticket(&tokens[1], session, ticket);
        tokens[1].state = state;
        cr_assert_eq(token_show(tokens, CHANNELS, session, ticket, NULL), GODWIT_ERR_NOT_ADMITTED);
        cr_assert_not(tokens[1].shown);
    }
}

Test(token, ticket_with_any_wrong_bit_or_of_another_session_is_refused)
{
    struct token tokens[CHANNELS];
    struct godwit_error error;
    uint8_t ticket[TICKET_SIZE];
    issue_all(tokens);
    token_ticket(&tokens[2], session, ticket);
    for (unsigned bit = 0; bit < TICKET_SIZE * 8; bit++) {
        ticket[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(token_show(tokens, CHANNELS, session, ticket, &error), GODWIT_ERR_NOT_ADMITTED, "bit %u", bit);
        ticket[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    cr_assert_eq(token_show(tokens, CHANNELS, other, ticket, NULL), GODWIT_ERR_NOT_ADMITTED);
    cr_assert_eq(token_show(tokens, 2, session, ticket, NULL), GODWIT_ERR_NOT_ADMITTED, "not among these");
    for (unsigned i = 0; i < CHANNELS; i++)
        cr_assert_not(tokens[i].shown);
    cr_assert_eq(token_show(tokens, CHANNELS, session, ticket, NULL), GODWIT_OK);
}
