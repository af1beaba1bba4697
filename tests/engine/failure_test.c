/* Operations of either guest that fail, and stop phases that take too long: the guest runs on at the source. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <time.h>

#include "tests/engine/expect.h"

TestSuite(failure, .timeout = 60);

struct row {
    bool destination, mute;
    enum guest_op op;
    unsigned at;
};

static struct row rows[64];

static size_t make_rows(void)
{
    static const struct row each[] = {
        {false, false, OP_DIRTY_START, 0}, {false, false, OP_NEXT_DATA, 0},  {false, false, OP_NEXT_DATA, 3},
        {false, false, OP_DIRTY_SYNC, 0},  {false, false, OP_DIRTY_SYNC, 2}, {false, false, OP_DIRTY_SYNC, 4},
        {false, false, OP_DIRTY_SYNC, 6},  {false, false, OP_DIRTY_CLEAR, 0}, {false, false, OP_DIRTY_CLEAR, 3},
        {false, false, OP_STOP, 0},        {false, false, OP_SAVE_SOME, 0},  {false, false, OP_SAVE_SOME, 1},
        {false, false, OP_SAVE_REST, 0},   {false, false, OP_SAVE_REST, 3},  {false, false, OP_RELEASE, 0},
        {true, false, OP_ACCEPT, 0},       {true, false, OP_LOAD, 0},        {true, false, OP_LOAD, 2},
        {true, false, OP_LOAD, 3},         {true, false, OP_RECLAIM, 0},     {true, false, OP_RESUME, 0},
    };
    size_t count = 0;
    for (size_t i = 0; i < sizeof each / sizeof each[0]; i++)
        for (unsigned mute = 0; mute < 2; mute++) {
            rows[count] = each[i];
            rows[count++].mute = mute;
        }
    return count;
}

ParameterizedTestParameters(failure, a_guest_operation_that_fails_leaves_the_guest_with_the_source)
{
    size_t count = make_rows();
    return cr_make_param_array(struct row, rows, count);
}

ParameterizedTest(struct row *row, failure, a_guest_operation_that_fails_leaves_the_guest_with_the_source)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct scene scene;
    scene_init(&scene, row->at % 2 ? SCENE_UNIX : SCENE_LOOP, row->op, 2);
    struct test_guest *guest = row->destination ? &scene.to : &scene.from;
    guest->fail_op = row->op;
    guest->fail_at = row->at;
    guest->fail_mute = row->mute;
    if (row->op == OP_DIRTY_CLEAR)
        test_guest_clear_lazily(&scene.from);
    if (row->op == OP_SAVE_SOME) /* as long as there is something that it can save */
        scene_set_source(&scene, "downtime-limit", "0");
    scene_open(&scene);
    scene_run(&scene);

    cr_assert_gt(guest->calls[row->op], row->at, "%s was called %u times", guest_op_name(row->op),
                 guest->calls[row->op]);
    expect_stayed(&scene);
    if (!row->destination)
        cr_assert_eq(scene.source_err, GODWIT_ERR_GUEST, "%d: %s", scene.source_err, scene.source_error.text);
    else
        cr_assert_eq(scene.destination_err, GODWIT_ERR_GUEST, "%d: %s", scene.destination_err,
                     scene.destination_error.text);
    if (!row->mute) {
        cr_assert_not_null(strstr(scene.source_error.text, guest_op_name(row->op)), "%s", scene.source_error.text);
        cr_assert_not_null(strstr(scene.destination_error.text, guest_op_name(row->op)), "%s",
                           scene.destination_error.text);
    }
    bool stopped = scene.from.calls[OP_STOP] > 0;
    cr_assert_eq(scene.from.calls[OP_RESUME], stopped, "%s", scene.from.order);
    cr_assert_eq(scene.from.calls[OP_RECLAIM], scene.from.calls[OP_RELEASE], "%s", scene.from.order);
    bool after_run = row->op == OP_RECLAIM || row->op == OP_RESUME;
    if (after_run)
        cr_assert_eq(scene.source_info.outcome, GODWIT_OUTCOME_NEVER);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

Test(failure, a_guest_that_cannot_be_resumed_here_is_reported_as_such)
{
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, 1);
    scene.to.fail_op = OP_LOAD;
    scene.from.fail_op = OP_RESUME;
    scene_open(&scene);
    scene_run(&scene);
    cr_assert_neq(scene.source_err, GODWIT_OK);
    cr_assert_not_null(strstr(scene.source_error.text, "injected failure of resume"), "%s", scene.source_error.text);
    cr_assert(!atomic_load(&scene.from.running) && !atomic_load(&scene.to.running));
    scene_close(&scene);
}

/* ---- a stop phase without end ---- */

struct late {
    atomic_bool go;
};

/* The destination's load takes until the source has given up. */
static void load_slowly(void *opaque, enum guest_op op)
{
    struct scene *scene = opaque;
    struct late *late = scene->opaque;
    while (op == OP_LOAD && !atomic_load(&late->go))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void give_up_event(struct scene *scene, const struct godwit_event *event)
{
    struct late *late = scene->opaque;
    if (event->kind == GODWIT_EVENT_MIGRATION && event->value == GODWIT_STATUS_FAILED)
        atomic_store(&late->go, true);
}

Test(failure, a_stop_phase_beyond_switchover_timeout_puts_the_guest_back)
{
    for (enum scene_net net = SCENE_LOOP; net < SCENE_NETS; net++) {
        struct late late = {false};
        struct scene scene;
        scene_init(&scene, net, 1, 1);
        scene_set_source(&scene, "switchover-timeout", "200");
        scene.to.hook = load_slowly;
        scene.to.hook_opaque = &scene;
        scene.on_source = give_up_event;
        scene.opaque = &late;
        scene_open(&scene);
        scene_run(&scene);
        expect_stayed(&scene);
        cr_assert_eq(scene.source_err, GODWIT_ERR_SWITCHOVER_TIMEOUT, "%s", scene.source_error.text);
        cr_assert_not_null(strstr(scene.destination_error.text, "switchover-timeout"), "%s",
                           scene.destination_error.text);
        cr_assert_lt(scene.source_info.total_time_ms, 3000);
        scene_close(&scene);
    }
}

/* A slow load alone, with heartbeats going on, is no reason to fail. */
static void load_for_a_while(void *opaque, enum guest_op op)
{
    if (op == OP_LOAD)
        nanosleep(&(struct timespec){.tv_nsec = 250000000}, NULL);
}

Test(failure, a_load_that_takes_longer_than_peer_timeout_is_none)
{
    struct scene scene;
    scene_init(&scene, SCENE_UNIX, 1, 1);
    scene_set(&scene, "peer-timeout", "600");
    scene_set(&scene, "heartbeat-interval", "20");
    scene.to.hook = load_for_a_while; /* four streams: a second */
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_geq(scene.source_info.downtime_ms, 1000);
    scene_close(&scene);
}

static void resume_for_a_while(void *opaque, enum guest_op op)
{
    if (op == OP_RESUME)
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
}

Test(failure, a_resume_that_takes_longer_than_peer_timeout_is_none)
{
    struct scene scene;
    scene_init(&scene, SCENE_UNIX, 1, 1);
    scene_set(&scene, "peer-timeout", "600");
    scene_set(&scene, "heartbeat-interval", "20");
    scene.to.hook = resume_for_a_while;
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    scene_close(&scene);
}
