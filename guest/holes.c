/*
 * Which pages of guest memory exist: godwit_memory_next_data() of <godwit/tracker.h>.
 *
 * Memory with an fd asks the file (SEEK_DATA, SEEK_HOLE). Private anonymous memory asks the page tables: PAGEMAP_SCAN
 * for pages present or swapped out, not counting mappings of the shared zero page; before Linux 6.7 the plain entries
 * of /proc/self/pagemap, which cannot tell the zero page apart. Whatever cannot be asked (no /proc, a filesystem
 * without SEEK_DATA) is reported as data. Descriptors are opened per call: an answer covers a run, not a page. A long
 * run may come in pieces, so that finding its end never keeps the caller for long.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/guest_error.h"
#include "guest/uffd_abi.h"

enum {
    HOLES_ENTRIES = 512,  /* pagemap entries per read, 4 KiB of stack */
    HOLES_RUN_MAX = 8192, /* pages: where a run's end costs a walk over its pages, it is reported in pieces of 32 MiB */
    HOLES_FIRST_LOOK = 16, /* pages: most short runs end before */
    HOLES_LOOK_GROWTH = 4, /* a look that met no end is followed by one so many times as long */
};

/* Pages [first, end) hold data; first == end: none from there on. */
struct holes_run {
    uint64_t first;
    uint64_t end;
};

/*
 * True when the pages are known to be in memory, hence data. SEEK_HOLE on tmpfs walks the page cache up to the hole, 7
 * ms per GiB before the first page could be sent, and again for every piece; this look is bounded, and short where the
 * run is. Only asked of tmpfs open for writing: elsewhere SEEK_HOLE is quick, and of a file one may not write mincore
 * claims everything.
 */
static bool holes_all_resident(char *addr, uint64_t pages, int fd)
{
    unsigned char resident[HOLES_RUN_MAX];
    struct statfs filesystem;
    if (fstatfs(fd, &filesystem) < 0 || filesystem.f_type != TMPFS_MAGIC)
        return false;
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
        return false;
    for (uint64_t at = 0, look = HOLES_FIRST_LOOK; at < pages; at += look, look *= HOLES_LOOK_GROWTH) {
        look = look < pages - at ? look : pages - at;
        if (mincore(addr + at * GODWIT_PAGE_SIZE, look * GODWIT_PAGE_SIZE, resident) < 0)
            return false;
        for (uint64_t i = 0; i < look; i++)
            if (!(resident[i] & 1))
                return false;
    }
    return true;
}

static enum godwit_err holes_by_file(void *addr, uint64_t pages, int fd, uint64_t fd_offset, uint64_t from,
                                     struct holes_run *run, struct godwit_error *error)
{
    uint64_t start = fd_offset + from * GODWIT_PAGE_SIZE, end = fd_offset + pages * GODWIT_PAGE_SIZE;
    off_t data = lseek(fd, (off_t)start, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
        return GODWIT_OK;
    if (data < 0 && (errno == EINVAL || errno == EOPNOTSUPP || errno == ESPIPE)) {
        *run = (struct holes_run){from, pages};
        return GODWIT_OK;
    }
    if (data < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot look for holes in the file behind guest memory");
    if ((uint64_t)data >= end)
        return GODWIT_OK;
    run->first = ((uint64_t)data - fd_offset) / GODWIT_PAGE_SIZE;
    uint64_t piece = pages - run->first < HOLES_RUN_MAX ? pages - run->first : HOLES_RUN_MAX;
    if (holes_all_resident((char *)addr + run->first * GODWIT_PAGE_SIZE, piece, fd)) {
        run->end = run->first + piece;
        return GODWIT_OK;
    }
    off_t hole = lseek(fd, data, SEEK_HOLE);
    /* A hole punched between the two calls moves nothing before data; any failure just means "to the end". */
    uint64_t stop = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
    run->end = (stop - fd_offset + GODWIT_PAGE_SIZE - 1) / GODWIT_PAGE_SIZE;
    return GODWIT_OK;
}

/* True when the ioctl answered. */
static bool holes_by_scan(int pagemap, uint64_t base, uint64_t pages, uint64_t from, struct holes_run *run)
{
    struct uffd_region region;
    struct uffd_scan scan = {
        .size = sizeof scan,
        .start = base + from * GODWIT_PAGE_SIZE,
        .end = base + pages * GODWIT_PAGE_SIZE,
        .vec = (uint64_t)(uintptr_t)&region,
        .vec_len = 1,
        .max_pages = HOLES_RUN_MAX,
        .category_inverted = UFFD_PAGE_PFNZERO,
        .category_mask = UFFD_PAGE_PFNZERO,
        .category_anyof_mask = UFFD_PAGE_PRESENT | UFFD_PAGE_SWAPPED,
    };
    int count = ioctl(pagemap, UFFD_IOC_PAGEMAP_SCAN, &scan);
    if (count < 0)
        return false;
    if (count == 1)
        *run = (struct holes_run){(region.start - base) / GODWIT_PAGE_SIZE, (region.end - base) / GODWIT_PAGE_SIZE};
    return true;
}

/* True when the entries could be read. Bits 63 and 62 of an entry: present, swapped (Documentation/admin-guide/mm). */
static bool holes_by_entries(int pagemap, uint64_t base, uint64_t pages, uint64_t from, struct holes_run *run)
{
    uint64_t entries[HOLES_ENTRIES];
    bool inside = false;
    for (uint64_t page = from; page < pages;) {
        uint64_t want = pages - page < HOLES_ENTRIES ? pages - page : HOLES_ENTRIES;
        off_t at = (off_t)((base / GODWIT_PAGE_SIZE + page) * sizeof entries[0]);
        ssize_t got = pread(pagemap, entries, want * sizeof entries[0], at);
        if (got < (ssize_t)sizeof entries[0])
            return false;
        uint64_t count = (uint64_t)got / sizeof entries[0];
        for (uint64_t i = 0; i < count; i++) {
            bool exists = entries[i] >> 62;
            if (inside && !exists)
                return true;
            if (exists && !inside)
                run->first = page + i;
            inside = exists;
            run->end = exists ? page + i + 1 : run->end;
        }
        page += count;
    }
    return true;
}

static void holes_by_page_tables(uint64_t base, uint64_t pages, uint64_t from, struct holes_run *run)
{
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    bool known = pagemap >= 0 &&
                 (holes_by_scan(pagemap, base, pages, from, run) || holes_by_entries(pagemap, base, pages, from, run));
    if (!known)
        *run = (struct holes_run){from, pages};
    if (pagemap >= 0)
        close(pagemap);
}

enum godwit_err godwit_memory_next_data(void *addr, uint64_t size, int fd, uint64_t fd_offset, uint64_t from,
                                        uint64_t *first, uint64_t *pages, struct godwit_error *error)
{
    uint64_t base = (uint64_t)(uintptr_t)addr, total = size / GODWIT_PAGE_SIZE;
    if (base % GODWIT_PAGE_SIZE || size % GODWIT_PAGE_SIZE)
        return guest_fail(error, GODWIT_ERR_INVALID, "guest memory must be whole pages of %d bytes", GODWIT_PAGE_SIZE);
    struct holes_run run = {total, total};
    enum godwit_err err = GODWIT_OK;
    if (from < total && fd >= 0)
        err = holes_by_file(addr, total, fd, fd_offset, from, &run, error);
    else if (from < total)
        holes_by_page_tables(base, total, from, &run);
    if (err)
        return err;
    *first = run.first;
    *pages = run.end - run.first;
    return GODWIT_OK;
}
