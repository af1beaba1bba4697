/* What Criterion tests expect of a scene that has ended. */
#ifndef TESTS_ENGINE_EXPECT_H
#define TESTS_ENGINE_EXPECT_H

#include <criterion/criterion.h>
#include <string.h>

#include "tests/engine/scene.h"

/* The guest runs on the destination, and everything is as it was when the source stopped it. */
static inline void expect_completed(const struct scene *scene)
{
    cr_assert_eq(scene->source_err, GODWIT_OK, "source: %s; destination: %s", scene->source_error.text,
                 scene->destination_error.text);
    cr_assert_eq(scene->destination_err, GODWIT_OK, "destination: %s", scene->destination_error.text);
    cr_assert(!atomic_load(&scene->from.running) && atomic_load(&scene->to.running));
    cr_assert_not(atomic_load(&scene->sides.both), "the guest ran on both sides");
    cr_assert(scene->to.memory_equal, "memory differs");
    cr_assert(scene->to.state_equal && scene->to.loaded == TEST_STREAMS, "state differs");
    cr_assert_eq(scene->source_info.status, GODWIT_STATUS_COMPLETED);
    cr_assert_eq(scene->destination_info.status, GODWIT_STATUS_COMPLETED);
    cr_assert_eq(scene->source_info.error.code, GODWIT_OK);
    cr_assert_eq(scene->from.calls[OP_DIRTY_STOP], 1);
    cr_assert_eq(scene->to.calls[OP_DISCARD], 0);
}

/* The guest runs on the source and never ran on the destination. */
static inline void expect_stayed(const struct scene *scene)
{
    cr_assert_neq(scene->source_err, GODWIT_OK, "the source completed (%s)", scene->source_statuses);
    cr_assert_neq(scene->source_err, GODWIT_ERR_OUTCOME_UNKNOWN, "%s", scene->source_error.text);
    cr_assert_neq(scene->destination_err, GODWIT_OK);
    cr_assert_eq(scene->source_err, scene->source_error.code, "%d, %d", scene->source_err, scene->source_error.code);
    cr_assert_gt(strlen(scene->source_error.text), 0);
    cr_assert_gt(strlen(scene->destination_error.text), 0);
    cr_assert(atomic_load(&scene->from.running), "source: %s (%s)", scene->source_error.text, scene->from.order);
    cr_assert_not(atomic_load(&scene->to.running));
    cr_assert_eq(scene->to.calls[OP_RESUME] > 0 && scene->to.fail_op != OP_RESUME, 0);
    cr_assert_not(atomic_load(&scene->sides.both), "the guest ran on both sides");
    enum godwit_status status =
        scene->source_err == GODWIT_ERR_CANCELLED ? GODWIT_STATUS_CANCELLED : GODWIT_STATUS_FAILED;
    if (scene->source_info.outcome == GODWIT_OUTCOME_NEVER) /* RUN was written, and refused: that is no cancel here */
        status = GODWIT_STATUS_FAILED;
    cr_assert_eq(scene->source_info.status, status, "%s", godwit_status_name(scene->source_info.status));
    cr_assert_eq(scene->from.calls[OP_DIRTY_STOP],
                 scene->from.calls[OP_DIRTY_START] - (scene->from.fail_op == OP_DIRTY_START));
    bool accepted = scene->to.calls[OP_ACCEPT] > 0 && scene->to.fail_op != OP_ACCEPT;
    cr_assert_eq(scene->to.calls[OP_DISCARD], accepted, "discarded %u times (%s)", scene->to.calls[OP_DISCARD],
                 scene->to.order);
}

/* Any legal end. */
static inline void expect_one_end(const struct scene *scene)
{
    if (scene->source_err == GODWIT_OK)
        expect_completed(scene);
    else if (scene->source_err != GODWIT_ERR_OUTCOME_UNKNOWN)
        expect_stayed(scene);
    cr_assert_not(atomic_load(&scene->sides.both));
    if (scene->source_err == GODWIT_ERR_OUTCOME_UNKNOWN) {
        cr_assert_not(atomic_load(&scene->from.running));
        cr_assert_eq(scene->source_info.status, GODWIT_STATUS_DEVICE);
    }
}

#endif
