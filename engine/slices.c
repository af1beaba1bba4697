/* See slices.h. */
#include "engine/slices.h"

uint32_t slices_size_least(uint64_t bytes)
{
    uint32_t size = SLICE_SIZE_MIN;
    while (size < SLICE_SIZE_MAX && bytes / size > SLICES_MOST)
        size *= 2;
    return size;
}

/* The memory of all slices of this size that hold something, in bytes. */
static uint64_t covered(const struct dirty *dirty, uint32_t size)
{
    uint64_t pages = 0, slice = size >> PAGE_SHIFT;
    for (unsigned i = 0; i < dirty->ram->count; i++) {
        uint64_t end = dirty->ram->blocks[i].pages;
        for (uint64_t from = 0, step; from < end; from += step) {
            step = end - from < slice ? end - from : slice;
            pages += bitmap_any(dirty->blocks[i].bits, from, step) ? step : 0;
        }
    }
    return pages << PAGE_SHIFT;
}

uint32_t slices_size(const struct dirty *dirty, bool all)
{
    uint64_t bytes = dirty->ram->pages << PAGE_SHIFT;
    uint32_t size = slices_size_least(bytes);
    if (!all && covered(dirty, size) < bytes - bytes / SLICES_SPARE)
        return size;
    while (size < SLICE_SIZE_MAX && bytes / (2 * size) >= SLICES_LEAST)
        size *= 2;
    return size;
}
