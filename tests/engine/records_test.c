/*
 * A source that is alive and takes no records, while threads of the destination send it some: they wait for as long as
 * the migration goes on, and for no longer than progress-timeout once it is being ended.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>

#include "engine/destination.h"
#include "tests/lib/pair.h"
#include "transport/clock.h"

TestSuite(records, .timeout = 60);

enum { LIMIT_MS = 100, WAIT_MS = 10000, ALIVE_MS = 120000, BODY = 32 << 10 };

struct stage {
    struct pair pair; /* a: the source, which never reads */
    struct godwit_destination destination;
    struct session *session;
    pthread_t sender;
    enum godwit_err sent; /* how its last record fared */
};

static void begin(struct stage *stage)
{
    static const uint8_t id[SESSION_ID_SIZE];
    *stage = (struct stage){0};
    cr_assert_eq(pair_open(&stage->pair, PAIR_UNIX), GODWIT_OK, "%s", stage->pair.error.text);
    pthread_mutex_init(&stage->destination.lock, NULL);
    pthread_cond_init(&stage->destination.changed, NULL);
    stage->destination.options = godwit_options_new();
    cr_assert_eq(godwit_options_set(stage->destination.options, "progress-timeout", "100ms", NULL), GODWIT_OK);
    stage->session = session_new(&stage->destination, id);
    struct control_config config = {
        .channel = stage->pair.b,
        .heartbeat_ms = 1000,
        .peer_timeout_ms = ALIVE_MS,
        .record = records_take,
        .check = records_check,
        .progress = records_progress,
        .ended = records_ended,
        .opaque = stage->session,
    };
    cr_assert_eq(control_start(&config, &stage->session->control, NULL), GODWIT_OK);
    stage->pair.b = NULL;
}

static void end(struct stage *stage)
{
    control_free(stage->session->control);
    session_free(stage->session);
    pair_close(&stage->pair);
    godwit_options_free(stage->destination.options);
    pthread_cond_destroy(&stage->destination.changed);
    pthread_mutex_destroy(&stage->destination.lock);
}

static void *send_without_end(void *opaque)
{
    struct stage *stage = opaque;
    static uint8_t bytes[BODY];
    struct iovec body = {bytes, sizeof bytes};
    do
        stage->sent = control_send(stage->session->control, RECORD_KEY, &body, 1, NULL);
    while (stage->sent == GODWIT_OK);
    return NULL;
}

static void set_closing(struct stage *stage, uint64_t since_ms)
{
    pthread_mutex_lock(&stage->destination.lock);
    stage->session->closing_ms = since_ms;
    pthread_mutex_unlock(&stage->destination.lock);
}

static enum godwit_err wait_failure(struct stage *stage, int timeout_ms)
{
    struct timespec until = clock_timespec((clock_now_ms() + (uint64_t)timeout_ms) * 1000000u);
    pthread_mutex_lock(&stage->destination.lock);
    while (stage->session->failure.code == GODWIT_OK &&
           pthread_cond_clockwait(&stage->destination.changed, &stage->destination.lock, CLOCK_MONOTONIC, &until) == 0)
        ;
    enum godwit_err code = stage->session->failure.code;
    pthread_mutex_unlock(&stage->destination.lock);
    return code;
}

Test(records, a_source_that_takes_none_holds_nobody_up_while_the_destination_ends)
{
    struct stage stage;
    begin(&stage);
    cr_assert_eq(pthread_create(&stage.sender, NULL, send_without_end, &stage), 0);
    cr_assert_eq(wait_failure(&stage, 5 * LIMIT_MS), GODWIT_OK, "while it does not end the heartbeat alone decides");
    set_closing(&stage, clock_now_ms());
    cr_assert_eq(wait_failure(&stage, WAIT_MS), GODWIT_ERR_STALLED, "%s", stage.session->failure.text);
    cr_assert(strstr(stage.session->failure.text, "takes next to no records"), "%s", stage.session->failure.text);
    pthread_join(stage.sender, NULL);
    cr_assert_neq(stage.sent, GODWIT_OK);
    end(&stage);
}

Test(records, ending_may_take_its_time_where_nobody_waits_to_send)
{
    struct stage stage;
    begin(&stage);
    set_closing(&stage, clock_now_ms() - 10 * LIMIT_MS);
    cr_assert_eq(wait_failure(&stage, 5 * LIMIT_MS), GODWIT_OK, "%s", stage.session->failure.text);
    set_closing(&stage, 0);
    end(&stage);
}
