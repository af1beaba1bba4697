/* See sort.h. The zero test is the only reader of a page here, and no second one: see the top of sender.c. */
#include "multifd/sort.h"

/* So far ahead that a cache line has come by the time its page is tested, where the pages in between are tested too. */
enum { PREFETCH_PAGES = 8 };

/* Where the content of a run within one slice goes. */
static struct batch *choose(struct sorter *sorter, const struct extent *run, uint64_t *waited_ns)
{
    struct placed ignored;
    if (sorter->placement == NULL)
        return &sorter->inlined;
    struct slice *slice = ram_slice(sorter->ram, run->block, run->first);
    return placement_ask(sorter->placement, slice, &ignored, waited_ns) ? &sorter->placed : &sorter->inlined;
}

/* How many of the next pages, which go where `content` says if that is known, are content without a look. What goes
 * inline is always looked at: this processor reads it anyway, and the destination's memory may be saved. */
static uint32_t taken_for_content(const struct sorter *sorter, const struct batch *content, uint32_t left)
{
    if (sorter->zero == NULL)
        return left;
    return content == &sorter->placed ? zero_pace_skip(&sorter->pace, left) : 0;
}

/* A run within one slice. The slice is asked for when the first page turns out, or is expected, not to be zero. */
static void sort_run(struct sorter *sorter, const struct extent *run, uint64_t *waited_ns)
{
    const uint8_t *memory = ram_content(&sorter->ram->blocks[run->block], run->first);
    bool expected = sorter->zero == NULL || zero_pace_trusts(&sorter->pace);
    struct batch *content = expected ? choose(sorter, run, waited_ns) : NULL;
    for (uint32_t i = 0, pages; i < run->pages; i += pages) {
        pages = taken_for_content(sorter, content, run->pages - i);
        if (pages == 0) {
            const uint8_t *page = memory + ((uint64_t)i << PAGE_SHIFT);
            bool seldom = content == &sorter->placed && zero_pace_trusts(&sorter->pace);
            if (!seldom && i + PREFETCH_PAGES < run->pages)
                __builtin_prefetch(page + PREFETCH_PAGES * PAGE_SIZE); /* the word that the test will look at first */
            pages = 1;
            if (sorter->zero(page)) {
                batch_add_joined(&sorter->inlined, run->block, run->first + i, 1, EXTENT_ZERO);
                zero_pace_zero(&sorter->pace);
                continue;
            }
        }
        if (content == NULL)
            content = choose(sorter, run, waited_ns);
        batch_add_joined(content, run->block, run->first + i, pages, EXTENT_NORMAL);
        zero_pace_content(&sorter->pace, pages);
    }
}

static void sort_extent(struct sorter *sorter, const struct extent *extent, uint64_t *waited_ns)
{
    uint64_t slice = sorter->placement != NULL ? sorter->ram->slice_size >> PAGE_SHIFT : UINT64_C(1) << 63;
    struct extent run = *extent;
    for (uint32_t left = extent->pages; left > 0; left -= run.pages, run.first += run.pages) {
        uint64_t most = slice - (run.first & (slice - 1));
        run.pages = left < most ? left : (uint32_t)most;
        sort_run(sorter, &run, waited_ns);
    }
}

/*
 * At most as many extents together as a batch may have, since each has a page of its own. Zeros alone are no reason for
 * a second record.
 */
void sorter_sort(struct sorter *sorter, const struct batch *batch, uint64_t *waited_ns)
{
    struct batch *placed = &sorter->placed, *inlined = &sorter->inlined;
    batch_reset(placed, batch->epoch);
    batch_reset(inlined, batch->epoch);
    for (unsigned i = 0; i < batch->count; i++) {
        const struct extent *extent = &batch->extents[i];
        if (extent->kind == EXTENT_NORMAL)
            sort_extent(sorter, extent, waited_ns);
        else
            batch_add(inlined, extent->block, extent->first, extent->pages, extent->kind);
    }
    if (placed->count == 0 || inlined->normal_pages > 0)
        return;
    for (unsigned i = 0; i < inlined->count; i++)
        batch_add(placed, inlined->extents[i].block, inlined->extents[i].first, inlined->extents[i].pages, EXTENT_ZERO);
    batch_reset(inlined, batch->epoch);
}
