#include <criterion/criterion.h>
#include <string.h>

#include "session/hello.h"
#include "tests/lib/gate.h"
#include "tests/lib/pair.h"
#include "transport/clock.h"
#include "transport/wire.h"

TestSuite(hello, .timeout = 30);

enum { FOREVER_MS = 10000 };

static struct hello sample(enum hello_role role)
{
    struct hello hello = {.version = 1, .oldest = 1, .role = role, .channel = 0x1234, .epoch = 0x89abcdef};
    for (unsigned i = 0; i < SESSION_ID_SIZE; i++)
        hello.session[i] = (uint8_t)(i + 1);
    for (unsigned i = 0; i < TOKEN_SIZE; i++)
        hello.token[i] = (uint8_t)(0xff - i);
    return hello;
}

static void put_crc(uint8_t *bytes, size_t at, uint32_t crc)
{
    struct wire_out out = wire_out(bytes + at, 4);
    wire_put_u32(&out, crc);
}

/* Makes a hello with a changed byte look undamaged. */
static void reseal(uint8_t bytes[HELLO_SIZE])
{
    put_crc(bytes, HELLO_SIZE - 4, wire_crc32(0, bytes, HELLO_SIZE - 4));
}

static void reseal_answer(uint8_t *bytes, size_t text)
{
    put_crc(bytes, 28, wire_crc32(wire_crc32(0, bytes, 28), bytes + ANSWER_SIZE, text));
}

Test(hello, every_field_survives)
{
    for (unsigned role = HELLO_CONTROL; role <= HELLO_STREAM; role++) {
        struct hello in = sample(role), out;
        uint8_t bytes[HELLO_SIZE];
        struct godwit_error error;
        hello_encode(&in, bytes);
        cr_assert_eq(hello_decode(bytes, &out, &error), GODWIT_OK, "%s", error.text);
        cr_assert_eq(out.version, in.version);
        cr_assert_eq(out.oldest, in.oldest);
        cr_assert_eq(out.role, in.role);
        cr_assert_eq(out.channel, in.channel);
        cr_assert_eq(out.epoch, in.epoch);
        cr_assert_arr_eq(out.session, in.session, SESSION_ID_SIZE);
        cr_assert_arr_eq(out.token, in.token, TOKEN_SIZE);
    }
}

Test(hello, every_flipped_bit_is_refused_and_leaves_the_output_alone)
{
    struct hello in = sample(HELLO_DATA);
    uint8_t bytes[HELLO_SIZE];
    hello_encode(&in, bytes);
    for (unsigned bit = 0; bit < HELLO_SIZE * 8; bit++) {
        struct hello out, untouched;
        struct godwit_error error;
        memset(&out, 0x5a, sizeof out);
        untouched = out;
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(hello_decode(bytes, &out, &error), GODWIT_ERR_PROTOCOL, "bit %u", bit);
        cr_assert(error.text[0]);
        cr_assert_eq(memcmp(&out, &untouched, sizeof out), 0, "bit %u", bit);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

Test(hello, reserved_bytes_and_unknown_roles_are_refused_whatever_the_checksum_says)
{
    struct hello in = sample(HELLO_DATA), out;
    uint8_t good[HELLO_SIZE];
    hello_encode(&in, good);
    cr_assert_eq(good[12], HELLO_DATA, "the role is byte 12");
    for (unsigned at = 0; at < HELLO_SIZE - 4; at++) {
        bool reserved = at == 13 || (at >= 36 && at < 40) || (at >= 72 && at < 92);
        if (!reserved && at != 12)
            continue;
        uint8_t bytes[HELLO_SIZE];
        memcpy(bytes, good, sizeof bytes);
        bytes[at] = at == 12 ? HELLO_STREAM + 1 : 1;
        reseal(bytes);
        cr_assert_eq(hello_decode(bytes, &out, NULL), GODWIT_ERR_PROTOCOL, "byte %u", at);
    }
}

Test(hello, first_control_connection_has_neither_channel_nor_token)
{
    for (unsigned i = 0; i < 4; i++) {
        struct hello in = {.version = 1, .oldest = 1, .role = HELLO_CONTROL}, out;
        uint8_t bytes[HELLO_SIZE];
        if (i == 1)
            in.channel = 1;
        if (i == 2)
            in.token[TOKEN_SIZE - 1] = 1;
        if (i == 3) { /* a later one has both */
            in.epoch = 1;
            in.token[0] = 1;
        }
        hello_encode(&in, bytes);
        cr_assert_eq(hello_decode(bytes, &out, NULL), i % 3 ? GODWIT_ERR_PROTOCOL : GODWIT_OK, "case %u", i);
    }
}

Test(hello, another_version_is_a_mismatch_that_names_both_ranges)
{
    static const struct {
        uint16_t oldest, version;
        enum godwit_err err;
    } cases[] = {
        {1, 1, GODWIT_OK},           {0, 1, GODWIT_OK},           {1, 7, GODWIT_OK},
        {2, 2, GODWIT_ERR_MISMATCH}, {5, 7, GODWIT_ERR_MISMATCH}, {0, 0, GODWIT_ERR_MISMATCH},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hello in = sample(HELLO_CONTROL), out;
        struct godwit_error error = {0};
        uint8_t bytes[HELLO_SIZE];
        in.oldest = cases[i].oldest;
        in.version = cases[i].version;
        hello_encode(&in, bytes);
        cr_assert_eq(hello_decode(bytes, &out, &error), cases[i].err, "case %u", i);
    }
    struct hello in = sample(HELLO_CONTROL), out;
    struct godwit_error error;
    uint8_t bytes[HELLO_SIZE];
    in.oldest = 5;
    in.version = 7;
    hello_encode(&in, bytes);
    hello_decode(bytes, &out, &error);
    cr_assert(strstr(error.text, "version mismatch") && strstr(error.text, "5 to 7") && strstr(error.text, "1 to 1"),
              "%s", error.text);
}

Test(hello, later_versions_may_change_everything_behind_the_version)
{
    struct hello in = sample(HELLO_CONTROL), out;
    uint8_t bytes[HELLO_SIZE];
    in.oldest = in.version = 2;
    hello_encode(&in, bytes);
    bytes[13] = bytes[80] = 0xff;
    reseal(bytes);
    cr_assert_eq(hello_decode(bytes, &out, NULL), GODWIT_ERR_MISMATCH, "it is answered in words, not called garbage");
}

Test(hello, that_ends_early_is_an_error_at_every_length)
{
    struct hello in = sample(HELLO_DATA), out;
    uint8_t bytes[HELLO_SIZE];
    hello_encode(&in, bytes);
    for (unsigned size = 0; size <= HELLO_SIZE; size++) {
        for (unsigned hangs_up = 0; hangs_up < 2; hangs_up++) {
            struct pair pair;
            struct godwit_error error = {0};
            cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
            cr_assert_eq(channel_send(pair.a, bytes, size, NULL, 0, 0), GODWIT_OK);
            if (hangs_up)
                channel_shutdown(pair.a);
            enum godwit_err due = size == HELLO_SIZE ? GODWIT_OK
                                  : size > 0         ? hangs_up ? GODWIT_ERR_RESET : GODWIT_ERR_STALLED
                                  : hangs_up         ? GODWIT_ERR_PEER_CLOSED
                                                     : GODWIT_ERR_TIMEOUT;
            cr_assert_eq(hello_receive(pair.b, &out, 0, &error), due, "%u bytes: %s", size, error.text);
            cr_assert(due == GODWIT_OK || strstr(error.text, "no hello"), "%s", error.text);
            pair_close(&pair);
        }
    }
}

static struct hello_answer answer_of(enum godwit_err code, const char *text)
{
    struct hello_answer answer = {.version = code == GODWIT_OK ? 1 : 0, .code = code};
    strncpy(answer.text, text, ANSWER_TEXT_MAX);
    return answer;
}

Test(hello, answers_survive_with_and_without_text)
{
    char longest[ANSWER_TEXT_MAX + 1] = "";
    memset(longest, 'x', ANSWER_TEXT_MAX);
    const char *texts[] = {"", "!", "the guest is too big", longest};
    for (unsigned i = 0; i < 4; i++) {
        struct hello_answer in = answer_of(i ? GODWIT_ERR_MISMATCH : GODWIT_OK, texts[i]), out;
        uint8_t bytes[ANSWER_SIZE + ANSWER_TEXT_MAX];
        struct godwit_error error;
        size_t size = hello_answer_encode(&in, bytes), text;
        cr_assert_eq(size, ANSWER_SIZE + strlen(texts[i]));
        cr_assert_eq(hello_answer_text_size(bytes, &text, &error), GODWIT_OK);
        cr_assert_eq(text, strlen(texts[i]));
        cr_assert_eq(hello_answer_decode(bytes, size, &out, &error), GODWIT_OK, "%s", error.text);
        cr_assert_eq(out.version, in.version);
        cr_assert_eq(out.code, in.code);
        cr_assert_str_eq(out.text, texts[i]);
    }
}

Test(hello, longer_words_are_cut_to_what_an_answer_holds)
{
    struct hello_answer in = {.code = GODWIT_ERR_BUSY}, out;
    uint8_t bytes[ANSWER_SIZE + ANSWER_TEXT_MAX];
    memset(in.text, 'x', sizeof in.text); /* no end at all */
    cr_assert_eq(hello_answer_encode(&in, bytes), sizeof bytes);
    cr_assert_eq(hello_answer_decode(bytes, sizeof bytes, &out, NULL), GODWIT_OK);
    cr_assert_eq(strlen(out.text), ANSWER_TEXT_MAX);
}

Test(hello, every_flipped_bit_and_every_other_length_of_an_answer_is_refused)
{
    struct hello_answer in = answer_of(GODWIT_ERR_MISMATCH, "other channels"), out;
    uint8_t bytes[ANSWER_SIZE + ANSWER_TEXT_MAX] = {0};
    size_t size = hello_answer_encode(&in, bytes);
    for (unsigned bit = 0; bit < size * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(hello_answer_decode(bytes, size, &out, NULL), GODWIT_ERR_PROTOCOL, "bit %u", bit);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t other = 0; other <= sizeof bytes; other++)
        cr_assert_eq(hello_answer_decode(bytes, other, &out, NULL), other == size ? GODWIT_OK : GODWIT_ERR_PROTOCOL,
                     "%zu bytes", other);
}

Test(hello, answer_that_announces_too_much_text_is_refused_before_it_is_read)
{
    struct hello_answer in = answer_of(GODWIT_ERR_MISMATCH, "");
    struct godwit_error error;
    uint8_t bytes[ANSWER_SIZE];
    size_t text;
    hello_answer_encode(&in, bytes);
    for (unsigned size = 0; size <= UINT16_MAX; size++) {
        bytes[12] = (uint8_t)(size >> 8);
        bytes[13] = (uint8_t)size;
        cr_assert_eq(hello_answer_text_size(bytes, &text, &error),
                     size <= ANSWER_TEXT_MAX ? GODWIT_OK : GODWIT_ERR_PROTOCOL, "%u", size);
    }
}

Test(hello, answer_with_reserved_bytes_or_an_end_inside_its_text_is_refused)
{
    struct hello_answer in = answer_of(GODWIT_ERR_MISMATCH, "abc"), out;
    uint8_t bytes[ANSWER_SIZE + ANSWER_TEXT_MAX];
    size_t size = hello_answer_encode(&in, bytes);
    for (unsigned at = 14; at < 28; at++) {
        bytes[at] = 1;
        reseal_answer(bytes, 3);
        cr_assert_eq(hello_answer_decode(bytes, size, &out, NULL), GODWIT_ERR_PROTOCOL, "byte %u", at);
        bytes[at] = 0;
    }
    bytes[ANSWER_SIZE + 1] = 0;
    reseal_answer(bytes, 3);
    cr_assert_eq(hello_answer_decode(bytes, size, &out, NULL), GODWIT_ERR_PROTOCOL);
}

/* Greets a listener that has answered beforehand. */
static enum godwit_err greet_answered(const void *answer, size_t size, struct godwit_error *error)
{
    struct pair pair;
    struct hello hello = sample(HELLO_DATA), seen;
    cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
    cr_assert_eq(channel_send(pair.b, answer, size, NULL, 0, 0), GODWIT_OK);
    enum godwit_err err = hello_greet(pair.a, &hello, 50, NULL, error);
    cr_assert_eq(hello_receive(pair.b, &seen, 0, NULL), GODWIT_OK, "the hello went out whole");
    cr_assert_eq(seen.epoch, hello.epoch);
    pair_close(&pair);
    return err;
}

Test(hello, refusal_keeps_its_words_and_only_codes_that_mean_something_here)
{
    static const enum godwit_err codes[][2] = {
        {GODWIT_ERR_MISMATCH, GODWIT_ERR_MISMATCH},         {GODWIT_ERR_BUSY, GODWIT_ERR_BUSY},
        {GODWIT_ERR_NOT_ADMITTED, GODWIT_ERR_NOT_ADMITTED}, {GODWIT_ERR_CANCELLED, GODWIT_ERR_NOT_ADMITTED},
        {GODWIT_ERR_CLOSED, GODWIT_ERR_NOT_ADMITTED},       {(enum godwit_err)4711, GODWIT_ERR_NOT_ADMITTED},
    };
    for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++) {
        struct hello_answer answer = answer_of(codes[i][0], "not \033[31mtoday\n");
        struct godwit_error error;
        uint8_t bytes[ANSWER_SIZE + ANSWER_TEXT_MAX];
        size_t size = hello_answer_encode(&answer, bytes);
        cr_assert_eq(greet_answered(bytes, size, &error), codes[i][1]);
        cr_assert(strstr(error.text, "refuses: not  [31mtoday"), "no control characters: %s", error.text);
    }
}

Test(hello, admission_needs_a_version_that_was_offered)
{
    for (unsigned version = 0; version < 4; version++) {
        struct hello_answer answer = {.version = (uint16_t)version};
        struct godwit_error error;
        uint8_t bytes[ANSWER_SIZE];
        size_t size = hello_answer_encode(&answer, bytes);
        cr_assert_eq(greet_answered(bytes, size, &error), version == 1 ? GODWIT_OK : GODWIT_ERR_PROTOCOL);
    }
}

Test(hello, listener_of_another_protocol_is_found_out_after_the_fixed_part)
{
    struct godwit_error error;
    static const char http[] = "HTTP/1.1 400 Bad Request\r\n\r\nxxxxxxxxxx";
    cr_assert_eq(greet_answered(http, sizeof http, &error), GODWIT_ERR_PROTOCOL);
    cr_assert(strstr(error.text, "does not speak"), "%s", error.text);
    struct hello_answer answer = answer_of(GODWIT_ERR_BUSY, "cut off");
    uint8_t bytes[ANSWER_SIZE + ANSWER_TEXT_MAX];
    size_t size = hello_answer_encode(&answer, bytes);
    for (size_t part = 0; part < size; part++)
        cr_assert_neq(greet_answered(bytes, part, &error), GODWIT_OK);
}

Test(hello, a_listener_that_hung_up_before_the_hello_was_sent_is_heard)
{
    static const char words[] = "not today";
    struct pair pair;
    struct godwit_error error;
    struct hello hello = sample(HELLO_DATA);
    cr_assert_eq(pair_open(&pair, PAIR_TCP4), GODWIT_OK);
    cr_assert_eq(channel_send(pair.a, "?", 1, NULL, 0, 0), GODWIT_OK);
    cr_assert_eq(hello_reply(pair.b, GODWIT_ERR_BUSY, words, 1000), GODWIT_OK);
    channel_free(pair.b); /* with something unread: a reset follows the words */
    pair.b = NULL;
    while (channel_send(pair.a, "?", 1, NULL, 0, 1000) == GODWIT_OK)
        continue;
    cr_assert_eq(hello_greet(pair.a, &hello, 1000, NULL, &error), GODWIT_ERR_BUSY, "%s", error.text);
    cr_assert_not_null(strstr(error.text, words), "%s", error.text);
    pair_close(&pair);
}

Test(hello, silent_listener_is_given_up_in_time)
{
    struct pair pair;
    struct hello hello = sample(HELLO_DATA);
    struct godwit_error error;
    cr_assert_eq(pair_open(&pair, PAIR_TCP4), GODWIT_OK);
    uint64_t start = clock_now_ms();
    cr_assert_eq(hello_greet(pair.a, &hello, 100, NULL, &error), GODWIT_ERR_TIMEOUT);
    cr_assert_lt(clock_now_ms() - start, 1100);
    cr_assert(strstr(error.text, "no answer"), "%s", error.text);
    pair_close(&pair);
}

/* Sends the bytes of an answer, one every so often, until it is told to stop. */
struct dribbler {
    struct channel *channel;
    struct gate stop;
};

static void *dribble(void *opaque)
{
    struct dribbler *dribbler = opaque;
    struct hello_answer answer = {.version = 1};
    memset(answer.text, 'x', ANSWER_TEXT_MAX);
    uint8_t bytes[ANSWER_SIZE + ANSWER_TEXT_MAX];
    size_t size = hello_answer_encode(&answer, bytes);
    for (size_t at = 0; at < size && !gate_wait(&dribbler->stop, 1, 30); at++)
        channel_send(dribbler->channel, bytes + at, 1, NULL, 0, 1000);
    return NULL;
}

/* How long the greeting of a listener that dribbles takes. */
static uint64_t greet_dribbler(int timeout_ms, const atomic_bool *cancel, enum godwit_err due)
{
    struct pair pair;
    struct dribbler dribbler = {.stop = GATE_INIT};
    struct hello hello = sample(HELLO_DATA);
    struct godwit_error error = {0};
    pthread_t thread;
    cr_assert_eq(pair_open(&pair, PAIR_TCP4), GODWIT_OK);
    dribbler.channel = pair.b;
    pthread_create(&thread, NULL, dribble, &dribbler);
    uint64_t start = clock_now_ms();
    cr_assert_eq(hello_greet(pair.a, &hello, timeout_ms, cancel, &error), due, "%s", error.text);
    uint64_t took = clock_now_ms() - start;
    gate_note(&dribbler.stop, NULL);
    pthread_join(thread, NULL);
    pair_close(&pair);
    return took;
}

Test(hello, answer_that_dribbles_in_is_given_up_in_time)
{
    cr_assert_lt(greet_dribbler(200, NULL, GODWIT_ERR_TIMEOUT), 1200);
}

Test(hello, cancel_ends_the_wait_for_an_answer)
{
    atomic_bool cancel = true;
    cr_assert_lt(greet_dribbler(FOREVER_MS, &cancel, GODWIT_ERR_CANCELLED), 1000);
}

Test(hello, reply_reaches_the_greeter_over_every_stream)
{
    for (enum pair_kind kind = PAIR_LOOP; kind <= PAIR_UNIX; kind++) {
        if (!pair_kind_works(kind))
            continue;
        for (unsigned refused = 0; refused < 2; refused++) {
            struct pair pair;
            struct hello hello = sample(HELLO_CONTROL);
            struct godwit_error error = {0};
            cr_assert_eq(pair_open(&pair, kind), GODWIT_OK);
            cr_assert_eq(hello_reply(pair.b, refused ? GODWIT_ERR_BUSY : GODWIT_OK, refused ? "later" : "", FOREVER_MS),
                         GODWIT_OK);
            cr_assert_eq(hello_greet(pair.a, &hello, FOREVER_MS, NULL, &error), refused ? GODWIT_ERR_BUSY : GODWIT_OK,
                         "%s", error.text);
            cr_assert(!refused || strstr(error.text, "later"), "%s", error.text);
            pair_close(&pair);
        }
    }
}

/* Whoever refuses without having heard us, as TLS does, has hung up when our hello comes. */
Test(hello, refusal_is_heard_by_a_greeter_who_comes_too_late_to_be_heard)
{
    struct pair pair;
    struct hello hello = sample(HELLO_CONTROL);
    struct godwit_error error = {0};
    cr_assert_eq(pair_open(&pair, PAIR_TCP4), GODWIT_OK);
    cr_assert_eq(channel_send(pair.a, "", 1, NULL, 0, FOREVER_MS), GODWIT_OK); /* unread: the connection is reset */
    cr_assert_eq(hello_reply(pair.b, GODWIT_ERR_MISMATCH, "another time", FOREVER_MS), GODWIT_OK);
    channel_free(pair.b);
    pair.b = NULL;
    cr_assert_eq(hello_greet(pair.a, &hello, FOREVER_MS, NULL, &error), GODWIT_ERR_MISMATCH, "%s", error.text);
    cr_assert(strstr(error.text, "another time"), "%s", error.text);
    pair_close(&pair);
}
