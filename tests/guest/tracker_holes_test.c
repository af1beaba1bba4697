/* The dirty tracker and memory that does not exist yet, or no longer: it is reported when written, and stays a hole. */
#include <sys/mman.h>
#include <unistd.h>

#include "tests/guest/tracker_case.h"

static void check_holes(enum godwit_tracker_kind kind, enum memory_backing backing, bool huge)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(backing, PAGES);
    uint64_t bitmap[WORDS];
    volatile char *bytes = ram.addr;
    if (!huge)
        madvise(ram.addr, ram.size, MADV_NOHUGEPAGE);
    start(tracker, &ram);
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0);
    char sum = bytes[5 * 4096];
    (void)sum;
    unsigned touched = kind == GODWIT_TRACKER_FAULT && backing == MEMORY_ANON;
    cr_expect_eq(sync_count(tracker, &ram, bitmap), touched, "reading a hole is not writing, but a first touch");
    cr_expect_eq(bytes[5 * 4096], 0);
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0, "reading it again is neither");
    bytes[5 * 4096] = 1;
    bytes[1500 * 4096] = 1;
    unsigned count = sync_count(tracker, &ram, bitmap);
    cr_expect(huge ? count >= 2 : count == 2, "%u pages", count);
    cr_expect(has(bitmap, 5) && has(bitmap, 1500));
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0);
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(reports_holes_that_are_filled_in_a_memfd)
{
    check_holes(kind, MEMORY_MEMFD, true);
}
TRACKER_TEST(reports_holes_that_are_filled_in_anonymous_memory)
{
    check_holes(kind, MEMORY_ANON, false);
}
TRACKER_TEST(reports_holes_that_are_filled_by_huge_pages)
{
    check_holes(kind, MEMORY_ANON, true);
}

TRACKER_TEST(keeps_holes_of_anonymous_memory_visible_while_started)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_ANON, PAGES);
    madvise(ram.addr, ram.size, MADV_NOHUGEPAGE);
    memset((char *)ram.addr + 100 * 4096, 1, 7 * 4096);
    start(tracker, &ram);
    uint64_t first, pages;
    cr_assert_eq(godwit_memory_next_data(ram.addr, ram.size, -1, 0, 0, &first, &pages, NULL), GODWIT_OK);
    cr_expect_eq(first, 100);
    cr_expect_eq(pages, 7);
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(does_not_report_pages_that_are_mapped_late_and_only_read)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_MEMFD, PAGES);
    uint64_t bitmap[WORDS];
    char page[4096] = {7};
    for (unsigned i = 0; i < PAGES; i++)
        cr_assert_eq(pwrite(ram.fd, page, sizeof page, (off_t)i * 4096), (ssize_t)sizeof page);
    start(tracker, &ram);
    char sum = 0;
    for (unsigned i = 0; i < PAGES; i++)
        sum ^= ((volatile char *)ram.addr)[i * 4096];
    (void)sum;
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0);
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(keeps_holes_of_anonymous_memory_visible_after_writes)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_ANON, PAGES);
    uint64_t bitmap[WORDS], first, pages;
    madvise(ram.addr, ram.size, MADV_NOHUGEPAGE);
    start(tracker, &ram);
    memset((char *)ram.addr + 200 * 4096, 1, 3 * 4096);
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 3);
    cr_assert_eq(godwit_memory_next_data(ram.addr, ram.size, -1, 0, 0, &first, &pages, NULL), GODWIT_OK);
    cr_expect(first == 200 && pages == 3, "%lu pages from %lu", pages, first);
    cr_assert_eq(godwit_memory_next_data(ram.addr, ram.size, -1, 0, 203, &first, &pages, NULL), GODWIT_OK);
    cr_expect_eq(pages, 0);
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(takes_no_clean_page_of_shared_memory_for_a_hole)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_MEMFD, PAGES);
    uint64_t first, pages;
    memset(ram.addr, 1, ram.size);
    madvise(ram.addr, ram.size, MADV_DONTNEED); /* unmaps, keeps the content */
    start(tracker, &ram);
    cr_assert_eq(godwit_memory_next_data(ram.addr, ram.size, -1, 0, 0, &first, &pages, NULL), GODWIT_OK);
    cr_expect(first == 0 && pages == PAGES, "%lu pages from %lu", pages, first);
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(sees_writes_to_pages_that_came_through_the_file)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_MEMFD, PAGES);
    uint64_t bitmap[WORDS];
    char page[4096] = {7};
    start(tracker, &ram);
    for (unsigned i = 0; i < PAGES; i += 2)
        cr_assert_eq(pwrite(ram.fd, page, sizeof page, (off_t)i * 4096), (ssize_t)sizeof page);
    sync_count(tracker, &ram, bitmap); /* whether the file's writes are seen is not promised */
    for (unsigned i = 0; i < PAGES; i += 4)
        ((char *)ram.addr)[i * 4096] = 8;
    cr_expect_eq(sync_count(tracker, &ram, bitmap), PAGES / 4);
    for (unsigned i = 0; i < PAGES; i += 4)
        cr_expect(has(bitmap, i), "page %u", i);
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

static void check_punched(enum godwit_tracker_kind kind, enum memory_backing backing)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(backing, PAGES);
    uint64_t bitmap[WORDS];
    memset(ram.addr, 1, ram.size);
    start(tracker, &ram);
    ((char *)ram.addr)[64 * 4096] = 2; /* one of the punched is dirty */
    int advice = backing == MEMORY_ANON ? MADV_DONTNEED : MADV_REMOVE;
    cr_assert_eq(madvise((char *)ram.addr + 64 * 4096, 64 * 4096, advice), 0);
    sync_count(tracker, &ram, bitmap);
    for (unsigned page = 64; page < 128; page += 7) {
        ((char *)ram.addr)[page * 4096] = 3;
        sync_count(tracker, &ram, bitmap);
        cr_expect(has(bitmap, page), "page %u", page);
    }
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(sees_writes_to_punched_holes_of_a_memfd)
{
    check_punched(kind, MEMORY_MEMFD);
}
TRACKER_TEST(sees_writes_to_discarded_anonymous_memory)
{
    check_punched(kind, MEMORY_ANON);
}
