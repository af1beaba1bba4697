/* The KVM guest's dirty log: exact, however it is cleared. */
#include "tests/guest/kvm_copy.h"

TestSuite(kvm_dirty, .timeout = 60);

static const enum kvm_guest_clearing all_clearing[] = {KVM_GUEST_CLEARED_EAGERLY, KVM_GUEST_CLEARED_LAZILY,
                                                       KVM_GUEST_CLEARED_BEST};

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

Test(kvm_dirty, the_dirty_log_reports_exactly_the_pages_that_were_written)
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

Test(kvm_dirty, clearing_lazily_loses_no_write)
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

Test(kvm_dirty, holes_are_not_reported_and_not_made)
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
