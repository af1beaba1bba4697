/* Senders without receivers: what blocks, what ends it, what is reported. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/census.h"
#include "tests/multifd/transfer.h"
#include "transport/clock.h"

TestSuite(send, .timeout = 60);

static struct transfer_setup deaf_setup(enum pair_kind kind)
{
    struct transfer_setup setup = transfer_setup();
    setup.kind = kind;
    setup.no_receivers = true;
    setup.zeros = false;
    setup.pages[0] = setup.pages[1] = 8192; /* 64 MiB: more than any channel holds */
    return setup;
}

/* Hands over pages until the senders are stuck. */
static void fill(struct transfer *transfer)
{
    for (uint64_t first = 0;; first += 512) {
        struct batch *batch = multifd_send_batch(transfer->send, 1, 100);
        if (batch == NULL)
            return;
        cr_assert_lt(first, 2 * 8192);
        batch_add(batch, first >= 8192, first % 8192, 512, EXTENT_NORMAL);
        multifd_send_submit(transfer->send, batch);
    }
}

static const enum pair_kind kinds[] = {PAIR_LOOP, PAIR_TCP4, PAIR_UNIX};

Test(send, destination_that_takes_nothing_is_reported_in_time)
{
    for (unsigned k = 0; k < 3; k++) {
        struct transfer_setup setup = deaf_setup(kinds[k]);
        struct transfer transfer;
        setup.progress_ms = 200;
        transfer_open(&transfer, &setup);
        uint64_t start = clock_now_ms();
        while (gate_count(&transfer.send_failed) < 2 && clock_now_ms() - start < TRANSFER_SOON_MS)
            fill(&transfer);
        cr_assert_eq(gate_count(&transfer.send_failed), 2, "once for each channel");
        enum godwit_err code = transfer.send_failed.last.code;
        cr_assert(code == GODWIT_ERR_STALLED || code == GODWIT_ERR_TIMEOUT, "%s", transfer.send_failed.last.text);
        cr_assert(strstr(transfer.send_failed.last.text, "data channel"), "%s", transfer.send_failed.last.text);
        char names[2][ADDRESS_TEXT_MAX];
        for (unsigned i = 0; i < 2; i++)
            multifd_send_name(transfer.send, i, names[i], sizeof names[i]);
        cr_assert(strstr(transfer.send_failed.last.text, names[0]) || strstr(transfer.send_failed.last.text, names[1]),
                  "%s", transfer.send_failed.last.text);
        transfer_close(&transfer);
        cr_assert_eq(gate_count(&transfer.send_failed), 2);
    }
}

Test(send, stop_ends_blocked_senders_and_the_engine_gets_no_more_batches)
{
    for (unsigned k = 0; k < 3; k++) {
        struct transfer_setup setup = deaf_setup(kinds[k]);
        struct transfer transfer;
        transfer_open(&transfer, &setup);
        fill(&transfer);
        uint64_t start = clock_now_ms();
        multifd_send_stop(transfer.send);
        cr_assert_null(multifd_send_batch(transfer.send, 1, TRANSFER_SOON_MS));
        multifd_send_stop(transfer.send);
        transfer_close(&transfer);
        cr_assert_lt(clock_now_ms() - start, 2000);
        if (gate_count(&transfer.send_failed) > 0)
            cr_assert_eq(transfer.send_failed.last.code, GODWIT_ERR_CLOSED, "%s", transfer.send_failed.last.text);
    }
}

struct engine {
    struct transfer *transfer;
    struct gate done;
    struct batch *batch;
};

static void *engine_thread(void *opaque)
{
    struct engine *engine = opaque;
    engine->batch = multifd_send_batch(engine->transfer->send, 1, 60000);
    gate_note(&engine->done, NULL);
    return NULL;
}

Test(send, stop_from_another_thread_wakes_the_engine)
{
    struct transfer_setup setup = deaf_setup(PAIR_TCP4);
    struct transfer transfer;
    struct engine engine = {.transfer = &transfer, .done = GATE_INIT};
    pthread_t thread;
    transfer_open(&transfer, &setup);
    fill(&transfer);
    pthread_create(&thread, NULL, engine_thread, &engine);
    cr_assert_not(gate_wait(&engine.done, 1, 50));
    multifd_send_stop(transfer.send);
    cr_assert(gate_wait(&engine.done, 1, 5000));
    pthread_join(thread, NULL);
    cr_assert_null(engine.batch);
    transfer_close(&transfer);
}

Test(send, stop_ends_senders_that_wait_for_the_rate_limit)
{
    struct transfer_setup setup = deaf_setup(PAIR_LOOP);
    struct transfer transfer;
    setup.limit = 1000; /* the first batch may go; for the next ones half an hour is too short */
    transfer_open(&transfer, &setup);
    fill(&transfer);
    cr_assert_eq(gate_count(&transfer.send_failed), 0, "they wait");
    multifd_send_stop(transfer.send);
    cr_assert(gate_wait(&transfer.send_failed, 1, 5000), "stop alone sets them free: they find their channels closed");
    transfer_close(&transfer);
}

Test(send, empty_batches_are_taken_back)
{
    struct transfer_setup setup = transfer_setup();
    struct transfer transfer;
    transfer_open(&transfer, &setup);
    for (unsigned i = 0; i < 1000; i++) {
        struct batch *batch = multifd_send_batch(transfer.send, 1, 0);
        cr_assert_not_null(batch, "%u", i);
        cr_assert(batch->epoch == 1 && batch->count == 0 && batch_room(batch) == BATCH_PAGES);
        multifd_send_submit(transfer.send, batch);
    }
    transfer_mark(&transfer, 1);
    cr_assert_eq(transfer_sent(&transfer).packets, 0);
    transfer_close(&transfer);
}

Test(send, every_second_page_zero_fits_one_record)
{
    struct transfer_setup setup = transfer_setup();
    struct transfer transfer;
    setup.channels = 1;
    setup.pages[0] = BATCH_PAGES;
    transfer_open(&transfer, &setup);
    for (uint64_t page = 0; page < BATCH_PAGES; page++)
        memset(transfer.source->blocks[0].addr + (page << PAGE_SHIFT), page % 2, PAGE_SIZE);
    struct batch *batch = multifd_send_batch(transfer.send, 1, 0);
    batch_add(batch, 0, 0, BATCH_PAGES, EXTENT_NORMAL);
    cr_assert_eq(batch_room(batch), 0);
    multifd_send_submit(transfer.send, batch);
    transfer_mark(&transfer, 1);
    cr_assert_eq(transfer_received(&transfer).packets, 1);
    cr_assert_eq(transfer_received(&transfer).normal, BATCH_PAGES / 2);
    cr_assert_eq(transfer_received(&transfer).duplicate, BATCH_PAGES / 2);
    for (uint64_t page = 0; page < BATCH_PAGES; page++)
        cr_assert(transfer_equal(&transfer, 0, page));
    transfer_close(&transfer);
}

Test(send, zero_extents_and_pages_share_the_room_of_a_batch)
{
    struct batch batch;
    batch_reset(&batch, 9);
    cr_assert_eq(batch_room(&batch), BATCH_PAGES);
    for (unsigned i = 0; i < 100; i++)
        batch_add(&batch, 0, i * 1000, 900, EXTENT_ZERO);
    cr_assert_eq(batch_room(&batch), BATCH_EXTENTS - 100);
    batch_add(&batch, 0, 900, 100, EXTENT_NORMAL);
    cr_assert_eq(batch_room(&batch), BATCH_EXTENTS - 200);
    batch_add(&batch, 1, 0, batch_room(&batch), EXTENT_NORMAL);
    cr_assert_eq(batch_room(&batch), 0);
    cr_assert_eq(batch.count, 102);
    cr_assert_eq(batch.normal_pages + batch.zero_extents, BATCH_EXTENTS);
}

Test(send, start_without_threads_leaves_the_channels_to_the_caller)
{
    unsigned fds = census_fds();
    struct pair pair;
    struct godwit_error error;
    struct ram ram = {0};
    struct multifd_send *send = NULL;
    pthread_attr_t attr;
    size_t stack;
    char byte;
    cr_assert_eq(pair_open(&pair, PAIR_TCP4), GODWIT_OK);
    struct multifd_send_config config = {
        .ram = &ram, .channels = &pair.a, .count = 1, .rate = migration_rate_new(), .progress_ms = 1000};
    pthread_getattr_default_np(&attr);
    pthread_attr_getstacksize(&attr, &stack);
    pthread_attr_setstacksize(&attr, (size_t)1 << 46); /* no address space holds it */
    pthread_setattr_default_np(&attr);
    cr_assert_eq(multifd_send_start(&config, &send, &error), GODWIT_ERR_NO_MEMORY);
    pthread_attr_setstacksize(&attr, stack);
    pthread_setattr_default_np(&attr);
    pthread_attr_destroy(&attr);
    cr_assert_null(send);
    cr_assert(strstr(error.text, "sender threads"), "%s", error.text);
    cr_assert_eq(channel_send(pair.a, "!", 1, NULL, 0, 1000), GODWIT_OK);
    cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, 1000), GODWIT_OK);
    multifd_send_free(NULL);
    migration_rate_free(config.rate);
    pair_close(&pair);
    cr_assert_eq(census_fds(), fds);
}
