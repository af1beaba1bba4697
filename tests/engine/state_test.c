#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/state.h"

TestSuite(state, .timeout = 30);

static size_t record(uint8_t *bytes, const char *name, uint64_t offset, bool last, const void *data, size_t size)
{
    struct state_head head = {.offset = offset, .last = last};
    strncpy(head.name, name, sizeof head.name - 1);
    size_t at = state_head_encode(&head, bytes);
    if (size > 0)
        memcpy(bytes + at, data, size);
    return at + size;
}

static enum godwit_err add(struct state_set *set, const char *name, uint64_t offset, bool last, const void *data,
                           size_t size)
{
    uint8_t bytes[STATE_HEAD_MAX + 4096];
    struct godwit_error error;
    return state_set_add(set, bytes, record(bytes, name, offset, last, data, size), &error);
}

Test(state, a_writer_collects_what_is_written)
{
    struct godwit_state_writer writer = {0};
    uint8_t piece[1000];
    for (unsigned i = 0; i < 100; i++) {
        memset(piece, (int)i, sizeof piece);
        cr_assert_eq(godwit_state_write(&writer, piece, i * 10), GODWIT_OK);
    }
    cr_assert_eq(writer.size, 49500);
    size_t at = 0;
    for (unsigned i = 0; i < 100; at += i++ * 10)
        for (unsigned k = 0; k < i * 10; k++)
            cr_assert_eq(writer.bytes[at + k], (uint8_t)i);
    state_writer_clear(&writer);
    cr_assert(writer.bytes == NULL && writer.size == 0 && writer.room == 0);
}

Test(state, writing_nothing_is_fine)
{
    struct godwit_state_writer writer = {0};
    cr_assert_eq(godwit_state_write(&writer, NULL, 0), GODWIT_OK);
    cr_assert_eq(writer.size, 0);
    state_writer_clear(&writer);
}

Test(state, a_stream_has_256_MiB_at_most_and_keeps_what_it_has)
{
    struct godwit_state_writer writer = {0};
    uint8_t *much = calloc(1, STATE_STREAM_MAX + 1u);
    cr_assert_eq(godwit_state_write(&writer, much, STATE_STREAM_MAX + 1u), GODWIT_ERR_TOO_BIG);
    cr_assert_eq(godwit_state_write(&writer, much, STATE_STREAM_MAX - 1u), GODWIT_OK);
    cr_assert_eq(godwit_state_write(&writer, "ab", 2), GODWIT_ERR_TOO_BIG);
    cr_assert_eq(godwit_state_write(&writer, much, SIZE_MAX), GODWIT_ERR_TOO_BIG);
    cr_assert_eq(godwit_state_write(&writer, much, SIZE_MAX - STATE_STREAM_MAX + 2), GODWIT_ERR_TOO_BIG);
    cr_assert_eq(writer.size, STATE_STREAM_MAX - 1u);
    cr_assert_eq(godwit_state_write(&writer, "a", 1), GODWIT_OK);
    cr_assert_eq(godwit_state_write(&writer, "a", 1), GODWIT_ERR_TOO_BIG);
    cr_assert_eq(writer.bytes[STATE_STREAM_MAX - 1], 'a');
    state_writer_clear(&writer);
    free(much);
}

Test(state, a_head_survives_encoding)
{
    for (size_t length = 1; length <= GODWIT_STATE_NAME_MAX; length++) {
        struct state_head head = {.last = length % 2, .offset = UINT64_C(0x0102030405060708) * length}, back;
        uint8_t bytes[STATE_HEAD_MAX];
        memset(head.name, 'a' + (int)(length % 26), length);
        size_t size = state_head_encode(&head, bytes);
        cr_assert_leq(size, sizeof bytes);
        cr_assert_eq(state_head_decode(bytes, size, &back), bytes + size);
        cr_assert_str_eq(back.name, head.name);
        cr_assert_eq(back.last, head.last);
        cr_assert_eq(back.offset, head.offset);
    }
}

Test(state, every_truncation_of_a_head_is_refused)
{
    struct state_head head = {.name = "serial", .last = true, .offset = 77}, back;
    uint8_t bytes[STATE_HEAD_MAX];
    size_t size = state_head_encode(&head, bytes);
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *exact = malloc(cut > 0 ? cut : 1); /* so that a sanitizer sees a read beyond it */
        memcpy(exact, bytes, cut);
        cr_assert_null(state_head_decode(exact, cut, &back), "%zu of %zu bytes were taken", cut, size);
        struct state_set set = {0};
        struct godwit_error error = {0};
        cr_assert_eq(state_set_add(&set, exact, cut, &error), GODWIT_ERR_PROTOCOL);
        cr_assert_eq(set.count, 0);
        state_set_clear(&set);
        free(exact);
    }
}

Test(state, unknown_flags_and_names_without_letters_are_refused)
{
    struct state_head head = {.name = "x"}, back;
    uint8_t bytes[STATE_HEAD_MAX];
    size_t size = state_head_encode(&head, bytes);
    for (unsigned bit = 1; bit < 8; bit++) {
        bytes[2] = (uint8_t)(1u << bit);
        cr_assert_null(state_head_decode(bytes, size, &back));
    }
    head.name[0] = 0;
    size = state_head_encode(&head, bytes);
    cr_assert_null(state_head_decode(bytes, size, &back));
    uint8_t too_long[1 + GODWIT_STATE_NAME_MAX + 1 + 9] = {GODWIT_STATE_NAME_MAX + 1};
    memset(too_long + 1, 'n', GODWIT_STATE_NAME_MAX + 1);
    cr_assert_null(state_head_decode(too_long, sizeof too_long, &back));
}

Test(state, streams_in_pieces_are_put_together_whatever_the_pieces)
{
    uint8_t data[3][2500];
    size_t sent[3] = {0};
    unsigned open = 3;
    struct state_set set = {0};
    char name[2] = "a";
    srand(5);
    for (unsigned s = 0; s < 3; s++)
        for (size_t i = 0; i < sizeof data[s]; i++)
            data[s][i] = (uint8_t)rand();
    for (unsigned s = 0; s < 3; s++) { /* names appear in this order */
        name[0] = (char)('a' + s);
        cr_assert_eq(add(&set, name, 0, false, NULL, 0), GODWIT_OK);
    }
    cr_assert_not(state_set_complete(&set));
    while (open > 0) {
        unsigned s = (unsigned)rand() % 3;
        if (sent[s] > sizeof data[s])
            continue;
        size_t left = sizeof data[s] - sent[s], size = (size_t)rand() % 300;
        size = size < left ? size : left;
        bool last = size == left;
        name[0] = (char)('a' + s);
        cr_assert_eq(add(&set, name, sent[s], last, data[s] + sent[s], size), GODWIT_OK);
        sent[s] = last ? sizeof data[s] + 1 : sent[s] + size;
        open -= last;
        cr_assert_eq(state_set_complete(&set), open == 0);
    }
    cr_assert_eq(set.count, 3);
    for (unsigned s = 0; s < 3; s++) {
        cr_assert_eq(set.streams[s].name[0], 'a' + (int)s);
        cr_assert_eq(set.streams[s].data.size, sizeof data[s]);
        cr_assert_eq(memcmp(set.streams[s].data.bytes, data[s], sizeof data[s]), 0);
    }
    state_set_clear(&set);
}

Test(state, an_empty_stream_is_complete_with_its_last_record)
{
    struct state_set set = {0};
    cr_assert_eq(add(&set, "empty", 0, true, NULL, 0), GODWIT_OK);
    cr_assert(state_set_complete(&set));
    cr_assert_eq(set.streams[0].data.size, 0);
    state_set_clear(&set);
}

Test(state, gaps_repetitions_and_bytes_after_the_last_are_refused)
{
    struct state_set set = {0};
    cr_assert_eq(add(&set, "s", 1, false, "ab", 2), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(add(&set, "s", 0, false, "ab", 2), GODWIT_OK);
    cr_assert_eq(add(&set, "s", 0, false, "ab", 2), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(add(&set, "s", 1, false, "b", 1), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(add(&set, "s", 3, false, "d", 1), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(add(&set, "s", UINT64_MAX, false, "d", 1), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(add(&set, "s", 2, true, "c", 1), GODWIT_OK);
    cr_assert_eq(add(&set, "s", 3, false, "d", 1), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(add(&set, "s", 3, true, NULL, 0), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(set.streams[0].data.size, 3);
    state_set_clear(&set);
}

Test(state, more_streams_than_allowed_are_refused)
{
    struct state_set set = {0};
    char name[16];
    for (unsigned i = 0; i < GODWIT_STATES_MAX; i++) {
        snprintf(name, sizeof name, "stream %u", i);
        cr_assert_eq(add(&set, name, 0, true, "x", 1), GODWIT_OK);
    }
    cr_assert_neq(add(&set, "one more", 0, true, "x", 1), GODWIT_OK);
    cr_assert_eq(set.count, GODWIT_STATES_MAX);
    state_set_clear(&set);
}

Test(state, what_has_been_sent_before_counts_towards_the_limit)
{
    struct godwit_state_writer writer = {.before = STATE_STREAM_MAX - 2u};
    cr_assert_eq(godwit_state_write(&writer, "abc", 3), GODWIT_ERR_TOO_BIG);
    cr_assert_eq(godwit_state_write(&writer, "ab", 2), GODWIT_OK);
    cr_assert_eq(godwit_state_write(&writer, "a", 1), GODWIT_ERR_TOO_BIG);
    state_writer_clear(&writer);
}

Test(state, all_streams_together_have_a_limit_too)
{
    struct state_set set = {.total = STATE_TOTAL_MAX - 3u};
    cr_assert_eq(add(&set, "a", 0, false, "ab", 2), GODWIT_OK);
    cr_assert_eq(add(&set, "b", 0, false, "cd", 2), GODWIT_ERR_TOO_BIG);
    cr_assert_eq(add(&set, "c", 0, true, "c", 1), GODWIT_OK);
    state_set_clear(&set);
}
