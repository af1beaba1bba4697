/*
 * The memory being migrated, as senders and receivers see it: the same on both sides, block by block. Where the
 * transport is one-sided every block is cut into slices: what is registered in one piece, and what one key opens.
 */
#ifndef MULTIFD_RAM_H
#define MULTIFD_RAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <godwit/guest.h>

#include "transport/region.h"

enum { PAGE_SIZE = GODWIT_PAGE_SIZE, PAGE_SHIFT = 12 };

enum {
    SLICE_SIZE_MIN = 2 << 20, /* bytes */
    SLICE_SIZE_MAX = 16 << 20,
};

struct slice {
    _Atomic(struct mr *) mr;         /* this side's registration, once it is made; by the registrar */
    _Atomic(struct remote *) remote; /* source: the destination's memory, once its key has come; by the placement */
    uint16_t block;
    atomic_bool awaited; /* source: a registration or a key may still come; by the placement */
    bool barred;         /* beyond the bound on pinned memory, it stays unregistered; by whoever queues it */
    bool queued;         /* handed to the registrar; by whoever queues it */
    bool announced;      /* the destination was told of it. Source: under the placement's lock; destination: its own */
    bool settled;        /* source: registered, or never will be; under the placement's lock */
    bool keyed;          /* source: its KEY has come, with a key or without; under the placement's lock */
};

struct ram_block {
    char id[GODWIT_BLOCK_ID_MAX + 1];
    uint8_t *addr;
    uint64_t pages;
    int fd;
    uint64_t fd_offset;

    /* One-sided transports only, after ram_cut; else NULL and 0. */
    struct slice *slices;
    uint32_t slice_count;
    uint8_t *alias; /* a second mapping of the memory, after ram_map_again; else NULL */

    /* Destination only. */
    bool fresh;                 /* never-received pages read as zero */
    bool present;               /* stores need no memory that is not there yet */
    _Atomic uint64_t *received; /* bitmap: announced by any extent so far; set by receivers, read by all */
    _Atomic uint64_t *stored;   /* bitmap: content was stored there */
};

struct ram {
    struct ram_block *blocks;
    unsigned count;
    uint64_t pages; /* of all blocks */

    uint32_t slice_size;  /* bytes; 0: not cut */
    unsigned slice_shift; /* its logarithm to base 2: senders divide by it for every page */
    uint32_t slice_count;
    struct slice *slices; /* of all blocks, in their order */
};

/* Copies what the guest tells; allocates received bitmaps if asked. NULL when memory is out. */
struct ram *ram_new(const struct godwit_block *blocks, unsigned count, bool with_received);
/* Frees registrations and remotes too; after the channels that used them. NULL allowed. */
void ram_free(struct ram *ram);

/* Cuts all blocks into slices of slice_size, a power of 2; the last one of each may be shorter. Once. False when memory
 * is out. */
bool ram_cut(struct ram *ram, uint32_t slice_size);

/*
 * Maps the block's memory a second time, for registering. False where that cannot be had: no descriptor, or the system
 * refuses. The descriptor must be what addr maps, shared (struct godwit_block says so).
 */
bool ram_map_again(struct ram_block *block);

/* Where a sender reads a page: by the second mapping where there is one, for a slice that is registered is mapped there
 * already, and a first look through the guest's own may cost a page fault. */
static inline uint8_t *ram_content(const struct ram_block *block, uint64_t page)
{
    return (block->alias != NULL ? block->alias : block->addr) + (page << PAGE_SHIFT);
}

static inline struct slice *ram_slice(const struct ram *ram, unsigned block, uint64_t page)
{
    return &ram->blocks[block].slices[page >> (ram->slice_shift - PAGE_SHIFT)];
}

/* The slice's index in its block, its first page there, and its pages. */
static inline uint32_t slice_index(const struct ram *ram, const struct slice *slice)
{
    return (uint32_t)(slice - ram->blocks[slice->block].slices);
}

static inline uint64_t slice_first(const struct ram *ram, const struct slice *slice)
{
    return (uint64_t)slice_index(ram, slice) * (ram->slice_size >> PAGE_SHIFT);
}

static inline uint64_t slice_pages(const struct ram *ram, const struct slice *slice)
{
    uint64_t left = ram->blocks[slice->block].pages - slice_first(ram, slice), most = ram->slice_size >> PAGE_SHIFT;
    return left < most ? left : most;
}

#endif
