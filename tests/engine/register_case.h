/* What the tests of registering share: a guest with holes, and sums over its slices and channels. */
#ifndef TESTS_ENGINE_REGISTER_CASE_H
#define TESTS_ENGINE_REGISTER_CASE_H

#include "tests/engine/expect.h"

enum { SLICE_PAGES = SLICE_SIZE_MIN / PAGE_SIZE, SCALE = 20 /* blocks 2 and 3: 12 and 7 slices */ };

struct sums {
    uint64_t placed, inlined;
};

static inline struct sums sums_of(const struct scene *scene)
{
    struct sums sums = {0, 0};
    for (unsigned i = 0; i < scene->source_info.channel_count; i++) {
        sums.placed += scene->source_info.channels[i].placed_bytes;
        sums.inlined += scene->source_info.channels[i].inline_bytes;
    }
    return sums;
}

static inline uint64_t slice_bytes(const struct test_guest *guest, unsigned block, uint64_t slice)
{
    uint64_t left = guest->blocks[block].size - slice * SLICE_SIZE_MIN;
    return left < SLICE_SIZE_MIN ? left : SLICE_SIZE_MIN;
}

static inline uint64_t slices_of(const struct test_guest *guest, unsigned block)
{
    return (guest->blocks[block].size + SLICE_SIZE_MIN - 1) / SLICE_SIZE_MIN;
}

/* All but some slices of the two larger blocks become holes. Returns the bytes of the slices that are left. */
static inline uint64_t make_sparse(struct test_guest *guest)
{
    uint64_t left = guest->blocks[0].size + guest->blocks[1].size;
    for (unsigned b = 2; b < TEST_BLOCKS; b++)
        for (uint64_t k = 0; k < slices_of(guest, b); k++)
            if (k % 4 == 1)
                left += slice_bytes(guest, b, k);
            else
                test_guest_empty(guest, b, k * SLICE_PAGES, slice_bytes(guest, b, k) / PAGE_SIZE);
    return left;
}

static inline uint64_t total(const struct test_guest *guest)
{
    uint64_t bytes = 0;
    for (unsigned b = 0; b < TEST_BLOCKS; b++)
        bytes += guest->blocks[b].size;
    return bytes;
}

#endif
