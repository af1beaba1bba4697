#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/conformance/cases.h"
#include "transport/clock.h"

/* A thread that sends or receives a pattern until all is through or something fails. */
struct transfer {
    pthread_t thread;
    struct channel *channel;
    uint64_t total;
    size_t step;
    int timeout_ms;
    atomic_uint_fast64_t done;
    enum godwit_err err;
    bool differs;
};

static void nap_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static uint8_t pattern(uint64_t offset)
{
    return (uint8_t)(offset * 31 + (offset >> 8) * 7 + (offset >> 16));
}

static void *send_thread(void *argument)
{
    struct transfer *t = argument;
    uint8_t *buffer = malloc(t->step);
    for (uint64_t at = 0; at < t->total && !t->err; at += t->step) {
        for (size_t i = 0; i < t->step; i++)
            buffer[i] = pattern(at + i);
        struct iovec iov = {buffer + 16, t->step - 16};
        t->err = channel_send(t->channel, buffer, 16, &iov, 1, t->timeout_ms);
        if (!t->err)
            t->err = channel_flush(t->channel, t->timeout_ms);
        atomic_store(&t->done, at + t->step);
    }
    /* The payload of a failed send may be referenced until free. */
    channel_flush(t->channel, 1000);
    free(buffer);
    return NULL;
}

static void *recv_thread(void *argument)
{
    struct transfer *t = argument;
    uint8_t *buffer = malloc(t->step);
    for (uint64_t at = 0; at < t->total && !t->err; at += t->step) {
        t->err = channel_recv_exact(t->channel, buffer, t->step, t->timeout_ms);
        for (size_t i = 0; i < t->step && !t->err; i++)
            t->differs |= buffer[i] != pattern(at + i);
        atomic_store(&t->done, at + t->step);
    }
    free(buffer);
    return NULL;
}

static void start(struct transfer *t, void *(*run)(void *))
{
    pthread_create(&t->thread, NULL, run, t);
}

static void send_text(struct channel *channel, const char *text)
{
    cr_assert_eq(channel_send(channel, text, strlen(text), NULL, 0, 5000), GODWIT_OK);
}

static void expect_text(struct channel *channel, const char *text)
{
    char got[64] = "";
    enum godwit_err err = channel_recv_exact(channel, got, strlen(text), 5000);
    cr_assert_eq(err, GODWIT_OK, "%s", godwit_err_text(err));
    cr_assert_str_eq(got, text);
}

static void name_and_limits_are_sane(struct pair *pair)
{
    for (int i = 0; i < 2; i++) {
        struct channel *channel = i ? pair->a : pair->b;
        const struct channel_limits *limits = channel_limits(channel);
        cr_assert_geq(limits->max_iov, 64);
        cr_assert_eq(limits->one_sided, limits->max_put > 0);
        cr_assert_geq(limits->put_align, 1);
        size_t length = strlen(pair->address.scheme);
        cr_assert_eq(strncmp(channel_name(channel), pair->address.scheme, length), 0, "%s", channel_name(channel));
        cr_assert_eq(channel_name(channel)[length], ' ', "%s", channel_name(channel));
    }
}

static void shutdown_twice_is_shutdown_once(struct pair *pair)
{
    char byte = 0;
    channel_shutdown(pair->a);
    channel_shutdown(pair->a);
    cr_assert_eq(channel_send(pair->a, &byte, 1, NULL, 0, 1000), GODWIT_ERR_CLOSED);
    cr_assert_eq(channel_recv_exact(pair->a, &byte, 1, 1000), GODWIT_ERR_CLOSED);
    cr_assert_eq(channel_recv_exact(pair->b, &byte, 1, 5000), GODWIT_ERR_PEER_CLOSED);
    channel_shutdown(pair->b);
    cr_assert_eq(channel_recv_exact(pair->b, &byte, 1, 1000), GODWIT_ERR_CLOSED);
}

/* Returns when t has made no progress for a while. */
static void await_blocked(struct transfer *t)
{
    uint64_t before;
    do {
        before = atomic_load(&t->done);
        nap_ms(80);
    } while (before != atomic_load(&t->done) || !before);
}

static void shutdown_wakes_a_blocked_send(struct pair *pair)
{
    struct transfer t = {.channel = pair->a, .total = UINT64_MAX / 2, .step = 65536, .timeout_ms = CHANNEL_FOREVER};
    start(&t, send_thread);
    await_blocked(&t);
    channel_shutdown(pair->a);
    pthread_join(t.thread, NULL);
    cr_assert_eq(t.err, GODWIT_ERR_CLOSED, "%s", godwit_err_text(t.err));
}

static void shutdown_wakes_a_blocked_recv(struct pair *pair)
{
    struct transfer t = {.channel = pair->a, .total = 64, .step = 64, .timeout_ms = CHANNEL_FOREVER};
    start(&t, recv_thread);
    nap_ms(20);
    channel_shutdown(pair->a);
    pthread_join(t.thread, NULL);
    cr_assert_eq(t.err, GODWIT_ERR_CLOSED, "%s", godwit_err_text(t.err));
}

static void vanished_peer_wakes_a_blocked_recv(struct pair *pair)
{
    struct transfer t = {.channel = pair->a, .total = 64, .step = 64, .timeout_ms = CHANNEL_FOREVER};
    start(&t, recv_thread);
    nap_ms(20);
    channel_free(pair->b);
    pair->b = NULL;
    pthread_join(t.thread, NULL);
    cr_assert_eq(t.err, GODWIT_ERR_PEER_CLOSED, "%s", godwit_err_text(t.err));
}

static void vanished_peer_wakes_a_blocked_send(struct pair *pair)
{
    struct transfer t = {.channel = pair->a, .total = UINT64_MAX / 2, .step = 65536, .timeout_ms = CHANNEL_FOREVER};
    start(&t, send_thread);
    await_blocked(&t);
    channel_free(pair->b);
    pair->b = NULL;
    pthread_join(t.thread, NULL);
    cr_assert_eq(t.err, GODWIT_ERR_RESET, "%s", godwit_err_text(t.err));
}

static void what_was_sent_before_the_end_arrives(struct pair *pair)
{
    send_text(pair->b, "last words");
    channel_free(pair->b);
    pair->b = NULL;
    expect_text(pair->a, "last words");
    char byte;
    cr_assert_eq(channel_recv_exact(pair->a, &byte, 1, 5000), GODWIT_ERR_PEER_CLOSED);
}

static void peer_that_vanishes_mid_message_is_a_reset(struct pair *pair)
{
    send_text(pair->b, "half");
    channel_free(pair->b);
    pair->b = NULL;
    char whole[8];
    enum godwit_err err = channel_recv_exact(pair->a, whole, sizeof whole, 5000);
    cr_assert_eq(err, GODWIT_ERR_RESET, "%s", godwit_err_text(err));
}

static void recv_that_timed_out_may_be_repeated(struct pair *pair)
{
    char got[8];
    cr_assert_eq(channel_recv_exact(pair->a, got, sizeof got, 0), GODWIT_ERR_TIMEOUT);
    cr_assert_eq(channel_recv_exact(pair->a, got, sizeof got, 20), GODWIT_ERR_TIMEOUT);
    cr_assert_eq(channel_recv_exact(pair->a, got, sizeof got, 20), GODWIT_ERR_TIMEOUT);
    send_text(pair->b, "complete");
    expect_text(pair->a, "complete");
}

static void recv_waits_about_as_long_as_told(struct pair *pair)
{
    char byte;
    uint64_t begin = clock_now_ms();
    cr_assert_eq(channel_recv_exact(pair->a, &byte, 1, 60), GODWIT_ERR_TIMEOUT);
    uint64_t took = clock_now_ms() - begin;
    cr_assert(took >= 55 && took < 3000, "%llu ms", (unsigned long long)took);
}

static void message_that_stops_half_way_is_stalled(struct pair *pair)
{
    send_text(pair->b, "half");
    char whole[8];
    enum godwit_err err = channel_recv_exact(pair->a, whole, sizeof whole, 50);
    cr_assert_eq(err, GODWIT_ERR_STALLED, "%s", godwit_err_text(err));
}

static void nothing_can_be_sent_and_received(struct pair *pair)
{
    char empty[1];
    struct iovec nothing[] = {{empty, 0}, {empty, 0}};
    cr_assert_eq(channel_send(pair->a, NULL, 0, NULL, 0, 1000), GODWIT_OK);
    cr_assert_eq(channel_send(pair->a, NULL, 0, nothing, 2, 1000), GODWIT_OK);
    cr_assert_eq(channel_recv(pair->b, nothing, 2, 1000), GODWIT_OK);
    cr_assert_eq(channel_recv(pair->b, NULL, 0, 1000), GODWIT_OK);
    char word[] = "word";
    struct iovec gaps[] = {{empty, 0}, {word, 2}, {empty, 0}, {word + 2, 2}, {empty, 0}};
    cr_assert_eq(channel_send(pair->a, "a ", 2, gaps, 5, 1000), GODWIT_OK);
    expect_text(pair->b, "a word");
}

static void message_boundaries_are_not_kept(struct pair *pair)
{
    send_text(pair->a, "one");
    send_text(pair->a, "two");
    send_text(pair->a, "three");
    expect_text(pair->b, "onetw");
    expect_text(pair->b, "othre");
    expect_text(pair->b, "e");
}

/* Cuts size bytes at memory into count uneven pieces. */
static void cut_up(struct iovec *iov, unsigned count, uint8_t *memory, size_t size)
{
    size_t at = 0;
    for (unsigned i = 0; i < count; i++) {
        size_t left = size - at;
        size_t share = left / (count - i);
        size_t step = i + 1 == count ? left : share - share * (i % 5) / 10;
        iov[i] = (struct iovec){memory + at, step};
        at += step;
    }
}

static void largest_message_arrives_over_most_iovs(struct pair *pair)
{
    enum { SIZE = 2 << 20 };
    unsigned count = channel_limits(pair->a)->max_iov;
    struct iovec *to = calloc(count + 1, sizeof *to), *from = calloc(count + 1, sizeof *from);
    uint8_t *sent = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        sent[i] = pattern(i);
    cut_up(from, count, sent + 16, SIZE - 16);
    struct transfer t = {.channel = pair->b, .total = SIZE, .step = SIZE, .timeout_ms = 10000};
    start(&t, recv_thread);
    enum godwit_err err = channel_send(pair->a, sent, 16, from, count, 10000);
    pthread_join(t.thread, NULL);
    cr_assert_eq(err, GODWIT_OK);
    cr_assert_eq(t.err, GODWIT_OK, "%s", godwit_err_text(t.err));
    cr_assert_not(t.differs);

    uint8_t *got = malloc(SIZE);
    t = (struct transfer){.channel = pair->a, .total = SIZE, .step = SIZE, .timeout_ms = 10000};
    cut_up(to, count, got, SIZE);
    channel_flush(pair->a, 1000);
    struct transfer back = {.channel = pair->b, .total = SIZE, .step = SIZE, .timeout_ms = 10000};
    start(&back, send_thread);
    err = channel_recv(pair->a, to, count, 10000);
    pthread_join(back.thread, NULL);
    cr_assert_eq(err, GODWIT_OK);
    cr_assert_arr_eq(got, sent, SIZE);

    cr_assert_eq(channel_send(pair->a, NULL, 0, from, count + 1, 1000), GODWIT_ERR_INVALID);
    cr_assert_eq(channel_recv(pair->a, to, count + 1, 1000), GODWIT_ERR_INVALID);
    free(to);
    free(from);
    free(sent);
    free(got);
}

static void many_small_messages_keep_their_order(struct pair *pair)
{
    bool slow = pair->fault;
    struct transfer t = {.channel = pair->a, .total = slow ? 40 * 400 : 40 * 10000, .step = 40, .timeout_ms = 10000};
    struct transfer r = {.channel = pair->b, .total = t.total, .step = slow ? 50 : 100, .timeout_ms = 10000};
    start(&t, send_thread);
    start(&r, recv_thread);
    pthread_join(t.thread, NULL);
    pthread_join(r.thread, NULL);
    cr_assert_eq(t.err, GODWIT_OK);
    cr_assert_eq(r.err, GODWIT_OK);
    cr_assert_not(r.differs);
}

static void send_times_out_when_nobody_reads(struct pair *pair)
{
    struct transfer t = {.channel = pair->a, .total = 1u << 30, .step = 1 << 20, .timeout_ms = 50};
    start(&t, send_thread);
    pthread_join(t.thread, NULL);
    cr_assert(t.err == GODWIT_ERR_TIMEOUT || t.err == GODWIT_ERR_STALLED, "%s", godwit_err_text(t.err));
}

static void back_pressure_blocks_and_recovers(struct pair *pair)
{
    struct transfer t = {.channel = pair->a, .total = 32 << 20, .step = 256 << 10, .timeout_ms = CHANNEL_FOREVER};
    struct transfer r = {.channel = pair->b, .total = t.total, .step = 512 << 10, .timeout_ms = 10000};
    start(&t, send_thread);
    nap_ms(50);
    start(&r, recv_thread);
    pthread_join(t.thread, NULL);
    pthread_join(r.thread, NULL);
    cr_assert_eq(t.err, GODWIT_OK);
    cr_assert_eq(r.err, GODWIT_OK);
    cr_assert_not(r.differs);
}

static void two_directions_flow_at_once(struct pair *pair)
{
    struct transfer t[4];
    for (unsigned i = 0; i < 4; i++) {
        t[i] = (struct transfer){.total = 8 << 20, .step = 128 << 10, .timeout_ms = 10000};
        t[i].channel = i % 2 ? pair->a : pair->b;
        start(&t[i], i / 2 ? recv_thread : send_thread);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(t[i].thread, NULL);
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(t[i].err, GODWIT_OK, "thread %u: %s", i, godwit_err_text(t[i].err));
        cr_assert_not(t[i].differs);
    }
}

static void recv_some_brings_what_is_there(struct pair *pair)
{
    char got[64];
    size_t size = 0;
    cr_assert_eq(channel_recv_some(pair->b, got, sizeof got, 20, &size), GODWIT_ERR_TIMEOUT);
    cr_assert_eq(size, 0, "nothing came, nothing was written");
    send_text(pair->a, "some and more");
    size_t all = 0;
    while (all < 4) {
        enum godwit_err err = channel_recv_some(pair->b, got + all, 4 - all, 5000, &size);
        cr_assert_eq(err, GODWIT_OK, "%s", godwit_err_text(err));
        cr_assert(size >= 1 && size <= 4 - all, "%zu bytes", size);
        all += size;
    }
    cr_assert_eq(memcmp(got, "some", 4), 0);
    expect_text(pair->b, " and more");
    channel_shutdown(pair->a);
    enum godwit_err err = channel_recv_some(pair->b, got, sizeof got, 5000, &size);
    cr_assert_eq(err, GODWIT_ERR_PEER_CLOSED, "%s", godwit_err_text(err));
    channel_shutdown(pair->b);
    cr_assert_eq(channel_recv_some(pair->b, got, sizeof got, 5000, &size), GODWIT_ERR_CLOSED);
}

static void flush_lets_sent_memory_be_reused(struct pair *pair)
{
    char memory[] = "original";
    struct iovec iov = {memory, 8};
    cr_assert_eq(channel_send(pair->a, NULL, 0, &iov, 1, 1000), GODWIT_OK);
    cr_assert_eq(channel_flush(pair->a, 1000), GODWIT_OK);
    memset(memory, 'x', 8);
    expect_text(pair->b, "original");
}

static void head_may_be_reused_at_once(struct pair *pair)
{
    char head[] = "original";
    cr_assert_eq(channel_send(pair->a, head, 8, NULL, 0, 1000), GODWIT_OK);
    memset(head, 'x', 8);
    expect_text(pair->b, "original");
}

static void one_sided_access_is_there_or_refused(struct pair *pair)
{
    struct domain *domain = NULL;
    struct godwit_error error;
    enum godwit_err err = transport_domain(pair->transport, &pair->address, &domain, &error);
    if (channel_limits(pair->a)->one_sided) {
        cr_assert_eq(err, GODWIT_OK, "%s", error.text);
        domain_free(domain);
        return;
    }
    cr_assert_eq(err, GODWIT_ERR_UNSUPPORTED);
    cr_assert_eq(channel_put(pair->a, NULL, 0, NULL, 0, 1), GODWIT_ERR_UNSUPPORTED);
    cr_assert_eq(channel_get(pair->a, NULL, 0, NULL, 0, 1), GODWIT_ERR_UNSUPPORTED);
}

const struct conformance_case stream_cases[] = {
    {"name and limits are sane", name_and_limits_are_sane, CASE_CONNECTED},
    {"shutdown twice is shutdown once", shutdown_twice_is_shutdown_once, CASE_CONNECTED},
    {"shutdown wakes a blocked send", shutdown_wakes_a_blocked_send, CASE_CONNECTED},
    {"shutdown wakes a blocked recv", shutdown_wakes_a_blocked_recv, CASE_CONNECTED},
    {"a vanished peer wakes a blocked recv", vanished_peer_wakes_a_blocked_recv, CASE_CONNECTED},
    {"a vanished peer wakes a blocked send", vanished_peer_wakes_a_blocked_send, CASE_CONNECTED},
    {"what was sent before the end arrives", what_was_sent_before_the_end_arrives, CASE_CONNECTED},
    {"a peer that vanishes mid message is a reset", peer_that_vanishes_mid_message_is_a_reset, CASE_CONNECTED},
    {"a recv that timed out may be repeated", recv_that_timed_out_may_be_repeated, CASE_CONNECTED},
    {"recv waits about as long as told", recv_waits_about_as_long_as_told, CASE_CONNECTED},
    {"a message that stops half-way is stalled", message_that_stops_half_way_is_stalled, CASE_CONNECTED},
    {"nothing can be sent and received", nothing_can_be_sent_and_received, CASE_CONNECTED},
    {"message boundaries are not kept", message_boundaries_are_not_kept, CASE_CONNECTED},
    {"the largest message arrives over most iovs", largest_message_arrives_over_most_iovs, CASE_CONNECTED},
    {"many small messages keep their order", many_small_messages_keep_their_order, CASE_CONNECTED},
    {"send times out when nobody reads", send_times_out_when_nobody_reads, CASE_CONNECTED},
    {"back-pressure blocks and recovers", back_pressure_blocks_and_recovers, CASE_CONNECTED},
    {"two directions flow at once", two_directions_flow_at_once, CASE_CONNECTED},
    {"recv some brings what is there", recv_some_brings_what_is_there, CASE_CONNECTED},
    {"flush lets sent memory be reused", flush_lets_sent_memory_be_reused, CASE_CONNECTED},
    {"head may be reused at once", head_may_be_reused_at_once, CASE_CONNECTED},
    {"one-sided access is there or refused", one_sided_access_is_there_or_refused, CASE_CONNECTED},
    {0},
};
