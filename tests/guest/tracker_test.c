/* The dirty tracker: exact on every backing and in every range, whoever writes. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tests/guest/tracker_case.h"

TestSuite(tracker, .timeout = 60);

static void check_exactness(enum godwit_tracker_kind kind, enum memory_backing backing)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(backing, PAGES);
    volatile char *bytes = ram.addr;
    uint64_t bitmap[WORDS];
    memset(ram.addr, 1, ram.size / 2);
    start(tracker, &ram);
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0, "nothing was written since the start");

    unsigned written[] = {0, 1, 63, 64, 65, 511, 512, 700, 1023};
    for (unsigned i = 0; i < sizeof written / sizeof written[0]; i++)
        bytes[written[i] * 4096 + i] = 2;
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 9);
    for (unsigned i = 0; i < sizeof written / sizeof written[0]; i++)
        cr_expect(has(bitmap, written[i]), "page %u", written[i]);
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0, "none is reported twice");

    bytes[700 * 4096] = 3;
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 1, "it was re-armed");
    char sum = 0;
    for (unsigned page = 0; page < PAGES / 2; page++)
        sum ^= bytes[page * 4096];
    (void)sum;
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0, "reading is not writing");
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(reports_exactly_the_pages_written_in_a_memfd)
{
    check_exactness(kind, MEMORY_MEMFD);
}
TRACKER_TEST(reports_exactly_the_pages_written_in_anonymous_memory_on_huge_pages)
{
    check_exactness(kind, MEMORY_ANON);
}

TRACKER_TEST(reports_on_hugetlb_in_whole_huge_pages)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram;
    uint64_t bitmap[WORDS];
    if (memory_alloc(&ram, MEMORY_HUGETLB, PAGES * 4096, false, NULL))
        cr_skip_test("no free huge pages");
    memset(ram.addr, 1, ram.size);
    start(tracker, &ram);
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0);
    ((volatile char *)ram.addr)[600 * 4096] = 2;
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 512);
    cr_expect(has(bitmap, 512) && has(bitmap, 1023));
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(reads_a_part_of_a_range_into_bit_zero_and_ors)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_MEMFD, PAGES);
    start(tracker, &ram);
    char *bytes = ram.addr;
    bytes[99 * 4096] = bytes[100 * 4096] = bytes[103 * 4096] = bytes[110 * 4096] = 1;
    uint64_t bitmap[1] = {1ull << 40};
    cr_assert_eq(godwit_tracker_sync(tracker, bytes + 100 * 4096, 10 * 4096, bitmap, NULL), GODWIT_OK);
    cr_expect_eq(bitmap[0], 1ull << 40 | 1 | 1 << 3);
    uint64_t rest[WORDS];
    cr_expect_eq(sync_count(tracker, &ram, rest), 2, "what lies outside was left alone");
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(reports_more_runs_than_one_scan_holds)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_MEMFD, 16 * PAGES);
    uint64_t *bitmap = calloc(16, sizeof(uint64_t) * WORDS);
    start(tracker, &ram);
    for (unsigned page = 0; page < 16 * PAGES; page += 2)
        ((char *)ram.addr)[page * 4096ul] = 1;
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 8 * PAGES);
    cr_expect(has(bitmap, 16 * PAGES - 2) && !has(bitmap, 16 * PAGES - 1));
    free(bitmap);
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(starts_again_after_stop_and_forgets_what_was_written_between)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_MEMFD, PAGES);
    uint64_t bitmap[WORDS];
    start(tracker, &ram);
    godwit_tracker_stop(tracker);
    memset(ram.addr, 1, ram.size);
    cr_assert_eq(godwit_tracker_start(tracker, NULL), GODWIT_OK);
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0);
    ((char *)ram.addr)[0] = 2;
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 1);
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(refuses_bad_ranges_and_calls_out_of_order)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_MEMFD, PAGES);
    struct godwit_error error;
    uint64_t bitmap[WORDS];
    cr_expect_eq(godwit_tracker_add(tracker, (char *)ram.addr + 1, 4096, &error), GODWIT_ERR_INVALID);
    cr_expect_eq(godwit_tracker_add(tracker, ram.addr, 0, &error), GODWIT_ERR_INVALID);
    cr_expect_eq(godwit_tracker_sync(tracker, ram.addr, 4096, bitmap, &error), GODWIT_ERR_INVALID);
    start(tracker, &ram);
    cr_expect_eq(godwit_tracker_add(tracker, ram.addr, 4096, &error), GODWIT_ERR_BUSY);
    cr_expect_eq(godwit_tracker_start(tracker, &error), GODWIT_ERR_BUSY);
    cr_expect_eq(godwit_tracker_sync(tracker, (char *)ram.addr + 4096, ram.size, bitmap, &error), GODWIT_ERR_INVALID);
    godwit_tracker_free(tracker);
    godwit_tracker_free(NULL);
    memory_free(&ram);
}

TRACKER_TEST(refuses_memory_that_is_not_mapped_and_can_be_freed_after)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_MEMFD, PAGES);
    struct godwit_error error = {0};
    cr_assert_eq(godwit_tracker_add(tracker, ram.addr, ram.size, &error), GODWIT_OK);
    munmap((char *)ram.addr + ram.size / 2, ram.size / 2);
    munmap(ram.addr, ram.size / 2);
    cr_expect_neq(godwit_tracker_start(tracker, &error), GODWIT_OK);
    cr_expect_neq(error.text[0], '\0');
    godwit_tracker_free(tracker);
    close(ram.fd);
}

TRACKER_TEST(tracks_one_range_of_several_mappings)
{
    enum { THIRD = PAGES / 4 * 4096 };
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_ANON, PAGES), file = get_ram(MEMORY_MEMFD, PAGES);
    uint64_t bitmap[WORDS];
    char *bytes = ram.addr;
    cr_assert_neq(mmap(bytes + THIRD, THIRD, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file.fd, 0), MAP_FAILED);
    madvise(bytes + 2 * THIRD, THIRD, MADV_NOHUGEPAGE);
    madvise(bytes + 3 * THIRD + 5 * 4096, 4096, MADV_DONTFORK);
    memset(ram.addr, 1, ram.size);
    start(tracker, &ram);
    sync_count(tracker, &ram, bitmap);
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0);
    memset(ram.addr, 2, ram.size);
    cr_expect_eq(sync_count(tracker, &ram, bitmap), PAGES, "over the bounds of all of them");
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0);
    for (unsigned page = 0; page < PAGES; page += 3)
        bytes[page * 4096] = 3;
    cr_expect_eq(sync_count(tracker, &ram, bitmap), (PAGES + 2) / 3);
    godwit_tracker_free(tracker);
    memory_free(&ram);
    memory_free(&file);
}

TRACKER_TEST(tracks_several_ranges_apart)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory one = get_ram(MEMORY_ANON, PAGES), two = get_ram(MEMORY_MEMFD, PAGES);
    uint64_t bitmap[WORDS];
    memset(one.addr, 1, one.size);
    cr_assert_eq(godwit_tracker_add(tracker, one.addr, one.size, NULL), GODWIT_OK);
    start(tracker, &two);
    ((char *)one.addr)[5 * 4096] = ((char *)two.addr)[9 * 4096] = 1;
    cr_expect_eq(sync_count(tracker, &two, bitmap), 1);
    cr_expect(has(bitmap, 9));
    cr_expect_eq(sync_count(tracker, &one, bitmap), 1);
    cr_expect(has(bitmap, 5));
    godwit_tracker_free(tracker);
    memory_free(&one);
    memory_free(&two);
}

/* With a userfaultfd for faults of user mode only, such a read fails instead; the header says so. */
static void check_kernel_writes(enum godwit_tracker_kind kind, enum memory_backing backing)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(backing, PAGES);
    uint64_t bitmap[WORDS];
    int ends[2];
    char *bytes = ram.addr;
    bytes[6 * 4096] = 1;
    madvise(ram.addr, ram.size, MADV_NOHUGEPAGE);
    cr_assert_eq(pipe(ends), 0);
    start(tracker, &ram);
    sync_count(tracker, &ram, bitmap);
    for (unsigned page = 6; page < 8; page++) { /* one that exists, one that does not */
        cr_assert_eq(write(ends[1], "x", 1), 1);
        ssize_t got = read(ends[0], bytes + page * 4096, 1);
        sync_count(tracker, &ram, bitmap);
        if (got == 1)
            cr_expect(has(bitmap, page) && bytes[page * 4096] == 'x', "page %u", page);
        else
            cr_expect(errno == EFAULT && geteuid() != 0, "errno %d", errno);
    }
    close(ends[0]);
    close(ends[1]);
    godwit_tracker_free(tracker);
    memory_free(&ram);
}

TRACKER_TEST(sees_what_the_kernel_writes_to_a_memfd)
{
    check_kernel_writes(kind, MEMORY_MEMFD);
}
TRACKER_TEST(sees_what_the_kernel_writes_to_anonymous_memory)
{
    check_kernel_writes(kind, MEMORY_ANON);
}

/* A filesystem of 16 pages, for this process only; -1: not here. */
static int open_small_file(void)
{
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", "/mnt", "tmpfs", 0, "size=64k"))
        return -1;
    int fd = open("/mnt/ram", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, 64 * 4096) == 0);
    return fd;
}

static sigjmp_buf out_of_space;

static void leave(int number)
{
    siglongjmp(out_of_space, 1);
}

Test(tracker_fault, gives_up_where_a_page_cannot_be_had_and_lets_the_writer_go_on)
{
    struct godwit_tracker *tracker = open_tracker(GODWIT_TRACKER_FAULT);
    struct memory ram = get_ram(MEMORY_ANON, 128);
    struct godwit_error error = {0};
    uint64_t bitmap[2];
    volatile char *bytes = ram.addr;
    int fd = open_small_file();
    if (fd < 0)
        cr_skip_test("no small filesystem can be mounted here: %s", strerror(errno));
    cr_assert_neq(mmap(ram.addr, 64 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0), MAP_FAILED);
    start(tracker, &ram);
    signal(SIGBUS, leave);
    volatile unsigned written = 0;
    if (!sigsetjmp(out_of_space, 1))
        for (; written < 64; written++)
            bytes[written * 4096] = 1;
    cr_expect_eq(written, 16, "then the filesystem is full, and that is the writer's business");
    bytes[100 * 4096] = 1;
    cr_expect_eq(godwit_tracker_sync(tracker, ram.addr, ram.size, bitmap, &error), GODWIT_ERR_SYSTEM);
    cr_expect_neq(error.text[0], '\0');
    godwit_tracker_stop(tracker);
    cr_assert_eq(godwit_tracker_start(tracker, &error), GODWIT_OK, "it can be tried again: %s", error.text);
    sync_count(tracker, &ram, bitmap);
    bytes[100 * 4096] = 2;
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 1);
    godwit_tracker_free(tracker);
    memory_free(&ram);
    close(fd);
}

Test(tracker, chooses_by_itself_and_says_what)
{
    struct godwit_tracker *tracker = NULL;
    struct godwit_error error = {0};
    cr_expect_eq(godwit_tracker_new_kind((enum godwit_tracker_kind)7, &tracker, &error), GODWIT_ERR_INVALID);
    cr_expect_str_eq(godwit_tracker_kind_name(GODWIT_TRACKER_AUTO), "auto");
    cr_expect_str_eq(godwit_tracker_kind_name(GODWIT_TRACKER_SCAN), "scan");
    cr_expect_str_eq(godwit_tracker_kind_name(GODWIT_TRACKER_FAULT), "fault");
    cr_expect_str_eq(godwit_tracker_kind_name((enum godwit_tracker_kind)7), "unknown");
    bool scan = !godwit_tracker_new_kind(GODWIT_TRACKER_SCAN, &tracker, &error);
    if (scan)
        godwit_tracker_free(tracker);
    if (godwit_tracker_new(&tracker, &error))
        cr_skip_test("%s", error.text);
    cr_expect_eq(godwit_tracker_kind(tracker), scan ? GODWIT_TRACKER_SCAN : GODWIT_TRACKER_FAULT);
    godwit_tracker_free(tracker);
}
