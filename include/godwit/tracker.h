/*
 * A dirty tracker for memory of this process: which pages were written since the last look.
 *
 * Two mechanisms, both built on userfaultfd write-protect; GODWIT_TRACKER_AUTO takes the first that the system offers.
 *
 * GODWIT_TRACKER_SCAN (Linux 6.7): asynchronous, read out by the PAGEMAP_SCAN ioctl. Exact for memfd, tmpfs, anonymous
 * memory and transparent huge pages; on hugetlb the granule is the huge page. A first write to a page costs about 1 us,
 * a scan about 1 ms per GiB when little was written and 10 ms when everything was (4 KiB pages, x86-64).
 *
 * GODWIT_TRACKER_FAULT (Linux 5.19): synchronous. A thread of the tracker answers each first write while the writer
 * waits, 7 to 60 us, as fast as the two wake each other; a sync costs up to 50 ms per GiB. As exact, with two
 * differences in anonymous memory: the first touch of a page that does not exist yet counts as a write, even if it only
 * reads, and such a page comes as 4 KiB, never as a transparent huge page. Without privileges the kernel gives a
 * userfaultfd that serves faults of user mode only. While such a tracker is started, a system call that has to write a
 * clean tracked page, or to touch a page of anonymous memory that does not exist, fails with EFAULT or ends short
 * (read, recv, io_uring, MADV_POPULATE_WRITE), and so does KVM_RUN of a virtual machine with this memory. What lifts
 * this: CAP_SYS_PTRACE, vm.unprivileged_userfaultfd=1 or access to /dev/userfaultfd.
 *
 * Not seen by either, as a rule of the kernel: punching holes, and writes that another process or another mapping
 * makes. Populating a clean page for writing counts as a write.
 *
 * Calls on one tracker come from one thread at a time; the memory is written by any thread at any time.
 */
#ifndef GODWIT_TRACKER_H
#define GODWIT_TRACKER_H

#include <stddef.h>
#include <stdint.h>

#include <godwit/api.h>
#include <godwit/error.h>

GODWIT_BEGIN

struct godwit_tracker;

enum godwit_tracker_kind {
    GODWIT_TRACKER_AUTO,
    GODWIT_TRACKER_SCAN,
    GODWIT_TRACKER_FAULT,
};

/* GODWIT_ERR_UNSUPPORTED when the kernel lacks the mechanism, GODWIT_ERR_SYSTEM when it may not be used (the text names
 * the remedy). *out is owned by the caller. */
GODWIT_API enum godwit_err godwit_tracker_new_kind(enum godwit_tracker_kind kind, struct godwit_tracker **out,
                                                   struct godwit_error *error);

/* godwit_tracker_new_kind() with GODWIT_TRACKER_AUTO. */
GODWIT_API enum godwit_err godwit_tracker_new(struct godwit_tracker **out, struct godwit_error *error);

/* What was chosen: never GODWIT_TRACKER_AUTO. */
GODWIT_API enum godwit_tracker_kind godwit_tracker_kind(const struct godwit_tracker *tracker);

/* "auto", "scan", "fault"; "unknown" for anything else. */
GODWIT_API const char *godwit_tracker_kind_name(enum godwit_tracker_kind kind);

/* Adds a page-aligned range. Not while started. The range must stay mapped until the tracker is freed. */
GODWIT_API enum godwit_err godwit_tracker_add(struct godwit_tracker *tracker, void *addr, uint64_t size,
                                              struct godwit_error *error);

/* Arms every range; every later write is reported by a sync. */
GODWIT_API enum godwit_err godwit_tracker_start(struct godwit_tracker *tracker, struct godwit_error *error);

/* ORs the pages of [addr, addr + size) written since they were last reported into bitmap (bit 0: the page at addr)
 * and re-arms exactly those, atomically per page: no write is lost, none is reported twice. The range lies inside
 * one added. */
GODWIT_API enum godwit_err godwit_tracker_sync(struct godwit_tracker *tracker, void *addr, uint64_t size,
                                               uint64_t *bitmap, struct godwit_error *error);

/* Disarms. Writes cost nothing again; start may follow. */
GODWIT_API void godwit_tracker_stop(struct godwit_tracker *tracker);

/* Stops if needed. NULL is allowed. */
GODWIT_API void godwit_tracker_free(struct godwit_tracker *tracker);

/*
 * The next run of pages at or after page `from` of [addr, addr + size) that may hold something: by SEEK_DATA on fd
 * where fd >= 0 (addr lies at fd_offset of it), otherwise by page tables (present or swapped). *pages is 0 when there
 * is none. Neither allocates nor touches a page. A run that cannot be determined is reported as data.
 */
GODWIT_API enum godwit_err godwit_memory_next_data(void *addr, uint64_t size, int fd, uint64_t fd_offset, uint64_t from,
                                                   uint64_t *first, uint64_t *pages, struct godwit_error *error);

GODWIT_END

#endif
