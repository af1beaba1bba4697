/* The connection is lost around RUN: exactly one side runs the guest, or the source holds it stopped until it knows. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <time.h>

#include "engine/source.h"
#include "session/record.h"
#include "tests/engine/expect.h"
#include "transport/clock.h"

TestSuite(outcome, .timeout = 30);

struct accident {
    uint16_t type;
    bool received;
    enum tap_verdict verdict;
    bool gone; /* and nobody answers afterwards */
    unsigned asks_lost; /* so many questions for the outcome get lost too */
    atomic_uint asked;
    enum godwit_status status_meanwhile; /* while it asks */
};

static enum tap_verdict happen(void *opaque, const struct tap_event *event)
{
    struct scene *scene = opaque;
    struct accident *accident = scene->opaque;
    if (event->hello.role != HELLO_CONTROL)
        return TAP_PASS;
    if (event->type == RECORD_OUTCOME_ASK) {
        struct godwit_info *info = malloc(sizeof *info);
        godwit_source_query(scene->source, info);
        accident->status_meanwhile = info->status;
        free(info);
        return atomic_fetch_add(&accident->asked, 1) < accident->asks_lost ? TAP_CUT : TAP_PASS;
    }
    if (event->type != accident->type || event->received != accident->received)
        return TAP_PASS;
    if (accident->gone)
        atomic_store(&scene->tap.refuse, true);
    return accident->verdict;
}

static void run_accident(struct scene *scene, struct accident *accident, enum scene_net net)
{
    scene_init(scene, net, 1, 1);
    scene_hurry(scene);
    scene->rule = happen;
    scene->opaque = accident;
    test_guest_start_writer(&scene->from);
    scene_open(scene);
    scene_run(scene);
}

Test(outcome, a_RUN_that_never_arrives_is_taken_back)
{
    for (enum scene_net net = SCENE_LOOP; net < SCENE_NETS; net++) {
        struct accident accident = {.type = RECORD_RUN, .verdict = TAP_CUT};
        struct scene scene;
        run_accident(&scene, &accident, net);
        expect_stayed(&scene);
        cr_assert_eq(scene.source_info.outcome, GODWIT_OUTCOME_NEVER);
        cr_assert_eq(accident.status_meanwhile, GODWIT_STATUS_DEVICE);
        cr_assert_str_eq(scene.from.order, "[seeeel]cr");
        cr_assert_str_eq(scene.to.order, "aooood");
        cr_assert_eq(atomic_load(&accident.asked), 1);
        scene_close(&scene);
    }
}

Test(outcome, a_RUN_that_gets_lost_in_a_living_connection_is_taken_back)
{
    struct accident accident = {.type = RECORD_RUN, .verdict = TAP_SWALLOW};
    struct scene scene;
    run_accident(&scene, &accident, SCENE_LOOP);
    expect_stayed(&scene);
    cr_assert_eq(scene.source_info.outcome, GODWIT_OUTCOME_NEVER);
    scene_close(&scene);
}

Test(outcome, a_destination_that_still_waits_for_RUN_promises_never_to_obey_it)
{
    for (enum scene_net net = SCENE_LOOP; net < SCENE_NETS; net++) {
        struct accident accident = {.type = RECORD_RUN, .verdict = TAP_LOSE};
        struct scene scene;
        scene_init(&scene, net, 1, 1);
        scene_set(&scene, "peer-timeout", "5000"); /* it does not miss us before we ask */
        scene.rule = happen;
        scene.opaque = &accident;
        scene_open(&scene);
        scene_run(&scene);
        expect_stayed(&scene);
        cr_assert_eq(scene.source_info.outcome, GODWIT_OUTCOME_NEVER);
        cr_assert_eq(atomic_load(&accident.asked), 1);
        cr_assert_not_null(strstr(scene.destination_error.text, "was told"), "%s", scene.destination_error.text);
        scene_close(&scene);
    }
}

Test(outcome, a_RUNNING_that_never_arrives_is_asked_for)
{
    for (enum scene_net net = SCENE_LOOP; net < SCENE_NETS; net++) {
        struct accident accident = {.type = RECORD_RUNNING, .received = true, .verdict = TAP_CUT};
        struct scene scene;
        run_accident(&scene, &accident, net);
        expect_completed(&scene);
        cr_assert_eq(scene.source_info.outcome, GODWIT_OUTCOME_RUNNING);
        cr_assert_eq(atomic_load(&accident.asked), 1);
        cr_assert_str_eq(scene.from.order, "[seeeel]");
        /* It has been told: no reason to stay. A loop's flush may fail behind an answer that arrived, when the source hung
         * up at once: then the destination cannot know, and stays. */
        uint64_t start = clock_now_ms();
        godwit_destination_linger(scene.destination, net == SCENE_LOOP ? 0 : 5000);
        cr_assert_lt(clock_now_ms() - start, 1000);
        scene_close(&scene);
    }
}

Test(outcome, a_connection_cut_behind_RUN_does_not_stop_the_guest_there)
{
    struct accident accident = {.type = RECORD_RUN, .verdict = TAP_CUT_AFTER};
    struct scene scene;
    run_accident(&scene, &accident, SCENE_UNIX);
    if (scene.source_err == GODWIT_OK) {
        expect_completed(&scene);
    } else { /* the reset was faster than RUN */
        expect_stayed(&scene);
        cr_assert_eq(scene.source_info.outcome, GODWIT_OUTCOME_NEVER);
    }
    scene_close(&scene);
}

Test(outcome, a_question_that_gets_lost_is_asked_again)
{
    struct accident accident = {.type = RECORD_RUN, .verdict = TAP_CUT, .asks_lost = 2};
    struct scene scene;
    run_accident(&scene, &accident, SCENE_LOOP);
    expect_stayed(&scene);
    cr_assert_eq(scene.source_info.outcome, GODWIT_OUTCOME_NEVER);
    cr_assert_eq(atomic_load(&accident.asked), 3);
    scene_close(&scene);
}

static void expect_held(const struct scene *scene)
{
    cr_assert_eq(scene->source_err, GODWIT_ERR_OUTCOME_UNKNOWN, "%s", scene->source_error.text);
    cr_assert_eq(scene->source_info.status, GODWIT_STATUS_DEVICE);
    cr_assert_eq(scene->source_info.outcome, GODWIT_OUTCOME_UNKNOWN);
    cr_assert_not(atomic_load(&scene->from.running));
    cr_assert_eq(scene->from.calls[OP_RESUME], 0);
    cr_assert_eq(scene->source_statuses[strlen(scene->source_statuses) - 1], 'D');
}

Test(outcome, while_it_is_unknown_the_guest_is_held_until_a_human_knows)
{
    struct accident accident = {.type = RECORD_RUN, .verdict = TAP_CUT, .gone = true};
    struct scene scene;
    struct godwit_error error = {0};
    run_accident(&scene, &accident, SCENE_LOOP);
    expect_held(&scene);
    cr_assert_eq(godwit_source_migrate(scene.source, scene.uri, &error), GODWIT_ERR_BUSY);
    cr_assert_eq(godwit_source_outcome(scene.source, 50, &error), GODWIT_OUTCOME_UNKNOWN);
    cr_assert_not(atomic_load(&scene.from.running));
    cr_assert_eq(godwit_source_resume(scene.source, &error), GODWIT_OK, "%s", error.text);
    cr_assert(atomic_load(&scene.from.running));
    godwit_source_query(scene.source, &scene.source_info);
    cr_assert_eq(scene.source_info.status, GODWIT_STATUS_FAILED);
    cr_assert_str_eq(scene.from.order, "[seeeel]cr");
    cr_assert_eq(godwit_source_resume(scene.source, &error), GODWIT_ERR_INVALID);
    cr_assert_eq(scene.from.calls[OP_RESUME], 1);
    cr_assert_not(atomic_load(&scene.sides.both));
    scene_close(&scene);
}

Test(outcome, asked_again_later_it_is_NEVER_where_RUN_did_not_arrive)
{
    struct accident accident = {.type = RECORD_RUN, .verdict = TAP_CUT, .gone = true};
    struct scene scene;
    struct godwit_error error = {0};
    run_accident(&scene, &accident, SCENE_TCP);
    expect_held(&scene);
    atomic_store(&scene.tap.refuse, false);
    cr_assert_eq(godwit_source_outcome(scene.source, 2000, &error), GODWIT_OUTCOME_NEVER, "%s", error.text);
    cr_assert(atomic_load(&scene.from.running) && !atomic_load(&scene.to.running));
    godwit_source_query(scene.source, &scene.source_info);
    cr_assert_eq(scene.source_info.status, GODWIT_STATUS_FAILED);
    cr_assert_eq(scene.source_info.outcome, GODWIT_OUTCOME_NEVER);
    scene_close(&scene);
}

Test(outcome, asked_again_later_it_is_RUNNING_where_it_did)
{
    struct accident accident = {.type = RECORD_RUNNING, .received = true, .verdict = TAP_CUT, .gone = true};
    struct scene scene;
    struct godwit_error error = {0};
    run_accident(&scene, &accident, SCENE_TCP);
    expect_held(&scene);
    cr_assert_eq(scene.destination_err, GODWIT_OK);
    atomic_store(&scene.tap.refuse, false);
    cr_assert_eq(godwit_source_outcome(scene.source, 2000, &error), GODWIT_OUTCOME_RUNNING, "%s", error.text);
    scene.source_err = GODWIT_OK;
    godwit_source_query(scene.source, &scene.source_info);
    expect_completed(&scene);
    cr_assert_eq(godwit_source_resume(scene.source, &error), GODWIT_ERR_INVALID, "it runs elsewhere");
    cr_assert_not(atomic_load(&scene.from.running));
    cr_assert_eq(godwit_source_outcome(scene.source, 10, &error), GODWIT_OUTCOME_RUNNING);
    scene_close(&scene);
}

Test(outcome, a_guest_that_cannot_be_resumed_after_NEVER_is_not_reported_as_running)
{
    struct accident accident = {.type = RECORD_RUN, .verdict = TAP_CUT};
    struct scene scene;
    struct godwit_error error = {0};
    scene_init(&scene, SCENE_LOOP, 1, 1);
    scene_hurry(&scene);
    scene.rule = happen;
    scene.opaque = &accident;
    scene.from.fail_op = OP_RESUME;
    scene_open(&scene);
    scene_run(&scene);
    cr_assert_neq(scene.source_err, GODWIT_OK);
    cr_assert_not(atomic_load(&scene.from.running));
    cr_assert_not_null(strstr(scene.source_error.text, "injected failure of resume"), "%s", scene.source_error.text);
    cr_assert_eq(godwit_source_resume(scene.source, &error), GODWIT_OK, "%s", error.text);
    cr_assert(atomic_load(&scene.from.running) && !atomic_load(&scene.sides.both));
    scene_close(&scene);
}

/* RUN reaches the destination, whose answer reaches us before our own send of RUN fails. */
static enum tap_verdict answer_before_failing(void *opaque, const struct tap_event *event)
{
    struct scene *scene = opaque;
    if (event->hello.role != HELLO_CONTROL || event->type != RECORD_RUN)
        return TAP_PASS;
    channel_send(event->inner, event->head, RECORD_HEADER_SIZE, NULL, 0, 1000);
    for (bool running = false; !running;) {
        pthread_mutex_lock(&scene->source->lock);
        running = scene->source->running;
        pthread_mutex_unlock(&scene->source->lock);
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return TAP_CUT;
}

Test(outcome, RUNNING_counts_even_if_sending_RUN_seemed_to_fail)
{
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, 1);
    scene.rule = answer_before_failing;
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_str_eq(scene.source_statuses, "SADC");
    scene_close(&scene);
}

Test(outcome, a_source_that_asks_without_the_token_learns_nothing)
{
    struct scene scene;
    struct godwit_error error = {0};
    struct channel *channel = NULL;
    scene_init(&scene, SCENE_LOOP, 1, 1);
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    struct hello hello = {.version = PROTOCOL_VERSION, .oldest = PROTOCOL_OLDEST, .role = HELLO_CONTROL, .epoch = 1};
    memcpy(hello.session, scene.source->session, sizeof hello.session);
    cr_assert_eq(source_connect(scene.source, &hello, NULL, 1000, &scene.source->cancel, &channel, &error),
                 GODWIT_ERR_NOT_ADMITTED, "%s", error.text);
    channel_free(channel);
    scene_close(&scene);
}
