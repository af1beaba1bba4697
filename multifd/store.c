/* See store.h. Long extents are gone through in steps, so that stopping and progress are noticed. */
#include "multifd/store.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "multifd/bitmap.h"
#include "transport/error.h"

enum { STORE_STEP = 512 /* pages */ };

static enum godwit_err populate(struct ram_block *block, uint64_t first, uint64_t pages, int advice,
                                struct godwit_error *error)
{
    if (madvise(block->addr + (first << PAGE_SHIFT), pages << PAGE_SHIFT, advice) == 0)
        return GODWIT_OK;
    switch (errno) {
    case EINVAL: /* a kernel before 5.14, or memory of a device: stores will do without */
        return GODWIT_OK;
    case EFAULT: /* where a store would end in SIGBUS (madvise(2)) */
    case ENOSPC:
        return error_set(error, GODWIT_ERR_NO_MEMORY,
                         "the destination cannot store the guest's memory: what backs block %s is full at offset %llu",
                         block->id, (unsigned long long)(first << PAGE_SHIFT));
    default:
        return error_set_sys(error, GODWIT_ERR_NO_MEMORY, errno,
                             "the destination cannot get memory for block %s at offset %llu", block->id,
                             (unsigned long long)(first << PAGE_SHIFT));
    }
}

enum godwit_err store_populate(struct ram_block *block, const struct extent *extent, struct godwit_error *error)
{
    if (bitmap_all_atomic(block->stored, extent->first, extent->pages))
        return GODWIT_OK;
    return populate(block, extent->first, extent->pages, MADV_POPULATE_WRITE, error);
}

static void clear_page(struct ram_block *block, uint64_t page, zero_test *is_zero)
{
    uint8_t *addr = block->addr + (page << PAGE_SHIFT);
    if (!is_zero(addr))
        memset(addr, 0, PAGE_SIZE);
}

/* At most STORE_STEP pages that may hold anything. Stored zeros, never a discard: the memory may be registered with a
 * device that would keep the old pages. */
static enum godwit_err clear(struct ram_block *block, uint64_t first, uint64_t pages, zero_test *is_zero,
                             struct godwit_error *error)
{
    /* For reading: a page of anonymous memory that is not there stays so. */
    enum godwit_err err = populate(block, first, pages, MADV_POPULATE_READ, error);
    for (uint64_t page = first; page < first + pages && err == GODWIT_OK; page++)
        clear_page(block, page, is_zero);
    return err;
}

static enum godwit_err clear_stored(struct ram_block *block, uint64_t first, uint64_t pages, zero_test *is_zero,
                                    struct godwit_error *error)
{
    if (!block->fresh)
        return clear(block, first, pages, is_zero, error);
    for (uint64_t page = first; page < first + pages; page++)
        if (bitmap_any_atomic(block->stored, page, 1)) /* so it is there */
            clear_page(block, page, is_zero);
    return GODWIT_OK;
}

enum godwit_err store_zeros(struct ram_block *block, const struct extent *extent, zero_test *is_zero,
                            const atomic_bool *stopping, _Atomic uint64_t *progress, struct godwit_error *error)
{
    if (block->fresh && !bitmap_any_atomic(block->stored, extent->first, extent->pages))
        return GODWIT_OK;
    uint64_t end = extent->first + extent->pages;
    for (uint64_t page = extent->first, step; page < end; page += step) {
        step = end - page < STORE_STEP ? end - page : STORE_STEP;
        enum godwit_err err = clear_stored(block, page, step, is_zero, error);
        if (err != GODWIT_OK)
            return err;
        atomic_fetch_add_explicit(progress, step, memory_order_relaxed);
        if (atomic_load_explicit(stopping, memory_order_relaxed))
            return error_set(error, GODWIT_ERR_CLOSED, "stopped");
    }
    return GODWIT_OK;
}

void store_note(struct ram_block *block, const struct extent *extent)
{
    bitmap_set_atomic(block->received, extent->first, extent->pages);
    if (extent->kind == EXTENT_NORMAL)
        bitmap_set_atomic(block->stored, extent->first, extent->pages);
}
