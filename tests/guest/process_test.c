/* The process guest through its operations, both roles, without an engine: the test moves pages and state itself. */
#include <criterion/criterion.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest/process.h"
#include "guest/process_order.h"
#include "guest/process_stamp.h"
#include "guest/process_workers.h"
#include "tests/guest/state_writer.h"
#include "tests/guest/temp_file.h"

enum { RAM = 8 << 20, PAGES = RAM / 4096, WORDS = PAGES / 64 };

TestSuite(process, .timeout = 60);

static struct process_guest *new_source(const struct process_guest_config *config)
{
    struct process_guest *guest = NULL;
    struct godwit_error error = {0};
    cr_assert_eq(process_guest_new_source(&guest, config, &error), GODWIT_OK, "%s", error.text);
    return guest;
}

static struct process_guest_config small_config(void)
{
    struct process_guest_config config;
    process_guest_config_init(&config);
    config.ram = RAM;
    config.dirty_rate = 400u << 20;
    config.pattern = PATTERN_MIXED;
    return config;
}

/* Until worker 0 has taken so many steps. Real threads, so real time passes; nothing is asserted about how much. */
static void run_steps(const struct process_guest *guest, uint64_t steps)
{
    struct process_counters counters = {0};
    while (counters.steps[0] < steps) {
        nanosleep(&(struct timespec){0, 1000000}, NULL);
        process_guest_counters(guest, &counters);
    }
}

static void stop(struct process_guest *guest)
{
    const struct godwit_guest *face = process_guest_interface(guest);
    cr_assert_eq(face->ops->stop(face->self, NULL), GODWIT_OK);
}

static void resume(struct process_guest *guest)
{
    const struct godwit_guest *face = process_guest_interface(guest);
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->resume(face->self, &error), GODWIT_OK, "%s", error.text);
}

static enum godwit_err check(struct process_guest *guest, const struct process_counters *counters,
                             struct process_check *result)
{
    struct process_view view = process_guest_image(guest);
    struct godwit_error error = {0};
    enum godwit_err err = process_guest_check(&view, counters, result, &error);
    cr_expect((err == GODWIT_OK) == (result->wrong == 0));
    return err;
}

Test(process, memory_is_right_after_any_number_of_stops)
{
    struct process_guest_config config = small_config();
    struct process_guest *guest = new_source(&config);
    struct process_counters counters;
    struct process_check result;
    process_guest_counters(guest, &counters);
    cr_expect_eq(check(guest, &counters, &result), GODWIT_OK, "before it ever ran");
    cr_assert_eq(process_guest_start(guest, NULL), GODWIT_OK);
    for (unsigned round = 1; round <= 20; round++) {
        run_steps(guest, round * 500);
        stop(guest);
        process_guest_counters(guest, &counters);
        cr_expect_eq(check(guest, &counters, &result), GODWIT_OK, "round %u: %lu wrong", round, result.wrong);
        cr_expect_eq(result.pages, PAGES);
        resume(guest);
    }
    process_guest_free(guest);
}

static struct process_guest *stopped_guest(struct process_counters *counters)
{
    struct process_guest_config config = small_config();
    struct process_guest *guest = new_source(&config);
    cr_assert_eq(process_guest_start(guest, NULL), GODWIT_OK);
    run_steps(guest, 3000);
    stop(guest);
    process_guest_counters(guest, counters);
    return guest;
}

static uint64_t hot_page_written(const struct process_counters *counters, uint64_t back)
{
    struct process_order order;
    process_order_init(&order, counters->pages, counters->hot_pages, counters->threads, 0);
    return process_order_page(&order, counters->steps[0] - 1 - back);
}

Test(process, the_check_sees_a_stale_page)
{
    struct process_counters counters;
    struct process_check result;
    struct process_guest *guest = stopped_guest(&counters);
    uint64_t page = hot_page_written(&counters, 3);
    char *at = (char *)process_guest_image(guest).addr + page * 4096;
    pattern_fill_page(counters.pattern, counters.seed, page, at);
    cr_expect_eq(check(guest, &counters, &result), GODWIT_ERR_MISMATCH);
    cr_expect_eq(result.wrong, 1);
    cr_expect_eq(result.first_wrong, page);
    process_guest_free(guest);
}

Test(process, the_check_sees_swapped_pages)
{
    struct process_counters counters;
    struct process_check result;
    struct process_guest *guest = stopped_guest(&counters);
    char *memory = process_guest_image(guest).addr, kept[4096];
    char *a = memory + hot_page_written(&counters, 1) * 4096, *b = memory + hot_page_written(&counters, 2) * 4096;
    memcpy(kept, a, 4096);
    memcpy(a, b, 4096);
    memcpy(b, kept, 4096);
    cr_expect_eq(check(guest, &counters, &result), GODWIT_ERR_MISMATCH);
    cr_expect_eq(result.wrong, 2);
    process_guest_free(guest);
}

Test(process, the_check_sees_counters_that_are_too_old_or_too_new)
{
    struct process_counters counters;
    struct process_check result;
    struct process_guest *guest = stopped_guest(&counters);
    counters.steps[1]--;
    cr_expect_eq(check(guest, &counters, &result), GODWIT_ERR_MISMATCH);
    cr_expect_eq(result.wrong, 1);
    counters.steps[1] += 4;
    cr_expect_eq(check(guest, &counters, &result), GODWIT_ERR_MISMATCH);
    cr_expect_eq(result.wrong, 3);
    process_guest_free(guest);
}

Test(process, the_check_sees_a_torn_page_and_one_wrong_byte)
{
    struct process_counters counters;
    struct process_check result;
    struct process_guest *guest = stopped_guest(&counters);
    char *memory = process_guest_image(guest).addr;
    memory[hot_page_written(&counters, 5) * 4096 + 4095] ^= 1;
    memory[RAM - 2000] ^= 1;
    cr_expect_eq(check(guest, &counters, &result), GODWIT_ERR_MISMATCH);
    cr_expect_eq(result.wrong, 2);
    process_guest_free(guest);
}

Test(process, starts_from_the_data_of_a_file)
{
    struct temp_dir dir;
    char path[128];
    temp_dir_make(&dir);
    temp_file_make(temp_path(&dir, "ram", path), 64, 1u << 5 | 1u << 31);
    struct process_guest_config config = small_config();
    config.memory_from = path;
    config.ram = 0;
    struct process_guest *guest = new_source(&config);
    struct process_view view = process_guest_image(guest);
    cr_expect_eq(view.size, 64 * 4096);
    cr_expect_eq(((char *)view.addr)[5 * 4096 + 9], 6);
    cr_assert_eq(process_guest_start(guest, NULL), GODWIT_OK);
    run_steps(guest, 5);
    stop(guest);
    struct process_counters counters;
    struct process_check result;
    process_guest_counters(guest, &counters);
    cr_expect_eq(check(guest, &counters, &result), GODWIT_OK);
    cr_expect_eq(result.pages + result.skipped, 64);
    process_guest_free(guest);
    unlink(path);
    temp_dir_remove(&dir);
}

static struct process_guest *new_destination(bool keep_image, struct godwit_block *mine)
{
    struct process_destination_config config;
    struct process_guest *guest = NULL;
    process_destination_config_init(&config);
    config.memory.keep_image = keep_image;
    cr_assert_eq(process_guest_new_destination(&guest, &config, NULL), GODWIT_OK);
    struct godwit_block offer = {.id = "pc.ram", .size = RAM, .page_size = 4096};
    const struct godwit_guest *face = process_guest_interface(guest);
    *mine = offer;
    cr_assert_eq(face->ops->accept(face->self, &offer, 1, mine, NULL), GODWIT_OK);
    return guest;
}

static void move_state(const struct process_guest *from, struct process_guest *to)
{
    const struct godwit_guest *source = process_guest_interface(from), *sink = process_guest_interface(to);
    for (unsigned i = 0; i < source->stream_count; i++) {
        struct godwit_state_writer writer = {.used = 0};
        struct godwit_error error = {0};
        cr_assert_eq(source->ops->save_rest(source->self, i, &writer, NULL), GODWIT_OK);
        cr_assert_eq(sink->ops->load(sink->self, source->streams[i], writer.bytes, writer.used, &error), GODWIT_OK,
                     "%s", error.text);
    }
}

static void copy_dirty(const uint64_t *bitmap, char *to, const char *from)
{
    for (unsigned page = 0; page < PAGES; page++)
        if (bitmap[page / 64] >> page % 64 & 1)
            memcpy(to + page * 4096, from + page * 4096, 4096);
}

/* A whole pre-copy: everything, then what is dirty, then stop and the rest. */
static void migrate(struct process_guest *from, struct process_guest *to)
{
    const struct godwit_guest *face = process_guest_interface(from);
    struct godwit_error error = {0};
    char *target = process_guest_image(to).addr;
    enum godwit_err err = face->ops->dirty_start(face->self, &error);
    if (err == GODWIT_ERR_UNSUPPORTED || err == GODWIT_ERR_SYSTEM)
        cr_skip_test("%s", error.text);
    cr_assert_eq(err, GODWIT_OK, "%s", error.text);
    memcpy(target, face->blocks[0].addr, RAM);
    for (unsigned pass = 0; pass < 30; pass++) {
        uint64_t bitmap[WORDS] = {0};
        if (pass == 29)
            stop(from);
        cr_assert_eq(face->ops->dirty_sync(face->self, 0, bitmap, &error), GODWIT_OK, "%s", error.text);
        copy_dirty(bitmap, target, face->blocks[0].addr);
    }
    face->ops->dirty_stop(face->self);
    move_state(from, to);
}

static void check_migration(bool keep_image, enum godwit_tracker_kind tracker, enum memory_backing backing)
{
    struct process_guest_config config = small_config();
    config.tracker = tracker;
    config.backing = backing;
    struct process_guest *source = new_source(&config), *target;
    struct godwit_block mine;
    struct process_counters at_source, arrived, later;
    struct process_check result;
    target = new_destination(keep_image, &mine);
    cr_assert_eq(process_guest_start(source, NULL), GODWIT_OK);
    run_steps(source, 1000);
    cr_expect_eq(process_guest_tracker(source), tracker, "as configured");
    migrate(source, target);
    cr_expect(process_guest_tracker(source) == tracker || tracker == GODWIT_TRACKER_AUTO);
    cr_expect_neq(process_guest_tracker(source), GODWIT_TRACKER_AUTO, "what was chosen");
    process_guest_counters(source, &at_source);
    cr_assert(process_guest_loaded(target, &arrived));
    cr_expect_eq(memcmp(&at_source, &arrived, sizeof arrived), 0, "the counters travelled");
    cr_expect_eq(check(target, &arrived, &result), GODWIT_OK, "%lu wrong", result.wrong);
    resume(target);
    run_steps(target, arrived.steps[0] + 2000);
    if (keep_image) {
        cr_expect_eq(check(target, &arrived, &result), GODWIT_OK, "the image stays while the guest runs");
        cr_expect_eq(memcmp(mine.addr, process_guest_image(source).addr, RAM), 0);
    } else {
        stop(target);
        process_guest_counters(target, &later);
        cr_expect_eq(check(target, &later, &result), GODWIT_OK, "it runs on where it was");
    }
    struct process_gap gap;
    process_guest_gap(target, &gap);
    cr_expect(gap.switchover_known);
    cr_expect_gt(gap.switchover_ns, 0);
    cr_expect_geq(gap.longest_ns, gap.switchover_ns);
    process_guest_free(source);
    process_guest_free(target);
}

Test(process, migrates_and_runs_on)
{
    check_migration(false, GODWIT_TRACKER_AUTO, MEMORY_MEMFD);
}
Test(process, migrates_by_scan_and_runs_on)
{
    check_migration(false, GODWIT_TRACKER_SCAN, MEMORY_MEMFD);
}
Test(process, migrates_by_fault_and_runs_on)
{
    check_migration(false, GODWIT_TRACKER_FAULT, MEMORY_MEMFD);
}
Test(process, migrates_anonymous_memory_by_scan_and_runs_on)
{
    check_migration(false, GODWIT_TRACKER_SCAN, MEMORY_ANON);
}
Test(process, migrates_anonymous_memory_by_fault_and_runs_on)
{
    check_migration(false, GODWIT_TRACKER_FAULT, MEMORY_ANON);
}
Test(process, migrates_and_keeps_the_image_of_the_switchover)
{
    check_migration(true, GODWIT_TRACKER_AUTO, MEMORY_MEMFD);
}

Test(process, stopping_is_quick_whether_workers_sleep_or_write)
{
    for (unsigned busy = 0; busy < 2; busy++) {
        struct process_guest_config config = small_config();
        config.dirty_rate = busy ? 8ull << 30 : 4096;
        struct process_guest *guest = new_source(&config);
        cr_assert_eq(process_guest_start(guest, NULL), GODWIT_OK);
        uint64_t best = UINT64_MAX;
        for (unsigned i = 0; i < 50; i++) {
            nanosleep(&(struct timespec){0, 1000000}, NULL);
            uint64_t before = process_now();
            stop(guest);
            uint64_t took = process_now() - before;
            best = took < best ? took : best;
            resume(guest);
        }
        cr_expect_lt(best, 2000000, "the best of 50 stops took %lu ns", best); /* the best: others share the machine */
        process_guest_free(guest);
    }
}

Test(process, keeps_its_rate)
{
    struct process_guest_config config = small_config();
    config.dirty_rate = 40 << 20;
    struct process_guest *guest = new_source(&config);
    struct process_counters counters;
    uint64_t before = process_now(); /* its threads may be at work before start returns here */
    cr_assert_eq(process_guest_start(guest, NULL), GODWIT_OK);
    run_steps(guest, 2500);
    stop(guest);
    uint64_t took = process_now() - before;
    process_guest_counters(guest, &counters);
    uint64_t most = 10240 * (took + 1000000) / 1000000000 + 2;
    cr_expect_leq(counters.steps[0] + counters.steps[1], most, "never faster than asked");
    process_guest_free(guest);
}

Test(process, refuses_offers_that_are_not_one_block_of_ram)
{
    struct process_destination_config config;
    struct process_guest *guest;
    struct godwit_error error = {0};
    process_destination_config_init(&config);
    cr_assert_eq(process_guest_new_destination(&guest, &config, NULL), GODWIT_OK);
    const struct godwit_guest *face = process_guest_interface(guest);
    struct godwit_block offer[2] = {{.id = "pc.ram", .size = RAM}, {.id = "vga", .size = RAM}}, mine[2];
    cr_expect_eq(face->ops->accept(face->self, offer, 2, mine, &error), GODWIT_ERR_MISMATCH);
    cr_expect_eq(face->ops->accept(face->self, offer + 1, 1, mine, &error), GODWIT_ERR_MISMATCH);
    cr_expect(strstr(error.text, "vga"), "%s", error.text);
    offer[0].size = 5000;
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_ERR_INVALID);
    offer[0].size = UINT64_MAX - 4095;
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_ERR_TOO_BIG);
    offer[0].size = RAM;
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_OK);
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_ERR_BUSY);
    cr_expect_eq(face->ops->resume(face->self, &error), GODWIT_ERR_GUEST, "nothing was loaded");
    face->ops->discard(face->self);
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_OK, "as new after discard");
    process_guest_free(guest);
}

Test(process, refuses_every_truncation_and_every_impossible_state)
{
    struct process_counters counters;
    struct process_guest *source = stopped_guest(&counters), *target;
    struct godwit_block mine;
    target = new_destination(false, &mine);
    const struct godwit_guest *face = process_guest_interface(target), *from = process_guest_interface(source);
    for (unsigned stream = 0; stream < from->stream_count; stream++) {
        struct godwit_state_writer writer = {.used = 0};
        cr_assert_eq(from->ops->save_rest(from->self, stream, &writer, NULL), GODWIT_OK);
        for (size_t size = 0; size <= writer.used + 1; size++)
            cr_expect_eq(face->ops->load(face->self, from->streams[stream], writer.bytes, size, NULL) == GODWIT_OK,
                         size == writer.used, "%s of %zu bytes", from->streams[stream], size);
        for (size_t at = 0; at < writer.used; at++) { /* whatever is accepted must be safe to run on */
            writer.bytes[at] ^= 0xff;
            (void)face->ops->load(face->self, from->streams[stream], writer.bytes, writer.used, NULL);
            writer.bytes[at] ^= 0xff;
        }
        writer.bytes[3]++;
        cr_expect_eq(face->ops->load(face->self, from->streams[stream], writer.bytes, writer.used, NULL),
                     GODWIT_ERR_GUEST);
    }
    cr_expect_eq(face->ops->load(face->self, "floppy", "x", 1, NULL), GODWIT_ERR_GUEST);
    uint8_t bytes[PROCESS_PLAN_STATE_MAX];
    struct process_counters bad = counters, out;
    bad.steps[1] = PROCESS_STEPS_MAX + 1;
    cr_expect_eq(process_plan_load(&out, bytes, process_plan_save(&bad, bytes), PAGES, NULL), GODWIT_ERR_GUEST);
    bad = counters;
    bad.hot_pages = PAGES + 1;
    cr_expect_eq(process_plan_load(&out, bytes, process_plan_save(&bad, bytes), PAGES, NULL), GODWIT_ERR_GUEST);
    cr_expect_eq(process_plan_load(&out, bytes, process_plan_save(&counters, bytes), PAGES + 1, NULL),
                 GODWIT_ERR_GUEST);
    cr_expect_eq(process_plan_load(&out, bytes, process_plan_save(&counters, bytes), PAGES, NULL), GODWIT_OK);
    process_guest_free(source);
    process_guest_free(target);
}

Test(process, the_clock_of_another_boot_leaves_the_gap_unknown)
{
    struct process_clock here, there;
    struct process_gap gap;
    uint8_t bytes[PROCESS_CLOCK_STATE];
    process_clock_init(&there);
    process_clock_tick(&there, 1000);
    process_clock_tick(&there, 6000);
    process_clock_save(&there, bytes);
    process_clock_init(&here);
    cr_assert_eq(process_clock_load(&here, bytes, sizeof bytes, 7000, NULL), GODWIT_OK);
    process_clock_tick(&here, 9000000);
    process_clock_gap(&here, &gap);
    cr_expect(gap.switchover_known && gap.switchover_ns == 8994000 && gap.longest_ns == 8994000);

    there.boot_id[0] ^= 1;
    process_clock_save(&there, bytes);
    cr_assert_eq(process_clock_load(&here, bytes, sizeof bytes, 7000, NULL), GODWIT_OK);
    process_clock_tick(&here, 9000000);
    process_clock_gap(&here, &gap);
    cr_expect_not(gap.switchover_known);
    cr_expect_eq(gap.longest_ns, 5000, "the source's longest gap is kept");
}

Test(process, refuses_bad_configurations)
{
    struct process_guest *guest;
    struct process_guest_config config = small_config();
    config.hot_set = RAM + 4096;
    cr_expect_eq(process_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID);
    config = small_config();
    config.threads = 0;
    cr_expect_eq(process_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID);
    config = small_config();
    config.ram = 0;
    cr_expect_eq(process_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID);
}
