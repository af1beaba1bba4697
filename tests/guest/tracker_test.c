/* The dirty tracker of either kind: exact on every backing, and no write lost under concurrent writers. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/memory.h"

enum { PAGES = 2048, WORDS = PAGES / 64, PAGE_WORDS = 512 };

TestSuite(tracker, .timeout = 60);
TestSuite(tracker_scan, .timeout = 60);
TestSuite(tracker_fault, .timeout = 60);

/* One case, run with each kind of tracker: TRACKER_TEST(name) { ... kind ... } */
#define TRACKER_TEST(name)                                    \
    static void name(enum godwit_tracker_kind kind);          \
    Test(tracker_scan, name) { name(GODWIT_TRACKER_SCAN); }   \
    Test(tracker_fault, name) { name(GODWIT_TRACKER_FAULT); } \
    static void name(enum godwit_tracker_kind kind)

static struct godwit_tracker *open_tracker(enum godwit_tracker_kind kind)
{
    struct godwit_tracker *tracker = NULL;
    struct godwit_error error = {0};
    enum godwit_err err = godwit_tracker_new_kind(kind, &tracker, &error);
    if (err == GODWIT_ERR_UNSUPPORTED || err == GODWIT_ERR_SYSTEM)
        cr_skip_test("%s", error.text);
    cr_assert_eq(err, GODWIT_OK, "%s", error.text);
    return tracker;
}

static struct memory get_ram(enum memory_backing backing, uint64_t pages)
{
    struct memory ram;
    struct godwit_error error = {0};
    cr_assert_eq(memory_alloc(&ram, backing, pages * 4096, false, &error), GODWIT_OK, "%s", error.text);
    return ram;
}

static void start(struct godwit_tracker *tracker, struct memory *ram)
{
    struct godwit_error error = {0};
    cr_assert_eq(godwit_tracker_add(tracker, ram->addr, ram->size, &error), GODWIT_OK, "%s", error.text);
    cr_assert_eq(godwit_tracker_start(tracker, &error), GODWIT_OK, "%s", error.text);
}

static unsigned sync_count(struct godwit_tracker *tracker, struct memory *ram, uint64_t *bitmap)
{
    struct godwit_error error = {0};
    memset(bitmap, 0, ram->size / 4096 / 8);
    cr_assert_eq(godwit_tracker_sync(tracker, ram->addr, ram->size, bitmap, &error), GODWIT_OK, "%s", error.text);
    unsigned count = 0;
    for (uint64_t i = 0; i < ram->size / 4096 / 64; i++)
        count += (unsigned)__builtin_popcountll(bitmap[i]);
    return count;
}

static bool has(const uint64_t *bitmap, unsigned page)
{
    return bitmap[page / 64] >> page % 64 & 1;
}

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

struct hammer {
    uint64_t *memory;
    unsigned first;
    unsigned end;
    _Atomic bool *quit;
};

static void *hammer_main(void *argument)
{
    const struct hammer *hammer = argument;
    uint64_t random = hammer->first + 1;
    while (!atomic_load(hammer->quit)) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned page = hammer->first + (unsigned)(random >> 33) % (hammer->end - hammer->first);
        volatile uint64_t *counter = &hammer->memory[page * PAGE_WORDS + (random >> 24) % PAGE_WORDS];
        *counter = *counter + 1;
    }
    return NULL;
}

/*
 * A page is never both written and unreported: each of two writers, at the same pages, stores a number that only grows
 * and then says so; after a sync the copy holds at least what had been said before it. Once they rest, nothing is left.
 */
struct teller {
    volatile uint64_t *memory;
    _Atomic uint64_t told[PAGES];
    _Atomic bool *quit;
    unsigned lane;
};

static void *teller_main(void *argument)
{
    struct teller *teller = argument;
    uint64_t random = teller->lane + 1;
    for (uint64_t number = 1; !atomic_load(teller->quit); number++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned page = (unsigned)(random >> 33) % (PAGES / 16);
        teller->memory[page * PAGE_WORDS + teller->lane] = number;
        atomic_store(&teller->told[page], number);
    }
    return NULL;
}

static void check_prompt_reports(enum godwit_tracker_kind kind, enum memory_backing backing)
{
    static struct teller tellers[2];
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(backing, PAGES), copy = get_ram(MEMORY_MEMFD, PAGES);
    _Atomic bool quit = false;
    pthread_t threads[2];
    uint64_t bitmap[WORDS], told[2][PAGES];
    unsigned late = 0;
    start(tracker, &ram);
    for (unsigned i = 0; i < 2; i++) {
        tellers[i] = (struct teller){.memory = ram.addr, .quit = &quit, .lane = i};
        cr_assert_eq(pthread_create(&threads[i], NULL, teller_main, &tellers[i]), 0);
    }
    for (unsigned round = 0; round < 1000; round++) {
        for (unsigned i = 0; i < 2 * PAGES; i++)
            told[i / PAGES][i % PAGES] = atomic_load(&tellers[i / PAGES].told[i % PAGES]);
        sync_count(tracker, &ram, bitmap);
        for (unsigned page = 0; page < PAGES; page++)
            if (has(bitmap, page))
                memcpy((char *)copy.addr + page * 4096, (char *)ram.addr + page * 4096, 4096);
        for (unsigned i = 0; i < 2 * PAGES; i++)
            late += ((uint64_t *)copy.addr)[i % PAGES * PAGE_WORDS + i / PAGES] < told[i / PAGES][i % PAGES];
    }
    cr_expect_eq(late, 0, "%u writes that were over before a sync are not in it", late);
    atomic_store(&quit, true);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    sync_count(tracker, &ram, bitmap);
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0, "none is reported twice");
    godwit_tracker_free(tracker);
    memory_free(&ram);
    memory_free(&copy);
}

TRACKER_TEST(reports_a_write_to_a_memfd_with_the_next_sync)
{
    check_prompt_reports(kind, MEMORY_MEMFD);
}
TRACKER_TEST(reports_a_write_to_anonymous_memory_with_the_next_sync)
{
    check_prompt_reports(kind, MEMORY_ANON);
}

TRACKER_TEST(starts_and_stops_under_writers)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_MEMFD, PAGES), holes = get_ram(MEMORY_ANON, PAGES);
    _Atomic bool quit = false;
    struct hammer hammers[2] = {{ram.addr, 0, PAGES, &quit}, {holes.addr, 0, PAGES, &quit}};
    pthread_t threads[2];
    uint64_t bitmap[WORDS];
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, hammer_main, &hammers[i]), 0);
    cr_assert_eq(godwit_tracker_add(tracker, holes.addr, holes.size, NULL), GODWIT_OK);
    cr_assert_eq(godwit_tracker_add(tracker, ram.addr, ram.size, NULL), GODWIT_OK);
    for (unsigned round = 0; round < 200; round++) {
        cr_assert_eq(godwit_tracker_start(tracker, NULL), GODWIT_OK);
        if (round % 2)
            sync_count(tracker, &ram, bitmap);
        godwit_tracker_stop(tracker);
        if (round % 10 == 0)
            madvise(holes.addr, holes.size, MADV_DONTNEED);
    }
    atomic_store(&quit, true);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    godwit_tracker_free(tracker);
    memory_free(&ram);
    memory_free(&holes);
}

/*
 * Pre-copy in small: copy what is reported while writers run, stop them, sync once more, and the copies must be equal.
 */
static void check_no_write_lost(enum godwit_tracker_kind kind, enum memory_backing backing)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(backing, PAGES), copy = get_ram(MEMORY_MEMFD, PAGES);
    _Atomic bool quit = false;
    struct hammer hammers[2] = {{ram.addr, 0, PAGES / 2, &quit}, {ram.addr, PAGES / 2, PAGES - 64, &quit}};
    pthread_t threads[2];
    memset(ram.addr, 0, ram.size / 4); /* the rest are holes that get filled */
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, hammer_main, &hammers[i]), 0);
    start(tracker, &ram);
    memcpy(copy.addr, ram.addr, ram.size);
    uint64_t bitmap[WORDS];
    for (unsigned round = 0; round < 400; round++) {
        if (round == 399) {
            atomic_store(&quit, true);
            pthread_join(threads[0], NULL);
            pthread_join(threads[1], NULL);
        }
        sync_count(tracker, &ram, bitmap);
        for (unsigned page = 0; page < PAGES; page++)
            if (has(bitmap, page))
                memcpy((char *)copy.addr + page * 4096, (char *)ram.addr + page * 4096, 4096);
    }
    cr_expect_eq(memcmp(ram.addr, copy.addr, ram.size), 0);
    godwit_tracker_free(tracker);
    memory_free(&ram);
    memory_free(&copy);
}

TRACKER_TEST(loses_no_concurrent_write_to_a_memfd)
{
    check_no_write_lost(kind, MEMORY_MEMFD);
}
TRACKER_TEST(loses_no_concurrent_write_to_anonymous_memory)
{
    check_no_write_lost(kind, MEMORY_ANON);
}
