#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/conformance/cases.h"

enum { MEMORY = 64 << 10, TIMEOUT_MS = 5000 };

/* The memory of both sides: local is a's, far is b's. */
struct sides {
    uint8_t *local, *far;
    struct mr *local_mr, *far_mr;
    struct remote *remote;
};

static void open_sides(struct sides *s, struct pair *pair, enum region_access access)
{
    struct godwit_error error;
    struct region_key key;
    *s = (struct sides){.local = malloc(MEMORY), .far = calloc(1, MEMORY)};
    for (size_t i = 0; i < MEMORY; i++)
        s->local[i] = (uint8_t)(i % 251 + 1);
    struct region local = {.addr = s->local, .size = MEMORY, .fd = -1};
    struct region far = {.addr = s->far, .size = MEMORY, .fd = -1};
    cr_assert_eq(domain_register(pair->domain_a, &local, REGION_LOCAL_WRITE, &s->local_mr, &error), GODWIT_OK);
    cr_assert_eq(domain_register(pair->domain_b, &far, access, &s->far_mr, &error), GODWIT_OK);
    mr_export(s->far_mr, &key);
    cr_assert_gt(key.size, 0);
    cr_assert_eq(domain_import(pair->domain_a, &key, &s->remote, &error), GODWIT_OK, "%s", error.text);
    cr_assert_eq(remote_size(s->remote), MEMORY);
    cr_assert_eq(mr_size(s->local_mr), MEMORY);
}

static void close_sides(struct sides *s, struct pair *pair)
{
    /* The channel first: it may refer to the memory until then. */
    channel_free(pair->a);
    pair->a = NULL;
    remote_free(s->remote);
    mr_free(s->local_mr);
    mr_free(s->far_mr);
    free(s->local);
    free(s->far);
}

static bool is_zero(const uint8_t *memory, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (memory[i])
            return false;
    }
    return true;
}

static void put(struct pair *pair, const struct sides *s, uint64_t from, uint64_t to, uint64_t size)
{
    cr_assert_eq(channel_put(pair->a, s->local_mr, from, s->remote, to, size), GODWIT_OK);
}

static void tell(struct pair *pair)
{
    cr_assert_eq(channel_send(pair->a, "!", 1, NULL, 0, TIMEOUT_MS), GODWIT_OK);
}

static enum godwit_err hear(struct pair *pair)
{
    char byte;
    return channel_recv_exact(pair->b, &byte, 1, TIMEOUT_MS);
}

static void put_is_visible_after_a_later_send(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    put(pair, &s, 0, 100, 10000);
    put(pair, &s, 10000, 20000, 1);
    tell(pair);
    cr_assert_eq(hear(pair), GODWIT_OK);
    cr_assert_arr_eq(s.far + 100, s.local, 10000);
    cr_assert_eq(s.far[20000], s.local[10000]);
    cr_assert(is_zero(s.far, 100) && is_zero(s.far + 10100, 9900) && is_zero(s.far + 20001, MEMORY - 20001));
    close_sides(&s, pair);
}

/* The loop promises to be this unhelpful, here and in the next. */
static void put_is_not_visible_before(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    put(pair, &s, 0, 0, 100);
    tell(pair);
    put(pair, &s, 0, 200, 100);
    cr_assert_eq(channel_flush(pair->a, TIMEOUT_MS), GODWIT_OK);
    cr_assert(is_zero(s.far, MEMORY), "nothing was received yet");
    cr_assert_eq(hear(pair), GODWIT_OK);
    cr_assert_arr_eq(s.far, s.local, 100);
    cr_assert(is_zero(s.far + 100, MEMORY - 100), "the second put has no later send");
    tell(pair);
    cr_assert_eq(hear(pair), GODWIT_OK);
    cr_assert_arr_eq(s.far + 200, s.local, 100);
    close_sides(&s, pair);
}

static void put_without_a_later_send_never_happens(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    put(pair, &s, 0, 0, 100);
    cr_assert_eq(channel_flush(pair->a, TIMEOUT_MS), GODWIT_OK);
    channel_free(pair->a);
    pair->a = NULL;
    cr_assert_eq(hear(pair), GODWIT_ERR_PEER_CLOSED);
    cr_assert(is_zero(s.far, MEMORY));
    close_sides(&s, pair);
}

static void put_after_a_received_send_wins(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    for (unsigned i = 0; i < 50; i++) {
        put(pair, &s, i, i % 3, 20);
        tell(pair);
        cr_assert_eq(hear(pair), GODWIT_OK);
        cr_assert_arr_eq(s.far + i % 3, s.local + i, 20);
    }
    close_sides(&s, pair);
}

/* Which of them wins is open, but not that one does. */
static void overlapping_puts_arrive_in_some_order(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    for (unsigned i = 0; i < 4; i++)
        put(pair, &s, i * 100, 0, 100);
    tell(pair);
    cr_assert_eq(hear(pair), GODWIT_OK);
    unsigned winners = 0;
    for (unsigned i = 0; i < 4; i++)
        winners += memcmp(s.far, s.local + i * 100, 1) == 0;
    cr_assert_eq(winners, 1);
    cr_assert(is_zero(s.far + 100, MEMORY - 100));
    close_sides(&s, pair);
}

static void ranges_outside_are_refused(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    struct channel *a = pair->a;
    uint64_t most = channel_limits(a)->max_put;
    cr_assert_eq(channel_put(a, s.local_mr, 1, s.remote, 0, MEMORY), GODWIT_ERR_INVALID);
    cr_assert_eq(channel_put(a, s.local_mr, 0, s.remote, 1, MEMORY), GODWIT_ERR_INVALID);
    cr_assert_eq(channel_put(a, s.local_mr, UINT64_MAX, s.remote, 0, 2), GODWIT_ERR_INVALID);
    cr_assert_eq(channel_put(a, s.local_mr, 0, s.remote, UINT64_MAX, 2), GODWIT_ERR_INVALID);
    cr_assert_eq(channel_get(a, s.local_mr, MEMORY, s.remote, 0, 1), GODWIT_ERR_INVALID);
    cr_assert_eq(channel_put(a, s.local_mr, 0, s.remote, 0, most + 1), GODWIT_ERR_TOO_BIG);
    put(pair, &s, 0, 0, MEMORY);
    put(pair, &s, MEMORY, MEMORY, 0);
    tell(pair);
    cr_assert_eq(hear(pair), GODWIT_OK, "a refused put leaves the channel as it was");
    cr_assert_arr_eq(s.far, s.local, MEMORY);
    close_sides(&s, pair);
}

static void get_is_complete_after_flush(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_READ);
    memset(s.far, 'f', MEMORY);
    for (unsigned i = 0; i < 8; i++)
        cr_assert_eq(channel_get(pair->a, s.local_mr, i * 200, s.remote, i * 1000, 100), GODWIT_OK);
    cr_assert_eq(channel_flush(pair->a, TIMEOUT_MS), GODWIT_OK);
    for (unsigned i = 0; i < 8; i++) {
        cr_assert_arr_eq(s.local + i * 200, s.far, 100);
        cr_assert_neq(s.local[i * 200 + 100], 'f' * (s.local[i * 200 + 100] == 0), "only what was asked for");
    }
    close_sides(&s, pair);
}

static void put_needs_the_right_to_write(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_READ);
    put(pair, &s, 0, 0, 100);
    channel_send(pair->a, "!", 1, NULL, 0, TIMEOUT_MS);
    cr_assert_eq(hear(pair), GODWIT_ERR_RESET);
    cr_assert(is_zero(s.far, MEMORY));
    close_sides(&s, pair);
}

static void get_needs_the_right_to_read(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    uint8_t before = s.local[0];
    enum godwit_err err = channel_get(pair->a, s.local_mr, 0, s.remote, 0, 100);
    if (!err)
        err = channel_flush(pair->a, TIMEOUT_MS);
    cr_assert_eq(err, GODWIT_ERR_RESET);
    cr_assert_eq(s.local[0], before);
    close_sides(&s, pair);
}

static void revoked_memory_is_never_touched(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    put(pair, &s, 0, 0, 100);
    mr_free(s.far_mr);
    s.far_mr = NULL;
    put(pair, &s, 0, 200, 100);
    tell(pair);
    cr_assert_eq(hear(pair), GODWIT_ERR_RESET);
    cr_assert_eq(channel_send(pair->a, "!", 1, NULL, 0, TIMEOUT_MS), GODWIT_ERR_RESET, "the sender learns of it");
    /* What was put before may have arrived. */
    cr_assert(is_zero(s.far + 100, MEMORY - 100));
    close_sides(&s, pair);
}

static void flush_lets_put_memory_be_reused(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    uint8_t *original = malloc(MEMORY);
    memcpy(original, s.local, MEMORY);
    for (unsigned i = 0; i < 16; i++)
        put(pair, &s, i * 100, i * 100, 100);
    struct iovec iov = {s.local, 1000};
    cr_assert_eq(channel_send(pair->a, "!", 1, &iov, 1, TIMEOUT_MS), GODWIT_OK);
    cr_assert_eq(channel_flush(pair->a, TIMEOUT_MS), GODWIT_OK);
    memset(s.local, 0xee, MEMORY);
    cr_assert_eq(hear(pair), GODWIT_OK);
    cr_assert_arr_eq(s.far, original, 1600);
    uint8_t got[1000];
    cr_assert_eq(channel_recv_exact(pair->b, got, sizeof got, TIMEOUT_MS), GODWIT_OK);
    cr_assert_arr_eq(got, original, sizeof got);
    free(original);
    close_sides(&s, pair);
}

static void malformed_keys_are_refused(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    struct region_key key, bad;
    struct remote *remote = NULL;
    struct godwit_error error;
    mr_export(s.local_mr, &key);
    cr_assert_eq(key.size, 0, "local memory has no key");
    cr_assert_eq(domain_import(pair->domain_a, &key, &remote, &error), GODWIT_ERR_PROTOCOL);
    mr_export(s.far_mr, &key);
    for (unsigned size = 0; size < key.size; size++) {
        bad = key;
        bad.size = (uint16_t)size;
        cr_assert_eq(domain_import(pair->domain_a, &bad, &remote, &error), GODWIT_ERR_PROTOCOL, "size %u", size);
    }
    bad.size = REGION_KEY_MAX + 1;
    cr_assert_eq(domain_import(pair->domain_a, &bad, &remote, &error), GODWIT_ERR_PROTOCOL);
    cr_assert_null(remote);
    close_sides(&s, pair);
}

/* Other transports find out when the key is used. */
static void key_that_nobody_made_is_refused(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    struct region_key key, bad;
    struct remote *remote = NULL;
    struct godwit_error error;
    mr_export(s.far_mr, &key);
    for (unsigned byte = 0; byte < key.size; byte++) {
        bad = key;
        bad.bytes[byte] ^= 0x10;
        cr_assert_eq(domain_import(pair->domain_a, &bad, &remote, &error), GODWIT_ERR_PROTOCOL, "byte %u", byte);
    }
    cr_assert_null(remote);
    close_sides(&s, pair);
}

static void empty_regions_are_refused(struct pair *pair)
{
    struct sides s;
    open_sides(&s, pair, REGION_REMOTE_WRITE);
    struct region nothing = {.addr = s.local, .size = 0, .fd = -1};
    struct region beyond = {.addr = s.local, .size = UINT64_MAX, .fd = -1};
    struct mr *mr = NULL;
    cr_assert_eq(domain_register(pair->domain_a, &nothing, REGION_LOCAL, &mr, NULL), GODWIT_ERR_INVALID);
    cr_assert_eq(domain_register(pair->domain_a, &beyond, REGION_LOCAL, &mr, NULL), GODWIT_ERR_INVALID);
    cr_assert_null(mr);
    close_sides(&s, pair);
}

const struct conformance_case one_sided_cases[] = {
    {"a put is visible after a later send", put_is_visible_after_a_later_send, CASE_ONE_SIDED},
    {"a put is not visible before", put_is_not_visible_before, CASE_LOOP},
    {"a put without a later send never happens", put_without_a_later_send_never_happens, CASE_LOOP},
    {"a put after a received send wins", put_after_a_received_send_wins, CASE_ONE_SIDED},
    {"overlapping puts arrive in some order", overlapping_puts_arrive_in_some_order, CASE_ONE_SIDED},
    {"ranges outside are refused", ranges_outside_are_refused, CASE_ONE_SIDED},
    {"a get is complete after flush", get_is_complete_after_flush, CASE_ONE_SIDED},
    {"a put needs the right to write", put_needs_the_right_to_write, CASE_ONE_SIDED},
    {"a get needs the right to read", get_needs_the_right_to_read, CASE_ONE_SIDED},
    {"revoked memory is never touched", revoked_memory_is_never_touched, CASE_ONE_SIDED},
    {"flush lets put memory be reused", flush_lets_put_memory_be_reused, CASE_ONE_SIDED},
    {"malformed keys are refused", malformed_keys_are_refused, CASE_ONE_SIDED},
    {"a key that nobody made is refused", key_that_nobody_made_is_refused, CASE_LOOP},
    {"empty regions are refused", empty_regions_are_refused, CASE_ONE_SIDED},
    {0},
};
