/*
 * RDMA channels on the fake: their books, their credits, and what breaks them. The conformance list has what every
 * channel does. Closing a pair stops the fake, which ends the program when anything was left behind. Long, because
 * every way to break a channel is a case here.
 */
#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "rdma/channel_private.h"
#include "tests/lib/census.h"
#include "tests/lib/pair.h"
#include "tests/rdma/fake_verbs.h"
#include "transport/clock.h"

TestSuite(rdma_channel, .timeout = 60);

enum { MEMORY = 4 << 20, TIMEOUT_MS = 5000 };

static struct pair pair;
static uint8_t *local, *far;
static struct mr *local_mr, *far_mr;
static struct remote *remote;

/* A pair, and memory of b's that a may put into. */
static void open_pair(const struct fake_setup *setup)
{
    struct region_key key;
    pair_use_fabric(&fabric);
    if (setup)
        fake_verbs_start(setup);
    cr_assert_eq(pair_open(&pair, PAIR_RDMA), GODWIT_OK, "%s", pair.error.text);
    local = aligned_alloc(4096, MEMORY);
    far = aligned_alloc(4096, MEMORY);
    for (size_t i = 0; i < MEMORY; i++)
        local[i] = (uint8_t)(i % 251 + 1);
    memset(far, 0, MEMORY);
    struct region from = {.addr = local, .size = MEMORY, .fd = -1}, to = {.addr = far, .size = MEMORY, .fd = -1};
    cr_assert_eq(domain_register(pair.domain_a, &from, REGION_LOCAL, &local_mr, NULL), GODWIT_OK);
    cr_assert_eq(domain_register(pair.domain_b, &to, REGION_REMOTE_WRITE, &far_mr, NULL), GODWIT_OK);
    mr_export(far_mr, &key);
    cr_assert_eq(domain_import(pair.domain_a, &key, &remote, NULL), GODWIT_OK);
}

static struct rdma_channel *private_of(struct channel *channel)
{
    return (struct rdma_channel *)channel;
}

static bool is_waiting(struct channel *channel, enum side side)
{
    pthread_mutex_lock(&private_of(channel)->lock);
    bool waiting = private_of(channel)->waiting[side];
    pthread_mutex_unlock(&private_of(channel)->lock);
    return waiting;
}

static void close_pair(void)
{
    channel_free(pair.a);
    channel_free(pair.b);
    pair.a = pair.b = NULL;
    remote_free(remote);
    mr_free(local_mr);
    mr_free(far_mr);
    cr_assert_eq(fake_verbs_rnr_count(), 0, "a receive is always posted");
    pair_close(&pair);
    free(local);
    free(far);
}

static enum godwit_err put(uint64_t offset, uint64_t size)
{
    return channel_put(pair.a, local_mr, offset, remote, offset, size);
}

static enum godwit_err tell(struct channel *channel)
{
    return channel_send(channel, "!", 1, NULL, 0, TIMEOUT_MS);
}

static enum godwit_err hear(struct channel *channel)
{
    char byte;
    return channel_recv_exact(channel, &byte, 1, TIMEOUT_MS);
}

/* --- books --- */

Test(rdma_channel, nothing_is_left_behind)
{
    open_pair(NULL); /* Criterion, the fake and the C library make what they keep */
    close_pair();
    unsigned fds = census_fds();
    open_pair(NULL);
    put(0, 100);
    tell(pair.a);
    hear(pair.b);
    close_pair();
    cr_assert_eq(census_fds(), fds);
    cr_assert_eq(fake_verbs_living_total(), 0);
    fake_verbs_stop();
}

Test(rdma_channel, holds_its_domain)
{
    open_pair(NULL);
    remote_free(remote);
    remote = NULL;
    mr_free(far_mr);
    far_mr = NULL;
    mr_free(local_mr);
    local_mr = NULL;
    domain_free(pair.domain_a);
    domain_free(pair.domain_b);
    pair.domain_a = pair.domain_b = NULL;
    cr_assert_eq(tell(pair.a), GODWIT_OK);
    cr_assert_eq(hear(pair.b), GODWIT_OK);
    cr_assert_eq(fake_verbs_living().pds, 2);
    close_pair();
}

Test(rdma_channel, names_its_device_and_queue_pair)
{
    open_pair(NULL);
    cr_assert_str_eq(channel_device(pair.a), "fake0");
    cr_assert_neq(channel_queue_pair(pair.a), 0);
    cr_assert_neq(channel_queue_pair(pair.a), channel_queue_pair(pair.b));
    close_pair();
}

Test(rdma_channel, many_puts_that_do_not_adjoin_keep_within_the_queue)
{
    open_pair(NULL);
    for (unsigned round = 0; round < 4; round++) {
        for (uint64_t page = 0; page < MEMORY / 4096; page += 2)
            cr_assert_eq(put(page * 4096, 4096), GODWIT_OK);
        cr_assert_eq(channel_flush(pair.a, TIMEOUT_MS), GODWIT_OK);
    }
    cr_assert_eq(fake_verbs_executed(FAKE_WR_WRITE), 4 * MEMORY / 4096 / 2);
    cr_assert_eq(private_of(pair.a)->progress[SENDING], 4 * MEMORY / 4096 / 2 / QUEUE_SIGNAL,
                 "each completion may wake a thread");
    tell(pair.a);
    cr_assert_eq(hear(pair.b), GODWIT_OK);
    for (uint64_t page = 0; page < MEMORY / 4096; page++) {
        if (page % 2)
            cr_assert_eq(far[page * 4096], 0);
        else
            cr_assert_arr_eq(far + page * 4096, local + page * 4096, 4096);
    }
    close_pair();
}

Test(rdma_channel, puts_that_adjoin_become_one_request)
{
    open_pair(NULL);
    for (uint64_t page = 0; page < 256; page++)
        cr_assert_eq(put(page * 4096, 4096), GODWIT_OK);
    cr_assert_eq(tell(pair.a), GODWIT_OK);
    cr_assert_eq(hear(pair.b), GODWIT_OK);
    cr_assert_eq(fake_verbs_executed(FAKE_WR_WRITE), 1, "1 MiB");
    cr_assert_arr_eq(far, local, 1 << 20);
    close_pair();
}

Test(rdma_channel, a_send_carries_the_puts_before_it_also_when_the_queue_is_full)
{
    open_pair(NULL);
    fake_black_hole(0);
    for (uint64_t page = 0; page < 2 * 120; page += 2)
        cr_assert_eq(put(page * 4096, 4096), GODWIT_OK);
    fake_black_hole(FAKE_NEVER);
    for (uint64_t page = 2 * 120; page < MEMORY / 4096; page += 2)
        cr_assert_eq(put(page * 4096, 4096), GODWIT_OK);
    cr_assert_eq(tell(pair.a), GODWIT_OK);
    cr_assert_eq(hear(pair.b), GODWIT_OK);
    cr_assert_arr_eq(far + MEMORY - 8192, local + MEMORY - 8192, 4096);
    close_pair();
}

Test(rdma_channel, works_with_a_device_of_small_limits)
{
    struct fake_setup setup;
    fake_setup_init(&setup);
    setup.limits.max_qp_wr = QUEUE_DEPTH;
    setup.limits.max_cqe = QUEUE_DEPTH;
    setup.limits.max_sge = 1;
    setup.limits.max_inline = 64;
    setup.limits.max_rd_atomic = 1;
    setup.limits.max_msg = 1 << 20;
    open_pair(&setup);
    put(0, 1 << 20);
    cr_assert_eq(tell(pair.a), GODWIT_OK);
    cr_assert_eq(hear(pair.b), GODWIT_OK);
    close_pair();
}

/* --- credits --- */

/* Sends one frame at a time until the peer's receives are used up; how many there were. */
static unsigned fill(struct channel *channel)
{
    uint8_t *frame = calloc(1, FRAME_DATA);
    unsigned sent = 0;
    while (!channel_send(channel, frame, FRAME_DATA, NULL, 0, 250))
        sent++;
    free(frame);
    return sent;
}

static void drain(struct channel *channel, unsigned frames)
{
    uint8_t *frame = malloc(FRAME_DATA);
    for (unsigned i = 0; i < frames; i++)
        cr_assert_eq(channel_recv_exact(channel, frame, FRAME_DATA, TIMEOUT_MS), GODWIT_OK, "frame %u", i);
    free(frame);
}

Test(rdma_channel, a_sender_stops_when_it_has_no_credit)
{
    open_pair(NULL);
    cr_assert_eq(fill(pair.a), CREDITS_RING);
    drain(pair.b, CREDITS_RING);
    cr_assert_eq(fill(pair.a), CREDITS_RING, "they came back");
    drain(pair.b, CREDITS_RING);
    close_pair();
}

Test(rdma_channel, two_full_sides_get_going_again)
{
    open_pair(NULL);
    for (unsigned round = 0; round < 3; round++) {
        cr_assert_eq(fill(pair.a), CREDITS_RING, "round %u", round);
        cr_assert_eq(fill(pair.b), CREDITS_RING, "round %u", round);
        drain(pair.a, CREDITS_RING);
        drain(pair.b, CREDITS_RING);
    }
    close_pair();
}

Test(rdma_channel, the_end_of_the_stream_needs_no_credit)
{
    open_pair(NULL);
    cr_assert_eq(fill(pair.a), CREDITS_RING);
    channel_shutdown(pair.a);
    drain(pair.b, CREDITS_RING);
    cr_assert_eq(hear(pair.b), GODWIT_ERR_PEER_CLOSED);
    close_pair();
}

static void *echo(void *channel)
{
    uint8_t byte;
    while (!channel_recv_exact(channel, &byte, 1, TIMEOUT_MS) && !channel_send(channel, &byte, 1, NULL, 0, TIMEOUT_MS))
        ;
    return NULL;
}

Test(rdma_channel, small_messages_both_ways_never_lack_a_receive)
{
    open_pair(NULL);
    pthread_t thread;
    pthread_create(&thread, NULL, echo, pair.b);
    for (unsigned i = 0; i < 500; i++) {
        cr_assert_eq(tell(pair.a), GODWIT_OK);
        if (i >= 20)
            cr_assert_eq(hear(pair.a), GODWIT_OK);
    }
    channel_shutdown(pair.a);
    pthread_join(thread, NULL);
    close_pair();
}

/* --- what never ends by itself --- */

Test(rdma_channel, a_device_that_does_nothing_is_noticed)
{
    open_pair(NULL);
    fake_black_hole(0);
    put(0, 4096);
    uint64_t start = clock_now_ms();
    cr_assert_eq(channel_flush(pair.a, 100), GODWIT_ERR_STALLED);
    cr_assert_lt(clock_now_ms() - start, 2000);
    cr_assert(strstr(channel_detail(pair.a), "neither completes nor fails"), "%s", channel_detail(pair.a));
    cr_assert_eq(put(0, 4096), GODWIT_ERR_STALLED, "and stays noticed");
    start = clock_now_ms();
    channel_free(pair.a);
    pair.a = NULL;
    cr_assert_lt(clock_now_ms() - start, 3000, "freeing takes a second for the last frames at most");
    fake_black_hole(FAKE_NEVER);
    close_pair();
}

Test(rdma_channel, a_receiver_hears_nothing_of_a_black_hole)
{
    open_pair(NULL);
    fake_black_hole(0);
    tell(pair.a);
    char byte;
    cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, 50), GODWIT_ERR_TIMEOUT);
    fake_black_hole(FAKE_NEVER);
    cr_assert_eq(hear(pair.b), GODWIT_OK, "and goes on where it left off");
    close_pair();
}

static void *flush_forever(void *channel)
{
    return (void *)(uintptr_t)channel_flush(channel, CHANNEL_FOREVER);
}

Test(rdma_channel, shutdown_ends_a_flush_that_waits_for_the_device)
{
    open_pair(NULL);
    fake_black_hole(0);
    put(0, 4096);
    pthread_t thread;
    void *err;
    pthread_create(&thread, NULL, flush_forever, pair.a);
    poll(NULL, 0, 50);
    channel_shutdown(pair.a);
    pthread_join(thread, &err);
    cr_assert_eq((enum godwit_err)(uintptr_t)err, GODWIT_ERR_CLOSED);
    fake_black_hole(FAKE_NEVER);
    close_pair();
}

/* A device tries for 3.8 s to reach a queue pair that is gone (rdma/connect.h). */
static void expect_quick_free(struct channel **channel)
{
    uint64_t start = clock_now_ms();
    channel_free(*channel);
    *channel = NULL;
    cr_assert_lt(clock_now_ms() - start, 600, "took %llu ms", (unsigned long long)(clock_now_ms() - start));
}

Test(rdma_channel, freeing_does_not_wait_for_a_peer_that_is_gone)
{
    struct fake_setup setup;
    fake_setup_init(&setup);
    setup.retry_ms = 3800;
    open_pair(&setup);
    expect_quick_free(&pair.a);
    expect_quick_free(&pair.b);
    close_pair();
    open_pair(&setup);
    tell(pair.a);
    hear(pair.b);
    expect_quick_free(&pair.b);
    expect_quick_free(&pair.a);
    close_pair();
}

/* --- what breaks it --- */

static void expect_reset(struct channel *channel, const char *detail)
{
    enum godwit_err err = channel_flush(channel, TIMEOUT_MS);
    cr_assert_eq(err, GODWIT_ERR_RESET, "%s", godwit_err_text(err));
    cr_assert(strstr(channel_detail(channel), detail), "\"%s\" has no \"%s\"", channel_detail(channel), detail);
    cr_assert_eq(tell(channel), GODWIT_ERR_RESET, "and stays broken");
    cr_assert_eq(hear(channel), GODWIT_ERR_RESET);
}

static const struct {
    enum ibv_wc_status status;
    const char *words;
} statuses[] = {
    {IBV_WC_LOC_LEN_ERR, "larger than"},
    {IBV_WC_LOC_QP_OP_ERR, "could not carry out"},
    {IBV_WC_LOC_EEC_OP_ERR, "unexpected"},
    {IBV_WC_LOC_PROT_ERR, "not registered any more"},
    {IBV_WC_MW_BIND_ERR, "unexpected"},
    {IBV_WC_BAD_RESP_ERR, "against the protocol"},
    {IBV_WC_LOC_ACCESS_ERR, "without the right to write"},
    {IBV_WC_REM_INV_REQ_ERR, "refused the request"},
    {IBV_WC_REM_ACCESS_ERR, "its key was revoked"},
    {IBV_WC_REM_OP_ERR, "could not finish"},
    {IBV_WC_RETRY_EXC_ERR, "UDP port 4791"},
    {IBV_WC_RNR_RETRY_EXC_ERR, "no receive posted"},
    {IBV_WC_LOC_RDD_VIOL_ERR, "unexpected"},
    {IBV_WC_REM_INV_RD_REQ_ERR, "unexpected"},
    {IBV_WC_REM_ABORT_ERR, "kernel log"},
    {IBV_WC_INV_EECN_ERR, "unexpected"},
    {IBV_WC_INV_EEC_STATE_ERR, "unexpected"},
    {IBV_WC_FATAL_ERR, "kernel log"},
    {IBV_WC_RESP_TIMEOUT_ERR, "kernel log"},
    {IBV_WC_GENERAL_ERR, "kernel log"},
    {IBV_WC_TM_ERR, "unexpected"},
    {IBV_WC_TM_RNDV_INCOMPLETE, "unexpected"},
};

static void fail_with(unsigned i, enum fake_wr_kind kind)
{
    fake_fail_wr(kind, 0, statuses[i].status);
    for (unsigned page = 0; page < 20; page += 2)
        cr_assert_eq(put(page * 4096, 4096), GODWIT_OK);
    cr_assert_eq(tell(pair.a), GODWIT_OK);
}

static void expect_words(struct channel *channel, unsigned i)
{
    expect_reset(channel, statuses[i].words);
    cr_assert(strstr(channel_detail(channel), ibv_wc_status_str(statuses[i].status)), "%s", channel_detail(channel));
}

Test(rdma_channel, every_status_of_a_request_is_a_reset_with_a_reason)
{
    for (unsigned i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        for (enum fake_wr_kind kind = FAKE_WR_SEND; kind <= FAKE_WR_WRITE; kind++) {
            open_pair(NULL);
            fail_with(i, kind);
            expect_words(pair.a, i);
            close_pair();
        }
    }
}

Test(rdma_channel, every_status_of_a_receive_is_a_reset_with_a_reason)
{
    for (unsigned i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        open_pair(NULL);
        fail_with(i, FAKE_WR_RECV);
        cr_assert_eq(hear(pair.b), GODWIT_ERR_RESET);
        expect_words(pair.b, i);
        expect_reset(pair.a, statuses[i].status == IBV_WC_LOC_LEN_ERR ? "too small" : "could not finish");
        close_pair();
    }
}

Test(rdma_channel, a_queue_that_takes_no_more_work_is_a_reset_with_a_reason)
{
    open_pair(NULL);
    fake_fail_call(FAKE_CALL_POST_SEND, 0, 1, ENOMEM);
    cr_assert_eq(tell(pair.a), GODWIT_ERR_RESET);
    expect_reset(pair.a, "took no more work");
    close_pair();
    open_pair(NULL);
    fake_fail_call(FAKE_CALL_POST_RECV, 0, 1, ENOMEM);
    tell(pair.a);
    hear(pair.b);
    expect_reset(pair.b, "took no receive");
    close_pair();
    open_pair(NULL);
    fake_fail_call(FAKE_CALL_POLL_CQ, 0, 1, EIO);
    cr_assert_eq(hear(pair.b), GODWIT_ERR_RESET);
    expect_reset(pair.b, "cannot be read");
    close_pair();
    open_pair(NULL);
    char byte;
    fake_fail_call(FAKE_CALL_REQ_NOTIFY, 0, 1, EIO);
    cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, CHANNEL_FOREVER), GODWIT_ERR_RESET);
    expect_reset(pair.b, "cannot be armed");
    close_pair();
}

static void *hear_for_ever(void *unused)
{
    char byte;
    (void)unused;
    return (void *)(intptr_t)channel_recv_exact(pair.a, &byte, 1, CHANNEL_FOREVER);
}

Test(rdma_channel, a_side_that_finds_the_channel_broken_wakes_the_other)
{
    pthread_t other;
    void *err;
    open_pair(NULL);
    pthread_create(&other, NULL, hear_for_ever, NULL);
    while (!is_waiting(pair.a, RECEIVING))
        poll(NULL, 0, 1);
    fake_fail_call(FAKE_CALL_POST_SEND, 0, 1, ENOMEM);
    cr_assert_eq(tell(pair.a), GODWIT_ERR_RESET);
    pthread_join(other, &err);
    cr_assert_eq((intptr_t)err, GODWIT_ERR_RESET);
    close_pair();
}

/* A device out of its mind, or a peer that fills the queue as fast as it is emptied. */
Test(rdma_channel, a_completion_queue_that_never_runs_empty_keeps_nobody, .timeout = 15)
{
    open_pair(NULL);
    fake_babble(true);
    cr_assert_eq(hear(pair.a), GODWIT_ERR_RESET);
    cr_assert_eq(tell(pair.a), GODWIT_ERR_RESET);
    expect_reset(pair.a, "not posted");
    channel_shutdown(pair.a);
    fake_babble(false);
    close_pair();
}

static void *hear_thread(void *channel)
{
    char byte;
    return (void *)(uintptr_t)channel_recv_exact(channel, &byte, 1, CHANNEL_FOREVER);
}

/* Both sides wait to receive while it happens; err: how it ends. */
static void expect_both_end(void (*happen)(void), enum godwit_err err, const char *detail)
{
    pthread_t a, b;
    void *ends[2];
    open_pair(NULL);
    pthread_create(&a, NULL, hear_thread, pair.a);
    pthread_create(&b, NULL, hear_thread, pair.b);
    poll(NULL, 0, 30);
    happen();
    pthread_join(a, &ends[0]);
    pthread_join(b, &ends[1]);
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq((enum godwit_err)(uintptr_t)ends[i], err, "%s",
                     godwit_err_text((enum godwit_err)(uintptr_t)ends[i]));
    cr_assert(strstr(channel_detail(pair.a), detail), "a: %s", channel_detail(pair.a));
    cr_assert(strstr(channel_detail(pair.b), detail), "b: %s", channel_detail(pair.b));
    close_pair();
}

static void disconnect_both(void)
{
    cr_assert_eq(fake_raise_cm(FAKE_ACTIVE, RDMA_CM_EVENT_DISCONNECTED, 0), 1);
    cr_assert_eq(fake_raise_cm(FAKE_PASSIVE, RDMA_CM_EVENT_DISCONNECTED, 0), 1);
}

static void remove_device(void)
{
    fake_raise_cm(FAKE_ACTIVE, RDMA_CM_EVENT_DEVICE_REMOVAL, 0);
    fake_raise_cm(FAKE_PASSIVE, RDMA_CM_EVENT_DEVICE_REMOVAL, 0);
    fake_raise_async(IBV_EVENT_DEVICE_FATAL);
}

static enum ibv_event_type event_to_raise;

static void raise_event(void)
{
    cr_assert_gt(fake_raise_async(event_to_raise), 0);
}

Test(rdma_channel, events_of_the_device_end_the_channels_they_concern)
{
    static const struct {
        enum ibv_event_type type;
        const char *words;
    } events[] = {
        {IBV_EVENT_QP_FATAL, "gave the queue pair up"},
        {IBV_EVENT_QP_REQ_ERR, "invalid request"},
        {IBV_EVENT_QP_ACCESS_ERR, "not registered for it"},
        {IBV_EVENT_CQ_ERR, "overflowed"},
    };
    for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
        event_to_raise = events[i].type;
        expect_both_end(raise_event, GODWIT_ERR_RESET, events[i].words);
    }
}

static void *report_to_a(void *unused)
{
    (void)unused;
    while (!is_waiting(pair.a, RECEIVING))
        poll(NULL, 0, 1);
    rdma_channel_async(private_of(pair.a), "this was read by another channel's thread");
    return NULL;
}

Test(rdma_channel, an_event_that_another_thread_has_read_wakes_who_waits)
{
    pthread_t other;
    char byte;
    open_pair(NULL);
    pthread_create(&other, NULL, report_to_a, NULL);
    cr_assert_eq(channel_recv_exact(pair.a, &byte, 1, CHANNEL_FOREVER), GODWIT_ERR_RESET);
    cr_assert_str_eq(channel_detail(pair.a), "this was read by another channel's thread");
    pthread_join(other, NULL);
    close_pair();
}

/* The flushed requests are there before anybody looks at the event. */
Test(rdma_channel, the_reason_is_known_to_a_call_that_finds_the_queue_pair_broken)
{
    open_pair(NULL);
    fake_raise_async(IBV_EVENT_QP_FATAL);
    poll(NULL, 0, 50);
    cr_assert_eq(hear(pair.a), GODWIT_ERR_RESET);
    cr_assert(strstr(channel_detail(pair.a), "gave the queue pair up"), "%s", channel_detail(pair.a));
    close_pair();
    open_pair(NULL);
    remove_device();
    poll(NULL, 0, 50);
    put(0, 4096);
    cr_assert_eq(channel_flush(pair.a, TIMEOUT_MS), GODWIT_ERR_RESET);
    cr_assert(strstr(channel_detail(pair.a), "removed"), "%s", channel_detail(pair.a));
    cr_assert_eq(hear(pair.b), GODWIT_ERR_RESET);
    cr_assert(strstr(channel_detail(pair.b), "removed"), "%s", channel_detail(pair.b));
    close_pair();
}

Test(rdma_channel, events_of_the_device_that_are_hints_change_nothing)
{
    static const enum ibv_event_type events[] = {
        IBV_EVENT_PORT_ERR,   IBV_EVENT_PORT_ACTIVE, IBV_EVENT_GID_CHANGE,       IBV_EVENT_COMM_EST,
        IBV_EVENT_SQ_DRAINED, IBV_EVENT_PATH_MIG,    IBV_EVENT_CLIENT_REREGISTER};
    open_pair(NULL);
    for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
        fake_raise_async(events[i]);
        char byte;
        cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, 10), GODWIT_ERR_TIMEOUT);
        cr_assert_eq(tell(pair.a), GODWIT_OK);
        cr_assert_eq(hear(pair.b), GODWIT_OK);
    }
    close_pair();
}

Test(rdma_channel, events_that_nobody_looked_at_do_not_keep_a_channel)
{
    open_pair(NULL);
    fake_raise_async(IBV_EVENT_QP_FATAL);
    fake_raise_async(IBV_EVENT_CQ_ERR);
    close_pair();
}

Test(rdma_channel, a_disconnection_without_an_end_of_the_stream_is_a_reset)
{
    expect_both_end(disconnect_both, GODWIT_ERR_RESET, "process ended");
}

Test(rdma_channel, a_device_that_is_removed_is_a_reset_that_says_so)
{
    expect_both_end(remove_device, GODWIT_ERR_RESET, "removed");
}

Test(rdma_channel, hints_of_the_connection_manager_change_nothing)
{
    static const enum rdma_cm_event_type events[] = {RDMA_CM_EVENT_UNREACHABLE, RDMA_CM_EVENT_ADDR_CHANGE,
                                                     RDMA_CM_EVENT_TIMEWAIT_EXIT};
    open_pair(NULL);
    for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
        fake_raise_cm(FAKE_ACTIVE, events[i], -110);
        fake_raise_cm(FAKE_PASSIVE, events[i], -110);
        char byte;
        cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, 10), GODWIT_ERR_TIMEOUT);
        cr_assert_eq(tell(pair.a), GODWIT_OK);
        cr_assert_eq(hear(pair.b), GODWIT_OK);
    }
    close_pair();
}

Test(rdma_channel, a_key_that_the_peer_never_gave_breaks_both_sides)
{
    struct region_key key;
    struct remote *made_up;
    open_pair(NULL);
    mr_export(far_mr, &key);
    key.bytes[0] ^= 0x40;
    cr_assert_eq(domain_import(pair.domain_a, &key, &made_up, NULL), GODWIT_OK, "nobody can tell");
    cr_assert_eq(channel_put(pair.a, local_mr, 0, made_up, 0, 4096), GODWIT_OK);
    cr_assert_eq(channel_flush(pair.a, TIMEOUT_MS), GODWIT_ERR_RESET);
    expect_reset(pair.a, "its key was revoked");
    cr_assert_eq(hear(pair.b), GODWIT_ERR_RESET);
    cr_assert_eq(far[0], 0);
    remote_free(made_up);
    close_pair();
}

Test(rdma_channel, memory_of_another_domain_is_out_of_reach)
{
    struct domain *other;
    struct region_key key;
    struct mr *foreign;
    struct remote *there;
    open_pair(NULL);
    cr_assert_eq(transport_domain(pair.transport, &pair.address, &other, NULL), GODWIT_OK);
    struct region region = {.addr = far, .size = 4096, .fd = -1};
    cr_assert_eq(domain_register(other, &region, REGION_REMOTE_WRITE, &foreign, NULL), GODWIT_OK);
    mr_export(foreign, &key);
    cr_assert_eq(domain_import(pair.domain_a, &key, &there, NULL), GODWIT_OK);
    channel_put(pair.a, local_mr, 0, there, 0, 4096);
    cr_assert_eq(channel_flush(pair.a, TIMEOUT_MS), GODWIT_ERR_RESET);
    cr_assert_eq(far[0], 0);
    remote_free(there);
    mr_free(foreign);
    domain_free(other);
    close_pair();
}
