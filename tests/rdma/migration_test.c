/* Whole migrations with their data channels on the fake: control over TCP, queue pairs, registration, tickets. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/destination.h"
#include "tcp/tcp.h"
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

Test(rdma_migration, a_port_that_is_taken_for_rdma_alone_is_another_one_s_turn)
{
    struct scene scene;
    init(&scene, 2);
    fake_fail_call(FAKE_CALL_LISTEN, 0, 2, EADDRINUSE);
    scene_open(&scene);
    cr_assert_eq(fake_calls(FAKE_CALL_LISTEN), 3);
    scene_run(&scene);
    expect_completed(&scene);
    close_scene(&scene);
}

/* What godwit_destination_listen() says, and after how many tries, of a destination that may be asked again. */
static enum godwit_err listen_in_vain(const struct scene *scene, const char *uri, int cause, uint64_t *tries)
{
    struct godwit_error error = {0};
    struct godwit_destination *destination;
    char bound[128] = "";
    uint64_t before = fake_calls(FAKE_CALL_LISTEN);
    cr_assert_eq(godwit_destination_new(&scene->to.guest, NULL, NULL, NULL, &destination, &error), GODWIT_OK);
    destination_use_transport(destination, &tcp_transport, fabric.transport);
    fake_fail_call(FAKE_CALL_LISTEN, 0, FAKE_NEVER, cause);
    enum godwit_err err = godwit_destination_listen(destination, uri, bound, sizeof bound, &error);
    *tries = fake_calls(FAKE_CALL_LISTEN) - before;
    cr_assert(strstr(error.text, "cannot listen for RDMA"), "%s", error.text);
    cr_assert_str_empty(bound);
    fake_fail_call(FAKE_CALL_LISTEN, 0, 0, 0);
    cr_assert_eq(godwit_destination_listen(destination, uri, bound, sizeof bound, &error), GODWIT_OK, "%s", error.text);
    godwit_destination_free(destination);
    return err;
}

Test(rdma_migration, a_port_is_not_looked_for_without_end_nor_where_it_was_given)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct scene scene;
    uint64_t tries;
    init(&scene, 1);
    cr_assert_eq(listen_in_vain(&scene, "tcp:127.0.0.1:0", EADDRINUSE, &tries), GODWIT_ERR_BUSY);
    cr_assert(tries > 1 && tries < 100, "%llu", (unsigned long long)tries);
    cr_assert_eq(listen_in_vain(&scene, "tcp:127.0.0.1:0", ENOMEM, &tries), GODWIT_ERR_SYSTEM);
    cr_assert_eq(tries, 1, "another port would not help");
    scene_open(&scene);
    char uri[sizeof scene.uri];
    strcpy(uri, scene.uri);
    godwit_destination_free(scene.destination); /* its port is free now */
    scene.destination = NULL;
    cr_assert_eq(listen_in_vain(&scene, uri, EADDRINUSE, &tries), GODWIT_ERR_BUSY);
    cr_assert_eq(tries, 1, "this one was wanted");
    close_scene(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
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
