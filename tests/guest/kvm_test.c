/*
 * The KVM guest through its operations, both roles, without an engine: the test moves pages and state itself. Where
 * /dev/kvm cannot be used every test that needs it is skipped with the reason. Sizes are small: where KVM itself is
 * virtualised the first touch of a page takes some 10 us.
 */
#include <criterion/criterion.h>
#include <string.h>
#include <time.h>

#include "guest/kvm.h"
#include "guest/process_workers.h"
#include "tests/guest/state_writer.h"

enum { RAM = 8 << 20, PAGES = RAM / 4096, WORDS = PAGES / 64, SYSTEM_PAGES = 4 };

TestSuite(kvm, .timeout = 60);

static struct kvm_guest_config small_config(void)
{
    struct kvm_guest_config config;
    kvm_guest_config_init(&config);
    config.ram = RAM;
    config.dirty_rate = 400u << 20;
    config.pattern = PATTERN_MIXED;
    return config;
}

static struct kvm_guest *new_source(const struct kvm_guest_config *config)
{
    struct kvm_guest *guest = NULL;
    struct godwit_error error = {0};
    enum godwit_err err = kvm_guest_new_source(&guest, config, &error);
    if (err && strstr(error.text, "/dev/kvm"))
        cr_skip_test("%s", error.text);
    cr_assert_eq(err, GODWIT_OK, "%s", error.text);
    return guest;
}

static uint64_t total(const struct kvm_guest *guest)
{
    struct process_counters counters;
    uint64_t steps = 0;
    kvm_guest_counters(guest, &counters);
    for (unsigned i = 0; i < counters.threads; i++)
        steps += counters.steps[i];
    return steps;
}

/* Until so many pages were counted. Real processors, so real time passes; nothing is asserted about how much. */
static void run_steps(const struct kvm_guest *guest, uint64_t steps)
{
    while (total(guest) < steps)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
}

static void start(struct kvm_guest *guest)
{
    struct godwit_error error = {0};
    cr_assert_eq(kvm_guest_start(guest, &error), GODWIT_OK, "%s", error.text);
}

static void stop(struct kvm_guest *guest)
{
    const struct godwit_guest *face = kvm_guest_interface(guest);
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->stop(face->self, &error), GODWIT_OK, "%s", error.text);
}

static void resume(struct kvm_guest *guest)
{
    const struct godwit_guest *face = kvm_guest_interface(guest);
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->resume(face->self, &error), GODWIT_OK, "%s", error.text);
}

static enum godwit_err check_view(struct process_view view, const struct process_counters *counters,
                                  struct godwit_error *error)
{
    struct process_check result;
    enum godwit_err err = kvm_guest_check(&view, counters, &result, error);
    cr_expect(err || result.wrong == 0);
    return err;
}

static enum godwit_err check(const struct kvm_guest *guest, const struct process_counters *counters,
                             struct godwit_error *error)
{
    return check_view(kvm_guest_image(guest), counters, error);
}

Test(kvm, memory_is_right_after_any_number_of_stops)
{
    for (unsigned cpus = 1; cpus <= 3; cpus++) {
        struct kvm_guest_config config = small_config();
        config.cpus = cpus;
        config.pattern = (enum pattern)(cpus - 1);
        struct kvm_guest *guest = new_source(&config);
        struct process_counters counters;
        struct godwit_error error = {0};
        kvm_guest_counters(guest, &counters);
        cr_expect_eq(check(guest, &counters, &error), GODWIT_OK, "before it ever ran: %s", error.text);
        start(guest);
        for (unsigned round = 1; round <= 60; round++) {
            run_steps(guest, round * 300);
            stop(guest);
            kvm_guest_counters(guest, &counters);
            cr_expect_eq(check(guest, &counters, &error), GODWIT_OK, "%u processors, round %u: %s", cpus, round,
                         error.text);
            resume(guest);
        }
        kvm_guest_free(guest);
    }
}

Test(kvm, nothing_changes_while_it_is_stopped)
{
    struct kvm_guest_config config = small_config();
    struct kvm_guest *guest = new_source(&config);
    static char before[RAM];
    start(guest);
    run_steps(guest, 3000);
    stop(guest);
    struct process_view view = kvm_guest_image(guest);
    memcpy(before, view.addr, RAM);
    nanosleep(&(struct timespec){0, 30000000}, NULL);
    cr_expect_eq(memcmp(before, view.addr, RAM), 0);
    kvm_guest_free(guest);
}

static struct kvm_guest *stopped_guest(const struct kvm_guest_config *config, struct process_counters *counters)
{
    struct kvm_guest *guest = new_source(config);
    start(guest);
    run_steps(guest, 5000); /* more than two rounds */
    stop(guest);
    kvm_guest_counters(guest, counters);
    return guest;
}

/* A page of processor 0's share, well away from where the processor is. */
static uint64_t quiet_page(const struct process_counters *counters)
{
    uint64_t share = (PAGES - SYSTEM_PAGES) / counters->threads;
    return SYSTEM_PAGES + (counters->steps[0] + share / 2) % share;
}

static uint8_t *byte_of(const struct kvm_guest *guest, uint64_t page)
{
    return (uint8_t *)kvm_guest_image(guest).addr + page * 4096;
}

Test(kvm, the_check_sees_a_page_that_is_a_round_too_old)
{
    struct kvm_guest_config config = small_config();
    struct process_counters counters;
    struct godwit_error error = {0};
    struct kvm_guest *guest = stopped_guest(&config, &counters);
    cr_assert_eq(check(guest, &counters, &error), GODWIT_OK, "%s", error.text);
    --*byte_of(guest, quiet_page(&counters));
    cr_expect_eq(check(guest, &counters, &error), GODWIT_ERR_MISMATCH);
    cr_expect(strstr(error.text, "single-step"), "%s", error.text);
    ++*byte_of(guest, quiet_page(&counters));
    cr_expect_eq(check(guest, &counters, &error), GODWIT_OK);

    uint64_t last = SYSTEM_PAGES + (PAGES - SYSTEM_PAGES) / 2 -
                    1; /* of the share: the rule alone takes this for the place */
    ++*byte_of(guest, last);
    cr_expect_eq(check(guest, &counters, &error), GODWIT_ERR_MISMATCH);
    kvm_guest_free(guest);
}

Test(kvm, the_check_sees_memory_and_registers_of_different_moments)
{
    struct kvm_guest_config config = small_config();
    struct process_counters counters;
    struct godwit_error error = {0};
    struct kvm_guest *guest = stopped_guest(&config, &counters);
    for (int by = -2; by <= 2; by++) {
        struct process_counters other = counters;
        other.steps[1] += (uint64_t)(int64_t)by;
        cr_expect_eq(check(guest, &other, &error) == GODWIT_OK, by == 0, "%d steps off", by);
    }
    cr_expect(strstr(error.text, "processor 1"), "%s", error.text);
    struct process_counters other = counters;
    other.steps[0] += 256 * ((PAGES - SYSTEM_PAGES) / 2); /* counters are modulo 256 rounds */
    cr_expect_eq(check(guest, &other, &error), GODWIT_OK);
    other.steps[0] += (PAGES - SYSTEM_PAGES) / 2;
    cr_expect_eq(check(guest, &other, &error), GODWIT_ERR_MISMATCH, "a whole round off");
    kvm_guest_free(guest);
}

Test(kvm, the_check_sees_swapped_pages_and_one_wrong_byte_anywhere)
{
    struct kvm_guest_config config = small_config();
    config.pattern = PATTERN_RANDOM;
    struct process_counters counters;
    struct godwit_error error = {0};
    struct kvm_guest *guest = stopped_guest(&config, &counters);
    static uint8_t kept[4096];
    uint8_t *a = byte_of(guest, quiet_page(&counters)), *b = a + 4096;
    memcpy(kept, a, 4096);
    memcpy(a, b, 4096);
    memcpy(b, kept, 4096);
    cr_expect_eq(check(guest, &counters, &error), GODWIT_ERR_MISMATCH);
    cr_expect(strstr(error.text, "2 of"), "the rule does not see it, the content does: %s", error.text);
    memcpy(kept, a, 4096);
    memcpy(a, b, 4096);
    memcpy(b, kept, 4096);
    cr_expect_eq(check(guest, &counters, &error), GODWIT_OK);
    for (uint64_t at = 100; at < RAM; at += 1 << 20) {
        uint8_t *byte = byte_of(guest, 0) + at;
        *byte ^= 4;
        cr_expect_eq(check(guest, &counters, &error), GODWIT_ERR_MISMATCH, "byte %lu", at);
        *byte ^= 4;
    }
    kvm_guest_free(guest);
}

static const enum kvm_guest_clearing all_clearing[] = {KVM_GUEST_CLEARED_EAGERLY, KVM_GUEST_CLEARED_LAZILY,
                                                       KVM_GUEST_CLEARED_BEST};

static const struct godwit_guest *arm(struct kvm_guest *guest)
{
    const struct godwit_guest *face = kvm_guest_interface(guest);
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->dirty_start(face->self, &error), GODWIT_OK, "%s", error.text);
    return face;
}

static void sync_log(const struct godwit_guest *face, uint64_t *bitmap)
{
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->dirty_sync(face->self, 0, bitmap, &error), GODWIT_OK, "%s", error.text);
}

static void clear_log(const struct godwit_guest *face, uint64_t first, uint64_t pages)
{
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->dirty_clear(face->self, 0, first, pages, &error), GODWIT_OK, "%s", error.text);
}

static unsigned differing(const char *a, const char *b, const uint64_t *bitmap, unsigned *unreported)
{
    unsigned count = 0;
    for (unsigned page = 0; page < PAGES; page++)
        if (memcmp(a + page * 4096, b + page * 4096, 4096) != 0) {
            count++;
            *unreported += !(bitmap[page / 64] >> page % 64 & 1);
        }
    return count;
}

static unsigned bits_of(const uint64_t *bitmap)
{
    unsigned bits = 0;
    for (unsigned word = 0; word < WORDS; word++)
        bits += (unsigned)__builtin_popcountll(bitmap[word]);
    return bits;
}

/* One pass as the library does it: sync, then for every run of dirty pages clear and read. */
static void copy_pass(const struct godwit_guest *face, uint64_t *bitmap, char *to)
{
    const char *from = face->blocks[0].addr;
    for (uint64_t page = 0; page < PAGES; page++) {
        uint64_t run = 0;
        while (page + run < PAGES && run < 37 && bitmap[(page + run) / 64] >> (page + run) % 64 & 1)
            run++;
        if (run == 0)
            continue;
        clear_log(face, page, run);
        memcpy(to + page * 4096, from + page * 4096, run * 4096);
        page += run - 1;
    }
    memset(bitmap, 0, WORDS * sizeof *bitmap);
}

/* Leaves one dirty page in the bitmap. */
static void copy_all_but_one(const struct godwit_guest *face, uint64_t *bitmap, char *to)
{
    unsigned word = 0;
    while (word < WORDS && bitmap[word] == 0)
        word++;
    if (word == WORDS)
        return;
    uint64_t left = bitmap[word] & -bitmap[word];
    bitmap[word] ^= left;
    copy_pass(face, bitmap, to);
    bitmap[word] = left;
}

static void mark_data(const struct godwit_guest *face, uint64_t *bitmap)
{
    for (uint64_t from = 0, first, pages; from < PAGES; from = first + pages) {
        cr_assert_eq(face->ops->next_data(face->self, 0, from, &first, &pages, NULL), GODWIT_OK);
        if (pages == 0)
            break;
        for (uint64_t page = first; page < first + pages; page++)
            bitmap[page / 64] |= 1ull << page % 64;
    }
}

Test(kvm, the_dirty_log_reports_exactly_the_pages_that_were_written)
{
    static char copy[RAM];
    for (unsigned mode = 0; mode < 3; mode++) {
        struct kvm_guest_config config = small_config();
        config.clearing = all_clearing[mode];
        config.dirty_rate = 2 << 20; /* few pages a round, so that some stay clean */
        struct kvm_guest *guest = new_source(&config);
        uint64_t bitmap[WORDS] = {0};
        start(guest);
        run_steps(guest, 10);
        const struct godwit_guest *face = arm(guest);
        mark_data(face, bitmap);
        copy_pass(face, bitmap, copy);
        for (unsigned round = 0; round < 20; round++) {
            uint64_t steps = total(guest); /* running: at most what it is */
            sync_log(face, bitmap);
            copy_pass(face, bitmap, copy);
            run_steps(guest, steps + 20);
            stop(guest);
            sync_log(face, bitmap);
            unsigned unreported = 0, changed = differing(copy, kvm_guest_image(guest).addr, bitmap, &unreported);
            cr_expect_eq(unreported, 0, "mode %u, round %u: %u of %u lost", mode, round, unreported, changed);
            cr_expect_leq(bits_of(bitmap), total(guest) - steps, "mode %u, round %u: no page without a write", mode,
                          round);
            cr_expect_gt(bits_of(bitmap), 0);
            resume(guest);
            copy_pass(face, bitmap, copy);
        }
        face->ops->dirty_stop(face->self);
        kvm_guest_free(guest);
    }
}

Test(kvm, clearing_lazily_loses_no_write)
{
    static char copy[RAM];
    for (unsigned mode = 0; mode < 3; mode++)
        for (unsigned zeros = 0; zeros < 2; zeros++) {
            struct kvm_guest_config config = small_config();
            config.clearing = all_clearing[mode];
            config.dirty_rate = 8ull << 30;                         /* as fast as it can */
            config.pattern = zeros ? PATTERN_ZERO : PATTERN_RANDOM; /* zeros: holes become pages meanwhile */
            struct kvm_guest *guest = new_source(&config);
            uint64_t bitmap[WORDS] = {0};
            start(guest);
            for (unsigned round = 0; round < 8; round++) { /* each round a migration, all but the last given up */
                const struct godwit_guest *face = arm(guest);
                memset(copy, 0, RAM);
                mark_data(face, bitmap);
                for (unsigned pass = 0; pass < 12; pass++) {
                    copy_pass(face, bitmap, copy);
                    if (pass == 11)
                        stop(guest);
                    sync_log(face, bitmap);
                }
                copy_all_but_one(face, bitmap, copy);
                if (round % 2) { /* it runs on under the same log; what was left out is read now, its neighbours not */
                    resume(guest);
                    run_steps(guest, total(guest) + PAGES);
                    copy_pass(face, bitmap, copy);
                    stop(guest);
                    sync_log(face, bitmap);
                }
                copy_pass(face, bitmap, copy);
                cr_expect_eq(memcmp(copy, kvm_guest_image(guest).addr, RAM), 0, "mode %u, round %u", mode, round);
                face->ops->dirty_stop(face->self);
                resume(guest);
            }
            kvm_guest_free(guest);
        }
}

Test(kvm, holes_are_not_reported_and_not_made)
{
    struct kvm_guest_config config = small_config();
    config.pattern = PATTERN_ZERO;
    config.dirty_rate = 0;
    struct kvm_guest *guest = new_source(&config);
    uint64_t bitmap[WORDS] = {0};
    struct process_counters counters;
    struct godwit_error error = {0};
    start(guest);
    const struct godwit_guest *face = arm(guest);
    mark_data(face, bitmap);
    cr_expect_leq(bits_of(bitmap), 16, "%u pages exist", bits_of(bitmap));
    sync_log(face, bitmap);
    cr_expect_leq(bits_of(bitmap), 16, "%u pages are reported", bits_of(bitmap));
    stop(guest);
    kvm_guest_counters(guest, &counters);
    cr_expect_eq(check(guest, &counters, &error), GODWIT_OK, "%s", error.text);
    memset(bitmap, 0, sizeof bitmap);
    mark_data(face, bitmap);
    cr_expect_leq(bits_of(bitmap), 16, "%u pages exist after the check", bits_of(bitmap));
    kvm_guest_free(guest);
}

Test(kvm, stopping_is_quick_whether_processors_sleep_or_write)
{
    for (unsigned busy = 0; busy < 2; busy++) {
        struct kvm_guest_config config = small_config();
        config.dirty_rate = busy ? 8ull << 30 : 0;
        struct kvm_guest *guest = new_source(&config);
        uint64_t best = UINT64_MAX;
        start(guest);
        for (unsigned i = 0; i < 50; i++) {
            nanosleep(&(struct timespec){0, 1000000}, NULL);
            uint64_t before = process_now();
            stop(guest);
            uint64_t took = process_now() - before;
            best = took < best ? took : best;
            resume(guest);
        }
        cr_expect_lt(best, 2000000, "the best of 50 stops took %lu ns", best); /* the best: others share the machine */
        kvm_guest_free(guest);
    }
}

static struct kvm_guest *new_destination(bool keep_image)
{
    struct incoming_config config;
    struct kvm_guest *guest = NULL;
    struct godwit_error error = {0};
    incoming_config_init(&config);
    config.keep_image = keep_image;
    enum godwit_err err = kvm_guest_new_destination(&guest, &config, &error);
    if (err && strstr(error.text, "/dev/kvm"))
        cr_skip_test("%s", error.text);
    cr_assert_eq(err, GODWIT_OK, "%s", error.text);
    return guest;
}

static void accept_ram(struct kvm_guest *guest)
{
    struct godwit_block offer = {.id = "pc.ram", .size = RAM, .page_size = 4096}, mine = offer;
    struct godwit_error error = {0};
    const struct godwit_guest *face = kvm_guest_interface(guest);
    cr_assert_eq(face->ops->accept(face->self, &offer, 1, &mine, &error), GODWIT_OK, "%s", error.text);
}

static struct godwit_state_writer saved(const struct kvm_guest *from, unsigned stream)
{
    const struct godwit_guest *face = kvm_guest_interface(from);
    struct godwit_state_writer writer = {.used = 0};
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->save_rest(face->self, stream, &writer, &error), GODWIT_OK, "%s", error.text);
    return writer;
}

static enum godwit_err load(struct kvm_guest *to, const char *name, const void *bytes, size_t size)
{
    const struct godwit_guest *face = kvm_guest_interface(to);
    return face->ops->load(face->self, name, bytes, size, NULL);
}

static void move_state(const struct kvm_guest *from, struct kvm_guest *to)
{
    const struct godwit_guest *face = kvm_guest_interface(from);
    for (unsigned i = 0; i < face->stream_count; i++) {
        struct godwit_state_writer writer = saved(from, i);
        cr_assert_eq(load(to, face->streams[i], writer.bytes, writer.used), GODWIT_OK, "%s", face->streams[i]);
    }
}

static void check_migration(bool keep_image)
{
    struct kvm_guest_config config = small_config();
    struct kvm_guest *source = new_source(&config), *target = new_destination(keep_image);
    struct process_counters at_source, arrived, later;
    struct godwit_error error = {0};
    uint64_t bitmap[WORDS] = {0};
    accept_ram(target);
    start(source);
    run_steps(source, 3000);
    const struct godwit_guest *face = arm(source);
    mark_data(face, bitmap);
    for (unsigned pass = 0; pass < 10; pass++) {
        copy_pass(face, bitmap, kvm_guest_image(target).addr);
        if (pass == 9)
            stop(source);
        sync_log(face, bitmap);
    }
    copy_pass(face, bitmap, kvm_guest_image(target).addr);
    face->ops->dirty_stop(face->self);
    move_state(source, target);
    kvm_guest_counters(source, &at_source);
    cr_assert(kvm_guest_loaded(target, &arrived));
    cr_expect_eq(memcmp(&at_source, &arrived, sizeof arrived), 0, "the counters travelled");
    cr_expect_eq(check(target, &arrived, &error), GODWIT_OK, "%s", error.text);
    cr_expect_not(kvm_guest_alive(target), "not resumed yet");
    resume(target);
    run_steps(target, total(source) + 6000);
    while (!kvm_guest_alive(target)) /* for ever: the suite's timeout */
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    stop(target);
    kvm_guest_counters(target, &later);
    static _Alignas(4096) char running[RAM];
    memcpy(running, kvm_guest_memory(target), RAM);
    cr_expect_eq(check_view((struct process_view){running, RAM, -1}, &later, &error), GODWIT_OK,
                 "it runs on where it was: %s", error.text);
    if (keep_image) {
        cr_expect_eq(check(target, &arrived, &error), GODWIT_OK, "the image stays: %s", error.text);
        cr_expect_eq(memcmp(kvm_guest_image(target).addr, kvm_guest_image(source).addr, RAM), 0);
    }
    struct process_gap gap;
    kvm_guest_gap(target, &gap);
    cr_expect(gap.switchover_known);
    cr_expect_geq(gap.longest_ns, gap.switchover_ns);
    kvm_guest_free(source);
    kvm_guest_free(target);
}

Test(kvm, migrates_and_runs_on)
{
    check_migration(false);
}
Test(kvm, migrates_and_keeps_the_image_of_the_switchover)
{
    check_migration(true);
}

Test(kvm, refuses_every_truncation_and_every_impossible_state)
{
    struct kvm_guest_config config = small_config();
    struct process_counters counters;
    struct kvm_guest *source = stopped_guest(&config, &counters), *target = new_destination(false);
    const struct godwit_guest *from = kvm_guest_interface(source);
    struct godwit_state_writer machine = saved(source, 0), cpu = saved(source, 1);
    accept_ram(target);
    cr_expect_eq(load(target, "cpu", cpu.bytes, cpu.used), GODWIT_ERR_GUEST, "before the machine");
    for (unsigned stream = 0; stream < from->stream_count; stream++) {
        struct godwit_state_writer good = saved(source, stream);
        for (size_t size = 0; size <= good.used + 1; size++)
            if (size != good.used)
                cr_expect_eq(load(target, from->streams[stream], good.bytes, size), GODWIT_ERR_GUEST, "%s of %zu bytes",
                             from->streams[stream], size);
        good.bytes[3]++;
        cr_expect_eq(load(target, from->streams[stream], good.bytes, good.used), GODWIT_ERR_GUEST, "a later version");
        good.bytes[3]--;
        cr_expect_eq(load(target, from->streams[stream], good.bytes, good.used), GODWIT_OK);
    }
    cr_expect_eq(load(target, "machine", machine.bytes, machine.used), GODWIT_ERR_GUEST, "twice");
    cr_expect_eq(load(target, "floppy", "x", 1), GODWIT_ERR_GUEST);
    unsigned refused = 0;
    for (size_t at = 8; at < cpu.used; at++) { /* whatever is accepted must be safe to run on */
        cpu.bytes[at] ^= 0xff;
        refused += load(target, "cpu", cpu.bytes, cpu.used) != GODWIT_OK;
        cpu.bytes[at] ^= 0xff;
    }
    cr_expect_gt(refused, 100, "%u of %zu", refused, cpu.used);
    kvm_guest_free(source);
    kvm_guest_free(target);
}

Test(kvm, a_processor_that_leaves_its_program_is_reported)
{
    struct kvm_guest_config config = small_config();
    struct process_counters counters;
    struct kvm_guest *source = stopped_guest(&config, &counters), *target = new_destination(false);
    struct godwit_error error = {0};
    accept_ram(target); /* and nothing arrives in it: not even page tables */
    move_state(source, target);
    const struct godwit_guest *face = kvm_guest_interface(target);
    enum godwit_err err = GODWIT_OK;
    while (!err) { /* for ever: the suite's timeout */
        resume(target);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
        err = face->ops->stop(face->self, &error);
    }
    cr_expect_eq(err, GODWIT_ERR_GUEST);
    cr_expect(strstr(error.text, "left its program"), "%s", error.text);
    kvm_guest_free(source);
    kvm_guest_free(target);
}

Test(kvm, refuses_offers_that_are_not_one_block_of_ram)
{
    struct kvm_guest *guest = new_destination(false);
    struct godwit_error error = {0};
    const struct godwit_guest *face = kvm_guest_interface(guest);
    struct godwit_block offer[2] = {{.id = "pc.ram", .size = RAM}, {.id = "vga", .size = RAM}}, mine[2];
    cr_expect_eq(face->ops->accept(face->self, offer, 2, mine, &error), GODWIT_ERR_MISMATCH);
    cr_expect_eq(face->ops->accept(face->self, offer + 1, 1, mine, &error), GODWIT_ERR_MISMATCH);
    cr_expect(strstr(error.text, "vga"), "%s", error.text);
    offer[0].size = 5000;
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_ERR_INVALID);
    offer[0].size = RAM;
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_OK);
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_ERR_BUSY);
    cr_expect_eq(face->ops->resume(face->self, &error), GODWIT_ERR_GUEST, "nothing was loaded");
    face->ops->discard(face->self);
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_OK, "as new after discard");
    kvm_guest_free(guest);
}

Test(kvm, refuses_bad_configurations)
{
    struct kvm_guest_config config = small_config();
    struct kvm_guest *guest = new_source(&config);
    kvm_guest_free(guest);
    config.cpus = 0;
    cr_expect_eq(kvm_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID);
    config.cpus = KVM_GUEST_CPUS_MAX + 1;
    cr_expect_eq(kvm_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID);
    config = small_config();
    config.ram = 5 * 4096;
    cr_expect_eq(kvm_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID, "no page for one of two processors");
    config = small_config();
    config.ram = (1ull << 39) + 4096;
    cr_expect_eq(kvm_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID);
    config = small_config();
    config.pattern = PATTERN_FILE;
    cr_expect_eq(kvm_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID);
}
