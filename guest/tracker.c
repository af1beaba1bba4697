/*
 * The dirty tracker of <godwit/tracker.h>: userfaultfd asynchronous write-protect read out by PAGEMAP_SCAN.
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
#include <sys/syscall.h>
#include <unistd.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/guest_error.h"
#include "guest/uffd_abi.h"

enum { TRACKER_REGIONS = 1024 }; /* 24 KiB: one scan call per that many runs of written pages */

struct tracker_range {
    uint64_t start;
    uint64_t end;
    bool anonymous; /* all of it private anonymous memory; decided by start */
    bool registered;
};

struct godwit_tracker {
    int uffd;
    int pagemap;
    bool started;
    struct tracker_range *ranges;
    unsigned range_count;
    struct uffd_region regions[TRACKER_REGIONS]; /* scratch of one scan */
};

static int tracker_open_uffd(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 || errno != EPERM)
        return fd;
    /* Asynchronous write-protect never hands a fault to user space, so the restricted kind does for us. */
    fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (fd >= 0 || errno != EPERM)
        return fd;
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0) {
        errno = EPERM;
        return -1;
    }
    fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    int saved = errno;
    close(device);
    errno = saved;
    return fd;
}

static enum godwit_err tracker_open(struct godwit_tracker *tracker, struct godwit_error *error)
{
    tracker->uffd = tracker_open_uffd();
    if (tracker->uffd < 0 && errno == ENOSYS)
        return guest_fail(error, GODWIT_ERR_UNSUPPORTED,
                          "this kernel has no userfaultfd; dirty tracking needs Linux 6.7");
    if (tracker->uffd < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno,
                              "userfaultfd is not allowed here; run as root, set vm.unprivileged_userfaultfd=1, give "
                              "access to /dev/userfaultfd or allow the call in the container's seccomp profile");
    struct uffdio_api api = {
        .api = UFFD_API,
        .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
    };
    if (ioctl(tracker->uffd, UFFDIO_API, &api) < 0)
        return guest_fail_sys(error, GODWIT_ERR_UNSUPPORTED, errno,
                              "this kernel has no asynchronous write-protect; dirty tracking needs Linux 6.7");
    tracker->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (tracker->pagemap < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno,
                              "cannot open /proc/self/pagemap; /proc must be mounted and the process dumpable");
    struct uffd_scan probe = {.size = sizeof probe};
    if (ioctl(tracker->pagemap, UFFD_IOC_PAGEMAP_SCAN, &probe) < 0 && errno == ENOTTY)
        return guest_fail(error, GODWIT_ERR_UNSUPPORTED,
                          "this kernel has no PAGEMAP_SCAN; dirty tracking needs Linux 6.7");
    return GODWIT_OK;
}

enum godwit_err godwit_tracker_new(struct godwit_tracker **out, struct godwit_error *error)
{
    struct godwit_tracker *tracker = calloc(1, sizeof *tracker);
    if (!tracker)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for a dirty tracker");
    tracker->uffd = -1;
    tracker->pagemap = -1;
    enum godwit_err err = tracker_open(tracker, error);
    if (err) {
        godwit_tracker_free(tracker);
        return err;
    }
    *out = tracker;
    return GODWIT_OK;
}

enum godwit_err godwit_tracker_add(struct godwit_tracker *tracker, void *addr, uint64_t size,
                                   struct godwit_error *error)
{
    uint64_t start = (uint64_t)(uintptr_t)addr;
    if (tracker->started)
        return guest_fail(error, GODWIT_ERR_BUSY, "memory cannot be added to a tracker that is started");
    if (!addr || start % GODWIT_PAGE_SIZE || !size || size % GODWIT_PAGE_SIZE || start + size < start)
        return guest_fail(error, GODWIT_ERR_INVALID,
                          "a tracked range must be whole pages of %d bytes, not %" PRIu64 " bytes at %#" PRIx64,
                          GODWIT_PAGE_SIZE, size, start);
    for (unsigned i = 0; i < tracker->range_count; i++)
        if (start < tracker->ranges[i].end && tracker->ranges[i].start < start + size)
            return guest_fail(error, GODWIT_ERR_INVALID, "the range at %#" PRIx64 " is tracked already", start);
    struct tracker_range *ranges = realloc(tracker->ranges, (tracker->range_count + 1) * sizeof *ranges);
    if (!ranges)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for one more tracked range");
    tracker->ranges = ranges;
    ranges[tracker->range_count++] = (struct tracker_range){.start = start, .end = start + size};
    return GODWIT_OK;
}

/* True when every mapping of the range has no inode, which is how /proc tells private anonymous memory. */
static bool tracker_is_anonymous(const struct tracker_range *range)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return false; /* markers then: costs page tables, never a write */
    char *line = NULL;
    size_t capacity = 0;
    bool anonymous = true;
    while (anonymous && getline(&line, &capacity, maps) > 0) {
        uint64_t start, end, inode;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*s %*s %" SCNu64, &start, &end, &inode) != 3)
            continue;
        anonymous = inode == 0 || end <= range->start || start >= range->end;
    }
    free(line);
    fclose(maps);
    return anonymous;
}

static void tracker_mark(uint64_t *bitmap, uint64_t first, uint64_t end)
{
    while (first < end) {
        uint64_t bit = first % 64;
        uint64_t count = end - first < 64 - bit ? end - first : 64 - bit;
        bitmap[first / 64] |= (count == 64 ? ~0ull : (1ull << count) - 1) << bit;
        first += count;
    }
}

/*
 * Protects what was written in [start, end) and ORs it into bitmap, whose bit 0 is start; NULL: nobody wants to know.
 */
static enum godwit_err tracker_scan(struct godwit_tracker *tracker, bool anonymous, uint64_t start, uint64_t end,
                                    uint64_t *bitmap, struct godwit_error *error)
{
    struct uffd_scan scan = {
        .size = sizeof scan,
        .flags = UFFD_SCAN_WP_MATCHING | UFFD_SCAN_CHECK_WPASYNC,
        .start = start,
        .end = end,
        .vec = (uint64_t)(uintptr_t)tracker->regions,
        .vec_len = TRACKER_REGIONS,
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

static enum godwit_err tracker_arm(struct godwit_tracker *tracker, struct tracker_range *range,
                                   struct godwit_error *error)
{
    struct uffdio_register request = {
        .range = {.start = range->start, .len = range->end - range->start},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    if (ioctl(tracker->uffd, UFFDIO_REGISTER, &request) < 0) {
        int cause = errno;
        bool kind = cause == EINVAL || cause == EPERM;
        return guest_fail_sys(error, kind ? GODWIT_ERR_UNSUPPORTED : GODWIT_ERR_SYSTEM, cause,
                              "cannot track writes to the memory at %#" PRIx64 "%s", range->start,
                              kind ? " (it must be mapped, writable, and anonymous, memfd, tmpfs or hugetlb memory)"
                              : cause == EBUSY ? " (another userfaultfd watches it)"
                                               : "");
    }
    range->registered = true;
    range->anonymous = tracker_is_anonymous(range);
    return tracker_scan(tracker, range->anonymous, range->start, range->end, NULL, error);
}

enum godwit_err godwit_tracker_start(struct godwit_tracker *tracker, struct godwit_error *error)
{
    if (tracker->started)
        return guest_fail(error, GODWIT_ERR_BUSY, "the dirty tracker is started already");
    tracker->started = true;
    for (unsigned i = 0; i < tracker->range_count; i++) {
        enum godwit_err err = tracker_arm(tracker, &tracker->ranges[i], error);
        if (err) {
            godwit_tracker_stop(tracker);
            return err;
        }
    }
    return GODWIT_OK;
}

enum godwit_err godwit_tracker_sync(struct godwit_tracker *tracker, void *addr, uint64_t size, uint64_t *bitmap,
                                    struct godwit_error *error)
{
    uint64_t start = (uint64_t)(uintptr_t)addr;
    if (!tracker->started)
        return guest_fail(error, GODWIT_ERR_INVALID, "the dirty tracker is not started");
    if (start % GODWIT_PAGE_SIZE || size % GODWIT_PAGE_SIZE)
        return guest_fail(error, GODWIT_ERR_INVALID, "a dirty log is read in whole pages of %d bytes",
                          GODWIT_PAGE_SIZE);
    for (unsigned i = 0; i < tracker->range_count; i++) {
        const struct tracker_range *range = &tracker->ranges[i];
        if (start >= range->start && start < range->end && size <= range->end - start)
            return tracker_scan(tracker, range->anonymous, start, start + size, bitmap, error);
    }
    return guest_fail(error, GODWIT_ERR_INVALID, "%" PRIu64 " bytes at %#" PRIx64 " are not tracked", size, start);
}

void godwit_tracker_stop(struct godwit_tracker *tracker)
{
    for (unsigned i = 0; i < tracker->range_count; i++) {
        struct tracker_range *range = &tracker->ranges[i];
        struct uffdio_range where = {.start = range->start, .len = range->end - range->start};
        /* Fails only when the memory is gone already, which the contract forbids and which leaves nothing to disarm. */
        if (range->registered)
            (void)ioctl(tracker->uffd, UFFDIO_UNREGISTER, &where);
        range->registered = false;
    }
    tracker->started = false;
}

void godwit_tracker_free(struct godwit_tracker *tracker)
{
    if (!tracker)
        return;
    godwit_tracker_stop(tracker);
    if (tracker->uffd >= 0)
        close(tracker->uffd);
    if (tracker->pagemap >= 0)
        close(tracker->pagemap);
    free(tracker->ranges);
    free(tracker);
}
