/*
 * What becomes of the pages of a batch: zero pages are described, content is put into the destination's memory where
 * both sides have registered its slice, and what is left goes inline. One sorter per sender, used by its thread alone.
 */
#ifndef MULTIFD_SORT_H
#define MULTIFD_SORT_H

#include "multifd/batch.h"
#include "multifd/placement.h"
#include "multifd/zero.h"

struct sorter {
    const struct ram *ram;
    struct placement *placement; /* NULL: nothing is put */
    zero_test *zero;             /* NULL: every page is content */
    struct zero_pace pace;       /* counts every page; rules how often what is put is looked at */
    /* The last batch, sorted. Zeros are with either. */
    struct batch placed, inlined;
};

/* May wait for a registration or a key that is due (placement_ask()); adds that to *waited_ns. */
void sorter_sort(struct sorter *sorter, const struct batch *batch, uint64_t *waited_ns);

#endif
