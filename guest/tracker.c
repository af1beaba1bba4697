/*
 * The dirty tracker of <godwit/tracker.h>: keeps the ranges, checks the calls, and hands the work to one of two
 * mechanisms (tracker_ops.h), chosen once, when it is made.
 *
 * tracker_scan.c costs the writer least and is taken where the kernel has it; tracker_fault.c stops the writer at every
 * first write and runs from Linux 5.19 on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <godwit/guest.h>

#include "guest/guest_error.h"
#include "guest/tracker_ops.h"

struct godwit_tracker {
    const struct tracker_ops *ops;
    void *mechanism;
    bool started;
    struct tracker_range *ranges;
    unsigned range_count;
};

/* AUTO takes the first that works. */
static const struct tracker_ops *const tracker_kinds[] = {&tracker_scan_ops, &tracker_fault_ops};
enum { TRACKER_KINDS = sizeof tracker_kinds / sizeof tracker_kinds[0] };

/* An error is that of the last mechanism tried, the one that asks least of the system. */
static enum godwit_err tracker_choose(struct godwit_tracker *tracker, enum godwit_tracker_kind kind,
                                      struct godwit_error *error)
{
    enum godwit_err err = GODWIT_ERR_INVALID;
    for (unsigned i = 0; i < TRACKER_KINDS; i++) {
        const struct tracker_ops *ops = tracker_kinds[i];
        if (kind != GODWIT_TRACKER_AUTO && kind != ops->kind)
            continue;
        err = ops->new(&tracker->mechanism, error);
        if (!err) {
            tracker->ops = ops;
            return GODWIT_OK;
        }
    }
    return err == GODWIT_ERR_INVALID ? guest_fail(error, err, "there is no dirty tracker of kind %d", (int)kind) : err;
}

enum godwit_err godwit_tracker_new_kind(enum godwit_tracker_kind kind, struct godwit_tracker **out,
                                        struct godwit_error *error)
{
    struct godwit_tracker *tracker = calloc(1, sizeof *tracker);
    if (!tracker)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for a dirty tracker");
    struct godwit_error cause = {0};
    enum godwit_err err = tracker_choose(tracker, kind, &cause);
    if (err) {
        free(tracker);
        if (error)
            *error = cause;
        return err;
    }
    *out = tracker;
    return GODWIT_OK;
}

enum godwit_err godwit_tracker_new(struct godwit_tracker **out, struct godwit_error *error)
{
    return godwit_tracker_new_kind(GODWIT_TRACKER_AUTO, out, error);
}

enum godwit_tracker_kind godwit_tracker_kind(const struct godwit_tracker *tracker)
{
    return tracker->ops->kind;
}

const char *godwit_tracker_kind_name(enum godwit_tracker_kind kind)
{
    switch (kind) {
    case GODWIT_TRACKER_AUTO: return "auto";
    case GODWIT_TRACKER_SCAN: return "scan";
    case GODWIT_TRACKER_FAULT: return "fault";
    }
    return "unknown";
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

enum godwit_err tracker_register_error(int cause, uint64_t start, struct godwit_error *error)
{
    bool kind = cause == EINVAL || cause == EPERM;
    return guest_fail_sys(error, kind ? GODWIT_ERR_UNSUPPORTED : GODWIT_ERR_SYSTEM, cause,
                          "cannot track writes to the memory at %#" PRIx64 "%s", start,
                          kind ? " (it must be mapped, writable, and anonymous, memfd, tmpfs or hugetlb memory)"
                          : cause == EBUSY ? " (another userfaultfd watches it)"
                                           : "");
}

/*
 * Finds out what the range is made of: memory without an inode is what /proc shows of private anonymous memory. A range
 * with a gap is refused here, before a mechanism maps something of its own into the gap and tracks that.
 */
static enum godwit_err tracker_look(struct tracker_range *range, struct godwit_error *error)
{
    range->memory = TRACKER_MIXED;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return GODWIT_OK;
    char *line = NULL;
    size_t capacity = 0;
    uint64_t anonymous = 0, file = 0; /* bytes of the range */
    while (getline(&line, &capacity, maps) > 0) {
        uint64_t start, end, inode;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*s %*s %" SCNu64, &start, &end, &inode) != 3)
            continue;
        start = start > range->start ? start : range->start;
        end = end < range->end ? end : range->end;
        if (start < end)
            *(inode ? &file : &anonymous) += end - start;
    }
    free(line);
    fclose(maps);
    if (anonymous + file < range->end - range->start)
        return tracker_register_error(EINVAL, range->start, error);
    range->memory = !file ? TRACKER_ANONYMOUS : !anonymous ? TRACKER_FILE : TRACKER_MIXED;
    return GODWIT_OK;
}

void tracker_mark(uint64_t *bitmap, uint64_t first, uint64_t end)
{
    while (first < end) {
        uint64_t bit = first % 64;
        uint64_t count = end - first < 64 - bit ? end - first : 64 - bit;
        bitmap[first / 64] |= (count == 64 ? ~0ull : (1ull << count) - 1) << bit;
        first += count;
    }
}

enum godwit_err godwit_tracker_start(struct godwit_tracker *tracker, struct godwit_error *error)
{
    if (tracker->started)
        return guest_fail(error, GODWIT_ERR_BUSY, "the dirty tracker is started already");
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; !err && i < tracker->range_count; i++)
        err = tracker_look(&tracker->ranges[i], error);
    if (err)
        return err;
    tracker->started = true;
    err = tracker->ops->start(tracker->mechanism, tracker->ranges, tracker->range_count, error);
    if (err)
        godwit_tracker_stop(tracker);
    return err;
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
            return tracker->ops->sync(tracker->mechanism, i, start, start + size, bitmap, error);
    }
    return guest_fail(error, GODWIT_ERR_INVALID, "%" PRIu64 " bytes at %#" PRIx64 " are not tracked", size, start);
}

void godwit_tracker_stop(struct godwit_tracker *tracker)
{
    if (tracker->started)
        tracker->ops->stop(tracker->mechanism);
    tracker->started = false;
}

void godwit_tracker_free(struct godwit_tracker *tracker)
{
    if (!tracker)
        return;
    godwit_tracker_stop(tracker);
    tracker->ops->free(tracker->mechanism);
    free(tracker->ranges);
    free(tracker);
}
