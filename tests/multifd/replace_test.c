/* Channels that go on by another connection: what arrives, what is counted, and what becomes of one that does not come. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/census.h"
#include "tests/multifd/transfer.h"
#include "transport/clock.h"

TestSuite(replace, .timeout = 60);

enum { LIFETIME = 64 << 10 };

struct variant {
    enum pair_kind kind;
    unsigned channels;
    bool placed, zeros;
};

static struct criterion_test_params all_variants(void)
{
    static struct variant list[] = {
        {PAIR_LOOP, 1, false, true}, {PAIR_LOOP, 3, false, false}, {PAIR_LOOP, 2, true, true},
        {PAIR_LOOP, 8, true, false}, {PAIR_TCP4, 1, false, true},  {PAIR_TCP4, 8, false, true},
        {PAIR_UNIX, 2, false, true}, {PAIR_UNIX, 5, false, false},
    };
    return cr_make_param_array(struct variant, list, sizeof list / sizeof *list);
}

static struct transfer_setup setup_of(const struct variant *variant)
{
    struct transfer_setup setup = transfer_setup();
    setup.kind = variant->kind;
    setup.channels = variant->channels;
    setup.placed = variant->placed;
    setup.zeros = variant->zeros;
    setup.lifetime = LIFETIME;
    return setup;
}

static struct transfer_setup setup_kind(enum pair_kind kind)
{
    return setup_of(&(struct variant){.kind = kind, .channels = 2, .zeros = true});
}

/* A sender counts when its call has returned, which may be after the arrival. */
static void await_counters(const struct transfer *transfer)
{
    uint64_t deadline = clock_now_ms() + TRANSFER_SOON_MS;
    while (transfer_sent(transfer).bytes < transfer_received(transfer).bytes && clock_now_ms() < deadline)
        sched_yield();
}

ParameterizedTestParameters(replace, memory_arrives_equal_and_counters_go_on_over_many_connections)
{
    return all_variants();
}

ParameterizedTest(struct variant *variant, replace, memory_arrives_equal_and_counters_go_on_over_many_connections)
{
    enum { EPOCHS = 4 };
    unsigned fds = census_fds(), threads = census_threads(UINT_MAX);
    struct transfer_setup setup = setup_of(variant);
    struct transfer transfer;
    srand(variant->channels);
    transfer_open(&transfer, &setup);
    for (uint32_t epoch = 1; epoch <= EPOCHS; epoch++) {
        for (unsigned i = 0; i < TRANSFER_BLOCKS && epoch > 1; i++)
            transfer_scribble(transfer.source->blocks[i].addr, setup.pages[i]);
        cr_assert(transfer_pages(&transfer, epoch, NULL));
        transfer_mark(&transfer, epoch);
        transfer_expect_equal(&transfer);
    }
    await_counters(&transfer);
    struct godwit_channel_info sent = transfer_sent(&transfer), received = transfer_received(&transfer);
    cr_assert_eq(sent.normal + sent.duplicate, EPOCHS * (setup.pages[0] + setup.pages[1]));
    cr_assert_eq(received.bytes, sent.bytes);
    cr_assert_eq(received.normal, sent.normal);
    cr_assert_eq(received.packets, sent.packets);
    cr_assert_eq(received.replacements, sent.replacements);
    cr_assert_eq(sent.replacements, transfer.replacements);
    cr_assert_gt(sent.replacements, EPOCHS);
    cr_assert_leq(sent.replacements, sent.bytes / LIFETIME, "not before its time");
    cr_assert_eq(gate_count(&transfer.send_failed) + gate_count(&transfer.recv_failed), 0);
    transfer_close(&transfer);
    cr_assert_eq(census_fds(), fds);
    cr_assert_eq(census_threads(threads), threads);
}

/* One batch of pages that are not zero, on the only channel there is, and its marker. */
static void send_some(struct transfer *transfer, uint32_t epoch, uint32_t pages)
{
    struct batch *batch = multifd_send_batch(transfer->send, epoch, TRANSFER_SOON_MS);
    memset(transfer->source->blocks[0].addr, (int)epoch, transfer->setup.pages[0] << PAGE_SHIFT);
    batch_add(batch, 0, 0, pages, EXTENT_NORMAL);
    multifd_send_submit(transfer->send, batch);
    transfer_mark(transfer, epoch);
}

/* Whatever follows the last page must not need a connection: the destination may have closed its door by then. */
Test(replace, is_done_for_a_batch_and_for_nothing_else)
{
    struct transfer_setup setup = setup_of(&(struct variant){.kind = PAIR_UNIX, .channels = 1});
    struct transfer transfer;
    transfer_open(&transfer, &setup);
    send_some(&transfer, 1, 100);
    for (uint32_t epoch = 2; epoch < 5; epoch++)
        transfer_mark(&transfer, epoch);
    cr_assert_eq(transfer.replacements, 0, "markers alone are no reason");
    send_some(&transfer, 5, 1);
    cr_assert_eq(transfer.replacements, 1);
    send_some(&transfer, 6, 1);
    cr_assert_eq(transfer.replacements, 1, "the new one has carried next to nothing");
    transfer_close(&transfer);
}

/* The limit of the channel itself, with and without one of the config's. */
Test(replace, of_two_limits_the_smaller_one_counts)
{
    static const struct {
        uint64_t own, config;
        bool replaced;
    } rows[] = {{0, 0, false},
                {LIFETIME, 0, true},
                {LIFETIME, 1 << 30, true},
                {1 << 30, LIFETIME, true},
                {1 << 30, 1 << 30, false}};
    for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct transfer_setup setup = setup_of(&(struct variant){.kind = PAIR_LOOP, .channels = 1});
        struct transfer transfer;
        setup.lifetime = rows[i].config;
        setup.own_lifetime = rows[i].own;
        transfer_open(&transfer, &setup);
        send_some(&transfer, 1, 100);
        send_some(&transfer, 2, 1);
        cr_assert_eq(transfer.replacements, rows[i].replaced, "row %u", i);
        transfer_close(&transfer);
    }
}

static const enum pair_kind kinds[] = {PAIR_LOOP, PAIR_TCP4, PAIR_UNIX};

Test(replace, one_that_cannot_be_had_is_reported_once_by_its_sender)
{
    for (unsigned k = 0; k < 3; k++) {
        struct transfer_setup setup = setup_kind(kinds[k]);
        struct transfer transfer;
        setup.replaced = 1;
        setup.how = REPLACED_BY_NONE;
        transfer_open(&transfer, &setup);
        transfer_pages(&transfer, 1, NULL);
        cr_assert(gate_wait(&transfer.send_failed, 1, TRANSFER_SOON_MS));
        cr_assert_eq(transfer.send_failed.last.code, GODWIT_ERR_REFUSED, "%s", transfer.send_failed.last.text);
        cr_assert(strstr(transfer.send_failed.last.text, "nobody is there"), "%s", transfer.send_failed.last.text);
        transfer_close(&transfer);
        for (unsigned i = 0; i < setup.channels; i++)
            cr_assert_leq(transfer.send_reports[i], 1);
    }
}

Test(replace, one_that_is_never_attached_is_reported_by_the_receiver_in_time)
{
    for (unsigned k = 0; k < 3; k++) {
        struct transfer_setup setup = setup_kind(kinds[k]);
        struct transfer transfer;
        setup.channels = 1;
        setup.replaced = 1;
        setup.how = REPLACED_UNATTACHED;
        setup.progress_ms = 200;
        transfer_open(&transfer, &setup);
        transfer_pages(&transfer, 1, NULL);
        cr_assert(gate_wait(&transfer.recv_failed, 1, 5000));
        cr_assert_eq(transfer.recv_failed.last.code, GODWIT_ERR_STALLED, "%s", transfer.recv_failed.last.text);
        cr_assert(strstr(transfer.recv_failed.last.text, "no connection followed"), "%s",
                  transfer.recv_failed.last.text);
        transfer_close(&transfer);
    }
}

Test(replace, stop_ends_a_sender_that_waits_for_a_connection)
{
    struct transfer_setup setup = setup_kind(PAIR_TCP4);
    struct transfer transfer;
    setup.replaced = 1;
    setup.how = REPLACED_LATE;
    transfer_open(&transfer, &setup);
    for (unsigned i = 0; i < TRANSFER_BLOCKS; i++)
        memset(transfer.source->blocks[i].addr, 1, setup.pages[i] << PAGE_SHIFT);
    for (uint64_t first = 0; first < 600 && gate_count(&transfer.asked) < 2; first += 50) {
        struct batch *batch = multifd_send_batch(transfer.send, 1, 100);
        if (batch == NULL)
            break;
        batch_add(batch, 0, first, 50, EXTENT_NORMAL);
        multifd_send_submit(transfer.send, batch);
    }
    cr_assert(gate_wait(&transfer.asked, 2, TRANSFER_SOON_MS), "it asks and waits");
    transfer_close(&transfer); /* asserts that it takes no time */
}

/* The end is on its way to a destination that reads nothing: the sender waits for its close as long as nobody stops it. */
Test(replace, stop_ends_a_sender_that_waits_for_the_old_connection_to_close)
{
    for (unsigned k = 0; k < 3; k++) {
        struct transfer_setup setup = setup_kind(kinds[k]);
        struct transfer transfer;
        setup.channels = 1;
        setup.no_receivers = true;
        setup.replaced = 0;
        setup.how = REPLACED_UNATTACHED;
        setup.progress_ms = 50;
        transfer_open(&transfer, &setup);
        struct channel *old = transfer.ends[0];
        transfer.ends[0] = NULL;
        for (unsigned i = 0; i < 2; i++) {
            struct batch *batch = multifd_send_batch(transfer.send, 1, TRANSFER_SOON_MS);
            memset(transfer.source->blocks[0].addr, 1, 100 << PAGE_SHIFT);
            batch_add(batch, 0, 0, 20, EXTENT_NORMAL);
            multifd_send_submit(transfer.send, batch);
        }
        cr_assert(gate_wait(&transfer.asked, 1, TRANSFER_SOON_MS));
        cr_assert_not(gate_wait(&transfer.send_failed, 1, 300), "%s", transfer.send_failed.last.text);
        multifd_send_stop(transfer.send);
        cr_assert(gate_wait(&transfer.send_failed, 1, TRANSFER_SOON_MS));
        cr_assert_eq(transfer.send_failed.last.code, GODWIT_ERR_CLOSED, "%s", transfer.send_failed.last.text);
        transfer_close(&transfer);
        channel_free(old);
    }
}

Test(replace, a_destination_that_talks_back_on_the_old_connection_breaks_the_protocol)
{
    struct transfer_setup setup = setup_kind(PAIR_UNIX);
    struct transfer transfer;
    setup.channels = 1;
    setup.no_receivers = true;
    setup.replaced = 0;
    setup.how = REPLACED_UNATTACHED;
    transfer_open(&transfer, &setup);
    struct channel *old = transfer.ends[0];
    transfer.ends[0] = NULL;
    cr_assert_eq(channel_send(old, "!", 1, NULL, 0, TRANSFER_SOON_MS), GODWIT_OK);
    memset(transfer.source->blocks[0].addr, 1, 100 << PAGE_SHIFT);
    for (unsigned i = 0; i < 2; i++) {
        struct batch *batch = multifd_send_batch(transfer.send, 1, TRANSFER_SOON_MS);
        batch_add(batch, 0, 0, 20, EXTENT_NORMAL);
        multifd_send_submit(transfer.send, batch);
    }
    cr_assert(gate_wait(&transfer.send_failed, 1, TRANSFER_SOON_MS));
    cr_assert_eq(transfer.send_failed.last.code, GODWIT_ERR_PROTOCOL, "%s", transfer.send_failed.last.text);
    transfer_close(&transfer);
    channel_free(old);
}
