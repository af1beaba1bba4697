/* Cancels, on either side, at every point where something can be hooked in: the guest runs on at the source. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>

#include "tests/engine/expect.h"

TestSuite(cancel, .timeout = 60);

enum cancelling_side { CANCEL_SOURCE, CANCEL_DESTINATION };

struct row {
    enum scene_net net;
    enum cancelling_side canceller; /* whose object is cancelled */
    enum cancelling_side hooked;    /* on whose event or guest operation */
    int status;                     /* -1: on an operation */
    enum guest_op op;
};

static void cancel_side(struct scene *scene)
{
    const struct row *row = scene->opaque;
    if (row->canceller == CANCEL_SOURCE)
        godwit_source_cancel(scene->source);
    else
        godwit_destination_cancel(scene->destination);
}

static void on_source(struct scene *scene, const struct godwit_event *event)
{
    const struct row *row = scene->opaque;
    if (row->hooked == CANCEL_SOURCE && event->kind == GODWIT_EVENT_MIGRATION && (int)event->value == row->status)
        cancel_side(scene);
}

static void on_destination(struct scene *scene, const struct godwit_event *event)
{
    const struct row *row = scene->opaque;
    if (row->hooked == CANCEL_DESTINATION && event->kind == GODWIT_EVENT_MIGRATION && (int)event->value == row->status)
        cancel_side(scene);
}

static void on_operation(void *opaque, enum guest_op op)
{
    struct scene *scene = opaque;
    const struct row *row = scene->opaque;
    if (row->status < 0 && op == row->op)
        cancel_side(scene);
}

static void run_row(struct scene *scene, struct row *row)
{
    scene_init(scene, row->net, 5, 2);
    scene->on_source = on_source;
    scene->on_destination = on_destination;
    scene->opaque = row;
    struct test_guest *hooked = row->hooked == CANCEL_SOURCE ? &scene->from : &scene->to;
    hooked->hook = on_operation;
    hooked->hook_opaque = scene;
    test_guest_start_writer(&scene->from);
    scene_open(scene);
    scene_run(scene);
}

/* Cancels of the destination reach the source in its words, unless it was over before we came. */
static bool told_of_cancel(const struct scene *scene, const struct row *row)
{
    if (scene->source_err == GODWIT_ERR_CANCELLED)
        return true;
    if (row->canceller == CANCEL_SOURCE)
        return false;
    return scene->source_err == GODWIT_ERR_BUSY;
}

static struct row rows[128];

static size_t make_rows(void)
{
    static const enum guest_op source_ops[] = {OP_DIRTY_START, OP_NEXT_DATA, OP_DIRTY_SYNC, OP_STOP,
                                               OP_SAVE_SOME,   OP_SAVE_REST, OP_RELEASE};
    static const enum guest_op destination_ops[] = {OP_ACCEPT, OP_LOAD};
    static const int statuses[] = {GODWIT_STATUS_SETUP, GODWIT_STATUS_ACTIVE, GODWIT_STATUS_DEVICE};
    size_t count = 0;
    for (enum scene_net net = SCENE_LOOP; net <= SCENE_TCP; net++)
        for (enum cancelling_side canceller = CANCEL_SOURCE; canceller <= CANCEL_DESTINATION; canceller++) {
            for (unsigned i = 0; i < 3; i++) {
                rows[count++] = (struct row){net, canceller, CANCEL_SOURCE, statuses[i], OP_NONE};
                if (canceller == CANCEL_DESTINATION)
                    rows[count++] = (struct row){net, canceller, CANCEL_DESTINATION, statuses[i], OP_NONE};
            }
            for (unsigned i = 0; i < sizeof source_ops / sizeof source_ops[0]; i++)
                if (canceller == CANCEL_SOURCE)
                    rows[count++] = (struct row){net, canceller, CANCEL_SOURCE, -1, source_ops[i]};
            for (unsigned i = 0; i < 2; i++)
                rows[count++] = (struct row){net, canceller, CANCEL_DESTINATION, -1, destination_ops[i]};
        }
    return count;
}

ParameterizedTestParameters(cancel, before_RUN_it_leaves_the_guest_with_the_source)
{
    size_t count = make_rows();
    return cr_make_param_array(struct row, rows, count);
}

ParameterizedTest(struct row *row, cancel, before_RUN_it_leaves_the_guest_with_the_source)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct scene scene;
    run_row(&scene, row);
    /* The destination's cancel races with a source that is quicker than its next look: then it was too late. */
    if (row->canceller == CANCEL_DESTINATION && scene.source_err == GODWIT_OK) {
        expect_completed(&scene);
    } else {
        expect_stayed(&scene);
        cr_assert(told_of_cancel(&scene, row), "%d: %s", scene.source_err, scene.source_error.text);
        cr_assert_eq(scene.destination_err, GODWIT_ERR_CANCELLED, "%d: %s", scene.destination_err,
                     scene.destination_error.text);
        size_t length = strlen(scene.source_statuses);
        if (scene.source_err == GODWIT_ERR_CANCELLED && scene.source_info.outcome != GODWIT_OUTCOME_NEVER)
            cr_assert_str_eq(scene.source_statuses + length - 2, "LX");
        if (row->op == OP_RELEASE)
            cr_assert_str_eq(scene.from.order, "[seeeelcr]");
        if (row->op == OP_STOP || row->op == OP_SAVE_REST)
            cr_assert_eq(scene.from.calls[OP_RESUME], 1);
        if (row->canceller == CANCEL_SOURCE && row->hooked == CANCEL_SOURCE && row->status == GODWIT_STATUS_ACTIVE)
            cr_assert_eq(scene.from.calls[OP_STOP], 0);
    }
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

Test(cancel, after_RUN_it_comes_too_late)
{
    for (enum cancelling_side canceller = CANCEL_SOURCE; canceller <= CANCEL_DESTINATION; canceller++)
        for (enum guest_op op = OP_RESUME; op <= OP_RECLAIM; op += OP_RECLAIM - OP_RESUME) {
            struct row row = {SCENE_LOOP, canceller, CANCEL_DESTINATION, -1, op};
            struct scene scene;
            run_row(&scene, &row);
            expect_completed(&scene);
            scene_close(&scene);
        }
}

Test(cancel, a_serve_that_nobody_came_to_ends_and_the_next_one_works)
{
    struct scene scene;
    struct row row = {SCENE_LOOP, CANCEL_SOURCE, CANCEL_SOURCE, -1, OP_NONE};
    scene_init(&scene, SCENE_LOOP, 1, 1);
    scene.opaque = &row;
    scene_open(&scene);
    scene_serve(&scene);
    scene_join(&scene); /* cancels */
    cr_assert_eq(scene.destination_err, GODWIT_ERR_CANCELLED);
    cr_assert_eq(scene.to.calls[OP_DISCARD], 0);
    scene_run(&scene);
    expect_completed(&scene);
    scene_close(&scene);
}

Test(cancel, after_a_cancel_the_same_objects_can_do_it_again)
{
    struct scene scene;
    struct row row = {SCENE_LOOP, CANCEL_SOURCE, CANCEL_SOURCE, GODWIT_STATUS_ACTIVE, OP_NONE};
    run_row(&scene, &row);
    expect_stayed(&scene);
    row.status = -1;
    test_guest_use_up(&scene.to);
    memset(scene.from.state_saved, 0, sizeof scene.from.state_saved);
    scene_run(&scene);
    cr_assert_eq(scene.source_err, GODWIT_OK, "%s", scene.source_error.text);
    cr_assert(scene.to.memory_equal && scene.to.state_equal);
    scene_close(&scene);
}

struct stuck {
    struct scene *scene;
    atomic_bool go;
};

static void *cancel_when_told(void *opaque)
{
    struct stuck *stuck = opaque;
    while (!atomic_load(&stuck->go))
        sched_yield();
    godwit_source_cancel(stuck->scene->source);
    return NULL;
}

static void tell(struct scene *scene, const struct godwit_event *event)
{
    struct stuck *stuck = scene->opaque;
    if (event->kind == GODWIT_EVENT_MIGRATION && event->value == GODWIT_STATUS_ACTIVE)
        atomic_store(&stuck->go, true);
}

Test(cancel, a_migration_that_waits_for_the_rate_limit_or_a_guest_is_woken)
{
    for (unsigned i = 0; i < 2; i++) {
        struct scene scene;
        struct stuck stuck = {.scene = &scene};
        pthread_t thread;
        scene_init(&scene, SCENE_UNIX, 1, 3);
        scene.on_source = tell;
        scene.opaque = &stuck;
        if (i == 0)
            scene_set_source(&scene, "max-bandwidth", "1000");
        else
            scene.from.not_ready = true;
        scene_open(&scene);
        cr_assert_eq(pthread_create(&thread, NULL, cancel_when_told, &stuck), 0);
        scene_run(&scene);
        pthread_join(thread, NULL);
        expect_stayed(&scene);
        cr_assert_eq(scene.source_err, GODWIT_ERR_CANCELLED);
        cr_assert_lt(scene.source_info.total_time_ms, 5000);
        scene_close(&scene);
    }
}
