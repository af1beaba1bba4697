/* See bitmap.h. */
#include "multifd/bitmap.h"

#include <stddef.h>

void bitmap_set(uint64_t *map, uint64_t first, uint64_t pages)
{
    if (pages == 0)
        return;
    for (uint64_t word = first / 64; word <= (first + pages - 1) / 64; word++)
        map[word] |= bitmap_mask(word, first, pages);
}

void bitmap_clear(uint64_t *map, uint64_t first, uint64_t pages)
{
    if (pages == 0)
        return;
    for (uint64_t word = first / 64; word <= (first + pages - 1) / 64; word++)
        map[word] &= ~bitmap_mask(word, first, pages);
}

static inline __attribute__((always_inline)) uint64_t count_words(const uint64_t *map, uint64_t words)
{
    uint64_t count = 0;
    for (uint64_t word = 0; word < words; word++)
        count += (uint64_t)__builtin_popcountll(map[word]);
    return count;
}

#if defined(__x86_64__)
/* By one instruction, which not every x86-64 has; without it a word is a call and takes five times as long. */
__attribute__((target("popcnt"))) static uint64_t count_words_popcnt(const uint64_t *map, uint64_t words)
{
    return count_words(map, words);
}

static uint64_t count_all(const uint64_t *map, uint64_t words)
{
    return __builtin_cpu_supports("popcnt") ? count_words_popcnt(map, words) : count_words(map, words);
}
#else
static uint64_t count_all(const uint64_t *map, uint64_t words)
{
    return count_words(map, words);
}
#endif

uint64_t bitmap_count(const uint64_t *map, uint64_t pages)
{
    uint64_t count = count_all(map, pages / 64);
    if (pages % 64 != 0)
        count += (uint64_t)__builtin_popcountll(map[pages / 64] & bitmap_mask(pages / 64, 0, pages));
    return count;
}

bool bitmap_any(const uint64_t *map, uint64_t first, uint64_t pages)
{
    if (pages == 0)
        return false;
    for (uint64_t word = first / 64; word <= (first + pages - 1) / 64; word++)
        if ((map[word] & bitmap_mask(word, first, pages)) != 0)
            return true;
    return false;
}

void bitmap_set_atomic(_Atomic uint64_t *map, uint64_t first, uint64_t pages)
{
    if (pages == 0)
        return;
    for (uint64_t word = first / 64; word <= (first + pages - 1) / 64; word++)
        atomic_fetch_or_explicit(&map[word], bitmap_mask(word, first, pages), memory_order_relaxed);
}

bool bitmap_all_atomic(_Atomic uint64_t *map, uint64_t first, uint64_t pages)
{
    if (pages == 0)
        return true;
    for (uint64_t word = first / 64; word <= (first + pages - 1) / 64; word++)
        if (~atomic_load_explicit(&map[word], memory_order_relaxed) & bitmap_mask(word, first, pages))
            return false;
    return true;
}

bool bitmap_any_atomic(_Atomic uint64_t *map, uint64_t first, uint64_t pages)
{
    if (pages == 0)
        return false;
    for (uint64_t word = first / 64; word <= (first + pages - 1) / 64; word++)
        if (atomic_load_explicit(&map[word], memory_order_relaxed) & bitmap_mask(word, first, pages))
            return true;
    return false;
}

static uint64_t word_of(const uint64_t *map, const uint64_t *held, uint64_t word)
{
    return held == NULL ? map[word] : map[word] & ~held[word];
}

/* The first page at or after `from` whose bit, inverted by flip, is set; `pages` when there is none. */
static uint64_t next_page(const uint64_t *map, const uint64_t *held, uint64_t pages, uint64_t from, uint64_t flip)
{
    uint64_t word = from / 64;
    if (from >= pages)
        return pages;
    uint64_t bits = (word_of(map, held, word) ^ flip) & (~UINT64_C(0) << (from % 64));
    while (bits == 0) {
        word++;
        if (word >= bitmap_words(pages))
            return pages;
        bits = word_of(map, held, word) ^ flip;
    }
    uint64_t page = word * 64 + (uint64_t)__builtin_ctzll(bits);
    return page < pages ? page : pages;
}

static struct run next_run(const uint64_t *map, const uint64_t *held, uint64_t pages, uint64_t from, uint64_t max,
                           uint64_t flip)
{
    uint64_t first = next_page(map, held, pages, from, flip);
    if (first == pages)
        return (struct run){pages, 0};
    uint64_t limit = pages - first < max ? pages : first + max;
    return (struct run){first, next_page(map, held, limit, first, ~flip) - first};
}

struct run bitmap_next_run(const uint64_t *map, const uint64_t *held, uint64_t pages, uint64_t from, uint64_t max)
{
    return next_run(map, held, pages, from, max, 0);
}

struct run bitmap_next_clear_run(const uint64_t *map, uint64_t pages, uint64_t from, uint64_t max)
{
    return next_run(map, NULL, pages, from, max, ~UINT64_C(0));
}
