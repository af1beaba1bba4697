/* Whole transfers that go well: what arrives, what is counted, what is left untouched. */
#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <criterion/parameterized.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "multifd/bitmap.h"
#include "multifd/packet.h"
#include "tests/multifd/transfer.h"
#include "transport/clock.h"

TestSuite(transfer, .timeout = 60);

struct variant {
    enum pair_kind kind;
    unsigned channels;
    bool placed, zeros, used;
};

enum { VARIANTS_MAX = 128 };

static void free_variants(struct criterion_test_params *params)
{
    cr_free(params->params);
}

static struct criterion_test_params all_variants(void)
{
    static const unsigned channels[] = {1, 2, 3, 8};
    struct variant *list = cr_malloc(VARIANTS_MAX * sizeof *list);
    size_t count = 0;
    for (enum pair_kind kind = PAIR_LOOP; kind <= PAIR_UNIX; kind++)
        for (unsigned c = 0; c < 4; c++)
            for (unsigned flags = 0; flags < 8; flags++) {
                struct variant variant = {kind, channels[c], flags & 1, flags & 2, flags & 4};
                bool sensible = kind != PAIR_TCP6 && (kind == PAIR_LOOP || !variant.placed);
                if (sensible && count < VARIANTS_MAX)
                    list[count++] = variant;
            }
    return cr_make_param_array(struct variant, list, count, free_variants);
}

static struct transfer_setup setup_of(const struct variant *variant)
{
    struct transfer_setup setup = transfer_setup();
    setup.kind = variant->kind;
    setup.channels = variant->channels;
    setup.placed = variant->placed;
    setup.zeros = variant->zeros;
    setup.used = variant->used;
    cr_log_info("%s, %u channels%s%s%s", pair_kind_name(variant->kind), variant->channels,
                variant->placed ? ", placed" : "", variant->zeros ? ", zeros" : "", variant->used ? ", used" : "");
    return setup;
}

static void expect_counters(const struct transfer *transfer, uint64_t pages, unsigned marks)
{
    /* A sender counts when its call has returned, which may be after the arrival. */
    uint64_t deadline = clock_now_ms() + TRANSFER_SOON_MS;
    while (transfer_sent(transfer).bytes < transfer_received(transfer).bytes && clock_now_ms() < deadline)
        sched_yield();
    struct godwit_channel_info sent = transfer_sent(transfer), received = transfer_received(transfer);
    cr_assert_eq(sent.normal + sent.duplicate, pages);
    cr_assert(transfer->setup.zeros ? sent.duplicate > 0 : sent.duplicate == 0);
    cr_assert_eq(transfer->setup.placed ? sent.placed_bytes : sent.inline_bytes, sent.normal << PAGE_SHIFT);
    cr_assert_eq(transfer->setup.placed ? sent.inline_bytes : sent.placed_bytes, 0);
    cr_assert_geq(sent.bytes, (sent.normal << PAGE_SHIFT) + (sent.packets + marks) * PACKET_HEADER_SIZE);
    cr_assert_eq(multifd_send_bytes(transfer->send), sent.bytes);
    cr_assert_eq(received.bytes, sent.bytes);
    cr_assert_eq(received.normal, sent.normal);
    cr_assert_eq(received.duplicate, sent.duplicate);
    cr_assert_eq(received.packets, sent.packets);
    cr_assert_eq(received.inline_bytes, sent.inline_bytes);
    cr_assert_eq(received.placed_bytes, sent.placed_bytes);
    cr_assert_geq(multifd_recv_progress(transfer->recv), received.bytes);
}

/* Changes random pages of the source and sends just these; returns how many. */
static uint64_t send_changes(struct transfer *transfer, uint32_t epoch)
{
    uint64_t words[TRANSFER_BLOCKS][32] = {0}, *maps[TRANSFER_BLOCKS] = {words[0], words[1]};
    uint64_t changed = 0;
    for (unsigned i = 0; i < TRANSFER_BLOCKS; i++) {
        struct ram_block *block = &transfer->source->blocks[i];
        cr_assert_leq(bitmap_words(block->pages), 32);
        for (uint64_t page = 0; page < block->pages; page++) {
            if (rand() % 4 != 0)
                continue;
            transfer_scribble(block->addr + (page << PAGE_SHIFT), 1);
            bitmap_set(maps[i], page, 1);
            changed++;
        }
    }
    cr_assert(transfer_pages(transfer, epoch, maps));
    return changed;
}

ParameterizedTestParameters(transfer, memory_arrives_equal_over_several_epochs_and_counters_add_up)
{
    return all_variants();
}

ParameterizedTest(struct variant *variant, transfer, memory_arrives_equal_over_several_epochs_and_counters_add_up)
{
    enum { EPOCHS = 5 };
    struct transfer_setup setup = setup_of(variant);
    struct transfer transfer;
    srand(variant->channels);
    transfer_open(&transfer, &setup);
    cr_assert_eq(multifd_send_channels(transfer.send), setup.channels);
    uint64_t pages = setup.pages[0] + setup.pages[1];
    cr_assert(transfer_pages(&transfer, 1, NULL));
    transfer_mark(&transfer, 1);
    transfer_expect_equal(&transfer);
    for (uint32_t epoch = 2; epoch <= EPOCHS; epoch++) {
        pages += send_changes(&transfer, epoch);
        transfer_mark(&transfer, epoch);
        transfer_expect_equal(&transfer);
    }
    expect_counters(&transfer, pages, EPOCHS * setup.channels);
    cr_assert_eq(gate_count(&transfer.send_failed), 0);
    cr_assert_eq(gate_count(&transfer.recv_failed), 0);
    multifd_recv_stop(transfer.recv);
    transfer_close(&transfer);
    cr_assert_eq(gate_count(&transfer.recv_failed), 0, "nothing is reported after stop");
    cr_assert_eq(gate_count(&transfer.markers), EPOCHS * setup.channels);
}

Test(transfer, used_block_gets_zeros_stored)
{
    for (unsigned placed = 0; placed < 2; placed++) {
        struct transfer_setup setup = transfer_setup();
        struct transfer transfer;
        setup.used = true;
        setup.placed = placed;
        transfer_open(&transfer, &setup);
        for (unsigned i = 0; i < TRANSFER_BLOCKS; i++) {
            memset(transfer.source->blocks[i].addr, 0, setup.pages[i] << PAGE_SHIFT);
            cr_assert(transfer_zeros(&transfer, 1, i, 0, (uint32_t)setup.pages[i]));
        }
        transfer_mark(&transfer, 1);
        transfer_expect_equal(&transfer);
        cr_assert_eq(transfer_sent(&transfer).duplicate, setup.pages[0] + setup.pages[1]);
        transfer_close(&transfer);
    }
}

Test(transfer, holes_of_a_fresh_block_are_announced_and_not_touched)
{
    struct transfer_setup setup = transfer_setup();
    struct transfer transfer;
    setup.pages[0] = UINT64_C(4) << 20; /* 16 GiB in one extent */
    transfer_open(&transfer, &setup);
    cr_assert(transfer_zeros(&transfer, 1, 0, 0, (uint32_t)setup.pages[0]));
    transfer_mark(&transfer, 1);
    cr_assert_eq(transfer_allocated(&transfer, 0), 0);
    cr_assert(bitmap_all_atomic(transfer.destination->blocks[0].received, 0, setup.pages[0]));
    cr_assert_lt(transfer_sent(&transfer).bytes, 1000);
    cr_assert(transfer_zeros(&transfer, 2, 0, 0, (uint32_t)setup.pages[0]));
    transfer_mark(&transfer, 2);
    cr_assert_eq(transfer_allocated(&transfer, 0), 0, "nor when they are announced again");
    transfer_close(&transfer);
}

Test(transfer, zero_pages_found_by_the_sender_are_not_allocated_in_a_fresh_block)
{
    struct transfer_setup setup = transfer_setup();
    struct transfer transfer;
    transfer_open(&transfer, &setup);
    cr_assert(transfer_pages(&transfer, 1, NULL));
    transfer_mark(&transfer, 1);
    struct godwit_channel_info received = transfer_received(&transfer);
    cr_assert(received.duplicate > 100 && received.normal > 100);
    cr_assert_eq(transfer_allocated(&transfer, 0) + transfer_allocated(&transfer, 1), received.normal << PAGE_SHIFT);
    transfer_expect_equal(&transfer);
    transfer_close(&transfer);
}

Test(transfer, page_may_become_zero_and_content_again)
{
    for (unsigned placed = 0; placed < 2; placed++) {
        struct transfer_setup setup = transfer_setup();
        struct transfer transfer;
        setup.placed = placed;
        transfer_open(&transfer, &setup);
        for (uint32_t epoch = 1; epoch <= 6; epoch++) {
            for (unsigned i = 0; i < TRANSFER_BLOCKS; i++) /* half of the pages each time, the odd ones first */
                for (uint64_t page = 0; page < setup.pages[i]; page++)
                    memset(transfer.source->blocks[i].addr + (page << PAGE_SHIFT), (page + epoch) % 2 ? 0 : (int)epoch,
                           PAGE_SIZE);
            cr_assert(transfer_pages(&transfer, epoch, NULL));
            transfer_mark(&transfer, epoch);
            transfer_expect_equal(&transfer);
        }
        transfer_close(&transfer);
    }
}

Test(transfer, pages_go_inline_until_the_keys_have_come)
{
    struct transfer_setup setup = transfer_setup();
    struct transfer transfer;
    setup.placed = setup.keys_late = true;
    setup.zeros = false;
    transfer_open(&transfer, &setup);
    uint64_t start = clock_now_ms();
    cr_assert(transfer_pages(&transfer, 1, NULL));
    transfer_mark(&transfer, 1);
    cr_assert_lt(clock_now_ms() - start, 2 * PLACEMENT_PATIENCE_MS, "patience is used up once, not once per batch");
    cr_assert_eq(transfer_sent(&transfer).placed_bytes, 0);
    transfer_expect_equal(&transfer);
    for (unsigned i = 0; i < TRANSFER_BLOCKS; i++)
        for (uint32_t k = 0; k < transfer.source->blocks[i].slice_count; k++)
            transfer_give_key(&transfer, i, k);
    cr_assert(transfer_pages(&transfer, 2, NULL));
    transfer_mark(&transfer, 2);
    cr_assert_eq(transfer_sent(&transfer).placed_bytes, (setup.pages[0] + setup.pages[1]) << PAGE_SHIFT);
    cr_assert_eq(transfer_sent(&transfer).inline_bytes, transfer_sent(&transfer).placed_bytes);
    transfer_close(&transfer);
}

/* Two adjacent slices, one of them open: every batch across their border becomes two records. */
Test(transfer, a_batch_of_both_kinds_becomes_two_records)
{
    enum { BORDER = SLICE_SIZE_MIN / PAGE_SIZE };
    struct transfer_setup setup = transfer_setup();
    struct transfer transfer;
    setup.placed = setup.keys_late = true;
    setup.channels = 1;
    transfer_open(&transfer, &setup);
    transfer_give_key(&transfer, 1, 1);
    placement_hurry(transfer.placement);
    memset(transfer.source->blocks[1].addr, 1, setup.pages[1] << PAGE_SHIFT);
    struct batch *batch = multifd_send_batch(transfer.send, 1, TRANSFER_SOON_MS);
    batch_add(batch, 1, BORDER - 100, 300, EXTENT_NORMAL);
    multifd_send_submit(transfer.send, batch);
    transfer_mark(&transfer, 1);
    struct godwit_channel_info sent = transfer_sent(&transfer);
    cr_assert_eq(sent.packets, 2);
    cr_assert_eq(sent.inline_bytes, 100 * PAGE_SIZE);
    cr_assert_eq(sent.placed_bytes, 200 * PAGE_SIZE);
    for (uint64_t page = BORDER - 100; page < BORDER + 200; page++)
        cr_assert(transfer_equal(&transfer, 1, page), "page %llu", (unsigned long long)page);
    transfer_close(&transfer);
}

Test(transfer, zeros_travel_with_placed_pages_in_one_record)
{
    struct transfer_setup setup = transfer_setup();
    struct transfer transfer;
    setup.placed = true;
    setup.channels = 1;
    transfer_open(&transfer, &setup);
    for (uint64_t page = 0; page < setup.pages[0]; page++)
        memset(transfer.source->blocks[0].addr + (page << PAGE_SHIFT), page % 2, PAGE_SIZE);
    struct batch *batch = multifd_send_batch(transfer.send, 1, TRANSFER_SOON_MS);
    batch_add(batch, 0, 0, BATCH_PAGES, EXTENT_NORMAL);
    multifd_send_submit(transfer.send, batch);
    transfer_mark(&transfer, 1);
    cr_assert_eq(transfer_sent(&transfer).packets, 1);
    cr_assert_eq(transfer_sent(&transfer).duplicate, BATCH_PAGES / 2);
    cr_assert_eq(transfer_sent(&transfer).placed_bytes, BATCH_PAGES / 2 * PAGE_SIZE);
    transfer_close(&transfer);
}

Test(transfer, limit_is_kept_in_real_time)
{
    struct transfer_setup setup = transfer_setup();
    struct transfer transfer;
    setup.zeros = false;
    setup.pages[0] = setup.pages[1] = 1000;
    setup.limit = 40000000; /* 8 MB: a fifth of a second */
    transfer_open(&transfer, &setup);
    uint64_t start = clock_now_ms();
    for (uint64_t page = 0; page < 2000; page += 50) {
        struct batch *batch = multifd_send_batch(transfer.send, 1, TRANSFER_SOON_MS);
        batch_add(batch, page >= 1000, page % 1000, 50, EXTENT_NORMAL);
        multifd_send_submit(transfer.send, batch);
    }
    transfer_mark(&transfer, 1);
    uint64_t took = clock_now_ms() - start;
    cr_assert_geq(took, 185, "%llu ms", (unsigned long long)took);
    transfer_expect_equal(&transfer);
    transfer_close(&transfer);
}

/* A guest that writes every eighth page while the pages are read. */
struct hammer {
    struct transfer *transfer;
    atomic_bool stop;
    atomic_uint_fast64_t blows;
};

static bool is_hammered(uint64_t page)
{
    return page % 8 == 3;
}

__attribute__((no_sanitize("thread"))) static void *hammer_thread(void *opaque)
{
    struct hammer *hammer = opaque;
    for (uint32_t blow = 1; !atomic_load(&hammer->stop); blow++) {
        for (unsigned i = 0; i < TRANSFER_BLOCKS; i++) {
            struct ram_block *block = &hammer->transfer->source->blocks[i];
            for (uint64_t page = 0; page < block->pages; page++)
                if (is_hammered(
                        page)) /* between zero and content, too: both reads of the zero test and of the sender */
                    memset(block->addr + (page << PAGE_SHIFT), blow % 3 ? (int)blow : 0, PAGE_SIZE);
        }
        atomic_fetch_add(&hammer->blows, 1);
    }
    return NULL;
}

ParameterizedTestParameters(transfer, hammered_pages_never_damage_others)
{
    return all_variants();
}

ParameterizedTest(struct variant *variant, transfer, hammered_pages_never_damage_others)
{
    static const unsigned late[][2] = {{1, 1}, {0, 0}, {1, 2}, {0, 1}, {1, 0}}; /* every slice, in no order */
    struct transfer_setup setup = setup_of(variant);
    setup.keys_late = variant->placed;
    struct transfer transfer;
    struct hammer hammer = {.transfer = &transfer};
    pthread_t thread;
    uint32_t epoch = 1;
    transfer_open(&transfer, &setup);
    pthread_create(&thread, NULL, hammer_thread, &hammer);
    for (; epoch <= 10 || hammer.blows < 5; epoch++) {
        cr_assert(transfer_pages(&transfer, epoch, NULL));
        if (setup.keys_late && epoch < 6) /* one more slice, while its pages are being sent */
            transfer_give_key(&transfer, late[epoch - 1][0], late[epoch - 1][1]);
        transfer_mark(&transfer, epoch);
        for (unsigned i = 0; i < TRANSFER_BLOCKS; i++)
            for (uint64_t page = 0; page < setup.pages[i]; page++)
                cr_assert(is_hammered(page) || transfer_equal(&transfer, i, page), "block %u, page %llu", i,
                          (unsigned long long)page);
    }
    hammer.stop = true;
    pthread_join(thread, NULL);
    cr_assert(transfer_pages(&transfer, epoch, NULL));
    transfer_mark(&transfer, epoch);
    transfer_expect_equal(&transfer);
    transfer_close(&transfer);
}
