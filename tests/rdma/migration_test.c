/* Whole migrations with their data channels on the fake: control over TCP, queue pairs, registration, tickets. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>

#include "tests/engine/expect.h"
#include "tests/rdma/fake_verbs.h"

TestSuite(rdma_migration, .timeout = 120);

static void init(struct scene *scene, unsigned channels)
{
    char text[8];
    scene_init(scene, SCENE_RDMA, channels, 4);
    scene->fabric = &fabric;
    snprintf(text, sizeof text, "%u", channels);
    scene_set_source(scene, "multifd-channels", text);
    test_guest_start_writer(&scene->from);
}

/* No receive was ever lacking; and closing the scene ends the program if anything of the fake's is left. */
static void close_scene(struct scene *scene)
{
    cr_assert_eq(fake_verbs_rnr_count(), 0);
    scene_close(scene);
}

ParameterizedTestParameters(rdma_migration, memory_arrives_as_it_was_when_the_guest_stopped)
{
    static unsigned rows[] = {1, 2, 3, 8};
    return cr_make_param_array(unsigned, rows, 4);
}

ParameterizedTest(unsigned *channels, rdma_migration, memory_arrives_as_it_was_when_the_guest_stopped)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct scene scene;
    init(&scene, *channels);
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    uint64_t placed = 0;
    for (unsigned i = 0; i < *channels; i++) {
        placed += scene.source_info.channels[i].placed_bytes;
        cr_assert_str_eq(scene.source_info.channels[i].device, "fake0");
        cr_assert_neq(scene.source_info.channels[i].queue_pair, scene.destination_info.channels[i].queue_pair);
    }
    cr_assert_gt(placed, 0);
    cr_assert_gt(fake_verbs_executed(FAKE_WR_WRITE), 0);
    close_scene(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

/* The n-th request of either kind fails, wherever that is in the migration. True: somebody was told why. */
static bool fail_request(enum fake_wr_kind kind, uint64_t skip, enum ibv_wc_status status)
{
    const char *why = ibv_wc_status_str(status);
    struct scene scene;
    init(&scene, 2);
    scene_hurry(&scene);
    scene_open(&scene);
    fake_fail_wr(kind, skip, status);
    scene_run(&scene);
    expect_one_end(&scene);
    bool told = strstr(scene.source_error.text, why) || strstr(scene.destination_error.text, why);
    close_scene(&scene);
    return told;
}

Test(rdma_migration, a_request_that_fails_leaves_the_guest_at_the_source)
{
    unsigned told = 0;
    for (uint64_t skip = 0; skip < 40; skip = skip * 2 + 1) {
        told += fail_request(FAKE_WR_WRITE, skip, IBV_WC_RETRY_EXC_ERR);
        told += fail_request(FAKE_WR_SEND, skip, IBV_WC_REM_OP_ERR);
    }
    /* Not always: the peer, whose flushed receives have no reason, may be heard first. */
    cr_assert_gt(told, 0);
}

Test(rdma_migration, memory_that_cannot_be_registered_leaves_the_guest_at_the_source)
{
    for (uint64_t skip = 0; skip < 6; skip++) {
        struct scene scene;
        init(&scene, 2);
        scene_hurry(&scene);
        scene_open(&scene);
        fake_fail_call(FAKE_CALL_REG_MR, skip, FAKE_NEVER, ENOMEM);
        scene_run(&scene);
        expect_stayed(&scene);
        cr_assert(strstr(scene.source_error.text, "Cannot allocate memory") ||
                      strstr(scene.destination_error.text, "Cannot allocate memory"),
                  "source: %s; destination: %s", scene.source_error.text, scene.destination_error.text);
        close_scene(&scene);
    }
}

Test(rdma_migration, a_black_hole_is_noticed_and_leaves_the_guest_at_the_source)
{
    for (uint64_t skip = 0; skip < 60; skip = skip * 3 + 1) {
        struct scene scene;
        init(&scene, 2);
        scene_hurry(&scene);
        scene_open(&scene);
        fake_black_hole(skip);
        scene_run(&scene);
        expect_one_end(&scene);
        fake_black_hole(FAKE_NEVER);
        close_scene(&scene);
    }
}

static void lose_device(struct scene *scene, const struct godwit_event *event)
{
    if (event->kind == GODWIT_EVENT_MIGRATION && event->value == GODWIT_STATUS_ACTIVE)
        fake_raise_cm(FAKE_ACTIVE, RDMA_CM_EVENT_DEVICE_REMOVAL, 0);
}

Test(rdma_migration, a_device_that_is_removed_leaves_the_guest_at_the_source_and_says_so)
{
    struct scene scene;
    init(&scene, 2);
    scene_hurry(&scene);
    scene.on_source = lose_device;
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert(strstr(scene.source_error.text, "removed") || strstr(scene.source_error.text, "reset"), "%s",
              scene.source_error.text);
    close_scene(&scene);
}
