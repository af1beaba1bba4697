/* Pages that travel together: what the engine hands to a sender, and what one packet on the wire describes. */
#ifndef MULTIFD_BATCH_H
#define MULTIFD_BATCH_H

#include "multifd/ram.h"

enum {
    BATCH_PAGES = 512,   /* 2 MiB of content at most */
    BATCH_EXTENTS = 512, /* so that every second page of a full batch may turn out to be zero */
};

enum extent_kind {
    EXTENT_NORMAL = 1, /* content follows, or was put before */
    EXTENT_ZERO = 2,   /* reads as zeros; may cover any number of pages */
};

/* A run of pages of one block and one kind. */
struct extent {
    uint64_t first;
    uint32_t pages;
    uint16_t block;
    uint8_t kind;
};

struct batch {
    uint32_t epoch;
    unsigned count;        /* extents */
    unsigned normal_pages; /* in extents of kind normal; count of zero extents + this never exceeds BATCH_EXTENTS */
    unsigned zero_extents;
    struct extent extents[BATCH_EXTENTS];
};

static inline void batch_reset(struct batch *batch, uint32_t epoch)
{
    batch->epoch = epoch;
    batch->count = batch->normal_pages = batch->zero_extents = 0;
}

/* How many more normal pages fit. */
static inline unsigned batch_room(const struct batch *batch)
{
    unsigned extents = BATCH_EXTENTS - batch->zero_extents;
    unsigned most = extents < BATCH_PAGES ? extents : BATCH_PAGES;
    return most - batch->normal_pages;
}

/* pages <= batch_room() for normal extents; batch_room() > 0 for zero extents. */
static inline void batch_add(struct batch *batch, unsigned block, uint64_t first, uint32_t pages, enum extent_kind kind)
{
    batch->extents[batch->count++] =
        (struct extent){.first = first, .pages = pages, .block = (uint16_t)block, .kind = (uint8_t)kind};
    if (kind == EXTENT_NORMAL)
        batch->normal_pages += pages;
    else
        batch->zero_extents++;
}

/* The same, joined with the extent before where it is that one's direct continuation. */
static inline void batch_add_joined(struct batch *batch, unsigned block, uint64_t first, uint32_t pages,
                                    enum extent_kind kind)
{
    struct extent *last = batch->count > 0 ? &batch->extents[batch->count - 1] : NULL;
    if (last == NULL || last->kind != kind || last->block != block || last->first + last->pages != first ||
        last->pages > UINT32_MAX - pages) {
        batch_add(batch, block, first, pages, kind);
        return;
    }
    last->pages += pages;
    batch->normal_pages += kind == EXTENT_NORMAL ? pages : 0;
}

#endif
