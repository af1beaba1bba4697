/* Data channels are connected at the same time, so many at once, and come to an end together. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/destination.h"
#include "engine/source.h"
#include "tcp/tcp.h"
#include "tests/engine/expect.h"
#include "transport/clock.h"
#include "transport/error.h"

TestSuite(channels, .timeout = 60);

enum { AT_ONCE = 16 };

/*
 * A transport whose first connection, the control connection, passes. Of the others none is made before `party` of them
 * have come, or as many as are left of `total`.
 */
struct lobby {
    struct transport transport; /* use this one */
    struct transport_ops ops;
    const struct transport *inner;
    const struct address *elsewhere; /* where data connections are made; NULL: where they should be */
    unsigned total, party;
    unsigned backlog; /* of the listener; 0: what is asked for */
    bool closed;      /* none is made */
    bool deaf;        /* nothing is received on data connections */
    unsigned stay_ms; /* what each stays at least */
    /* The last one that comes calls it, and fails if it does. May be NULL. */
    enum godwit_err (*last)(struct lobby *lobby, struct godwit_error *error);
    void *opaque;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool control;
    unsigned came, inside, most; /* data connections: so far, now, at most at a time */
    unsigned cancelled, late;    /* how they left, if they were not made */
    int longest_ms, shortest_ms; /* the time that one was given */
};

static bool may_pass(const struct lobby *lobby, unsigned number)
{
    unsigned party = (number + lobby->party - 1) / lobby->party * lobby->party;
    return !lobby->closed && lobby->came >= (party < lobby->total ? party : lobby->total);
}

/* Under the lock. */
static enum godwit_err wait_inside(struct lobby *lobby, unsigned number, int timeout_ms, const atomic_bool *cancel,
                                   struct godwit_error *error)
{
    uint64_t now = clock_now_ms(), deadline = now + (uint64_t)timeout_ms, least = now + lobby->stay_ms;
    while (!may_pass(lobby, number) || clock_left_ms(least) > 0) {
        if (atomic_load(cancel)) {
            lobby->cancelled++;
            return error_set(error, GODWIT_ERR_CANCELLED, "cancelled in the lobby");
        }
        if (clock_left_ms(deadline) == 0) {
            lobby->late++;
            return error_set(error, GODWIT_ERR_UNREACHABLE, "nobody opens the lobby");
        }
        struct timespec until = clock_timespec(clock_now_ns() + 5000000u);
        pthread_cond_clockwait(&lobby->changed, &lobby->lock, CLOCK_MONOTONIC, &until);
    }
    return GODWIT_OK;
}

static enum godwit_err enter(struct lobby *lobby, int timeout_ms, const atomic_bool *cancel, struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    pthread_mutex_lock(&lobby->lock);
    unsigned number = ++lobby->came;
    lobby->inside++;
    lobby->most = lobby->most > lobby->inside ? lobby->most : lobby->inside;
    lobby->longest_ms = lobby->longest_ms > timeout_ms ? lobby->longest_ms : timeout_ms;
    lobby->shortest_ms = lobby->shortest_ms < timeout_ms ? lobby->shortest_ms : timeout_ms;
    pthread_cond_broadcast(&lobby->changed);
    if (number == lobby->total && lobby->last != NULL) {
        pthread_mutex_unlock(&lobby->lock);
        err = lobby->last(lobby, error);
        pthread_mutex_lock(&lobby->lock);
    }
    if (err == GODWIT_OK)
        err = wait_inside(lobby, number, timeout_ms, cancel, error);
    lobby->inside--;
    pthread_mutex_unlock(&lobby->lock);
    return err;
}

/* ---- a channel on which nothing is received ---- */

struct deaf_channel {
    struct channel base;
    struct channel *inner;
};

static enum godwit_err deaf_send(struct channel *channel, const void *head, size_t head_size,
                                 const struct iovec *payload, unsigned count, int timeout_ms)
{
    return channel_send(((struct deaf_channel *)channel)->inner, head, head_size, payload, count, timeout_ms);
}

static enum godwit_err deaf_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    sched_yield();
    return GODWIT_ERR_TIMEOUT;
}

static void deaf_shutdown(struct channel *channel)
{
    channel_shutdown(((struct deaf_channel *)channel)->inner);
}

static void deaf_free(struct channel *channel)
{
    channel_free(((struct deaf_channel *)channel)->inner);
    free(channel);
}

static const struct channel_ops deaf_channel_ops = {
    .name = "deaf",
    .send = deaf_send,
    .recv = deaf_recv,
    .put = channel_put_unsupported,
    .get = channel_get_unsupported,
    .flush = channel_flush_nothing,
    .shutdown = deaf_shutdown,
    .free = deaf_free,
};

static struct channel *make_deaf(struct channel *inner)
{
    struct deaf_channel *channel = calloc(1, sizeof *channel);
    cr_assert_not_null(channel);
    channel->base.ops = &deaf_channel_ops;
    channel->base.limits = *channel_limits(inner);
    channel->inner = inner;
    return &channel->base;
}

/* ---- the transport ---- */

static enum godwit_err lobby_connect(void *context, const struct address *address,
                                     const struct introduction *introduction, int timeout_ms,
                                     const atomic_bool *cancel, struct channel **out, struct godwit_error *error)
{
    struct lobby *lobby = context;
    pthread_mutex_lock(&lobby->lock);
    bool data = lobby->control;
    lobby->control = true;
    pthread_mutex_unlock(&lobby->lock);
    const struct address *to = data && lobby->elsewhere != NULL ? lobby->elsewhere : address;
    enum godwit_err err = data ? enter(lobby, timeout_ms, cancel, error) : GODWIT_OK;
    if (err == GODWIT_OK)
        err = transport_connect(lobby->inner, to, introduction, timeout_ms, cancel, out, error);
    if (err == GODWIT_OK && data && lobby->deaf)
        *out = make_deaf(*out);
    return err;
}

static enum godwit_err lobby_listen(void *context, const struct address *address, unsigned backlog,
                                    struct listener **out, struct backlog_warning *warning, struct godwit_error *error)
{
    const struct lobby *lobby = context;
    return transport_listen(lobby->inner, address, lobby->backlog > 0 ? lobby->backlog : backlog, out, warning, error);
}

static enum godwit_err lobby_domain(void *context, const struct address *address, struct domain **out,
                                    struct godwit_error *error)
{
    return transport_domain(((struct lobby *)context)->inner, address, out, error);
}

static void init(struct scene *scene, struct lobby *lobby, enum scene_net net, unsigned channels)
{
    char text[8];
    scene_init(scene, net, channels, 2);
    snprintf(text, sizeof text, "%u", channels);
    scene_set_source(scene, "multifd-channels", text);
    *lobby = (struct lobby){
        .inner = net == SCENE_LOOP   ? loop_net_transport(scene->loop)
                 : net == SCENE_UNIX ? &unix_transport
                                     : &tcp_transport,
        .total = channels,
        .party = AT_ONCE,
        .opaque = scene,
        .shortest_ms = INT_MAX,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .changed = PTHREAD_COND_INITIALIZER,
    };
    lobby->ops = (struct transport_ops){.scheme = transport_scheme(lobby->inner),
                                        .connect = lobby_connect,
                                        .listen = lobby_listen,
                                        .domain = lobby_domain};
    lobby->transport = (struct transport){&lobby->ops, lobby};
    scene->base = &lobby->transport;
}

/* ---- the happy path ---- */

struct row {
    enum scene_net net;
    unsigned channels;
};

ParameterizedTestParameters(channels, sixteen_at_a_time_are_connected_or_all_if_there_are_fewer)
{
    static struct row rows[] = {{SCENE_LOOP, 1},  {SCENE_UNIX, 2}, {SCENE_TCP, 4},    {SCENE_UNIX, 16},
                                {SCENE_LOOP, 17}, {SCENE_TCP, 100}, {SCENE_LOOP, 255}};
    return cr_make_param_array(struct row, rows, sizeof rows / sizeof rows[0]);
}

ParameterizedTest(struct row *row, channels, sixteen_at_a_time_are_connected_or_all_if_there_are_fewer)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct lobby lobby;
    struct scene scene;
    init(&scene, &lobby, row->net, row->channels);
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_eq(scene.source_info.channel_count, row->channels);
    cr_assert_eq(lobby.came, row->channels);
    cr_assert_eq(lobby.most, row->channels < AT_ONCE ? row->channels : AT_ONCE, "%u at a time", lobby.most);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

ParameterizedTestParameters(channels, a_listener_with_hardly_any_backlog_gets_them_all)
{
    static struct row rows[] = {{SCENE_LOOP, 255}, {SCENE_UNIX, 255}, {SCENE_TCP, 64}};
    return cr_make_param_array(struct row, rows, 3);
}

ParameterizedTest(struct row *row, channels, a_listener_with_hardly_any_backlog_gets_them_all)
{
    struct lobby lobby;
    struct scene scene;
    init(&scene, &lobby, row->net, row->channels);
    scene_set(&scene, "connect-timeout", "50s"); /* TCP asks again after a second, and then after longer */
    lobby.backlog = lobby.party = 1;
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    scene_close(&scene);
}

/* ---- they end together ---- */

enum ending { ONE_FAILS, SOURCE_CANCELS, DESTINATION_CANCELS };

struct end_row {
    enum ending ending;
    bool greeting; /* the others wait for the answer to their hello, not in the lobby */
};

/* Of the others, which are connected to the wrong listener. */
struct mute {
    struct listener *listener;
    struct channel *channels[AT_ONCE];
    unsigned count;
};

struct end {
    struct scene *scene;
    const struct end_row *row;
    struct mute mute;
};

static void take_hellos(struct mute *mute, unsigned count)
{
    uint8_t bytes[HELLO_SIZE];
    for (; mute->count < count; mute->count++) {
        struct channel **channel = &mute->channels[mute->count];
        cr_assert_eq(listener_accept(mute->listener, 10000, channel, NULL), GODWIT_OK);
        cr_assert_eq(channel_recv_exact(*channel, bytes, sizeof bytes, 10000), GODWIT_OK);
    }
}

static enum godwit_err end_it(struct lobby *lobby, struct godwit_error *error)
{
    struct end *end = lobby->opaque;
    if (end->row->greeting)
        take_hellos(&end->mute, lobby->total - 1);
    if (end->row->ending == SOURCE_CANCELS)
        godwit_source_cancel(end->scene->source);
    if (end->row->ending == DESTINATION_CANCELS)
        godwit_destination_cancel(end->scene->destination);
    return end->row->ending == ONE_FAILS ? error_set(error, GODWIT_ERR_UNREACHABLE, "no way from here") : GODWIT_OK;
}

ParameterizedTestParameters(channels, a_failure_or_a_cancel_ends_those_that_wait)
{
    static struct end_row rows[] = {{ONE_FAILS, false}, {SOURCE_CANCELS, false}, {DESTINATION_CANCELS, false},
                                    {ONE_FAILS, true},  {SOURCE_CANCELS, true},  {DESTINATION_CANCELS, true}};
    return cr_make_param_array(struct end_row, rows, 6);
}

/* That they did not wait until their time was up shows in the end of this test in time. */
ParameterizedTest(struct end_row *row, channels, a_failure_or_a_cancel_ends_those_that_wait)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct address elsewhere = {.scheme = "loop", .path = "mute"};
    struct lobby lobby;
    struct scene scene;
    struct end end = {.scene = &scene, .row = row};
    init(&scene, &lobby, SCENE_LOOP, 8);
    scene_set(&scene, "connect-timeout", "1000s");
    scene_set(&scene, "handshake-timeout", "1000s");
    cr_assert_eq(transport_listen(lobby.inner, &elsewhere, AT_ONCE, &end.mute.listener, NULL, NULL), GODWIT_OK);
    lobby.elsewhere = &elsewhere;
    lobby.closed = !row->greeting;
    lobby.last = end_it;
    lobby.opaque = &end;
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert_eq(lobby.came, 8);
    cr_assert_eq(lobby.late, 0);
    if (!row->greeting)
        cr_assert_eq(lobby.cancelled, row->ending == ONE_FAILS ? 7 : 8);
    const char *why = row->ending == ONE_FAILS        ? "no way from here"
                      : row->ending == SOURCE_CANCELS ? "cancelled"
                                                      : "cancelled at the destination";
    cr_assert_not_null(strstr(scene.source_error.text, why), "%s", scene.source_error.text);
    cr_assert_not_null(strstr(scene.destination_error.text, why), "%s", scene.destination_error.text);
    cr_assert_eq(strncmp(scene.source_error.text, "data channel", 12) == 0, row->ending == ONE_FAILS, "%s",
                 scene.source_error.text);
    while (end.mute.count > 0)
        channel_free(end.mute.channels[--end.mute.count]);
    listener_free(end.mute.listener);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

/* A failure that says little, so that both sides wait for a better reason. */
static enum godwit_err fail_once_the_others_are_in(struct lobby *lobby, struct godwit_error *error)
{
    struct scene *scene = lobby->opaque;
    struct godwit_destination *destination = scene->destination;
    for (unsigned attached = 0; attached < lobby->total - 1; sched_yield()) {
        pthread_mutex_lock(&destination->lock);
        attached = destination->session->attached;
        pthread_mutex_unlock(&destination->lock);
    }
    return error_set(error, GODWIT_ERR_NOT_ADMITTED, "no way from here");
}

Test(channels, what_the_destination_let_in_stays_open_until_it_is_told_why)
{
    struct lobby lobby;
    struct scene scene;
    init(&scene, &lobby, SCENE_UNIX, 4);
    lobby.deaf = true; /* the others never learn that they were let in */
    lobby.last = fail_once_the_others_are_in;
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert_eq(scene.source_err, GODWIT_ERR_NOT_ADMITTED, "%s", scene.source_error.text);
    cr_assert_not_null(strstr(scene.destination_error.text, "no way from here"), "%s", scene.destination_error.text);
    scene_close(&scene);
}

Test(channels, after_the_first_one_that_was_late_no_other_is_tried)
{
    struct lobby lobby;
    struct scene scene;
    init(&scene, &lobby, SCENE_UNIX, 3 * AT_ONCE);
    scene_set_source(&scene, "connect-timeout", "300");
    lobby.closed = true;
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert_eq(scene.source_err, GODWIT_ERR_UNREACHABLE, "%s", scene.source_error.text);
    cr_assert_not_null(strstr(scene.source_error.text, "nobody opens"), "%s", scene.source_error.text);
    cr_assert_eq(lobby.came, AT_ONCE);
    cr_assert_gt(lobby.late, 0);
    cr_assert_eq(lobby.late + lobby.cancelled, AT_ONCE);
    scene_close(&scene);
}

Test(channels, the_timeout_is_for_all_of_them_together)
{
    struct lobby lobby;
    struct scene scene;
    init(&scene, &lobby, SCENE_UNIX, AT_ONCE + 1);
    lobby.stay_ms = 5;
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_leq(lobby.longest_ms, 10000);
    cr_assert_leq(lobby.shortest_ms, 9995, "the last one has what the first ones left: %d", lobby.shortest_ms);
    scene_close(&scene);
}

/* ---- threads run out ---- */

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *opaque);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *opaque);

static _Thread_local unsigned threads_left = UINT_MAX; /* that this thread may start */

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *opaque)
{
    if (threads_left == 0)
        return EAGAIN;
    threads_left--;
    return __real_pthread_create(thread, attributes, start, opaque);
}

Test(channels, the_nth_thread_that_cannot_be_started_ends_the_migration_cleanly)
{
    unsigned descriptors = count_descriptors(), threads = count_threads(), failures = 0, of_channels = 0;
    for (bool completed = false; !completed; failures += !completed) {
        struct lobby lobby;
        struct scene scene;
        init(&scene, &lobby, SCENE_UNIX, 6);
        lobby.party = 1;
        scene_open(&scene);
        scene_serve(&scene);
        threads_left = failures;
        scene_migrate(&scene);
        threads_left = UINT_MAX;
        scene_join(&scene);
        completed = scene.source_err == GODWIT_OK;
        if (completed)
            expect_completed(&scene);
        else
            expect_stayed(&scene);
        of_channels += strstr(scene.source_error.text, "to connect data channels") != NULL;
        scene_close(&scene);
        cr_assert_eq(count_descriptors(), descriptors, "%u threads", failures);
        cr_assert_eq(count_threads(), threads, "%u threads", failures);
    }
    cr_assert_eq(of_channels, 6);
    cr_assert_gt(failures, 12, "control, connecting, sending");
}
