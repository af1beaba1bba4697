/* What the tests of the dirty tracker share. Each case runs with each kind of tracker, or is skipped with the reason. */
#ifndef TESTS_GUEST_TRACKER_CASE_H
#define TESTS_GUEST_TRACKER_CASE_H

#include <criterion/criterion.h>
#include <string.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/memory.h"

enum { PAGES = 2048, WORDS = PAGES / 64, PAGE_WORDS = 512 };

TestSuite(tracker_scan, .timeout = 60);
TestSuite(tracker_fault, .timeout = 60);

/* One case, run with each kind of tracker: TRACKER_TEST(name) { ... kind ... } */
#define TRACKER_TEST(name)                                    \
    static void name(enum godwit_tracker_kind kind);          \
    Test(tracker_scan, name) { name(GODWIT_TRACKER_SCAN); }   \
    Test(tracker_fault, name) { name(GODWIT_TRACKER_FAULT); } \
    static void name(enum godwit_tracker_kind kind)

static inline struct godwit_tracker *open_tracker(enum godwit_tracker_kind kind)
{
    struct godwit_tracker *tracker = NULL;
    struct godwit_error error = {0};
    enum godwit_err err = godwit_tracker_new_kind(kind, &tracker, &error);
    if (err == GODWIT_ERR_UNSUPPORTED || err == GODWIT_ERR_SYSTEM)
        cr_skip_test("%s", error.text);
    cr_assert_eq(err, GODWIT_OK, "%s", error.text);
    return tracker;
}

static inline struct memory get_ram(enum memory_backing backing, uint64_t pages)
{
    struct memory ram;
    struct godwit_error error = {0};
    cr_assert_eq(memory_alloc(&ram, backing, pages * 4096, false, &error), GODWIT_OK, "%s", error.text);
    return ram;
}

static inline void start(struct godwit_tracker *tracker, struct memory *ram)
{
    struct godwit_error error = {0};
    cr_assert_eq(godwit_tracker_add(tracker, ram->addr, ram->size, &error), GODWIT_OK, "%s", error.text);
    cr_assert_eq(godwit_tracker_start(tracker, &error), GODWIT_OK, "%s", error.text);
}

static inline unsigned sync_count(struct godwit_tracker *tracker, struct memory *ram, uint64_t *bitmap)
{
    struct godwit_error error = {0};
    memset(bitmap, 0, ram->size / 4096 / 8);
    cr_assert_eq(godwit_tracker_sync(tracker, ram->addr, ram->size, bitmap, &error), GODWIT_OK, "%s", error.text);
    unsigned count = 0;
    for (uint64_t i = 0; i < ram->size / 4096 / 64; i++)
        count += (unsigned)__builtin_popcountll(bitmap[i]);
    return count;
}

static inline bool has(const uint64_t *bitmap, unsigned page)
{
    return bitmap[page / 64] >> page % 64 & 1;
}

#endif
