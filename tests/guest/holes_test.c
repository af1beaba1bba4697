/* Which pages exist. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/memory.h"

enum { PAGES = 1024 };

TestSuite(holes, .timeout = 20);

static void expect_run(const struct memory *ram, uint64_t fd_offset, uint64_t from, uint64_t first, uint64_t pages)
{
    uint64_t got_first = 77, got_pages = 77;
    struct godwit_error error = {0};
    char *addr = (char *)ram->addr + fd_offset;
    cr_assert_eq(
        godwit_memory_next_data(addr, ram->size - fd_offset, ram->fd, fd_offset, from, &got_first, &got_pages, &error),
        GODWIT_OK, "%s", error.text);
    cr_expect_eq(got_pages, pages, "from %lu: %lu pages", from, got_pages);
    if (pages)
        cr_expect_eq(got_first, first, "from %lu: page %lu", from, got_first);
}

static void check_runs(enum memory_backing backing)
{
    struct memory ram;
    cr_assert_eq(memory_alloc(&ram, backing, PAGES * 4096, false, NULL), GODWIT_OK);
    madvise(ram.addr, ram.size, MADV_NOHUGEPAGE);
    expect_run(&ram, 0, 0, 0, 0);
    memset((char *)ram.addr + 3 * 4096, 1, 2 * 4096);
    memset((char *)ram.addr + 1000 * 4096, 1, 24 * 4096);
    expect_run(&ram, 0, 0, 3, 2);
    expect_run(&ram, 0, 4, 4, 1);
    expect_run(&ram, 0, 5, 1000, 24);
    expect_run(&ram, 0, 1023, 1023, 1);
    expect_run(&ram, 0, 1024, 0, 0);
    expect_run(&ram, 4 * 4096, 0, 0, 1);
    expect_run(&ram, 4 * 4096, 1, 996, 24);
    memory_free(&ram);
}

Test(holes, finds_the_data_of_a_memfd)
{
    check_runs(MEMORY_MEMFD);
}
Test(holes, finds_the_populated_pages_of_anonymous_memory)
{
    check_runs(MEMORY_ANON);
}

Test(holes, does_not_take_the_shared_zero_page_for_data)
{
    struct memory ram;
    cr_assert_eq(memory_alloc(&ram, MEMORY_ANON, PAGES * 4096, false, NULL), GODWIT_OK);
    madvise(ram.addr, ram.size, MADV_NOHUGEPAGE);
    struct godwit_tracker *tracker = NULL;
    if (godwit_tracker_new_kind(GODWIT_TRACKER_SCAN, &tracker, NULL))
        cr_skip_test("this kernel has no PAGEMAP_SCAN");
    godwit_tracker_free(tracker);
    char sum = 0;
    for (unsigned page = 0; page < PAGES; page++)
        sum ^= ((volatile char *)ram.addr)[page * 4096];
    (void)sum;
    expect_run(&ram, 0, 0, 0, 0);
    memory_free(&ram);
}

Test(holes, looking_allocates_nothing)
{
    struct memory ram;
    cr_assert_eq(memory_alloc(&ram, MEMORY_MEMFD, PAGES * 4096, false, NULL), GODWIT_OK);
    for (unsigned from = 0; from < PAGES; from++)
        expect_run(&ram, 0, from, 0, 0);
    cr_expect_eq(lseek(ram.fd, 0, SEEK_DATA), -1);
    memory_free(&ram);
}

static void check_pieces(enum memory_backing backing)
{
    enum { LONG = 20000 };
    struct memory ram;
    cr_assert_eq(memory_alloc(&ram, backing, LONG * 4096ul, false, NULL), GODWIT_OK);
    madvise(ram.addr, ram.size, MADV_NOHUGEPAGE);
    memset((char *)ram.addr + 10 * 4096, 1, (LONG - 30) * 4096ul);
    uint64_t at = 10, first, pages = 1;
    for (unsigned calls = 0; pages && calls < 10; calls++, at += pages) {
        cr_assert_eq(godwit_memory_next_data(ram.addr, ram.size, ram.fd, 0, at, &first, &pages, NULL), GODWIT_OK);
        cr_assert(pages == 0 || first == at, "a gap at page %lu", at);
    }
    cr_expect_eq(at, LONG - 20);
    memory_free(&ram);
}

Test(holes, pieces_of_a_long_run_in_a_memfd_join)
{
    check_pieces(MEMORY_MEMFD);
}
Test(holes, pieces_of_a_long_run_in_anonymous_memory_join)
{
    check_pieces(MEMORY_ANON);
}

/* The first looks end at pages 16, 80, 336, 1360 and 5456 of a run. */
Test(holes, runs_end_where_they_end_whatever_the_length_of_the_looks)
{
    static const uint64_t lengths[] = {1, 15, 16, 17, 79, 80, 81, 335, 336, 337, 1359, 1360, 1361, 5455, 5456, 5457};
    enum { RUNS = sizeof lengths / sizeof lengths[0] };
    uint64_t all = 0, at = 0;
    for (unsigned i = 0; i < RUNS; i++)
        all += lengths[i] + 1; /* and a hole of one page behind each */
    struct memory ram;
    cr_assert_eq(memory_alloc(&ram, MEMORY_MEMFD, all * 4096, false, NULL), GODWIT_OK);
    for (unsigned i = 0; i < RUNS; at += lengths[i++] + 1)
        memset((char *)ram.addr + at * 4096, 1, lengths[i] * 4096);
    at = 0;
    for (unsigned i = 0; i < RUNS; at += lengths[i++] + 1)
        expect_run(&ram, 0, at == 0 ? 0 : at - 1, at, lengths[i]);
    expect_run(&ram, 0, at, 0, 0);
    memory_free(&ram);
}

Test(holes, refuses_what_is_not_whole_pages)
{
    uint64_t first, pages;
    char bytes[1];
    cr_expect_eq(godwit_memory_next_data(bytes, 5, -1, 0, 0, &first, &pages, NULL), GODWIT_ERR_INVALID);
}
