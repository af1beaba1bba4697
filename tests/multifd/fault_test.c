/* Channels that break on the way, everywhere. The far side may notice or not; nobody hangs, nothing is left behind. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <limits.h>
#include <stdlib.h>

#include "tests/lib/census.h"
#include "tests/multifd/transfer.h"

TestSuite(multifd_fault, .timeout = 60);

struct variant {
    enum pair_kind kind;
    bool placed;
    uint64_t lifetime; /* of a connection of a channel; 0: no channel is replaced */
};

static struct criterion_test_params all_variants(void)
{
    static struct variant list[] = {
        {PAIR_LOOP, false, 0},       {PAIR_LOOP, true, 0},        {PAIR_TCP4, false, 0},
        {PAIR_UNIX, false, 0},       {PAIR_LOOP, false, 1 << 12}, {PAIR_LOOP, true, 1 << 12},
        {PAIR_TCP4, false, 1 << 12}, {PAIR_UNIX, false, 1 << 12},
    };
    return cr_make_param_array(struct variant, list, sizeof list / sizeof *list);
}

static struct transfer_setup setup_of(const struct variant *variant)
{
    struct transfer_setup setup = transfer_setup();
    setup.kind = variant->kind;
    setup.placed = variant->placed;
    setup.lifetime = variant->lifetime;
    setup.channels = 3;
    return setup;
}

/* Two epochs, as far as they get: true when all markers arrived, false as soon as anything failed. */
static bool run(struct transfer *transfer, uint32_t *ended)
{
    for (*ended = 0; *ended < 2;) {
        if (!transfer_pages(transfer, *ended + 1, NULL))
            return false;
        multifd_send_mark(transfer->send, ++*ended);
        while (!gate_wait(&transfer->markers, *ended * transfer->setup.channels, 5))
            if (gate_count(&transfer->send_failed) + gate_count(&transfer->recv_failed) > 0)
                return false;
    }
    return true;
}

/*
 * A sender notices that its far end is gone when it sends; where unread bytes stop the far kernel from taking any more
 * (and from saying so), when its own buffers are full, and nothing has moved for progress_ms.
 */
static void send_until_noticed(struct transfer *transfer, unsigned channel, uint32_t ended)
{
    for (unsigned i = 0; i < 100 && transfer->send_reports[channel] == 0; i++) {
        if (multifd_send_marked(transfer->send) >= ended) { /* never more marks than may be on their way */
            transfer_pages(transfer, ended + 1, NULL);
            multifd_send_mark(transfer->send, ++ended);
        }
        gate_wait(&transfer->send_failed, 1, 50);
    }
}

static void expect_only(atomic_uint reports[TRANSFER_CHANNELS], unsigned channel, const char *side, unsigned round)
{
    for (unsigned i = 0; i < TRANSFER_CHANNELS; i++)
        cr_assert_eq(reports[i], i == channel, "%s, channel %u reported %u times, round %u", side, i, reports[i],
                     round);
}

ParameterizedTestParameters(multifd_fault, channel_cut_in_the_middle_is_reported_once_by_each_side)
{
    return all_variants();
}

ParameterizedTest(struct variant *variant, multifd_fault, channel_cut_in_the_middle_is_reported_once_by_each_side)
{
    unsigned cut = 0;
    srand(1);
    for (unsigned round = 0; round < 30; round++) {
        struct transfer_setup setup = setup_of(variant);
        struct transfer transfer;
        bool receiver = round % 2;
        setup.faulty = receiver ? FAULTY_RECEIVER : FAULTY_SENDER;
        setup.faulty_channel = round % 3;
        /* Placed, only heads are counted. */
        uint64_t most = variant->placed ? 200 : 1 << 20;
        *(receiver ? &setup.plan.cut_received : &setup.plan.cut_sent) = (uint64_t)rand() % most;
        setup.progress_ms = 500;
        transfer_open(&transfer, &setup);
        uint32_t ended;
        if (!run(&transfer, &ended)) {
            cut++;
            cr_assert(gate_wait(&transfer.recv_failed, 1, TRANSFER_SOON_MS), "round %u", round);
            send_until_noticed(&transfer, setup.faulty_channel, ended);
            expect_only(transfer.send_reports, setup.faulty_channel, "sender", round);
            expect_only(transfer.recv_reports, setup.faulty_channel, "receiver", round);
        }
        transfer_close(&transfer);
    }
    cr_assert_gt(cut, 10, "only %u of them were cut", cut);
}

static const struct {
    enum fault_op op;
    unsigned side;
} faults[] = {
    {FAULT_SEND, FAULTY_SENDER},   {FAULT_PUT, FAULTY_SENDER},  {FAULT_FLUSH, FAULTY_SENDER},
    {FAULT_RECV, FAULTY_RECEIVER}, {FAULT_RECV, FAULTY_SENDER}, /* for the close of a connection that was replaced */
};

/* Fails call n of its kind; returns whether there was one. */
static bool fail_one(const struct variant *variant, unsigned fault, uint64_t n)
{
    unsigned fds = census_fds(), threads = census_threads(UINT_MAX);
    struct fault_counts counts = {0};
    struct transfer_setup setup = setup_of(variant);
    struct transfer transfer;
    if (variant->lifetime > 0)
        setup.channels = 1; /* so that every batch but the first asks for a connection */
    setup.pages[0] = 40;
    setup.pages[1] = 60;
    setup.faulty = faults[fault].side;
    setup.plan.fail_op = faults[fault].op;
    setup.plan.fail_at = n;
    setup.plan.fail_code = GODWIT_ERR_NO_MEMORY;
    setup.plan.counts = &counts;
    srand(1); /* the same batches each time */
    transfer_open(&transfer, &setup);
    uint32_t ended;
    bool whole = run(&transfer, &ended);
    bool fired = counts.calls[faults[fault].op] > n;
    struct gate *failed = faults[fault].side == FAULTY_SENDER ? &transfer.send_failed : &transfer.recv_failed;
    if (fired && !(whole && faults[fault].op == FAULT_RECV)) { /* a receive for a record that never came */
        cr_assert(gate_wait(failed, 1, TRANSFER_SOON_MS), "call %u number %llu", fault, (unsigned long long)n);
        cr_assert_eq(gate_count(failed), 1, "only one call failed");
        cr_assert_eq(failed->last.code, GODWIT_ERR_NO_MEMORY, "%s", failed->last.text);
    }
    if (!fired) {
        cr_assert(whole);
        transfer_expect_equal(&transfer);
    }
    transfer_close(&transfer);
    cr_assert_eq(census_fds(), fds);
    cr_assert_eq(census_threads(threads), threads);
    return fired;
}

ParameterizedTestParameters(multifd_fault, any_failing_call_is_reported_and_leaves_nothing)
{
    return all_variants();
}

ParameterizedTest(struct variant *variant, multifd_fault, any_failing_call_is_reported_and_leaves_nothing)
{
    for (unsigned fault = 0; fault < sizeof faults / sizeof *faults; fault++) {
        uint64_t n = 0;
        while (fail_one(variant, fault, n)) {
            n++;
            cr_assert_lt(n, 1000, "the sweep has no end");
        }
        bool never = (faults[fault].op == FAULT_PUT && !variant->placed) ||
                     (faults[fault].op == FAULT_RECV && faults[fault].side == FAULTY_SENDER && variant->lifetime == 0);
        cr_assert_eq(n == 0, never, "call %u was made %llu times", fault, (unsigned long long)n);
    }
}
