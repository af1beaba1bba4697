/* How large slices are, given which pages exist; and in a migration over the loop, given the options too. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "engine/slices.h"
#include "tests/engine/register_case.h"

TestSuite(slices, .timeout = 60);

static const uint64_t MIB = UINT64_C(1) << 20, GIB = UINT64_C(1) << 30;

Test(slices, are_at_least_2_mib_up_to_32_gib_and_at_most_16)
{
    static const struct {
        uint64_t gib;
        uint32_t mib;
    } rows[] = {{0, 2}, {1, 2}, {32, 2}, {33, 4}, {64, 4}, {65, 8}, {128, 8}, {129, 16}, {256, 16}, {4096, 16}};
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_assert_eq(slices_size_least(rows[i].gib * GIB), rows[i].mib << 20, "%llu GiB",
                     (unsigned long long)rows[i].gib);
    cr_assert_eq(slices_size_least(UINT64_MAX), 16 << 20);
}

/* Of one block of so many MiB, in which of every `period` bytes the first `there` exist. */
static uint32_t size_for(uint64_t mib, uint64_t period, uint64_t there)
{
    struct godwit_block block = {.size = mib * MIB, .fd = -1};
    struct ram *ram = ram_new(&block, 1, false);
    struct dirty *dirty = dirty_new(ram);
    for (uint64_t at = 0; at < mib * MIB; at += period) {
        uint64_t left = mib * MIB - at;
        bitmap_set(dirty->blocks[0].bits, at >> PAGE_SHIFT, (there < left ? there : left) >> PAGE_SHIFT);
    }
    uint32_t size = slices_size(dirty, false);
    dirty_free(dirty);
    ram_free(ram);
    return (uint32_t)(size / MIB);
}

Test(slices, of_full_memory_are_as_large_as_leaves_32_of_them)
{
    static const struct {
        uint64_t mib;
        uint32_t size;
    } rows[] = {{2, 2}, {64, 2}, {127, 2}, {128, 4}, {255, 4}, {256, 8}, {511, 8}, {512, 16}, {8192, 16}};
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_assert_eq(size_for(rows[i].mib, rows[i].mib * MIB, rows[i].mib * MIB), rows[i].size, "%llu MiB",
                     (unsigned long long)rows[i].mib);
}

Test(slices, of_scattered_memory_are_as_large_where_small_ones_would_pin_as_much)
{
    cr_assert_eq(size_for(1024, 2 * PAGE_SIZE, PAGE_SIZE), 16);
    cr_assert_eq(size_for(1024, 2 * MIB, PAGE_SIZE), 16);
}

Test(slices, stay_small_where_large_ones_might_pin_holes)
{
    cr_assert_eq(size_for(4096, 4 * MIB, MIB), 2);
    cr_assert_eq(size_for(4096, 8 * MIB, 4 * MIB), 2);
    cr_assert_eq(size_for(4096, 16 * MIB, 12 * MIB), 2);
    cr_assert_eq(size_for(4096, 16 * MIB, 13 * MIB), 16, "7 of 8 small ones");
    cr_assert_eq(size_for(16384, 512 * MIB, 500 * MIB), 16);
    cr_assert_eq(size_for(32768, 32768 * MIB, 1024 * MIB), 2, "what comes later may be anywhere");
    cr_assert_eq(size_for(1024, 1024 * MIB, 0), 2);
}

Test(slices, count_blocks_by_what_each_has)
{
    struct godwit_block blocks[] = {
        {.size = 512 * MIB, .fd = -1}, {.size = PAGE_SIZE, .fd = -1}, {.size = GIB, .fd = -1}};
    struct ram *ram = ram_new(blocks, 3, false);
    struct dirty *dirty = dirty_new(ram);
    bitmap_set(dirty->blocks[0].bits, 0, 512 * MIB >> PAGE_SHIFT);
    cr_assert_eq(slices_size(dirty, false), 2 * MIB);
    cr_assert_eq(slices_size(dirty, true), 16 * MIB, "what is not there is registered as well");
    for (uint64_t at = 0; at < GIB; at += 2 * MIB)
        bitmap_set(dirty->blocks[2].bits, at >> PAGE_SHIFT, 1);
    cr_assert_eq(slices_size(dirty, false), 16 * MIB);
    dirty_free(dirty);
    ram_free(ram);
}

/* ---- in a migration ---- */

/* The largest registration of the source, in bytes. */
static enum godwit_err note_size(void *opaque, const struct region *region, enum region_access access,
                                 struct godwit_error *error)
{
    _Atomic uint64_t *largest = ((struct scene *)opaque)->opaque;
    for (uint64_t seen = atomic_load(largest); region->size > seen;)
        if (atomic_compare_exchange_weak(largest, &seen, region->size))
            break;
    return GODWIT_OK;
}

struct large {
    uint64_t largest;
    char option[16], value[8]; /* of the source; "": none */
    bool hidden;               /* no descriptors */
};

ParameterizedTestParameters(slices, full_memory_has_large_slices_where_nothing_speaks_against_them)
{
    static struct large rows[] = {
        {4 << 20, "", "", false},
        {4 << 20, "rdma-pin-all", "on", true},
        {2 << 20, "max-pinned", "100M", false},
        {4 << 20, "max-pinned", "1G", false}, /* more than there is */
    };
    return cr_make_param_array(struct large, rows, 4);
}

ParameterizedTest(struct large *row, slices, full_memory_has_large_slices_where_nothing_speaks_against_them)
{
    enum { LARGE = 80 }; /* 152 MiB */
    _Atomic uint64_t largest = 0;
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 8, LARGE);
    if (row->hidden)
        test_guest_hide_descriptors(&scene.from);
    if (row->option[0] != 0)
        scene_set_source(&scene, row->option, row->value);
    test_guest_start_writer(&scene.from);
    scene.watch_source = note_size;
    scene.opaque = &largest;
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_eq(largest, row->largest);
    cr_assert_gt(sums_of(&scene).placed, 0);
    scene_close(&scene);
}
