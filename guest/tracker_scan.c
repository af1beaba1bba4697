/*
 * Dirty tracking by userfaultfd asynchronous write-protect, read out by PAGEMAP_SCAN (Linux 6.7).
 *
 * Happy path: new opens a userfaultfd and /proc/self/pagemap; start registers every range and lets one scan
 * write-protect it, whose answer is thrown away (a write before its page is protected may be dropped, one after it
 * never is); sync scans again, and the kernel reports and re-protects each written page in one step under the page
 * table lock.
 *
 * Two kinds of memory need two filters:
 * - Shared memory and files. The page table says nothing about a page it does not map, so the first scan leaves a
 *   marker in every empty entry (page tables: 2 MiB per GiB) and from then on "no marker and not protected" means
 *   written. A page that is only read, or mapped late, stays clean; one that was written and then reclaimed is still
 *   reported.
 * - Private anonymous memory. An empty entry is a page that does not exist. Markers would cost page tables and hide the
 *   holes from godwit_memory_next_data() (a marker looks swapped out), so empty entries are passed over: a hole that is
 *   written becomes a present, unprotected page and is reported. Reading one maps the shared zero page, which is passed
 *   over too. A hole that transparent huge pages fill at once is reported as the 512 pages that came into being.
 *
 * Failure modes: a kernel before 6.7 (UNSUPPORTED), a forbidden userfaultfd (SYSTEM, with the remedy), memory that
 * userfaultfd does not take such as a read-only file mapping (UNSUPPORTED). A scan that is interrupted does not say how
 * far it got; the range it was at is then reported as written as a whole, and nothing is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <godwit/guest.h>

#include "guest/guest_error.h"
#include "guest/tracker_ops.h"
#include "guest/uffd.h"
#include "guest/uffd_abi.h"

enum { SCAN_REGIONS = 1024 }; /* 24 KiB: one scan call per that many runs of written pages */

struct scan_tracker {
    int uffd;
    int pagemap;
    const struct tracker_range *ranges;       /* while started */
    unsigned armed;                           /* of them, from the first */
    struct uffd_region regions[SCAN_REGIONS]; /* scratch of one scan */
};

static void scan_free(void *self)
{
    struct scan_tracker *tracker = self;
    if (tracker->uffd >= 0)
        close(tracker->uffd);
    if (tracker->pagemap >= 0)
        close(tracker->pagemap);
    free(tracker);
}

static enum godwit_err scan_open(struct scan_tracker *tracker, struct godwit_error *error)
{
    /* Asynchronous write-protect never hands a fault to user space, so the restricted userfaultfd does, too. */
    enum godwit_err err = uffd_open(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
                                        UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
                                    "dirty tracking by scan needs Linux 6.7", &tracker->uffd, error);
    if (err)
        return err;
    tracker->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (tracker->pagemap < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno,
                              "cannot open /proc/self/pagemap; /proc must be mounted and the process dumpable");
    struct uffd_scan probe = {.size = sizeof probe};
    if (ioctl(tracker->pagemap, UFFD_IOC_PAGEMAP_SCAN, &probe) < 0 && errno == ENOTTY)
        return guest_fail(error, GODWIT_ERR_UNSUPPORTED,
                          "this kernel has no PAGEMAP_SCAN; dirty tracking by scan needs Linux 6.7");
    return GODWIT_OK;
}

static enum godwit_err scan_new(void **self, struct godwit_error *error)
{
    struct scan_tracker *tracker = calloc(1, sizeof *tracker);
    if (!tracker)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for a dirty tracker");
    tracker->uffd = tracker->pagemap = -1;
    enum godwit_err err = scan_open(tracker, error);
    if (err)
        scan_free(tracker);
    else
        *self = tracker;
    return err;
}

/*
 * Protects what was written in [start, end) and ORs it into bitmap, whose bit 0 is start; NULL: nobody wants to know.
 */
static enum godwit_err scan_walk(struct scan_tracker *tracker, bool anonymous, uint64_t start, uint64_t end,
                                 uint64_t *bitmap, struct godwit_error *error)
{
    struct uffd_scan scan = {
        .size = sizeof scan,
        .flags = UFFD_SCAN_WP_MATCHING | UFFD_SCAN_CHECK_WPASYNC,
        .start = start,
        .end = end,
        .vec = (uint64_t)(uintptr_t)tracker->regions,
        .vec_len = SCAN_REGIONS,
        .category_inverted = anonymous ? UFFD_PAGE_PFNZERO : 0,
        .category_mask = anonymous ? UFFD_PAGE_WRITTEN | UFFD_PAGE_PFNZERO : UFFD_PAGE_WRITTEN,
        .category_anyof_mask = anonymous ? UFFD_PAGE_PRESENT | UFFD_PAGE_SWAPPED : 0,
    };
    while (scan.start < end) {
        int count = ioctl(tracker->pagemap, UFFD_IOC_PAGEMAP_SCAN, &scan);
        if (count < 0 && (errno == EINTR || errno == EAGAIN)) {
            if (bitmap)
                tracker_mark(bitmap, (scan.start - start) / GODWIT_PAGE_SIZE, (end - start) / GODWIT_PAGE_SIZE);
            continue;
        }
        if (count < 0)
            return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno,
                                  "cannot read the dirty log of %#" PRIx64 "-%#" PRIx64, scan.start, end);
        for (int i = 0; bitmap && i < count; i++)
            tracker_mark(bitmap, (tracker->regions[i].start - start) / GODWIT_PAGE_SIZE,
                         (tracker->regions[i].end - start) / GODWIT_PAGE_SIZE);
        scan.start = scan.walk_end;
    }
    return GODWIT_OK;
}

static enum godwit_err scan_start(void *self, const struct tracker_range *ranges, unsigned count,
                                  struct godwit_error *error)
{
    struct scan_tracker *tracker = self;
    tracker->ranges = ranges;
    for (unsigned i = 0; i < count; i++) {
        const struct tracker_range *range = &ranges[i];
        struct uffdio_register request = {
            .range = {.start = range->start, .len = range->end - range->start},
            .mode = UFFDIO_REGISTER_MODE_WP,
        };
        if (ioctl(tracker->uffd, UFFDIO_REGISTER, &request) < 0)
            return tracker_register_error(errno, range->start, error);
        tracker->armed = i + 1;
        bool anonymous = range->memory ==
                         TRACKER_ANONYMOUS; /* otherwise markers: they cost page tables, never a write */
        enum godwit_err err = scan_walk(tracker, anonymous, range->start, range->end, NULL, error);
        if (err)
            return err;
    }
    return GODWIT_OK;
}

static enum godwit_err scan_sync(void *self, unsigned index, uint64_t start, uint64_t end, uint64_t *bitmap,
                                 struct godwit_error *error)
{
    struct scan_tracker *tracker = self;
    return scan_walk(tracker, tracker->ranges[index].memory == TRACKER_ANONYMOUS, start, end, bitmap, error);
}

static void scan_stop(void *self)
{
    struct scan_tracker *tracker = self;
    for (unsigned i = 0; i < tracker->armed; i++) {
        const struct tracker_range *range = &tracker->ranges[i];
        struct uffdio_range where = {.start = range->start, .len = range->end - range->start};
        /* Fails only when the memory is gone already, which the contract forbids and which leaves nothing to disarm. */
        (void)ioctl(tracker->uffd, UFFDIO_UNREGISTER, &where);
    }
    tracker->armed = 0;
}

const struct tracker_ops tracker_scan_ops = {
    .kind = GODWIT_TRACKER_SCAN,
    .new = scan_new,
    .start = scan_start,
    .sync = scan_sync,
    .stop = scan_stop,
    .free = scan_free,
};
