/* rdma-pin-all: what is pinned when, and what is sent; over the loop. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "engine/source.h"
#include "tests/engine/register_case.h"

TestSuite(pinning_all, .timeout = 60);

struct counts {
    atomic_uint source, destination;
    unsigned at_start, at_offer; /* registrations of the source before tracking, and before OFFER */
    unsigned at_accept;          /* of the destination before ACCEPT */
};

/* As a device does, which makes the pages that it pins. */
static enum godwit_err count_source(void *opaque, const struct region *region, enum region_access access,
                                    struct godwit_error *error)
{
    struct counts *counts = ((struct scene *)opaque)->opaque;
    for (uint64_t at = 0; at < region->size; at += PAGE_SIZE)
        (void)((volatile uint8_t *)region->addr)[at];
    atomic_fetch_add(&counts->source, 1);
    return GODWIT_OK;
}

static enum godwit_err count_destination(void *opaque, const struct region *region, enum region_access access,
                                         struct godwit_error *error)
{
    struct counts *counts = ((struct scene *)opaque)->opaque;
    atomic_fetch_add(&counts->destination, 1);
    return GODWIT_OK;
}

static enum tap_verdict look_for_answers(void *opaque, const struct tap_event *event)
{
    struct counts *counts = ((struct scene *)opaque)->opaque;
    if (event->hello.role != HELLO_CONTROL)
        return TAP_PASS;
    if (!event->received && event->type == RECORD_OFFER)
        counts->at_offer = counts->source;
    if (event->received && event->type == RECORD_ACCEPT)
        counts->at_accept = counts->destination;
    return TAP_PASS;
}

static void look_for_start(void *opaque, enum guest_op op)
{
    struct counts *counts = ((struct scene *)opaque)->opaque;
    if (op == OP_DIRTY_START)
        counts->at_start = counts->source;
}

ParameterizedTestParameters(pinning_all, registers_everything_up_front_and_sends_what_existed_before)
{
    static bool rows[] = {false, true};
    return cr_make_param_array(bool, rows, 2);
}

ParameterizedTest(bool *hidden, pinning_all, registers_everything_up_front_and_sends_what_existed_before)
{
    struct counts counts = {0};
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 3, SCALE);
    uint64_t populated = make_sparse(&scene.from);
    if (*hidden)
        test_guest_hide_descriptors(&scene.from);
    scene_set(&scene, "rdma-pin-all", "on");
    scene.watch_source = count_source;
    scene.watch_destination = count_destination;
    scene.rule = look_for_answers;
    scene.from.hook = look_for_start;
    scene.from.hook_opaque = &scene;
    scene.opaque = &counts;
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    unsigned all = (unsigned)(2 + slices_of(&scene.from, 2) + slices_of(&scene.from, 3));
    cr_assert_eq(counts.at_start, *hidden ? all : 0, "%u", counts.at_start);
    cr_assert_eq(counts.at_offer, all);
    cr_assert_eq(counts.source, all);
    cr_assert_eq(counts.at_accept, all);
    cr_assert_eq(counts.destination, all);
    cr_assert_eq(scene.source_info.pinned_bytes, total(&scene.from));
    cr_assert_eq(scene.destination_info.pinned_bytes, total(&scene.to));
    cr_assert_eq(sums_of(&scene).inlined, 0);
    if (!*hidden) /* elsewhere what the pins made cannot be told from what there was */
        cr_assert_leq(scene.source->offer.populated, populated, "%llu",
                      (unsigned long long)scene.source->offer.populated);
    scene_close(&scene);
}

/* ---- the dirty log ---- */

static enum godwit_err write_once(void *opaque, const struct region *region, enum region_access access,
                                  struct godwit_error *error)
{
    struct scene *scene = opaque;
    atomic_uint *pinned = scene->opaque;
    if (atomic_fetch_add(pinned, 1) == 0)
        for (uint64_t page = 0; page < SLICE_PAGES; page++)
            test_guest_write(&scene->from, 2, SLICE_PAGES + page, 4711 + page);
    return GODWIT_OK;
}

Test(pinning_all, what_is_written_meanwhile_is_sent_once)
{
    uint64_t sent[2];
    for (unsigned i = 0; i < 2; i++) {
        atomic_uint pinned = i; /* whoever pins first writes: of the first round alone */
        struct scene scene;
        scene_init(&scene, SCENE_LOOP, 2, SCALE);
        if (i == 1)
            for (uint64_t page = 0; page < SLICE_PAGES; page++)
                test_guest_write(&scene.from, 2, SLICE_PAGES + page, 4711 + page);
        scene_set(&scene, "rdma-pin-all", "on");
        scene_set_source(&scene, "zero-page-detection", "none"); /* which are found depends on who finds the first */
        scene.watch_source = write_once;
        scene.opaque = &pinned;
        scene_open(&scene);
        scene_run(&scene);
        expect_completed(&scene);
        sent[i] = scene.source_info.ram.normal;
        scene_close(&scene);
    }
    cr_assert_eq(sent[0], sent[1], "%llu pages, and %llu when they are written before", (unsigned long long)sent[0],
                 (unsigned long long)sent[1]);
}
