#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/record.h"
#include "tests/lib/pair.h"
#include "transport/wire.h"

TestSuite(record, .timeout = 30);

enum { BODY = 37 };

/* A whole record in memory; returns its size. */
static size_t record_bytes(uint16_t type, uint32_t sequence, const char *body, size_t size, uint8_t *bytes)
{
    struct record_header header = {.type = type, .sequence = sequence};
    memcpy(bytes + RECORD_HEADER_SIZE, body, size);
    struct iovec iov = {bytes + RECORD_HEADER_SIZE, size};
    record_header_encode(&header, &iov, 1, bytes);
    return RECORD_HEADER_SIZE + size;
}

static void send_all(struct channel *channel, const void *bytes, size_t size)
{
    cr_assert_eq(channel_send(channel, bytes, size, NULL, 0, 0), GODWIT_OK);
}

Test(record, arrives_as_it_was_sent_in_any_number_of_parts)
{
    struct pair pair;
    uint8_t *body = malloc(RECORD_BODY_MAX);
    char text[8][16];
    cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
    struct record_reader reader = {.channel = pair.b};
    for (unsigned parts = 0; parts <= 8; parts++) {
        struct iovec iov[8];
        char due[128] = "";
        for (unsigned i = 0; i < parts; i++) {
            iov[i] = (struct iovec){text[i], (size_t)snprintf(text[i], sizeof text[i], "part %u of %u;", i, parts)};
            strcat(due, text[i]);
        }
        struct record_header header;
        struct godwit_error error = {0};
        cr_assert_eq(record_send(pair.a, (uint16_t)(RECORD_OFFER + parts), parts, iov, parts, 0), GODWIT_OK);
        memset(text, '?', sizeof text); /* record_send flushes: the parts are its caller's again */
        cr_assert_eq(record_recv(&reader, &header, body, parts, 0, 0, &error), GODWIT_OK, "%s", error.text);
        cr_assert_eq(header.type, RECORD_OFFER + parts);
        cr_assert_eq(header.sequence, parts);
        cr_assert_eq(header.size, strlen(due));
        cr_assert_eq(memcmp(body, due, header.size), 0);
    }
    free(body);
    pair_close(&pair);
}

Test(record, with_any_flipped_bit_is_refused)
{
    uint8_t bytes[RECORD_HEADER_SIZE + BODY];
    char body[BODY] = "the body of a record";
    size_t size = record_bytes(RECORD_STATE, 7, body, BODY, bytes);
    for (unsigned bit = 0; bit < size * 8; bit++) {
        /* Room for what a flipped size may claim. */
        static uint8_t flipped[RECORD_HEADER_SIZE + RECORD_BODY_MAX];
        struct record_header header;
        struct godwit_error error;
        memcpy(flipped, bytes, size);
        flipped[bit / 8] ^= (uint8_t)(1u << bit % 8);
        enum godwit_err err = record_header_decode(flipped, &header, &error);
        if (err == GODWIT_OK)
            err = record_check(flipped, &header, flipped + RECORD_HEADER_SIZE, 7, &error);
        cr_assert_eq(err, GODWIT_ERR_PROTOCOL, "bit %u", bit);
        cr_assert(error.text[0]);
    }
}

Test(record, out_of_sequence_is_refused_and_both_numbers_are_named)
{
    uint8_t bytes[RECORD_HEADER_SIZE];
    for (uint32_t sequence = 0; sequence < 8; sequence++) {
        struct pair pair;
        struct record_header header;
        struct godwit_error error = {0};
        uint8_t body[1];
        cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
        struct record_reader reader = {.channel = pair.b};
        send_all(pair.a, bytes, record_bytes(RECORD_RUN, sequence, "", 0, bytes));
        enum godwit_err err = record_recv(&reader, &header, body, 5, 0, 0, &error);
        cr_assert_eq(err, sequence == 5 ? GODWIT_OK : GODWIT_ERR_PROTOCOL);
        cr_assert(err == GODWIT_OK || (strstr(error.text, "RUN number") && strstr(error.text, "where 5 was due")), "%s",
                  error.text);
        pair_close(&pair);
    }
}

Test(record, too_large_is_refused_before_any_of_its_body_is_read)
{
    static const uint32_t sizes[] = {RECORD_BODY_MAX + 1, 1 << 24, INT32_MAX, UINT32_MAX};
    for (unsigned i = 0; i < 4; i++) {
        uint8_t bytes[RECORD_HEADER_SIZE + 1];
        record_bytes(RECORD_STATE, 0, "", 0, bytes);
        struct wire_out out = wire_out(bytes + 4, 4);
        wire_put_u32(&out, sizes[i]);
        out = wire_out(bytes + 12, 4);
        wire_put_u32(&out, wire_crc32(0, bytes, 12));
        bytes[RECORD_HEADER_SIZE] = '!';
        struct pair pair;
        struct record_header header;
        struct godwit_error error;
        char next = 0;
        cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
        struct record_reader reader = {.channel = pair.b};
        send_all(pair.a, bytes, sizeof bytes);
        cr_assert_eq(record_recv(&reader, &header, NULL, 0, 0, 0, &error), GODWIT_ERR_PROTOCOL);
        cr_assert(strstr(error.text, "STATE of"), "%s", error.text);
        cr_assert_eq(channel_recv_exact(pair.b, &next, 1, 0), GODWIT_OK);
        cr_assert_eq(next, '!');
        pair_close(&pair);
    }
}

Test(record, largest_is_accepted)
{
    struct pair pair;
    struct record_header header;
    char *body = calloc(2, RECORD_BODY_MAX);
    memset(body, 'b', RECORD_BODY_MAX);
    struct iovec iov = {body, RECORD_BODY_MAX};
    cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
    struct record_reader reader = {.channel = pair.b};
    cr_assert_eq(record_send(pair.a, RECORD_STATE, 0, &iov, 1, 0), GODWIT_OK);
    cr_assert_eq(record_recv(&reader, &header, (uint8_t *)body + RECORD_BODY_MAX, 0, 0, 0, NULL), GODWIT_OK);
    cr_assert_eq(memcmp(body, body + RECORD_BODY_MAX, RECORD_BODY_MAX), 0);
    free(body);
    pair_close(&pair);
}

Test(record, that_could_not_be_sent_whole_refers_to_its_body_no_more)
{
    enum { ROOM = 8 << 20 /* more than a loop takes */ };
    struct pair pair;
    char *body = malloc(RECORD_BODY_MAX), *got = malloc(ROOM);
    size_t size = 0;
    memset(body, 'b', RECORD_BODY_MAX);
    struct iovec iov = {body, RECORD_BODY_MAX};
    cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
    for (uint32_t i = 0; record_send(pair.a, RECORD_STATE, i, &iov, 1, 0) == GODWIT_OK; i++)
        cr_assert_lt(i, ROOM / RECORD_BODY_MAX);
    memset(body, '!', RECORD_BODY_MAX);
    while (size < ROOM && channel_recv_exact(pair.b, got + size, 1, 0) == GODWIT_OK)
        size++;
    cr_assert_gt(size, RECORD_BODY_MAX);
    cr_assert_null(memchr(got + size - 1000, '!', 1000), "what was taken is what the body was then");
    free(body);
    free(got);
    pair_close(&pair);
}

Test(record, reserved_bits_are_refused)
{
    for (unsigned at = 2; at < 4; at++) {
        uint8_t bytes[RECORD_HEADER_SIZE];
        struct record_header header;
        record_bytes(RECORD_RUN, 0, "", 0, bytes);
        bytes[at] = 1;
        cr_assert_eq(record_header_decode(bytes, &header, NULL), GODWIT_ERR_PROTOCOL);
    }
}

/* A loop brings it byte by byte, a socket as it is. */
ParameterizedTestParameters(record, cut_off_anywhere_is_an_error_and_not_before_the_first_byte)
{
    static enum pair_kind kinds[] = {PAIR_LOOP, PAIR_UNIX};
    return cr_make_param_array(enum pair_kind, kinds, 2);
}

ParameterizedTest(enum pair_kind *kind, record, cut_off_anywhere_is_an_error_and_not_before_the_first_byte)
{
    uint8_t bytes[RECORD_HEADER_SIZE + BODY], got[BODY];
    char body[BODY] = "body";
    size_t whole = record_bytes(RECORD_STATE, 0, body, BODY, bytes);
    for (size_t size = 0; size <= whole; size++) {
        for (unsigned hangs_up = 0; hangs_up < 2; hangs_up++) {
            struct pair pair;
            struct record_header header;
            struct godwit_error error = {0};
            cr_assert_eq(pair_open(&pair, *kind), GODWIT_OK);
            struct record_reader reader = {.channel = pair.b};
            send_all(pair.a, bytes, size);
            if (hangs_up)
                channel_shutdown(pair.a);
            enum godwit_err err = record_recv(&reader, &header, got, 0, 0, 0, &error);
            if (size == whole)
                cr_assert_eq(err, GODWIT_OK);
            else if (!hangs_up)
                cr_assert_eq(err, size ? GODWIT_ERR_STALLED : GODWIT_ERR_TIMEOUT, "%zu: %s", size, error.text);
            else /* where one of its receives begins, PEER_CLOSED */
                cr_assert(err == GODWIT_ERR_PEER_CLOSED || (err == GODWIT_ERR_RESET && size > 0), "%zu: %s", size,
                          error.text);
            cr_assert(err == GODWIT_OK || err == GODWIT_ERR_TIMEOUT || error.text[0]);
            pair_close(&pair);
        }
    }
}

/* Many at once: some heads and some bodies lie across the end of what is read ahead. */
Test(record, comes_whole_also_where_it_was_read_ahead_in_part)
{
    enum { RECORDS = 40, STEP = 53 };
    static uint8_t bytes[RECORDS * (RECORD_HEADER_SIZE + RECORDS * STEP)], got[RECORDS * STEP];
    char body[RECORDS * STEP];
    size_t size = 0;
    for (uint32_t i = 0; i < RECORDS; i++) {
        memset(body, (int)i, sizeof body);
        size += record_bytes(RECORD_STATE, i, body, i * STEP, bytes + size);
    }
    struct pair pair;
    struct record_header header;
    cr_assert_eq(pair_open(&pair, PAIR_TCP4), GODWIT_OK);
    struct record_reader reader = {.channel = pair.b};
    send_all(pair.a, bytes, size);
    for (uint32_t i = 0; i < RECORDS; i++) {
        struct godwit_error error = {0};
        cr_assert_eq(record_recv(&reader, &header, got, i, 1000, 1000, &error), GODWIT_OK, "%s", error.text);
        cr_assert_eq(header.size, i * STEP);
        memset(body, (int)i, sizeof body);
        cr_assert_eq(memcmp(got, body, header.size), 0);
    }
    cr_assert_eq(record_recv(&reader, &header, got, RECORDS, 0, 0, NULL), GODWIT_ERR_TIMEOUT);
    pair_close(&pair);
}

Test(record, that_did_not_come_in_time_can_still_come)
{
    struct pair pair;
    struct record_header header;
    uint8_t body[1];
    cr_assert_eq(pair_open(&pair, PAIR_TCP4), GODWIT_OK);
    struct record_reader reader = {.channel = pair.b};
    cr_assert_eq(record_recv(&reader, &header, body, 0, 1, 1000, NULL), GODWIT_ERR_TIMEOUT);
    cr_assert_eq(record_send(pair.a, RECORD_BYE, 0, NULL, 0, 1000), GODWIT_OK);
    cr_assert_eq(record_recv(&reader, &header, body, 0, 5000, 1000, NULL), GODWIT_OK);
    cr_assert_eq(header.type, RECORD_BYE);
    pair_close(&pair);
}

Test(record, names_are_known_for_known_types_only)
{
    for (unsigned type = RECORD_HEARTBEAT; type <= RECORD_REGISTER; type++)
        cr_assert_str_neq(record_name((uint16_t)type), record_name(0));
    cr_assert_str_eq(record_name(RECORD_REGISTER + 1), record_name(0));
    cr_assert_str_eq(record_name(RECORD_OPTIONAL), record_name(0));
    cr_assert_str_eq(record_name(RECORD_OFFER), "OFFER");
}
