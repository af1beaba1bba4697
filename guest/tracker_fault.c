/*
 * Dirty tracking by userfaultfd synchronous write-protect (Linux 5.19): for kernels without PAGEMAP_SCAN.
 *
 * Happy path: start lets a thread run, registers every range and write-protects it. A first write to a page stops its
 * writer and becomes an event; the thread sets the page's bit, takes the protection off exactly that page and lets the
 * writer go on. sync takes the bits and protects those pages again.
 *
 * - Shared memory and files are registered for write-protect. Protecting an empty page table entry leaves a marker in
 *   it (page tables: 2 MiB per GiB), so a page that is mapped late, or filled through the file, is protected when it
 *   comes.
 * - Private anonymous memory has such markers only from Linux 6.4 on, and they would hide its holes. It is registered
 *   for missing pages too: the first touch of a hole is an event, the thread makes the page and counts it as written. A
 *   page that a read touches cannot be made clean without a race: the zero page comes unprotected, and whoever writes
 *   it before it is protected would not be seen. Memory of both kinds, or of a kind that nobody could tell, is treated
 *   the same: that costs events, never a write.
 *
 * No write is lost, because bit and protection of a page change together under one lock, so that outside of it
 *      bit set or page protected (or page missing)
 * holds for every page of a started tracker. A write that needs no event finds the bit set, and the next sync reports
 * it. While sync holds the lock it takes the bit first and protects after; a write between the two raises no event, but
 * the caller reads the page after sync returned, and protecting ends with a TLB flush: the write is in what is read.
 * Without the lock the thread could set a bit, sync take it and protect the page, and the thread then take that
 * protection off: a page that is neither. Setting the bit last instead only moves the gap.
 *
 * Failure modes: a kernel before 5.19 (UNSUPPORTED), a forbidden userfaultfd (SYSTEM). When a fault cannot be resolved
 * (no memory for a page) every range is given up: the guest runs on as if never tracked, and the next sync is an error.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <godwit/guest.h>

#include "guest/guest_error.h"
#include "guest/tracker_ops.h"
#include "guest/uffd.h"
#include "guest/uffd_abi.h"

enum {
    FAULT_BATCH = 512, /* pages that sync takes under the lock at once; 2 MiB, so transparent huge pages stay whole */
    FAULT_BATCH_WORDS = FAULT_BATCH / 64,
    FAULT_BRIDGE = 16, /* clean pages between two dirty ones that are protected again, cheaper than another call */
};

#define FAULT_GRANULE_MAX (1ull << 30) /* the largest page of hugetlb */
#define FAULT_ARM_STEP    (1ull << 30) /* bytes protected by one call of start, which holds the memory map */

/* Ranges are written by start and stop, while the thread does not run or no event can come. */
struct fault_range {
    uint64_t start;
    uint64_t end;
    uint64_t granule;        /* bytes: the page of hugetlb, 4096 for all else */
    _Atomic uint64_t *dirty; /* written under the lock; looked at without it only to find that nothing is there */
};

struct fault_tracker {
    int uffd;
    int quit; /* eventfd: the thread shall end */
    bool running;
    pthread_t thread;
    pthread_mutex_t lock;
    int given_up; /* under the lock: errno of the fault that could not be resolved, 0: none */
    struct fault_range *ranges;
    unsigned armed; /* of them, from the first */
};

static const _Alignas(GODWIT_PAGE_SIZE) uint8_t fault_zeros[GODWIT_PAGE_SIZE];

static void fault_free(void *self)
{
    struct fault_tracker *tracker = self;
    if (tracker->uffd >= 0)
        close(tracker->uffd);
    if (tracker->quit >= 0)
        close(tracker->quit);
    pthread_mutex_destroy(&tracker->lock);
    free(tracker);
}

static enum godwit_err fault_new(void **self, struct godwit_error *error)
{
    struct fault_tracker *tracker = calloc(1, sizeof *tracker);
    if (!tracker)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for a dirty tracker");
    pthread_mutex_init(&tracker->lock, NULL);
    tracker->uffd = -1;
    tracker->quit = eventfd(0, EFD_CLOEXEC);
    enum godwit_err err = tracker->quit < 0
                              ? guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno,
                                               "cannot create an eventfd for the dirty tracker")
                              : uffd_open(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
                                          "dirty tracking needs Linux 5.19", &tracker->uffd, error);
    if (err)
        fault_free(tracker);
    else
        *self = tracker;
    return err;
}

/* 0 or errno. EAGAIN: the memory map is being changed, a moment only. */
static int fault_protect_once(struct fault_tracker *tracker, uint64_t start, uint64_t end, uint64_t mode)
{
    struct uffdio_writeprotect request = {.range = {.start = start, .len = end - start}, .mode = mode};
    while (ioctl(tracker->uffd, UFFDIO_WRITEPROTECT, &request) < 0)
        if (errno != EAGAIN && errno != EINTR)
            return errno;
    return 0;
}

/*
 * Protects [start, end), whole granules. Before Linux 6.4 one call must stay within one mapping, and how mappings are
 * cut may change at any time, so that is found out: on ENOENT the two halves are tried.
 */
static int fault_protect(struct fault_tracker *tracker, const struct fault_range *range, uint64_t start, uint64_t end)
{
    int cause = fault_protect_once(tracker, start, end, UFFDIO_WRITEPROTECT_MODE_WP);
    uint64_t half = (end - start) / range->granule / 2 * range->granule;
    if (cause != ENOENT || half == 0)
        return cause;
    cause = fault_protect(tracker, range, start, start + half);
    return cause ? cause : fault_protect(tracker, range, start + half, end);
}

/* Unregistering wakes nobody who waits at a protected page; the call after it does. */
static void fault_disarm(struct fault_tracker *tracker)
{
    for (unsigned i = 0; i < tracker->armed; i++) {
        struct uffdio_range where = {.start = tracker->ranges[i].start,
                                     .len = tracker->ranges[i].end - tracker->ranges[i].start};
        /* Fail only when the memory is gone already, or after giving up; either leaves nothing to disarm. */
        (void)ioctl(tracker->uffd, UFFDIO_UNREGISTER, &where);
        (void)ioctl(tracker->uffd, UFFDIO_WAKE, &where);
    }
}

static struct fault_range *fault_find(struct fault_tracker *tracker, uint64_t address)
{
    for (unsigned i = 0; i < tracker->armed; i++)
        if (address >= tracker->ranges[i].start && address < tracker->ranges[i].end)
            return &tracker->ranges[i];
    return NULL;
}

/* Under the lock. */
static void fault_set(struct fault_range *range, uint64_t address)
{
    uint64_t first = (address - range->start) / GODWIT_PAGE_SIZE, end = first + range->granule / GODWIT_PAGE_SIZE;
    for (uint64_t page = first; page < end; page++)
        atomic_fetch_or_explicit(&range->dirty[page / 64], 1ull << page % 64, memory_order_relaxed);
}

/*
 * Makes a page that does not exist: of zeros where it will be written, the shared zero page where it is only read, and
 * wakes who waits for it. 0 or errno.
 */
static int fault_make(struct fault_tracker *tracker, uint64_t address, bool write)
{
    struct uffdio_copy copy = {.dst = address, .src = (uint64_t)(uintptr_t)fault_zeros, .len = GODWIT_PAGE_SIZE};
    struct uffdio_zeropage zero = {.range = {.start = address, .len = GODWIT_PAGE_SIZE}};
    int result;
    do
        result = write ? ioctl(tracker->uffd, UFFDIO_COPY, &copy) : ioctl(tracker->uffd, UFFDIO_ZEROPAGE, &zero);
    while (result < 0 && (errno == EAGAIN || errno == EINTR));
    return result < 0 ? errno : 0;
}

/* One event: bit and page under the lock, see the top. */
static void fault_resolve(struct fault_tracker *tracker, const struct uffd_msg *message)
{
    if (message->event != UFFD_EVENT_PAGEFAULT)
        return;
    uint64_t address = message->arg.pagefault.address, flags = message->arg.pagefault.flags;
    pthread_mutex_lock(&tracker->lock);
    struct fault_range *range = fault_find(tracker, address);
    uint64_t granule = range ? range->granule : GODWIT_PAGE_SIZE;
    address -= address % granule;
    if (range)
        fault_set(range, address);
    int cause = flags & UFFD_PAGEFAULT_FLAG_WP ? fault_protect_once(tracker, address, address + granule, 0)
                                               : fault_make(tracker, address, flags & UFFD_PAGEFAULT_FLAG_WRITE);
    /* EEXIST: somebody else made the page. ENOENT, ESRCH: the range was disarmed, the memory or process is going. */
    if (cause == EEXIST || cause == ENOENT || cause == ESRCH) {
        struct uffdio_range where = {.start = address, .len = granule};
        (void)ioctl(tracker->uffd, UFFDIO_WAKE, &where);
    } else if (cause) {
        tracker->given_up = cause;
        fault_disarm(tracker);
    }
    pthread_mutex_unlock(&tracker->lock);
}

/* Events are read one by one: of two for one page the second is gone once the first is resolved, and cannot be
 * stale. */
static void *fault_main(void *argument)
{
    struct fault_tracker *tracker = argument;
    struct pollfd ends[] = {{.fd = tracker->uffd, .events = POLLIN}, {.fd = tracker->quit, .events = POLLIN}};
    pthread_setname_np(pthread_self(), "guest_faults");
    while (!ends[1].revents) {
        struct uffd_msg message;
        ssize_t got = read(tracker->uffd, &message, sizeof message);
        if (got == (ssize_t)sizeof message)
            fault_resolve(tracker, &message);
        else
            (void)poll(ends, 2, -1);
    }
    return NULL;
}

/* With every signal blocked: an embedder's handlers must not run here, where touching guest memory would hang. */
static enum godwit_err fault_start_thread(struct fault_tracker *tracker, struct godwit_error *error)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int cause = pthread_create(&tracker->thread, NULL, fault_main, tracker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (cause)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, cause, "cannot start the thread of the dirty tracker");
    tracker->running = true;
    return GODWIT_OK;
}

/*
 * The page size of what lies there, by asking: of hugetlb no part of a page can be protected or, as here, unprotected.
 */
static int fault_measure(struct fault_tracker *tracker, struct fault_range *range)
{
    int cause = EINVAL;
    for (uint64_t granule = GODWIT_PAGE_SIZE; cause == EINVAL && granule <= FAULT_GRANULE_MAX; granule *= 2) {
        if (range->start % granule || granule > range->end - range->start)
            break;
        range->granule = granule;
        cause = fault_protect_once(tracker, range->start, range->start + granule, 0);
    }
    return cause;
}

static enum godwit_err fault_arm(struct fault_tracker *tracker, const struct tracker_range *from,
                                 struct godwit_error *error)
{
    struct fault_range *range = &tracker->ranges[tracker->armed];
    uint64_t words = ((from->end - from->start) / GODWIT_PAGE_SIZE + 63) / 64;
    *range = (struct fault_range){.start = from->start, .end = from->end, .dirty = calloc(words, sizeof *range->dirty)};
    if (!range->dirty)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for the dirty log of %" PRIu64 " bytes",
                          from->end - from->start);
    struct uffdio_register request = {
        .range = {.start = from->start, .len = from->end - from->start},
        .mode = UFFDIO_REGISTER_MODE_WP | (from->memory == TRACKER_FILE ? 0 : UFFDIO_REGISTER_MODE_MISSING),
    };
    /* Events that find no range yet wait for the lock until there is one. */
    pthread_mutex_lock(&tracker->lock);
    int cause = ioctl(tracker->uffd, UFFDIO_REGISTER, &request) < 0 ? errno : 0;
    if (cause) {
        pthread_mutex_unlock(&tracker->lock);
        free(range->dirty);
        return tracker_register_error(cause, from->start, error);
    }
    cause = fault_measure(tracker, range);
    tracker->armed++;
    pthread_mutex_unlock(&tracker->lock);
    for (uint64_t at = from->start; !cause && at < from->end; at += FAULT_ARM_STEP)
        cause = fault_protect(tracker, range, at, from->end - at < FAULT_ARM_STEP ? from->end : at + FAULT_ARM_STEP);
    if (cause)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, cause, "cannot write-protect the memory at %#" PRIx64,
                              from->start);
    return GODWIT_OK;
}

static enum godwit_err fault_start(void *self, const struct tracker_range *ranges, unsigned count,
                                   struct godwit_error *error)
{
    struct fault_tracker *tracker = self;
    tracker->given_up = 0;
    tracker->ranges = calloc(count ? count : 1, sizeof *tracker->ranges);
    if (!tracker->ranges)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for the dirty log");
    enum godwit_err err = fault_start_thread(tracker, error);
    for (unsigned i = 0; !err && i < count; i++)
        err = fault_arm(tracker, &ranges[i], error);
    return err;
}

/* The first bit at or after `from` that is `set`; limit: none before it. */
static uint64_t fault_next(const uint64_t *words, uint64_t from, uint64_t limit, bool set)
{
    while (from < limit) {
        uint64_t word = (set ? words[from / 64] : ~words[from / 64]) >> from % 64;
        if (word)
            return from + (uint64_t)__builtin_ctzll(word) < limit ? from + (uint64_t)__builtin_ctzll(word) : limit;
        from = (from / 64 + 1) * 64;
    }
    return limit;
}

static uint64_t fault_word_mask(uint64_t word, uint64_t first, uint64_t end)
{
    uint64_t low = first > word * 64 ? first % 64 : 0;
    uint64_t count = (end < word * 64 + 64 ? end - word * 64 : 64) - low;
    return (count == 64 ? ~0ull : (1ull << count) - 1) << low;
}

/*
 * Protects the pages of taken, whose bit 0 is page `base`; 0 or errno. Pages in between are protected or missing, as
 * their bits are not set, so bridging a gap changes nothing. Half a granule is protected as a whole: its other bits
 * stay.
 */
static int fault_rearm(struct fault_tracker *tracker, const struct fault_range *range, const uint64_t *taken,
                       uint64_t base)
{
    uint64_t end;
    for (uint64_t first = fault_next(taken, 0, FAULT_BATCH, true); first < FAULT_BATCH; first = end) {
        uint64_t clear = fault_next(taken, first, FAULT_BATCH, false);
        end = fault_next(taken, clear, FAULT_BATCH, true);
        while (end < FAULT_BATCH && end - clear <= FAULT_BRIDGE) {
            clear = fault_next(taken, end, FAULT_BATCH, false);
            end = fault_next(taken, clear, FAULT_BATCH, true);
        }
        uint64_t from = (base + first) * GODWIT_PAGE_SIZE, to = (base + clear) * GODWIT_PAGE_SIZE;
        from = from / range->granule * range->granule;
        to = (to + range->granule - 1) / range->granule * range->granule;
        int cause = fault_protect(tracker, range, range->start + from, range->start + to);
        if (cause)
            return cause;
    }
    return 0;
}

/* Pages [first, end) of one batch: takes their bits into taken, bit 0 the batch's first page. 0 or errno. */
static int fault_take(struct fault_tracker *tracker, struct fault_range *range, uint64_t first, uint64_t end,
                      uint64_t *taken)
{
    uint64_t base = first / FAULT_BATCH * FAULT_BATCH;
    pthread_mutex_lock(&tracker->lock);
    for (uint64_t word = first / 64; word * 64 < end; word++) {
        uint64_t mask = fault_word_mask(word, first, end);
        taken[word - base / 64] = atomic_fetch_and_explicit(&range->dirty[word], ~mask, memory_order_relaxed) & mask;
    }
    int cause = tracker->given_up ? tracker->given_up : fault_rearm(tracker, range, taken, base);
    pthread_mutex_unlock(&tracker->lock);
    return cause;
}

/* Without the lock. A write is in the bitmap before its writer goes on, so it cannot be overlooked. */
static bool fault_any(const struct fault_range *range, uint64_t first, uint64_t end)
{
    for (uint64_t word = first / 64; word * 64 < end; word++)
        if (atomic_load_explicit(&range->dirty[word], memory_order_relaxed))
            return true;
    return false;
}

static enum godwit_err fault_sync(void *self, unsigned index, uint64_t start, uint64_t end, uint64_t *bitmap,
                                  struct godwit_error *error)
{
    struct fault_tracker *tracker = self;
    struct fault_range *range = &tracker->ranges[index];
    uint64_t origin = (start - range->start) / GODWIT_PAGE_SIZE, last = (end - range->start) / GODWIT_PAGE_SIZE;
    pthread_mutex_lock(&tracker->lock);
    int cause = tracker->given_up;
    pthread_mutex_unlock(&tracker->lock);
    for (uint64_t page = origin, next; !cause && page < last; page = next) {
        uint64_t taken[FAULT_BATCH_WORDS] = {0}, base = page / FAULT_BATCH * FAULT_BATCH;
        next = base + FAULT_BATCH < last ? base + FAULT_BATCH : last;
        if (!fault_any(range, page, next))
            continue;
        cause = fault_take(tracker, range, page, next, taken);
        /* Outside the lock: should bitmap itself be tracked memory, storing to it needs the thread. */
        uint64_t clear;
        for (uint64_t set = fault_next(taken, 0, FAULT_BATCH, true); set < FAULT_BATCH;
             set = fault_next(taken, clear, FAULT_BATCH, true)) {
            clear = fault_next(taken, set, FAULT_BATCH, false);
            tracker_mark(bitmap, base + set - origin, base + clear - origin);
        }
    }
    if (cause)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, cause,
                              "cannot go on tracking writes to the memory at %#" PRIx64, range->start);
    return GODWIT_OK;
}

/* After disarming nobody waits and no event can come; the thread may be at work on a last one, which does no harm. */
static void fault_stop(void *self)
{
    struct fault_tracker *tracker = self;
    uint64_t number = 1;
    pthread_mutex_lock(&tracker->lock);
    fault_disarm(tracker);
    pthread_mutex_unlock(&tracker->lock);
    if (tracker->running) {
        while (write(tracker->quit, &number, sizeof number) < 0 && errno == EINTR)
            continue;
        pthread_join(tracker->thread, NULL);
        while (read(tracker->quit, &number, sizeof number) < 0 && errno == EINTR)
            continue;
    }
    tracker->running = false;
    for (unsigned i = 0; i < tracker->armed; i++)
        free(tracker->ranges[i].dirty);
    free(tracker->ranges);
    tracker->ranges = NULL;
    tracker->armed = 0;
}

const struct tracker_ops tracker_fault_ops = {
    .kind = GODWIT_TRACKER_FAULT,
    .new = fault_new,
    .start = fault_start,
    .sync = fault_sync,
    .stop = fault_stop,
    .free = fault_free,
};
