/* What a sender makes of a batch: which pages it looks at, and where they go. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>

#include "multifd/sort.h"

enum { SLICE_PAGES = SLICE_SIZE_MIN / PAGE_SIZE, SLICES = 4, PAGES = SLICES * SLICE_PAGES, EPOCH = 7 };

static struct ram *ram;
static struct placement *placement;
static struct sorter sorter;
static uint8_t looked[PAGES];

/* Never looked into. */
static struct mr *const mr = (struct mr *)0x1000;
static struct remote *const key = (struct remote *)0x2000;

static uint8_t *memory_of(uint64_t page)
{
    return ram->blocks[0].addr + (page << PAGE_SHIFT);
}

static bool look(const void *page)
{
    looked[((const uint8_t *)page - memory_of(0)) >> PAGE_SHIFT]++;
    return zero_test_portable(page);
}

static void make_content(uint64_t first, uint64_t pages)
{
    for (uint64_t page = first; page < first + pages; page++)
        *memory_of(page) = 1;
}

static void open_all(void)
{
    void *addr = mmap(NULL, (size_t)PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(addr, MAP_FAILED);
    struct godwit_block block = {.addr = addr, .size = (uint64_t)PAGES * PAGE_SIZE, .fd = -1};
    ram = ram_new(&block, 1, false);
    placement = placement_new(PLACEMENT_PATIENCE_MS);
    cr_assert(ram != NULL && placement != NULL && ram_cut(ram, SLICE_SIZE_MIN));
    sorter = (struct sorter){.ram = ram, .placement = placement, .zero = look};
}

static void open_slice(unsigned i)
{
    atomic_store(&ram->slices[i].mr, mr);
    atomic_store(&ram->slices[i].remote, key);
}

static void close_all(void)
{
    for (unsigned i = 0; i < SLICES; i++) { /* they are nothing to be freed */
        atomic_store(&ram->slices[i].mr, NULL);
        atomic_store(&ram->slices[i].remote, NULL);
    }
    munmap(ram->blocks[0].addr, (size_t)PAGES * PAGE_SIZE);
    placement_free(placement);
    ram_free(ram);
}

TestSuite(sort, .init = open_all, .fini = close_all, .timeout = 30);

/* Sorts one run; every page of it must come out, in order. */
static void sort(uint64_t first, uint32_t pages)
{
    struct batch batch;
    uint64_t waited = 0;
    batch_reset(&batch, EPOCH);
    batch_add(&batch, 0, first, pages, EXTENT_NORMAL);
    sorter_sort(&sorter, &batch, &waited);
    uint8_t seen[PAGES] = {0};
    const struct batch *both[] = {&sorter.placed, &sorter.inlined};
    for (unsigned i = 0; i < 2; i++)
        for (unsigned k = 0; k < both[i]->count; k++)
            for (uint32_t p = 0; p < both[i]->extents[k].pages; p++)
                seen[both[i]->extents[k].first + p]++;
    for (uint64_t page = 0; page < PAGES; page++)
        cr_assert_eq(seen[page], page >= first && page < first + pages, "page %llu", (unsigned long long)page);
    cr_assert(sorter.placed.epoch == EPOCH && sorter.inlined.epoch == EPOCH);
}

static unsigned looks(uint64_t first, uint64_t pages)
{
    unsigned count = 0;
    for (uint64_t page = first; page < first + pages; page++)
        count += looked[page];
    return count;
}

static unsigned zeros(void)
{
    unsigned count = 0;
    const struct batch *both[] = {&sorter.placed, &sorter.inlined};
    for (unsigned i = 0; i < 2; i++)
        for (unsigned k = 0; k < both[i]->count; k++)
            count += both[i]->extents[k].kind == EXTENT_ZERO ? both[i]->extents[k].pages : 0;
    return count;
}

Test(sort, every_page_that_goes_inline_is_looked_at_once)
{
    make_content(0, SLICE_PAGES);
    memset(memory_of(300), 0, PAGE_SIZE);
    for (unsigned round = 1; round <= 3; round++) {
        sort(0, SLICE_PAGES);
        for (uint64_t page = 0; page < SLICE_PAGES; page++)
            cr_assert_eq(looked[page], round);
        cr_assert_eq(zeros(), 1);
        cr_assert_eq(sorter.inlined.normal_pages, SLICE_PAGES - 1);
    }
}

Test(sort, of_what_is_put_one_page_in_sixteen_is_looked_at_once_there_are_no_zeros)
{
    open_slice(0);
    open_slice(1);
    make_content(0, 2 * SLICE_PAGES);
    sort(0, SLICE_PAGES);
    cr_assert_eq(sorter.placed.normal_pages, SLICE_PAGES);
    cr_assert_eq(looks(0, ZERO_PACE_SURE), ZERO_PACE_SURE);
    cr_assert_eq(looks(0, SLICE_PAGES), ZERO_PACE_SURE + (SLICE_PAGES - ZERO_PACE_SURE) / ZERO_PACE_STRIDE);
    sort(SLICE_PAGES, SLICE_PAGES); /* from batch to batch */
    cr_assert_eq(looks(SLICE_PAGES, SLICE_PAGES), SLICE_PAGES / ZERO_PACE_STRIDE);
    cr_assert_eq(sorter.placed.count, 1, "runs stay whole");
}

Test(sort, pages_that_stand_alone_are_looked_at_as_seldom)
{
    open_slice(0);
    make_content(0, SLICE_PAGES);
    sort(0, ZERO_PACE_SURE);
    for (uint64_t page = ZERO_PACE_SURE + 1; page < SLICE_PAGES; page += 2)
        sort(page, 1);
    cr_assert_eq(looks(ZERO_PACE_SURE, SLICE_PAGES), (SLICE_PAGES - ZERO_PACE_SURE) / 2 / ZERO_PACE_STRIDE);
}

Test(sort, of_a_run_of_zeros_less_than_a_stride_is_put)
{
    for (unsigned i = 0; i < SLICES; i++)
        open_slice(i);
    for (unsigned begin = 0; begin < 2 * ZERO_PACE_STRIDE; begin++) {
        sorter.pace = (struct zero_pace){0};
        memset(memory_of(0), 0, (size_t)PAGES * PAGE_SIZE);
        make_content(0, 2 * ZERO_PACE_SURE + begin);
        sort(0, SLICE_PAGES);
        unsigned put = SLICE_PAGES - zeros() - (2 * ZERO_PACE_SURE + begin);
        cr_assert_lt(put, ZERO_PACE_STRIDE, "beginning at %u", begin);
    }
}

Test(sort, after_a_zero_page_every_page_is_looked_at_for_a_while)
{
    open_slice(0);
    make_content(0, SLICE_PAGES);
    uint64_t zero = 2 * ZERO_PACE_SURE; /* one that is looked at */
    memset(memory_of(zero), 0, PAGE_SIZE);
    sort(0, SLICE_PAGES);
    cr_assert_eq(zeros(), 1);
    cr_assert_eq(looks(zero, 1 + ZERO_PACE_SURE), 1 + ZERO_PACE_SURE);
    cr_assert_eq(looks(zero + 1 + ZERO_PACE_SURE, ZERO_PACE_STRIDE), 1);
}

Test(sort, expected_content_that_turns_out_to_go_inline_is_looked_at)
{
    open_slice(0); /* and not the next one */
    make_content(0, SLICE_PAGES);
    sort(0, 2 * SLICE_PAGES);
    cr_assert_eq(sorter.placed.normal_pages, SLICE_PAGES);
    cr_assert_eq(looks(SLICE_PAGES, SLICE_PAGES), SLICE_PAGES);
    cr_assert_eq(zeros(), SLICE_PAGES);
    cr_assert_eq(sorter.inlined.count, 0, "zeros travel with what is put");
}

Test(sort, without_detection_nothing_is_looked_at)
{
    open_slice(0);
    sorter.zero = NULL;
    sort(0, 2 * SLICE_PAGES);
    cr_assert_eq(looks(0, PAGES), 0);
    cr_assert_eq(sorter.placed.normal_pages, SLICE_PAGES);
    cr_assert_eq(sorter.inlined.normal_pages, SLICE_PAGES);
}
