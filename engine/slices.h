/* How large the slices are into which memory is cut for registering (multifd/ram.h). Pure. */
#ifndef ENGINE_SLICES_H
#define ENGINE_SLICES_H

#include "engine/dirty.h"

enum {
    SLICES_MOST = 16384, /* about as many are worth having, until the largest size is reached */
    SLICES_LEAST = 32,   /* large ones leave so many: sending begins with the first, while others are registered */
    SLICES_SPARE = 8,    /* large ones pin at most one part in so many of all memory in vain, whatever comes later */
};

/* In bytes: 2 MiB up to 32 GiB, then as large as keeps their number at SLICES_MOST, at most 16 MiB. */
uint32_t slices_size_least(uint64_t bytes);

/*
 * In bytes: from there on as large as leaves SLICES_LEAST, where nearly all memory is to be registered anyway: the
 * dirty pages are those that exist, or all is. Each slice takes a registration on both sides, an entry in the devices'
 * tables, and a record.
 */
uint32_t slices_size(const struct dirty *dirty, bool all);

#endif
