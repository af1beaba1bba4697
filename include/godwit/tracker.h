/*
 * A dirty tracker for memory of this process: which pages were written since the last look.
 *
 * Built on userfaultfd asynchronous write-protect and the PAGEMAP_SCAN ioctl (Linux 6.7): exact for memfd, tmpfs,
 * anonymous memory and transparent huge pages; on hugetlb the granule is the huge page. A first write to a page costs
 * about 1 us, a scan about 1 ms per GiB when little was written and 10 ms when everything was (4 KiB pages, x86-64). Not seen, as a rule of the kernel: punching holes, and writes that another
 * process or another mapping makes. Populating a clean page for writing counts as a write.
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

/* GODWIT_ERR_UNSUPPORTED when the kernel lacks the mechanism, GODWIT_ERR_SYSTEM when it may not be used (the text names
 * the remedy). *out is owned by the caller. */
GODWIT_API enum godwit_err godwit_tracker_new(struct godwit_tracker **out, struct godwit_error *error);

/* Adds a page-aligned range. Not while started. The range must stay mapped until the tracker is freed. */
GODWIT_API enum godwit_err godwit_tracker_add(struct godwit_tracker *tracker, void *addr, uint64_t size,
                                              struct godwit_error *error);

/* Arms every range; every later write is reported by a sync. */
GODWIT_API enum godwit_err godwit_tracker_start(struct godwit_tracker *tracker, struct godwit_error *error);

/* ORs the pages of [addr, addr + size) written since they were last reported into bitmap (bit 0: the page at addr) and
 * re-arms exactly those, atomically per page: no write is lost, none is reported twice. The range lies inside one added. */
GODWIT_API enum godwit_err godwit_tracker_sync(struct godwit_tracker *tracker, void *addr, uint64_t size,
                                               uint64_t *bitmap, struct godwit_error *error);

/* Disarms. Writes cost nothing again; start may follow. */
GODWIT_API void godwit_tracker_stop(struct godwit_tracker *tracker);

/* Stops if needed. NULL is allowed. */
GODWIT_API void godwit_tracker_free(struct godwit_tracker *tracker);

/*
 * The next run of pages at or after page `from` of [addr, addr + size) that may hold something: by SEEK_DATA on fd where
 * fd >= 0 (addr lies at fd_offset of it), otherwise by page tables (present or swapped). *pages is 0 when there is none.
 * Neither allocates nor touches a page. A run that cannot be determined is reported as data.
 */
GODWIT_API enum godwit_err godwit_memory_next_data(void *addr, uint64_t size, int fd, uint64_t fd_offset, uint64_t from,
                                                   uint64_t *first, uint64_t *pages, struct godwit_error *error);

GODWIT_END

#endif
