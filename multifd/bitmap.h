/* Page bitmaps: bit n of word n/64 is page n. Runs are found a word at a time. */
#ifndef MULTIFD_BITMAP_H
#define MULTIFD_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct run {
    uint64_t first, pages; /* pages 0: there is none */
};

static inline uint64_t bitmap_words(uint64_t pages)
{
    return (pages + 63) / 64;
}

static inline bool bitmap_test(const uint64_t *map, uint64_t page)
{
    return (map[page / 64] >> (page % 64)) & 1;
}

/* The bits of word `word` that lie in [first, first + pages). */
static inline uint64_t bitmap_mask(uint64_t word, uint64_t first, uint64_t pages)
{
    uint64_t low = word * 64, end = first + pages;
    uint64_t mask = ~UINT64_C(0);
    if (first > low)
        mask &= ~UINT64_C(0) << (first - low);
    if (end < low + 64)
        mask &= ~UINT64_C(0) >> (low + 64 - end);
    return mask;
}

void bitmap_set(uint64_t *map, uint64_t first, uint64_t pages);
void bitmap_clear(uint64_t *map, uint64_t first, uint64_t pages);
uint64_t bitmap_count(const uint64_t *map, uint64_t pages);
bool bitmap_any(const uint64_t *map, uint64_t first, uint64_t pages);

/* For maps that several threads set at once. */
void bitmap_set_atomic(_Atomic uint64_t *map, uint64_t first, uint64_t pages);
/* Is every one, or any one, of these bits set? */
bool bitmap_all_atomic(_Atomic uint64_t *map, uint64_t first, uint64_t pages);
bool bitmap_any_atomic(_Atomic uint64_t *map, uint64_t first, uint64_t pages);

/*
 * The first run, at or after page `from`, of at most `max` pages that are set in map and not set in `held` (which may
 * be NULL). `pages` is the size of the maps.
 */
struct run bitmap_next_run(const uint64_t *map, const uint64_t *held, uint64_t pages, uint64_t from, uint64_t max);

/* The first run, at or after page `from`, of at most `max` pages that are clear in map. */
struct run bitmap_next_clear_run(const uint64_t *map, uint64_t pages, uint64_t from, uint64_t max);

#endif
