/*
 * What a worker writes into a page: a header at its start and the step again in its last eight bytes, so that a stale,
 * torn or misplaced page is seen. Integers are in the byte order of the machine, as a guest's own data would be.
 */
#ifndef GUEST_PROCESS_STAMP_H
#define GUEST_PROCESS_STAMP_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/guest.h>

#include "guest/pattern.h"

#define PROCESS_STAMP_MAGIC 0x676f647769747067u

/* Word numbers within the page. */
enum {
    PROCESS_STAMP_AT_MAGIC,
    PROCESS_STAMP_AT_SEED,
    PROCESS_STAMP_AT_PAGE,
    PROCESS_STAMP_AT_STEP,
    PROCESS_STAMP_AT_CHECK,
    PROCESS_STAMP_AT_TAIL = GODWIT_PAGE_SIZE / 8 - 1,
};

static inline uint64_t process_stamp_check(uint64_t seed, uint64_t page, uint64_t step)
{
    return pattern_mix(PROCESS_STAMP_MAGIC ^ pattern_mix(seed ^ pattern_mix(page ^ pattern_mix(step))));
}

/* Plain stores that a migration reads at the same time: that race is what live migration is, and is kept from TSan. */
__attribute__((no_sanitize("thread"))) static inline void process_stamp_write(void *at, uint64_t seed, uint64_t page,
                                                                              uint64_t step)
{
    volatile uint64_t *words = at;
    words[PROCESS_STAMP_AT_MAGIC] = PROCESS_STAMP_MAGIC;
    words[PROCESS_STAMP_AT_SEED] = seed;
    words[PROCESS_STAMP_AT_PAGE] = page;
    words[PROCESS_STAMP_AT_STEP] = step;
    words[PROCESS_STAMP_AT_CHECK] = process_stamp_check(seed, page, step);
    words[PROCESS_STAMP_AT_TAIL] = step;
}

/* Does the page carry exactly this stamp? */
static inline bool process_stamp_matches(const void *at, uint64_t seed, uint64_t page, uint64_t step)
{
    const uint64_t *words = at;
    return words[PROCESS_STAMP_AT_MAGIC] == PROCESS_STAMP_MAGIC && words[PROCESS_STAMP_AT_SEED] == seed &&
           words[PROCESS_STAMP_AT_PAGE] == page && words[PROCESS_STAMP_AT_STEP] == step &&
           words[PROCESS_STAMP_AT_CHECK] == process_stamp_check(seed, page, step) &&
           words[PROCESS_STAMP_AT_TAIL] == step;
}

#endif
