/* Is a page all zeros? One vector version chosen at run time, one portable; both see live memory, so their answer is
 * only as old as the read: a page that is written meanwhile is in the dirty log. */
#ifndef MULTIFD_ZERO_H
#define MULTIFD_ZERO_H

#include <stdbool.h>
#include <stdint.h>

typedef bool zero_test(const void *page);

/* The fastest test this processor has. */
zero_test *zero_test_select(void);
zero_test zero_test_portable;

/*
 * How often to look at pages that a device reads by itself. A look is a wait for cold memory, and all that this
 * processor has to do with the page; it pays while there are zero pages. Where none was among the last ZERO_PACE_SURE,
 * one of ZERO_PACE_STRIDE is looked at, until one is zero: zero pages come in runs, and of each the device moves
 * ZERO_PACE_STRIDE - 1 at most for every sender that has to do with it. Pure.
 */
enum { ZERO_PACE_SURE = 64, ZERO_PACE_STRIDE = 16 };

struct zero_pace {
    uint64_t content; /* pages in a row, looked at or not */
};

static inline bool zero_pace_trusts(const struct zero_pace *pace)
{
    return pace->content >= ZERO_PACE_SURE;
}

/* How many of the next pages, at most `most`, need no look. 0: the next one does. */
static inline uint32_t zero_pace_skip(const struct zero_pace *pace, uint32_t most)
{
    if (!zero_pace_trusts(pace) || pace->content % ZERO_PACE_STRIDE == 0)
        return 0;
    uint32_t skip = ZERO_PACE_STRIDE - (uint32_t)(pace->content % ZERO_PACE_STRIDE);
    return skip < most ? skip : most;
}

static inline void zero_pace_content(struct zero_pace *pace, uint32_t pages)
{
    pace->content += pages;
}

static inline void zero_pace_zero(struct zero_pace *pace)
{
    pace->content = 0;
}

#endif
