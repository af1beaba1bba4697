#include <criterion/criterion.h>
#include <string.h>

#include "tests/lib/pair.h"
#include "transport/clock.h"

TestSuite(fault, .timeout = 20);

/* A loop pair whose a is wrapped with plan. */
static void open_wrapped(struct pair *pair, const struct fault_plan *plan)
{
    cr_assert_eq(pair_open(pair, PAIR_LOOP), GODWIT_OK);
    struct channel *wrapped = fault_channel_wrap(pair->a, plan);
    cr_assert_not_null(wrapped);
    pair->a = wrapped;
}

static enum godwit_err send_bytes(struct channel *channel, const char *head, char *payload)
{
    struct iovec iov = {payload, strlen(payload)};
    enum godwit_err err = channel_send(channel, head, strlen(head), &iov, 1, 0);
    return err ? err : channel_flush(channel, 0);
}

Test(fault, empty_plan_changes_nothing)
{
    struct fault_plan plan = fault_plan_none();
    struct pair pair;
    open_wrapped(&pair, &plan);
    char got[8] = "", word[] = "load";
    cr_assert_eq(send_bytes(pair.a, "pay", word), GODWIT_OK);
    cr_assert_eq(channel_recv_exact(pair.b, got, 7, 0), GODWIT_OK);
    cr_assert_str_eq(got, "payload");
    cr_assert_eq(strncmp(channel_name(pair.a), "loop ", 5), 0);
    cr_assert(channel_limits(pair.a)->one_sided);
    pair_close(&pair);
}

Test(fault, sweep_fails_each_send_once_and_ends_where_the_calls_end)
{
    uint64_t n = 0;
    for (;; n++) {
        struct fault_counts counts = {0};
        struct fault_plan plan = fault_plan_none();
        plan.fail_op = FAULT_SEND;
        plan.fail_at = n;
        plan.fail_code = GODWIT_ERR_NO_MEMORY;
        plan.counts = &counts;
        struct pair pair;
        open_wrapped(&pair, &plan);
        unsigned failed = 0;
        for (unsigned i = 0; i < 5; i++)
            failed += channel_send(pair.a, "x", 1, NULL, 0, 0) == GODWIT_ERR_NO_MEMORY;
        pair_close(&pair);
        cr_assert_eq(atomic_load(&counts.calls[FAULT_SEND]), 5);
        if (!failed)
            break;
        cr_assert_eq(failed, 1);
    }
    cr_assert_eq(n, 5);
}

Test(fault, each_operation_can_fail_and_is_counted_apart)
{
    for (unsigned op = FAULT_SEND; op < FAULT_OPS; op++) {
        struct fault_plan plan = fault_plan_none();
        plan.fail_op = op;
        plan.fail_at = 0;
        plan.fail_code = GODWIT_ERR_RESET;
        struct pair pair;
        open_wrapped(&pair, &plan);
        char byte = 0;
        cr_assert_eq(channel_send(pair.a, &byte, 1, NULL, 0, 0), op == FAULT_SEND ? GODWIT_ERR_RESET : GODWIT_OK);
        cr_assert_eq(channel_recv_exact(pair.a, &byte, 1, 0), op == FAULT_RECV ? GODWIT_ERR_RESET : GODWIT_ERR_TIMEOUT);
        cr_assert_eq(channel_flush(pair.a, 0), op == FAULT_FLUSH ? GODWIT_ERR_RESET : GODWIT_OK);
        cr_assert_eq(channel_flush(pair.a, 0), GODWIT_OK, "once only");
        pair_close(&pair);
    }
}

Test(fault, shared_counter_numbers_the_calls_of_all_channels)
{
    struct fault_counts counts = {0};
    struct fault_plan plan = fault_plan_none();
    plan.fail_op = FAULT_SEND;
    plan.fail_at = 3;
    plan.fail_code = GODWIT_ERR_SYSTEM;
    plan.counts = &counts;
    struct pair one, two;
    open_wrapped(&one, &plan);
    open_wrapped(&two, &plan);
    cr_assert_eq(channel_send(one.a, "x", 1, NULL, 0, 0), GODWIT_OK);
    cr_assert_eq(channel_send(two.a, "x", 1, NULL, 0, 0), GODWIT_OK);
    cr_assert_eq(channel_send(one.a, "x", 1, NULL, 0, 0), GODWIT_OK);
    cr_assert_eq(channel_send(two.a, "x", 1, NULL, 0, 0), GODWIT_ERR_SYSTEM);
    pair_close(&one);
    pair_close(&two);
}

Test(fault, connection_is_cut_after_any_number_of_sent_bytes)
{
    for (uint64_t n = 0; n < 8; n++) {
        struct fault_plan plan = fault_plan_none();
        plan.cut_sent = n;
        struct pair pair;
        open_wrapped(&pair, &plan);
        char got[8] = "", word[] = "load";
        cr_assert_eq(send_bytes(pair.a, "pay", word), n < 7 ? GODWIT_ERR_RESET : GODWIT_OK);
        cr_assert_eq(channel_recv_exact(pair.b, got, n, 0), GODWIT_OK, "the bytes before the cut arrive");
        cr_assert_eq(strncmp(got, "payload", n), 0);
        if (n < 7)
            cr_assert_eq(channel_recv_exact(pair.b, got, 1, 0), GODWIT_ERR_PEER_CLOSED);
        pair_close(&pair);
    }
}

Test(fault, connection_is_cut_after_any_number_of_received_bytes)
{
    for (uint64_t n = 0; n < 8; n++) {
        struct fault_plan plan = fault_plan_none();
        plan.cut_received = n;
        struct pair pair;
        open_wrapped(&pair, &plan);
        char got[8] = "", word[] = "load";
        cr_assert_eq(send_bytes(pair.b, "pay", word), GODWIT_OK);
        cr_assert_eq(channel_recv_exact(pair.a, got, 7, 0), n < 7 ? GODWIT_ERR_RESET : GODWIT_OK);
        if (n < 7)
            cr_assert_eq(channel_send(pair.b, "x", 1, NULL, 0, 0), GODWIT_ERR_RESET);
        pair_close(&pair);
    }
}

Test(fault, cut_connection_is_broken_in_both_directions_and_closed_only_by_shutdown)
{
    struct fault_plan plan = fault_plan_none();
    plan.cut_sent = 0;
    struct pair pair;
    open_wrapped(&pair, &plan);
    char byte = 0;
    cr_assert_eq(channel_send(pair.a, &byte, 1, NULL, 0, 0), GODWIT_ERR_RESET);
    cr_assert_eq(channel_send(pair.a, &byte, 1, NULL, 0, 0), GODWIT_ERR_RESET);
    cr_assert_eq(channel_recv_exact(pair.a, &byte, 1, 0), GODWIT_ERR_RESET);
    cr_assert_eq(channel_flush(pair.a, 0), GODWIT_ERR_RESET);
    channel_shutdown(pair.a);
    cr_assert_eq(channel_recv_exact(pair.a, &byte, 1, 0), GODWIT_ERR_CLOSED);
    pair_close(&pair);
}

static unsigned bits_changed(const char *a, const char *b, size_t size, uint64_t *which)
{
    unsigned changed = 0;
    for (size_t i = 0; i < size * 8; i++) {
        if ((a[i / 8] ^ b[i / 8]) >> i % 8 & 1) {
            changed++;
            *which = i;
        }
    }
    return changed;
}

Test(fault, exactly_the_asked_for_bit_flips)
{
    for (uint64_t bit = 0; bit < 7 * 8; bit++) {
        for (unsigned direction = 0; direction < 2; direction++) {
            struct fault_plan plan = fault_plan_none();
            *(direction ? &plan.flip_sent : &plan.flip_received) = bit;
            struct pair pair;
            open_wrapped(&pair, &plan);
            struct channel *from = direction ? pair.a : pair.b, *to = direction ? pair.b : pair.a;
            char got[8] = "", word[] = "load";
            uint64_t which = UINT64_MAX;
            cr_assert_eq(send_bytes(from, "pay", word), GODWIT_OK);
            cr_assert_eq(channel_recv_exact(to, got, 7, 0), GODWIT_OK);
            cr_assert_eq(bits_changed(got, "payload", 7, &which), 1);
            cr_assert_eq(which, bit);
            cr_assert_str_eq(word, "load", "the sender's memory stays as it was");
            pair_close(&pair);
        }
    }
}

Test(fault, chunks_do_not_change_what_arrives_nor_the_meaning_of_timeouts)
{
    for (uint64_t chunk = 1; chunk < 9; chunk++) {
        struct fault_plan plan = fault_plan_none();
        plan.chunk = chunk;
        struct pair pair;
        open_wrapped(&pair, &plan);
        char got[8] = "", word[] = "load";
        cr_assert_eq(send_bytes(pair.a, "pay", word), GODWIT_OK);
        cr_assert_eq(channel_recv_exact(pair.b, got, 7, 0), GODWIT_OK);
        cr_assert_str_eq(got, "payload");
        cr_assert_eq(send_bytes(pair.b, "pay", word), GODWIT_OK);
        cr_assert_eq(channel_recv_exact(pair.a, got, 7, 0), GODWIT_OK);
        cr_assert_str_eq(got, "payload");
        cr_assert_eq(channel_recv_exact(pair.a, got, 1, 0), GODWIT_ERR_TIMEOUT);
        cr_assert_eq(channel_send(pair.b, "x", 1, NULL, 0, 0), GODWIT_OK);
        cr_assert_eq(channel_recv_exact(pair.a, got, 2, 0), GODWIT_ERR_STALLED);
        pair_close(&pair);
    }
}

Test(fault, delay_delays)
{
    struct fault_plan plan = fault_plan_none();
    plan.delay_ms = 15;
    struct pair pair;
    open_wrapped(&pair, &plan);
    uint64_t start = clock_now_ms();
    cr_assert_eq(channel_send(pair.a, "x", 1, NULL, 0, 0), GODWIT_OK);
    cr_assert_geq(clock_now_ms() - start, 14);
    pair_close(&pair);
}

Test(fault, net_can_pick_one_channel)
{
    struct fault_plan plan = fault_plan_none();
    plan.fail_op = FAULT_SEND;
    plan.fail_at = 0;
    plan.fail_code = GODWIT_ERR_RESET;
    struct pair pair;
    cr_assert_eq(pair_listen(&pair, PAIR_LOOP), GODWIT_OK);
    struct fault_net *net = fault_net_new(pair.transport, &plan, 1);
    struct channel *ends[3];
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(transport_connect(fault_net_transport(net), &pair.address, NULL, 0, NULL, &ends[i], NULL),
                     GODWIT_OK);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(channel_send(ends[i], "x", 1, NULL, 0, 0), i == 1 ? GODWIT_ERR_RESET : GODWIT_OK);
        channel_free(ends[i]);
    }
    fault_net_free(net);
    fault_net_free(NULL);
    pair_close(&pair);
}
