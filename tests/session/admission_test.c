/*
 * The door under siege. Whatever strangers do, a proper hello gets in within two seconds. All ends are in this process,
 * so what is left behind shows in its own descriptors and threads.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "session/admission.h"
#include "tcp/tcp.h"
#include "tests/lib/census.h"
#include "tests/lib/gate.h"
#include "tests/lib/pair.h"
#include "transport/clock.h"
#include "transport/error.h"
#include "transport/fault.h"
#include "transport/loop.h"

TestSuite(admission, .timeout = 60);

enum { SOON_MS = 10000, HANDSHAKE_MS = 300, PATIENT_MS = 30000, PROMISED_MS = 2000, CROWD = 500, GUESTS = 8 };

enum place { PLACE_LOOP, PLACE_TCP };

/* A door, and the host behind it, who knows one session and lets in its data channels. */
struct door {
    struct loop_net *loop;
    struct fault_net *fault;
    const struct transport *transport; /* for those who connect: never faulty */
    struct address address;
    struct admission *admission;
    unsigned fds, threads; /* before it was opened */

    struct gate reserved, attached, released, turned_away;
    struct hello last; /* reserved or released */
    struct channel *guests[GUESTS];
    struct channel *stranger; /* whose end of the connection is looked at when it is released; NULL: nobody's */
    enum godwit_err stranger_sees;
};

static unsigned door_roles; /* set by the one test about it: each runs in a process of its own */
static const uint8_t session_id[SESSION_ID_SIZE] = "a session of ...";

static enum godwit_err door_reserve(void *opaque, const struct hello *hello, struct godwit_error *error)
{
    struct door *door = opaque;
    if (memcmp(hello->session, session_id, SESSION_ID_SIZE) != 0)
        return GODWIT_ERR_CLOSED; /* not even worth an answer */
    if (hello->role != HELLO_DATA)
        return error_set(error, GODWIT_ERR_NOT_ADMITTED, "role %u is not admitted here", hello->role);
    if (hello->channel == 0xffff)
        return error_set(error, GODWIT_ERR_BUSY, "come back later");
    door->last = *hello;
    gate_note(&door->reserved, NULL);
    return GODWIT_OK;
}

static void door_attach(void *opaque, const struct hello *hello, struct channel *channel)
{
    struct door *door = opaque;
    door->guests[hello->channel] = channel;
    gate_note(&door->attached, NULL);
}

static void door_turned_away(void *opaque, const char *name, const struct godwit_error *error)
{
    struct door *door = opaque;
    gate_note(&door->turned_away, error);
}

static void door_release(void *opaque, const struct hello *hello)
{
    struct door *door = opaque;
    char byte;
    door->last = *hello;
    if (door->stranger != NULL)
        door->stranger_sees = channel_recv_exact(door->stranger, &byte, 1, PROMISED_MS);
    gate_note(&door->released, NULL);
}

static void door_init(struct door *door)
{
    *door = (struct door){.reserved = GATE_INIT, .attached = GATE_INIT, .released = GATE_INIT,
                           .turned_away = GATE_INIT};
    door->fds = census_fds();
    door->threads = census_threads(UINT_MAX);
}

static void door_start(struct door *door, struct listener *listener, int handshake_ms)
{
    struct godwit_error error = {0};
    struct admission_config config = {
        .listener = listener,
        .handshake_ms = handshake_ms,
        .reserve = door_reserve,
        .attach = door_attach,
        .turned_away = door_turned_away,
        .release = door_release,
        .roles = door_roles,
        .opaque = door,
    };
    door->address = *listener_address(listener);
    cr_assert_eq(admission_start(&config, &door->admission, &error), GODWIT_OK, "%s", error.text);
}

/* plan: of every channel that comes in, NULL for none. */
static void door_open(struct door *door, enum place place, int handshake_ms, const struct fault_plan *plan)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);

    door_init(door);
    door->loop = loop_net_new(1);
    door->transport = place == PLACE_LOOP ? loop_net_transport(door->loop) : &tcp_transport;
    const struct transport *inside = door->transport;
    if (plan != NULL) {
        door->fault = fault_net_new(inside, plan, FAULT_NEVER);
        inside = fault_net_transport(door->fault);
    }
    struct listener *listener;
    struct godwit_error error = {0};
    cr_assert_eq(address_parse(place == PLACE_LOOP ? "loop:door" : "tcp:127.0.0.1:0", &door->address, NULL), GODWIT_OK);
    cr_assert_eq(transport_listen(inside, &door->address, CROWD, &listener, NULL, &error), GODWIT_OK, "%s", error.text);
    door_start(door, listener, handshake_ms);
}

/* With whoever still stands there; strangers are the connecting ends, freed afterwards. */
static void door_close(struct door *door, struct channel **strangers, unsigned count)
{
    uint64_t start = clock_now_ms();
    admission_free(door->admission);
    cr_assert_lt(clock_now_ms() - start, PROMISED_MS);
    for (unsigned i = 0; i < GUESTS; i++)
        channel_free(door->guests[i]);
    for (unsigned i = 0; i < count; i++)
        channel_free(strangers[i]);
    fault_net_free(door->fault);
    loop_net_free(door->loop);
    cr_assert_eq(census_fds(), door->fds, "descriptors");
    cr_assert_eq(census_threads(door->threads), door->threads, "threads");
}

static struct channel *knock(struct door *door)
{
    struct channel *channel;
    struct godwit_error error = {0};
    enum godwit_err err = transport_connect(door->transport, &door->address, NULL, SOON_MS, NULL, &channel, &error);
    cr_assert_eq(err, GODWIT_OK, "%s", error.text);
    return channel;
}

static struct hello proper_hello(unsigned index)
{
    struct hello hello = {
        .version = PROTOCOL_VERSION, .oldest = PROTOCOL_OLDEST, .role = HELLO_DATA, .channel = (uint16_t)index};
    memcpy(hello.session, session_id, SESSION_ID_SIZE);
    return hello;
}

/* One of ours comes in and can be talked to, quickly. */
static void expect_admitted(struct door *door, unsigned index)
{
    uint64_t start = clock_now_ms();
    struct hello hello = proper_hello(index);
    struct godwit_error error = {0};
    struct channel *channel = knock(door);
    char got = 0;
    cr_assert_eq(hello_greet(channel, &hello, PROMISED_MS, NULL, &error), GODWIT_OK, "%s", error.text);
    cr_assert(gate_wait(&door->attached, index + 1, PROMISED_MS));
    cr_assert_lt(clock_now_ms() - start, PROMISED_MS);
    cr_assert_not_null(door->guests[index]);
    cr_assert_eq(channel_send(channel, "!", 1, NULL, 0, SOON_MS), GODWIT_OK);
    cr_assert_eq(channel_recv_exact(door->guests[index], &got, 1, SOON_MS), GODWIT_OK);
    cr_assert_eq(got, '!');
    channel_free(channel);
}

/* Nothing but the end comes from the other side. */
static void expect_shown_out(struct channel *channel, int within_ms)
{
    char byte;
    enum godwit_err err = channel_recv_exact(channel, &byte, 1, within_ms);
    cr_assert(err == GODWIT_ERR_PEER_CLOSED || err == GODWIT_ERR_RESET, "%s", godwit_err_text(err));
}

static void free_places(struct criterion_test_params *params)
{
    cr_free(params->params);
}

#define AT_BOTH_PLACES(name)                                            \
    ParameterizedTestParameters(admission, name)                        \
    {                                                                   \
        enum place *places = cr_malloc(2 * sizeof *places);             \
        places[0] = PLACE_LOOP;                                         \
        places[1] = PLACE_TCP;                                          \
        return cr_make_param_array(enum place, places, 2, free_places); \
    }                                                                   \
    ParameterizedTest(enum place *place, admission, name)

AT_BOTH_PLACES(proper_hellos_come_in_with_all_they_said)
{
    struct door door;
    door_open(&door, *place, PATIENT_MS, NULL);
    for (unsigned i = 0; i < GUESTS; i++)
        expect_admitted(&door, i);
    cr_assert_eq(gate_count(&door.reserved), GUESTS);
    cr_assert_eq(gate_count(&door.released), 0);
    cr_assert_eq(door.last.role, HELLO_DATA);
    cr_assert_eq(door.last.channel, GUESTS - 1);
    cr_assert_arr_eq(door.last.session, session_id, SESSION_ID_SIZE);
    door_close(&door, NULL, 0);
}

AT_BOTH_PLACES(garbage_is_shown_out_without_an_answer)
{
    struct door door;
    struct channel *strangers[50];
    uint8_t garbage[HELLO_SIZE * 2];
    srand(1);
    door_open(&door, *place, PATIENT_MS, NULL);
    for (unsigned i = 0; i < 50; i++) {
        for (unsigned b = 0; b < sizeof garbage; b++)
            garbage[b] = (uint8_t)rand();
        strangers[i] = knock(&door);
        channel_send(strangers[i], garbage, sizeof garbage, NULL, 0, SOON_MS);
    }
    expect_admitted(&door, 0);
    for (unsigned i = 0; i < 50; i++)
        expect_shown_out(strangers[i], SOON_MS);
    cr_assert_eq(gate_count(&door.reserved), 1);
    door_close(&door, strangers, 50);
}

AT_BOTH_PLACES(silent_ones_are_shown_out_after_their_time)
{
    struct door door;
    struct channel *strangers[30];
    door_open(&door, *place, HANDSHAKE_MS, NULL);
    uint64_t start = clock_now_ms();
    for (unsigned i = 0; i < 30; i++)
        strangers[i] = knock(&door);
    expect_admitted(&door, 0);
    for (unsigned i = 0; i < 30; i++)
        expect_shown_out(strangers[i], SOON_MS);
    cr_assert_leq(clock_now_ms() - start, HANDSHAKE_MS + 2000);
    door_close(&door, strangers, 30);
}

AT_BOTH_PLACES(more_silent_ones_than_there_are_places_hold_nobody_up)
{
    static struct channel *strangers[CROWD];
    struct door door;
    door_open(&door, *place, PATIENT_MS, NULL);
    for (unsigned i = 0; i < CROWD; i++)
        strangers[i] = knock(&door);
    expect_admitted(&door, 0);
    expect_shown_out(strangers[0], SOON_MS); /* the one that had stood there longest */
    for (unsigned i = 1; i < GUESTS; i++)
        expect_admitted(&door, i);
    door_close(&door, strangers, CROWD);
}

AT_BOTH_PLACES(crowd_that_comes_and_goes_holds_nobody_up)
{
    struct door door;
    door_open(&door, *place, PATIENT_MS, NULL);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < CROWD; i++)
            channel_free(knock(&door));
        expect_admitted(&door, round);
    }
    door_close(&door, NULL, 0);
}

/* Says its hello a byte at a time, never silent for longer than a third of the handshake time. */
struct dribbler {
    struct channel *channel;
    struct gate done;
    enum godwit_err err;
    unsigned sent;
};

static void *dribble(void *opaque)
{
    struct dribbler *dribbler = opaque;
    struct hello hello = proper_hello(1);
    uint8_t bytes[HELLO_SIZE];
    hello_encode(&hello, bytes);
    do {
        dribbler->err = channel_send(dribbler->channel, bytes + dribbler->sent % HELLO_SIZE, 1, NULL, 0, SOON_MS);
        dribbler->sent++;
    } while (dribbler->err == GODWIT_OK && !gate_wait(&dribbler->done, 1, HANDSHAKE_MS / 3));
    return NULL;
}

AT_BOTH_PLACES(hello_that_dribbles_in_is_shown_out)
{
    struct door door;
    pthread_t thread;
    struct dribbler dribbler = {.done = GATE_INIT};
    door_open(&door, *place, HANDSHAKE_MS, NULL);
    dribbler.channel = knock(&door);
    uint64_t start = clock_now_ms();
    pthread_create(&thread, NULL, dribble, &dribbler);
    expect_admitted(&door, 0);
    expect_shown_out(dribbler.channel, SOON_MS);
    cr_assert_leq(clock_now_ms() - start, HANDSHAKE_MS + 2000);
    gate_note(&dribbler.done, NULL);
    pthread_join(thread, NULL);
    cr_assert_lt(dribbler.sent, HELLO_SIZE);
    cr_assert_eq(gate_count(&door.reserved), 1);
    door_close(&door, &dribbler.channel, 1);
}

AT_BOTH_PLACES(hello_of_another_version_is_answered_in_words)
{
    struct door door;
    struct godwit_error error;
    struct hello hello = proper_hello(0);
    door_open(&door, *place, PATIENT_MS, NULL);
    hello.oldest = 5;
    hello.version = 7;
    struct channel *channel = knock(&door);
    cr_assert_eq(hello_greet(channel, &hello, SOON_MS, NULL, &error), GODWIT_ERR_MISMATCH);
    cr_assert(strstr(error.text, "5 to 7") && strstr(error.text, "1 to 1"), "%s", error.text);
    cr_assert(gate_wait(&door.turned_away, 1, SOON_MS), "nor does the operator here stay in the dark");
    expect_shown_out(channel, SOON_MS);
    cr_assert_eq(gate_count(&door.reserved), 0);
    expect_admitted(&door, 0);
    door_close(&door, &channel, 1);
}

AT_BOTH_PLACES(owner_words_its_refusals_or_stays_silent)
{
    struct door door;
    struct godwit_error error;
    struct hello hellos[3] = {proper_hello(0), proper_hello(0xffff), proper_hello(0)};
    struct channel *strangers[3];
    door_open(&door, *place, PATIENT_MS, NULL);
    hellos[0].role = HELLO_STREAM;
    hellos[2].session[0] ^= 1;
    for (unsigned i = 0; i < 3; i++)
        strangers[i] = knock(&door);
    cr_assert_eq(hello_greet(strangers[0], &hellos[0], SOON_MS, NULL, &error), GODWIT_ERR_NOT_ADMITTED);
    cr_assert(strstr(error.text, "role 3 is not admitted here"), "%s", error.text);
    cr_assert_eq(hello_greet(strangers[1], &hellos[1], SOON_MS, NULL, &error), GODWIT_ERR_BUSY);
    cr_assert(strstr(error.text, "come back later"), "%s", error.text);
    enum godwit_err err = hello_greet(strangers[2], &hellos[2], SOON_MS, NULL, &error);
    cr_assert(err == GODWIT_ERR_PEER_CLOSED || err == GODWIT_ERR_RESET, "%s", error.text);
    expect_admitted(&door, 0);
    door_close(&door, strangers, 3);
}

AT_BOTH_PLACES(reservation_is_released_when_the_answer_cannot_be_sent)
{
    struct door door;
    struct fault_plan plan = fault_plan_none();
    struct hello hello = proper_hello(3);
    plan.fail_op = FAULT_SEND;
    plan.fail_at = 0;
    plan.fail_code = GODWIT_ERR_RESET;
    door_open(&door, *place, PATIENT_MS, &plan);
    struct channel *channel = knock(&door);
    cr_assert_neq(hello_greet(channel, &hello, SOON_MS, NULL, NULL), GODWIT_OK);
    cr_assert(gate_wait(&door.released, 1, SOON_MS));
    cr_assert_eq(gate_count(&door.reserved), 1);
    cr_assert_eq(gate_count(&door.attached), 0);
    cr_assert_eq(door.last.channel, 3);
    door_close(&door, &channel, 1);
}

/* What is given back may be taken at once, and then there would be two. */
AT_BOTH_PLACES(a_connection_is_gone_before_its_reservation_is_given_back)
{
    struct door door;
    struct fault_plan plan = fault_plan_none();
    struct hello hello = proper_hello(3);
    uint8_t bytes[HELLO_SIZE];
    plan.fail_op = FAULT_SEND;
    plan.fail_at = 0;
    plan.fail_code = GODWIT_ERR_RESET;
    door_open(&door, *place, PATIENT_MS, &plan);
    door.stranger = knock(&door);
    hello_encode(&hello, bytes);
    cr_assert_eq(channel_send(door.stranger, bytes, sizeof bytes, NULL, 0, SOON_MS), GODWIT_OK);
    cr_assert(gate_wait(&door.released, 1, SOON_MS));
    cr_assert(door.stranger_sees == GODWIT_ERR_PEER_CLOSED || door.stranger_sees == GODWIT_ERR_RESET, "%s",
              godwit_err_text(door.stranger_sees));
    door_close(&door, &door.stranger, 1);
}

AT_BOTH_PLACES(free_shows_out_everybody_and_leaves_nothing)
{
    static struct channel *strangers[100];
    struct door door;
    uint8_t bytes[HELLO_SIZE];
    struct hello hello = proper_hello(0);
    hello_encode(&hello, bytes);
    door_open(&door, *place, PATIENT_MS, NULL);
    for (unsigned i = 0; i < 100; i++) {
        strangers[i] = knock(&door);
        channel_send(strangers[i], bytes, i % HELLO_SIZE, NULL, 0, SOON_MS); /* each as far as it got */
    }
    expect_admitted(&door, 0);
    door_close(&door, strangers, 100);
    cr_assert_eq(gate_count(&door.attached), 1);
}

AT_BOTH_PLACES(free_at_once_is_fine)
{
    for (unsigned i = 0; i < 20; i++) {
        struct door door;
        door_open(&door, *place, PATIENT_MS, NULL);
        door_close(&door, NULL, 0);
    }
    admission_free(NULL);
}

Test(admission, backlog_has_room_for_every_channel_and_slack)
{
    static const unsigned table[][2] = {{1, 11}, {2, 12}, {4, 15}, {8, 20}, {16, 30}, {64, 90}, {255, 328}, {0, 328}};
    for (unsigned i = 0; i < sizeof table / sizeof *table; i++)
        cr_assert_eq(admission_backlog(table[i][0]), table[i][1], "%u channels", table[i][0]);
    for (unsigned channels = 2; channels <= 255; channels++)
        cr_assert_gt(admission_backlog(channels), admission_backlog(channels - 1));
}

Test(admission, roles_that_come_in_elsewhere_are_refused_before_they_are_asked_about)
{
    struct door door;
    struct godwit_error error = {0};
    door_roles = 1u << HELLO_DATA;
    door_open(&door, PLACE_LOOP, HANDSHAKE_MS, NULL);
    struct hello hello = proper_hello(0);
    struct channel *channel = knock(&door);
    hello.role = HELLO_CONTROL;
    cr_assert_eq(hello_greet(channel, &hello, SOON_MS, NULL, &error), GODWIT_ERR_NOT_ADMITTED);
    cr_assert(strstr(error.text, "do not come in here"), "%s", error.text);
    expect_admitted(&door, 0);
    cr_assert_eq(gate_count(&door.reserved), 1);
    door_close(&door, &channel, 1);
}

/* ---- TLS first ---- */

static void await_threads(unsigned count)
{
    uint64_t deadline = clock_now_ms() + SOON_MS;
    while (census_threads(UINT_MAX) != count)
        cr_assert_gt(clock_left_ms(deadline), 0, "%u threads", count);
}

Test(admission, who_agrees_on_no_keys_is_told_of_but_not_who_is_caught_by_the_end)
{
    struct pair pair;
    struct door door;
    door_init(&door);
    cr_assert_eq(pair_listen(&pair, PAIR_TLS_TCP), GODWIT_OK, "%s", pair.error.text);
    door.transport = &tcp_transport;
    door_start(&door, pair.listener, PATIENT_MS);
    pair.listener = NULL;

    struct channel *strangers[2] = {knock(&door)};
    cr_assert_eq(channel_send(strangers[0], "GET / HTTP/1.1", 14, NULL, 0, SOON_MS), GODWIT_OK);
    cr_assert(gate_wait(&door.turned_away, 1, SOON_MS));
    cr_assert(strstr(door.turned_away.last.text, "does not speak TLS"), "%s", door.turned_away.last.text);

    strangers[1] = knock(&door);
    await_threads(door.threads + 2); /* the one who accepts, and the one who waits for the handshake */
    door_close(&door, strangers, 2);
    cr_assert_eq(gate_count(&door.turned_away), 1, "%s", door.turned_away.last.text);
    pair_close(&pair);
}
