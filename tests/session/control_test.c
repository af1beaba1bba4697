#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>
#include <string.h>

#include "session/control.h"
#include "tests/lib/gate.h"
#include "tests/lib/pair.h"
#include "transport/clock.h"
#include "transport/error.h"
#include "transport/wire.h"

TestSuite(control, .timeout = 60);

enum { SOON_MS = 10000, HEARTBEAT_MS = 30, PEER_TIMEOUT_MS = 400, PATIENT_MS = 30000 };

/* One control and what its callbacks saw. */
struct side {
    struct control *control;
    struct gate records, ended;
    uint16_t type; /* of the last record; these under the gate: written before it is noted */
    uint32_t size;
    atomic_uint wrong;    /* bodies that are not what body_fill made of their size, failures without words */
    enum godwit_err veto; /* what the record callback returns for a RECORD_BYE */
    _Atomic enum godwit_err impatience; /* what the check of blocked senders says */
    _Atomic uint64_t progress;          /* told in heartbeats */
    int hold_ms;                        /* how long it blocks, against the rules, in the first record */
};

static const struct side new_side = {.records = GATE_INIT, .ended = GATE_INIT};

static void body_fill(uint8_t *body, size_t size)
{
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(i * 31 + (i >> 8) + size);
}

static enum godwit_err side_record(void *opaque, const struct record_header *header, const uint8_t *body,
                                   struct godwit_error *error)
{
    struct side *side = opaque;
    for (size_t i = 0; i < header->size; i++) {
        if (body[i] != (uint8_t)(i * 31 + (i >> 8) + header->size)) {
            atomic_fetch_add(&side->wrong, 1);
            break;
        }
    }
    if (side->hold_ms && gate_count(&side->records) == 0)
        gate_wait(&side->ended, 1, side->hold_ms); /* which cannot come: it waits for us */
    side->type = header->type;
    side->size = header->size;
    gate_note(&side->records, NULL);
    if (side->veto != GODWIT_OK && header->type == RECORD_BYE)
        return error_set(error, side->veto, "no BYE was due");
    return GODWIT_OK;
}

static enum godwit_err side_check(void *opaque, struct godwit_error *error)
{
    struct side *side = opaque;
    return side->impatience != GODWIT_OK ? error_set(error, side->impatience, "no time to wait for sends") : GODWIT_OK;
}

static uint64_t side_progress(void *opaque)
{
    return ((struct side *)opaque)->progress;
}

static void side_ended(void *opaque, const struct godwit_error *error)
{
    gate_note(&((struct side *)opaque)->ended, error);
}

static void side_start(struct side *side, struct channel **channel, int peer_timeout_ms)
{
    struct control_config config = {
        .channel = *channel,
        .heartbeat_ms = HEARTBEAT_MS,
        .peer_timeout_ms = peer_timeout_ms,
        .record = side_record,
        .check = side_check,
        .progress = side_progress,
        .ended = side_ended,
        .opaque = side,
    };
    cr_assert_eq(control_start(&config, &side->control, NULL), GODWIT_OK);
    *channel = NULL;
}

/* Whatever happened before: its end was told once. */
static void side_free(struct side *side)
{
    control_free(side->control);
    cr_assert_eq(gate_count(&side->ended), 1, "ended() was called %u times", side->ended.count);
    cr_assert(side->ended.last.text[0]);
    cr_assert_eq(side->wrong, 0);
}

static enum godwit_err side_send(struct side *side, uint16_t type, size_t size)
{
    uint8_t *body = malloc(size + 1);
    body_fill(body, size);
    struct iovec parts[2] = {{body, size / 3}, {body + size / 3, size - size / 3}};
    struct godwit_error error = {0};
    enum godwit_err err = control_send(side->control, type, parts, 2, &error);
    if (err != GODWIT_OK && (error.code != err || strstr(error.text, "cannot send") == NULL))
        atomic_fetch_add(&side->wrong, 1); /* not an assertion: this runs in many threads */
    free(body);
    return err;
}

static void expect_end(struct side *side, enum godwit_err code, const char *words)
{
    cr_assert(gate_wait(&side->ended, 1, SOON_MS), "it has not ended");
    cr_assert_eq(side->ended.last.code, code, "%s", side->ended.last.text);
    cr_assert(strstr(side->ended.last.text, words), "%s", side->ended.last.text);
}

static const enum pair_kind kinds[] = {PAIR_LOOP, PAIR_TCP4, PAIR_UNIX};

#define FOR_ALL_KINDS(name)                                                                         \
    ParameterizedTestParameters(control, name)                                                      \
    {                                                                                               \
        enum pair_kind *list = cr_malloc(sizeof kinds);                                             \
        memcpy(list, kinds, sizeof kinds);                                                          \
        return cr_make_param_array(enum pair_kind, list, sizeof kinds / sizeof *kinds, free_kinds); \
    }                                                                                               \
    ParameterizedTest(enum pair_kind *kind, control, name)

static void free_kinds(struct criterion_test_params *params)
{
    cr_free(params->params);
}

/* Two controls, each at its end. */
struct couple {
    struct pair pair;
    struct side a, b;
};

static void couple_open(struct couple *couple, enum pair_kind kind, int peer_timeout_ms)
{
    *couple = (struct couple){.a = new_side, .b = new_side};
    cr_assert_eq(pair_open(&couple->pair, kind), GODWIT_OK, "%s", couple->pair.error.text);
    side_start(&couple->a, &couple->pair.a, peer_timeout_ms);
    side_start(&couple->b, &couple->pair.b, peer_timeout_ms);
}

static void couple_close(struct couple *couple)
{
    side_free(&couple->a);
    side_free(&couple->b);
    pair_close(&couple->pair);
}

FOR_ALL_KINDS(records_travel_both_ways)
{
    struct couple couple;
    couple_open(&couple, *kind, PATIENT_MS);
    for (unsigned i = 0; i < 200; i++) {
        cr_assert_eq(side_send(&couple.a, RECORD_KEY, i * 7), GODWIT_OK);
        cr_assert_eq(side_send(&couple.b, RECORD_EPOCH_ACK, i * 5), GODWIT_OK);
    }
    cr_assert(gate_wait(&couple.a.records, 200, SOON_MS) && gate_wait(&couple.b.records, 200, SOON_MS));
    cr_assert_eq(couple.b.type, RECORD_KEY);
    cr_assert_eq(couple.b.size, 199 * 7);
    cr_assert_eq(couple.a.type, RECORD_EPOCH_ACK);
    cr_assert_eq(couple.a.size, 199 * 5);
    couple_close(&couple);
}

FOR_ALL_KINDS(heartbeats_keep_it_alive_beyond_the_peer_timeout)
{
    struct couple couple;
    couple_open(&couple, *kind, PEER_TIMEOUT_MS);
    cr_assert_not(gate_wait(&couple.a.ended, 1, 3 * PEER_TIMEOUT_MS), "%s", couple.a.ended.last.text);
    cr_assert_eq(gate_count(&couple.b.ended), 0);
    cr_assert_eq(gate_count(&couple.b.records), 0, "heartbeats are nobody else's business");
    cr_assert_eq(side_send(&couple.a, RECORD_RUN, 0), GODWIT_OK);
    cr_assert(gate_wait(&couple.b.records, 1, SOON_MS));
    couple_close(&couple);
}

FOR_ALL_KINDS(silent_peer_is_dead_after_its_time)
{
    struct pair pair;
    struct side side = new_side;
    cr_assert_eq(pair_open(&pair, *kind), GODWIT_OK);
    uint64_t start = clock_now_ms();
    side_start(&side, &pair.a, PEER_TIMEOUT_MS);
    expect_end(&side, GODWIT_ERR_PEER_DEAD, "silent for 400 ms");
    uint64_t took = clock_now_ms() - start;
    cr_assert(took + 1 >= PEER_TIMEOUT_MS && took <= PEER_TIMEOUT_MS + 1000, "%llu ms", (unsigned long long)took);
    side_free(&side);
    pair_close(&pair);
}

FOR_ALL_KINDS(peer_that_stopped_reading_too_is_dead_in_time)
{
    struct pair pair;
    struct side side = new_side;
    cr_assert_eq(pair_open(&pair, *kind), GODWIT_OK);
    uint64_t start = clock_now_ms();
    side_start(&side, &pair.a, PEER_TIMEOUT_MS);
    /* Until nothing fits any more: the heartbeats block then. */
    while (side_send(&side, RECORD_STATE, RECORD_BODY_MAX) == GODWIT_OK)
        cr_assert_lt(clock_now_ms() - start, SOON_MS);
    cr_assert(gate_wait(&side.ended, 1, SOON_MS));
    cr_assert_eq(side.ended.last.code, GODWIT_ERR_PEER_DEAD, "%s", side.ended.last.text);
    /* A blocked send, too, ends after one to two of these times (tcp/stream.c). */
    cr_assert_leq(clock_now_ms() - start, 3 * PEER_TIMEOUT_MS + 1000);
    side_free(&side);
    pair_close(&pair);
}

FOR_ALL_KINDS(words_of_the_peer_arrive_and_a_cancel_stays_a_cancel)
{
    static const enum godwit_err codes[][2] = {
        {GODWIT_ERR_NO_MEMORY, GODWIT_ERR_PEER_FAILED},   {GODWIT_ERR_CANCELLED, GODWIT_ERR_CANCELLED},
        {GODWIT_ERR_MISMATCH, GODWIT_ERR_MISMATCH},       {GODWIT_ERR_CLOSED, GODWIT_ERR_PEER_FAILED},
        {GODWIT_ERR_PEER_FAILED, GODWIT_ERR_PEER_FAILED}, {GODWIT_OK, GODWIT_ERR_PEER_FAILED},
    };
    for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++) {
        struct couple couple;
        couple_open(&couple, *kind, PATIENT_MS);
        struct godwit_error why = {.code = codes[i][0], .text = "the disk is on fire"};
        control_send_error(couple.a.control, &why);
        expect_end(&couple.b, codes[i][1], "the disk is on fire");
        cr_assert_eq(gate_count(&couple.b.records), 0);
        couple_close(&couple);
    }
}

Test(control, longest_error_text_fits)
{
    struct couple couple;
    couple_open(&couple, PAIR_LOOP, PATIENT_MS);
    struct godwit_error why = {.code = GODWIT_ERR_GUEST};
    memset(why.text, 'x', sizeof why.text); /* no end at all */
    control_send_error(couple.a.control, &why);
    expect_end(&couple.b, GODWIT_ERR_PEER_FAILED, "xxxxxxxx");
    couple_close(&couple);
}

static void *stop_thread(void *opaque)
{
    control_stop(opaque);
    return NULL;
}

FOR_ALL_KINDS(stop_from_another_thread_ends_both_sides_and_later_sends)
{
    struct couple couple;
    pthread_t thread;
    couple_open(&couple, *kind, PATIENT_MS);
    pthread_create(&thread, NULL, stop_thread, couple.a.control);
    pthread_join(thread, NULL);
    cr_assert_eq(gate_count(&couple.a.ended), 1, "stop has seen the reader end");
    cr_assert_eq(couple.a.ended.last.code, GODWIT_ERR_CLOSED, "%s", couple.a.ended.last.text);
    cr_assert(gate_wait(&couple.b.ended, 1, SOON_MS));
    enum godwit_err end = couple.b.ended.last.code;
    cr_assert(end == GODWIT_ERR_PEER_CLOSED || end == GODWIT_ERR_RESET, "%s", couple.b.ended.last.text);
    cr_assert_eq(side_send(&couple.a, RECORD_RUN, 10), GODWIT_ERR_CLOSED);
    control_stop(couple.a.control); /* again */
    couple_close(&couple);
}

struct blocked_send {
    struct side *side;
    struct gate sent;
    enum godwit_err err;
};

static void *send_until_failure(void *opaque)
{
    struct blocked_send *blocked = opaque;
    while ((blocked->err = side_send(blocked->side, RECORD_STATE, RECORD_BODY_MAX)) == GODWIT_OK)
        gate_note(&blocked->sent, NULL);
    return NULL;
}

FOR_ALL_KINDS(stop_ends_a_blocked_send)
{
    struct pair pair;
    struct side side = new_side;
    struct blocked_send blocked = {.side = &side, .sent = GATE_INIT};
    pthread_t thread;
    cr_assert_eq(pair_open(&pair, *kind), GODWIT_OK);
    side_start(&side, &pair.a, PATIENT_MS);
    pthread_create(&thread, NULL, send_until_failure, &blocked);
    while (gate_wait(&blocked.sent, gate_count(&blocked.sent) + 1, 200))
        ;
    uint64_t start = clock_now_ms();
    control_stop(side.control);
    pthread_join(thread, NULL);
    cr_assert_lt(clock_now_ms() - start, SOON_MS);
    cr_assert_eq(blocked.err, GODWIT_ERR_CLOSED, "%s", godwit_err_text(blocked.err));
    side_free(&side);
    pair_close(&pair);
}

static void *send_big_ones(void *side)
{
    for (unsigned i = 0; i < 8; i++)
        side_send(side, RECORD_STATE, RECORD_BODY_MAX - i);
    return NULL;
}

FOR_ALL_KINDS(large_bodies_of_many_threads_do_not_mix)
{
    struct couple couple;
    pthread_t threads[4];
    couple_open(&couple, *kind, PATIENT_MS);
    for (unsigned i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, send_big_ones, i % 2 ? &couple.a : &couple.b);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_assert(gate_wait(&couple.a.records, 16, SOON_MS) && gate_wait(&couple.b.records, 16, SOON_MS));
    couple_close(&couple);
}

Test(control, unknown_types_are_the_owners_business)
{
    struct couple couple;
    couple_open(&couple, PAIR_LOOP, PATIENT_MS);
    cr_assert_eq(side_send(&couple.a, RECORD_OPTIONAL | 0x123, 99), GODWIT_OK);
    cr_assert(gate_wait(&couple.b.records, 1, SOON_MS));
    cr_assert_eq(couple.b.type, RECORD_OPTIONAL | 0x123);
    cr_assert_eq(couple.b.size, 99);
    cr_assert_eq(side_send(&couple.a, RECORD_RUN, 0), GODWIT_OK);
    cr_assert(gate_wait(&couple.b.records, 2, SOON_MS), "and it went on");
    couple_close(&couple);
}

Test(control, error_of_the_owner_ends_it)
{
    struct couple couple;
    couple_open(&couple, PAIR_LOOP, PATIENT_MS);
    couple.b.veto = GODWIT_ERR_PROTOCOL;
    cr_assert_eq(side_send(&couple.a, RECORD_BYE, 0), GODWIT_OK);
    side_send(&couple.a, RECORD_RUN, 0); /* or it finds the connection ended already */
    expect_end(&couple.b, GODWIT_ERR_PROTOCOL, "no BYE was due");
    cr_assert_eq(gate_count(&couple.b.records), 1, "nothing is dispatched behind it");
    couple_close(&couple);
}

FOR_ALL_KINDS(vanished_peer_ends_it_at_once)
{
    struct pair pair;
    struct side side = new_side;
    cr_assert_eq(pair_open(&pair, *kind), GODWIT_OK);
    side_start(&side, &pair.a, PATIENT_MS);
    channel_free(pair.b);
    pair.b = NULL;
    cr_assert(gate_wait(&side.ended, 1, SOON_MS));
    enum godwit_err end = side.ended.last.code;
    cr_assert(end == GODWIT_ERR_PEER_CLOSED || end == GODWIT_ERR_RESET, "%s", side.ended.last.text);
    side_free(&side);
    pair_close(&pair);
}

/* What a control makes of bytes that no control would send. */
static void expect_protocol_error(const void *bytes, size_t size, const char *words)
{
    struct pair pair;
    struct side side = new_side;
    cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
    cr_assert_eq(channel_send(pair.b, bytes, size, NULL, 0, 0), GODWIT_OK);
    side_start(&side, &pair.a, PATIENT_MS);
    expect_end(&side, GODWIT_ERR_PROTOCOL, words);
    cr_assert_eq(gate_count(&side.records), 0);
    side_free(&side);
    pair_close(&pair);
}

static void expect_protocol_error_for(uint16_t type, const void *body, size_t size, const char *words)
{
    uint8_t bytes[RECORD_HEADER_SIZE + 1024];
    struct record_header header = {.type = type};
    memcpy(bytes + RECORD_HEADER_SIZE, body, size);
    struct iovec iov = {bytes + RECORD_HEADER_SIZE, size};
    record_header_encode(&header, &iov, 1, bytes);
    expect_protocol_error(bytes, RECORD_HEADER_SIZE + size, words);
}

Test(control, garbage_is_a_protocol_error)
{
    uint8_t garbage[64];
    srand(1);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < sizeof garbage; i++)
            garbage[i] = (uint8_t)rand();
        garbage[4] |= 0x80; /* a size that no luck makes valid */
        expect_protocol_error(garbage, sizeof garbage, "");
    }
}

Test(control, malformed_heartbeats_and_errors_are_protocol_errors)
{
    static uint8_t body[1024];
    for (unsigned size = 0; size < 40; size++)
        if (size != 16)
            expect_protocol_error_for(RECORD_HEARTBEAT, body, size, "malformed HEARTBEAT");
    for (unsigned size = 0; size < 4; size++)
        expect_protocol_error_for(RECORD_ERROR, body, size, "malformed ERROR");
    body[3] = 10; /* bytes of text */
    for (unsigned size = 4; size < 40; size++)
        if (size != 14)
            expect_protocol_error_for(RECORD_ERROR, body, size, "malformed ERROR");
    body[2] = GODWIT_ERROR_TEXT >> 8;
    body[3] = GODWIT_ERROR_TEXT & 0xff;
    expect_protocol_error_for(RECORD_ERROR, body, 4 + GODWIT_ERROR_TEXT, "malformed ERROR");
}

/* The next record but heartbeats; sequence: of the first one looked at. */
static uint16_t next_record(struct channel *channel, uint32_t sequence, uint8_t body[RECORD_BODY_MAX])
{
    struct record_reader reader = {.channel = channel};
    struct record_header header;
    do {
        enum godwit_err err = record_recv(&reader, &header, body, sequence++, SOON_MS, SOON_MS, NULL);
        cr_assert_eq(err, GODWIT_OK, "%s", godwit_err_text(err));
    } while (header.type == RECORD_HEARTBEAT);
    return header.type;
}

FOR_ALL_KINDS(peer_that_broke_the_protocol_is_told_how)
{
    static uint8_t body[RECORD_BODY_MAX];
    struct pair pair;
    struct side side = new_side;
    cr_assert_eq(pair_open(&pair, *kind), GODWIT_OK);
    side_start(&side, &pair.a, PATIENT_MS);
    cr_assert_eq(record_send(pair.b, RECORD_KEY, 4711, NULL, 0, SOON_MS), GODWIT_OK);
    cr_assert_eq(next_record(pair.b, 0, body), RECORD_ERROR);
    cr_assert(memmem(body, 100, "KEY number 4711", 15), "%s", body + 4);
    expect_end(&side, GODWIT_ERR_PROTOCOL, "KEY number 4711 where 0 was due");
    side_free(&side);
    pair_close(&pair);
}

/* As after SIGSTOP or in a debugger. */
Test(control, what_came_during_a_long_pause_of_ours_counts_as_life)
{
    struct pair pair;
    struct side side = new_side;
    side.hold_ms = 2 * PEER_TIMEOUT_MS;
    cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(record_send(pair.b, RECORD_KEY, i, NULL, 0, 0), GODWIT_OK);
    side_start(&side, &pair.a, PEER_TIMEOUT_MS);
    cr_assert(gate_wait(&side.records, 3, SOON_MS), "%s", side.ended.last.text);
    expect_end(&side, GODWIT_ERR_PEER_DEAD, "silent");
    side_free(&side);
    pair_close(&pair);
}

Test(control, heartbeats_tell_the_progress_of_the_other_side)
{
    struct couple couple;
    couple_open(&couple, PAIR_LOOP, PATIENT_MS);
    cr_assert_eq(control_peer_progress(couple.a.control), 0);
    couple.b.progress = 0x1122334455667788;
    uint64_t start = clock_now_ms();
    while (control_peer_progress(couple.a.control) != 0x1122334455667788 && clock_now_ms() - start < SOON_MS)
        gate_wait(&couple.a.ended, 1, HEARTBEAT_MS);
    cr_assert_eq(control_peer_progress(couple.a.control), 0x1122334455667788);
    cr_assert_eq(control_peer_progress(couple.b.control), 0);
    couple_close(&couple);
}

/* A peer that reads a little now and then never times out. */
FOR_ALL_KINDS(blocked_send_ends_when_the_owner_has_no_more_time)
{
    struct pair pair;
    struct side side = new_side;
    struct blocked_send blocked = {.side = &side, .sent = GATE_INIT};
    pthread_t thread;
    cr_assert_eq(pair_open(&pair, *kind), GODWIT_OK);
    side_start(&side, &pair.a, PATIENT_MS);
    pthread_create(&thread, NULL, send_until_failure, &blocked);
    while (gate_wait(&blocked.sent, gate_count(&blocked.sent) + 1, 200))
        ;
    uint64_t start = clock_now_ms();
    side.impatience = GODWIT_ERR_SWITCHOVER_TIMEOUT;
    expect_end(&side, GODWIT_ERR_SWITCHOVER_TIMEOUT, "no time");
    pthread_join(thread, NULL);
    cr_assert_leq(clock_now_ms() - start, 1000 + CONTROL_TICK_MS);
    cr_assert_neq(blocked.err, GODWIT_OK);
    side_free(&side);
    pair_close(&pair);
}

Test(control, free_of_nothing_is_nothing)
{
    control_free(NULL);
}
