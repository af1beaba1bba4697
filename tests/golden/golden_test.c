/*
 * The golden vectors against the code: every good file decodes and encodes to the same bytes, every bad one is refused
 * with the code it names. Control records of a source and data records go through the real readers, session/control.c
 * with engine/destination_records.c and multifd/recv.c; the reader of a destination's records is private to a running
 * source, and peers.py plays those files to one.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/destination.h"
#include "multifd/bitmap.h"
#include "multifd/packet.h"
#include "rdma/cm.h"
#include "rdma/frame.h"
#include "session/hello.h"
#include "session/registration.h"
#include "tests/golden/vector.h"
#include "tests/lib/pair.h"
#include "transport/clock.h"
#include "transport/error.h"
#include "transport/wire.h"

enum { WAIT_MS = 5000, SEND_MS = 300 /* a reader that gave up takes no more */, NAME_SIZE = 128, FILES_MAX = 512 };

struct file_name {
    char path[NAME_SIZE];
};

static int skip_dots(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* Judged by a source's reader, which runs in a source only. ACCEPT has a decoder of its own. */
static bool is_for_peers(const char *path)
{
    struct vector vector;
    bool read = vector_read(path, &vector);
    bool bad_from_destination = read && vector.expect[0] != 0 && strcmp(vector.from, "destination") == 0;
    bool accept = read && strcmp(vector.kind, "record") == 0 && vector.parts[0].bytes[1] == RECORD_ACCEPT;
    vector_free(&vector);
    return bad_from_destination && !accept;
}

static struct criterion_test_params list(const char *folder)
{
    static struct file_name files[FILES_MAX];
    char path[NAME_SIZE], file[2 * NAME_SIZE];
    struct dirent **names;
    size_t used = 0;
    snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, folder);
    int count = scandir(path, &names, skip_dots, alphasort);
    for (int i = 0; i < count; i++) {
        snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
        if (used < FILES_MAX && !is_for_peers(file))
            snprintf(files[used++].path, NAME_SIZE, "%s/%s", folder, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return cr_make_param_array(struct file_name, files, used, NULL);
}

static void read_file(const char *name, struct vector *vector)
{
    char path[2 * NAME_SIZE];
    snprintf(path, sizeof path, "%s/%s", GOLDEN_DIR, name);
    cr_assert(vector_read(path, vector), "%s cannot be read", name);
}

static enum godwit_err code_called(const char *name)
{
    static const struct {
        const char *name;
        enum godwit_err code;
    } codes[] = {
        {"PROTOCOL", GODWIT_ERR_PROTOCOL},
        {"MISMATCH", GODWIT_ERR_MISMATCH},
        {"NO_MEMORY", GODWIT_ERR_NO_MEMORY},
        {"NOT_ADMITTED", GODWIT_ERR_NOT_ADMITTED},
    };
    for (unsigned i = 0; i < sizeof codes / sizeof codes[0]; i++)
        if (strcmp(codes[i].name, name) == 0)
            return codes[i].code;
    cr_assert_fail("no code is called %s", name);
    return GODWIT_OK;
}

/* ---- there and back ---- */

static void check_same(const char *what, const uint8_t *got, size_t got_size, const uint8_t *bytes, size_t size)
{
    cr_assert_eq(got_size, size, "%s: %zu bytes came back of %zu", what, got_size, size);
    for (size_t i = 0; i < size; i++)
        cr_assert_eq(got[i], bytes[i], "%s: byte %zu is %02x and came back %02x", what, i, bytes[i], got[i]);
}

static void round_trip_hello(const uint8_t *bytes, size_t size)
{
    struct hello hello;
    uint8_t again[HELLO_SIZE];
    cr_assert_eq(size, (size_t)HELLO_SIZE);
    cr_assert_eq(hello_decode(bytes, &hello, NULL), GODWIT_OK);
    hello_encode(&hello, again);
    check_same("hello", again, sizeof again, bytes, size);
}

static void round_trip_answer(const uint8_t *bytes, size_t size)
{
    struct hello_answer answer;
    uint8_t again[ANSWER_SIZE + ANSWER_TEXT_MAX];
    cr_assert_eq(hello_answer_decode(bytes, size, &answer, NULL), GODWIT_OK);
    check_same("answer", again, hello_answer_encode(&answer, again), bytes, size);
}

/* The private data of a request may be longer, and nothing is left of that. */
static void round_trip_rdma_request(const uint8_t *bytes, size_t size)
{
    uint8_t ticket[TICKET_SIZE], again[CM_REQUEST_SIZE];
    cr_assert(cm_request_decode(bytes, size, ticket));
    cm_request_encode(ticket, again);
    check_same("rdma request", again, sizeof again, bytes, sizeof again);
}

static void round_trip_rdma_refusal(const uint8_t *bytes, size_t size)
{
    struct cm_refusal refusal;
    uint8_t again[CM_REFUSAL_SIZE];
    cr_assert(cm_refusal_decode(bytes, size, &refusal));
    cm_refusal_encode(&refusal, again);
    check_same("rdma refusal", again, sizeof again, bytes, size);
}

static void round_trip_rdma_frame(const uint8_t *bytes, size_t size)
{
    struct frame frame;
    uint8_t again[FRAME_HEADER];
    cr_assert(frame_decode(bytes, (uint32_t)size, &frame));
    frame_encode(&frame, again);
    check_same("rdma frame", again, sizeof again, bytes, size - frame.size);
}

/* Bodies of integers alone; what encodes and decodes them lies inline where they are sent and received. */
static size_t copy_integers(const uint8_t *body, size_t size, const char *widths, uint8_t *again)
{
    struct wire_in in = wire_in(body, size);
    struct wire_out out = wire_out(again, size);
    for (; *widths != 0; widths++) {
        if (*widths == '1')
            wire_put_u8(&out, wire_get_u8(&in));
        else if (*widths == '2')
            wire_put_u16(&out, wire_get_u16(&in));
        else if (*widths == '4')
            wire_put_u32(&out, wire_get_u32(&in));
        else
            wire_put_u64(&out, wire_get_u64(&in));
    }
    cr_assert_not(in.failed);
    return (size_t)(out.at - again);
}

static size_t copy_key(const uint8_t *body, size_t size, uint8_t *again)
{
    struct slice_key key;
    cr_assert_eq(slice_key_decode(body, size, &key, NULL), GODWIT_OK);
    return slice_key_encode(&key, again);
}

static size_t copy_register(const uint8_t *body, size_t size, uint8_t *again)
{
    struct register_run runs[REGISTER_RUNS_MAX];
    unsigned count;
    cr_assert_eq(register_decode(body, size, runs, &count, NULL), GODWIT_OK);
    return register_encode(runs, count, again);
}

/* A code, a size, and that many bytes. */
static size_t copy_sized(const uint8_t *body, size_t size, uint8_t *again)
{
    size_t head = copy_integers(body, size, "22", again);
    size_t rest = (size_t)again[2] << 8 | again[3];
    cr_assert_eq(head + rest, size);
    memcpy(again + head, body + head, rest);
    return size;
}

static size_t copy_state(const uint8_t *body, size_t size, uint8_t *again)
{
    struct state_head head;
    const uint8_t *data = state_head_decode(body, size, &head);
    cr_assert_not_null(data);
    size_t used = state_head_encode(&head, again);
    size_t rest = (size_t)(body + size - data);
    memcpy(again + used, data, rest);
    return used + rest;
}

static size_t copy_offer(const uint8_t *body, size_t size, uint8_t *again)
{
    static struct offer offer;
    cr_assert_eq(offer_decode(body, size, &offer, NULL), GODWIT_OK);
    cr_assert_eq(offer_check(&offer, 0, (offer.features & FEATURE_RDMA) != 0, "rdma", NULL), GODWIT_OK);
    return offer_encode(&offer, again);
}

static size_t copy_accept(const uint8_t *body, size_t size, uint8_t *again)
{
    static struct acceptance acceptance;
    cr_assert_eq(acceptance_decode(body, size, &acceptance, NULL), GODWIT_OK);
    return acceptance_encode(&acceptance, again);
}

static size_t copy_body(uint16_t type, const uint8_t *body, size_t size, uint8_t *again)
{
    switch (type) {
    case RECORD_HEARTBEAT: return copy_integers(body, size, "88", again);
    case RECORD_ERROR: return copy_sized(body, size, again);
    case RECORD_KEY: return copy_key(body, size, again);
    case RECORD_REGISTER: return copy_register(body, size, again);
    case RECORD_OFFER: return copy_offer(body, size, again);
    case RECORD_ACCEPT: return copy_accept(body, size, again);
    case RECORD_EPOCH_ACK: return copy_integers(body, size, "48", again);
    case RECORD_STATE: return copy_state(body, size, again);
    case RECORD_COMMIT: return copy_integers(body, size, "44", again);
    case RECORD_OUTCOME: return copy_integers(body, size, "1", again);
    default: memcpy(again, body, size); return size;
    }
}

/* Returns the bytes of one record; there may be more behind it. */
static size_t round_trip_record(const uint8_t *bytes, size_t size)
{
    static uint8_t again[RECORD_HEADER_SIZE + RECORD_BODY_MAX];
    struct record_header header;
    cr_assert_geq(size, (size_t)RECORD_HEADER_SIZE);
    cr_assert_eq(record_header_decode(bytes, &header, NULL), GODWIT_OK);
    cr_assert_leq(header.size, size - RECORD_HEADER_SIZE);
    const uint8_t *body = bytes + RECORD_HEADER_SIZE;
    cr_assert_eq(record_check(bytes, &header, body, header.sequence, NULL), GODWIT_OK);

    uint8_t *again_body = again + RECORD_HEADER_SIZE;
    size_t used = copy_body(header.type, body, header.size, again_body);
    struct iovec part = {again_body, used};
    struct record_header fresh = {.type = header.type, .sequence = header.sequence};
    record_header_encode(&fresh, &part, 1, again);
    check_same(record_name(header.type), again, RECORD_HEADER_SIZE + used, bytes, RECORD_HEADER_SIZE + header.size);
    return RECORD_HEADER_SIZE + header.size;
}

static size_t round_trip_data(const uint8_t *bytes, size_t size, const struct ram *ram)
{
    struct packet packet;
    static struct extent extents[BATCH_EXTENTS];
    static uint8_t head[PACKET_HEAD_MAX];
    cr_assert_geq(size, (size_t)PACKET_HEADER_SIZE);
    cr_assert_eq(packet_decode(bytes, &packet, NULL), GODWIT_OK);
    size_t whole = PACKET_HEADER_SIZE + (size_t)packet.extents * PACKET_EXTENT_SIZE;
    cr_assert_leq(whole + packet.payload, size);
    cr_assert_eq(packet_decode_extents(&packet, bytes, bytes + PACKET_HEADER_SIZE, ram, extents, NULL), GODWIT_OK);
    check_same("data record", head, packet_encode(&packet, extents, head), bytes, whole);
    return whole + packet.payload;
}

/* Blocks as the file says, one after the other in memory; without memory no content can be stored. */
static struct ram *ram_of(const struct vector *vector, uint8_t *memory)
{
    struct godwit_block blocks[VECTOR_BLOCKS] = {0};
    for (unsigned i = 0; i < vector->ram_count; i++) {
        snprintf(blocks[i].id, sizeof blocks[i].id, "ram%u", i);
        blocks[i].size = vector->ram[i] * PAGE_SIZE;
        blocks[i].addr = memory;
        blocks[i].fd = -1;
        memory = memory != NULL ? memory + blocks[i].size : NULL;
    }
    struct ram *ram = ram_new(blocks, vector->ram_count, memory != NULL);
    cr_assert_not_null(ram);
    return ram;
}

static void round_trip_part(const struct vector *vector, const struct vector_part *part, const char *kind)
{
    bool data = strcmp(kind, "data") == 0 || strcmp(kind, "channel") == 0;
    struct ram *ram = data ? ram_of(vector, NULL) : NULL;
    if (strcmp(kind, "hello") == 0)
        round_trip_hello(part->bytes, part->size);
    else if (strcmp(kind, "answer") == 0)
        round_trip_answer(part->bytes, part->size);
    else if (strcmp(kind, "rdma request") == 0)
        round_trip_rdma_request(part->bytes, part->size);
    else if (strcmp(kind, "rdma refusal") == 0)
        round_trip_rdma_refusal(part->bytes, part->size);
    else if (strcmp(kind, "rdma frame") == 0)
        round_trip_rdma_frame(part->bytes, part->size);
    else
        for (size_t at = 0; at < part->size;)
            at += data ? round_trip_data(part->bytes + at, part->size - at, ram)
                       : round_trip_record(part->bytes + at, part->size - at);
    ram_free(ram);
}

/* In a session each connection begins with a hello and its answer. */
static const char *kind_in_session(const struct vector *vector, unsigned index)
{
    const char *connection = vector->parts[index].connection;
    unsigned before = 0;
    for (unsigned i = 0; i < index; i++)
        before += strcmp(vector->parts[i].connection, connection) == 0;
    if (before < 2)
        return before == 0 ? "hello" : "answer";
    return strcmp(connection, "control") == 0 ? "record" : "data";
}

ParameterizedTestParameters(golden, good_files_decode_and_encode_to_the_same_bytes)
{
    return list("good");
}

ParameterizedTest(struct file_name *file, golden, good_files_decode_and_encode_to_the_same_bytes, .timeout = 30)
{
    struct vector vector;
    read_file(file->path, &vector);
    bool session = strcmp(vector.kind, "session") == 0;
    for (unsigned i = 0; i < vector.count; i++)
        round_trip_part(&vector, &vector.parts[i], session ? kind_in_session(&vector, i) : vector.kind);
    vector_free(&vector);
}

/* ---- a destination's readers ---- */

struct reader {
    struct pair control, data;
    struct godwit_destination destination;
    struct session *session;
    uint8_t *memory;
};

static void reader_open(struct reader *reader)
{
    *reader = (struct reader){0};
    cr_assert_eq(pair_open(&reader->control, PAIR_UNIX), GODWIT_OK, "%s", reader->control.error.text);
    pthread_mutex_init(&reader->destination.lock, NULL);
    pthread_cond_init(&reader->destination.changed, NULL);
    uint8_t id[SESSION_ID_SIZE] = {0};
    reader->session = session_new(&reader->destination, id);
    struct control_config config = {
        .channel = reader->control.b,
        .heartbeat_ms = 1000,
        .peer_timeout_ms = WAIT_MS,
        .record = records_take,
        .check = records_check,
        .progress = records_progress,
        .ended = records_ended,
        .opaque = reader->session,
    };
    cr_assert_eq(control_start(&config, &reader->session->control, NULL), GODWIT_OK);
    reader->control.b = NULL;
}

static void reader_open_data(struct reader *reader, const struct vector *vector)
{
    struct session *session = reader->session;
    uint64_t pages = 0;
    for (unsigned i = 0; i < vector->ram_count; i++)
        pages += vector->ram[i];
    reader->memory = aligned_alloc(PAGE_SIZE, pages * PAGE_SIZE);
    cr_assert_not_null(reader->memory);
    cr_assert_eq(pair_open(&reader->data, PAIR_UNIX), GODWIT_OK, "%s", reader->data.error.text);
    session->ram = ram_of(vector, reader->memory);
    session->offer.channels = 1;
    struct multifd_recv_config config = {
        .ram = session->ram,
        .count = 1,
        .placed = vector->placed,
        .progress_ms = WAIT_MS,
        .marker = records_marker,
        .failed = records_receiver_failed,
        .opaque = session,
    };
    session->recv = multifd_recv_new(&config);
    cr_assert_not_null(session->recv);
    cr_assert_eq(multifd_recv_attach(session->recv, 0, reader->data.b, NULL), GODWIT_OK);
    reader->data.b = NULL;
}

/* Why the session ended; it does at the latest when the channel is closed behind the bytes. */
static enum godwit_err wait_failure(struct reader *reader, struct channel *channel, const struct vector *vector)
{
    for (unsigned i = 0; i < vector->count; i++)
        channel_send(channel, vector->parts[i].bytes, vector->parts[i].size, NULL, 0, SEND_MS);
    channel_shutdown(channel);
    struct timespec until = clock_timespec(clock_now_ns() + WAIT_MS * UINT64_C(1000000));
    pthread_mutex_lock(&reader->destination.lock);
    int waited = 0;
    while (reader->session->failure.code == GODWIT_OK && waited == 0)
        waited = pthread_cond_clockwait(&reader->destination.changed, &reader->destination.lock, CLOCK_MONOTONIC,
                                        &until);
    enum godwit_err code = reader->session->failure.code;
    pthread_mutex_unlock(&reader->destination.lock);
    return code;
}

static void reader_close(struct reader *reader)
{
    if (reader->session->recv != NULL)
        multifd_recv_stop(reader->session->recv);
    control_free(reader->session->control);
    multifd_recv_free(reader->session->recv);
    ram_free(reader->session->ram);
    session_free(reader->session);
    pair_close(&reader->control);
    if (reader->memory != NULL)
        pair_close(&reader->data);
    free(reader->memory);
    pthread_cond_destroy(&reader->destination.changed);
    pthread_mutex_destroy(&reader->destination.lock);
}

/* ---- refusals ---- */

/* A listener that says just this to our hello. */
static enum godwit_err refuse_answer(const struct vector *vector)
{
    struct pair pair;
    struct hello hello = {.version = PROTOCOL_VERSION, .oldest = PROTOCOL_OLDEST};
    cr_assert_eq(pair_open(&pair, PAIR_UNIX), GODWIT_OK, "%s", pair.error.text);
    channel_send(pair.b, vector->parts[0].bytes, vector->parts[0].size, NULL, 0, SEND_MS);
    enum godwit_err err = hello_greet(pair.a, &hello, WAIT_MS, NULL, NULL);
    pair_close(&pair);
    return err;
}

static enum godwit_err refuse_control(const struct vector *vector)
{
    struct reader reader;
    reader_open(&reader);
    if (vector->parts[0].bytes[1] == RECORD_OFFER) /* what follows is due once the OFFER has been accepted */
        reader_open_data(&reader, vector);
    enum godwit_err code = wait_failure(&reader, reader.control.a, vector);
    if (code == GODWIT_ERR_PEER_CLOSED && reader.session->offered)
        code = offer_check(&reader.session->offer, 0, false, "unix", NULL); /* what the serving thread does next */
    reader_close(&reader);
    return code;
}

static enum godwit_err refuse_data(const struct vector *vector)
{
    struct reader reader;
    reader_open(&reader);
    reader_open_data(&reader, vector);
    enum godwit_err code = wait_failure(&reader, reader.data.a, vector);
    reader_close(&reader);
    return code;
}

static enum godwit_err refuse_accept(const struct vector *vector)
{
    static struct acceptance acceptance;
    const struct vector_part *part = &vector->parts[0];
    return acceptance_decode(part->bytes + RECORD_HEADER_SIZE, part->size - RECORD_HEADER_SIZE, &acceptance, NULL);
}

/* The decoders say no more than no; the codes are what is made of it. */
static enum godwit_err refuse_rdma(const struct vector *vector)
{
    const struct vector_part *part = &vector->parts[0];
    uint8_t ticket[TICKET_SIZE];
    struct cm_refusal refusal;
    struct frame frame;
    if (strcmp(vector->kind, "rdma frame") == 0)
        return frame_decode(part->bytes, (uint32_t)part->size, &frame) ? GODWIT_OK : GODWIT_ERR_PROTOCOL;
    bool taken = strcmp(vector->kind, "rdma request") == 0 ? cm_request_decode(part->bytes, part->size, ticket)
                                                           : cm_refusal_decode(part->bytes, part->size, &refusal);
    return taken ? GODWIT_OK : GODWIT_ERR_NOT_ADMITTED;
}

static enum godwit_err refuse(const struct vector *vector)
{
    struct hello hello;
    if (strncmp(vector->kind, "rdma ", 5) == 0)
        return refuse_rdma(vector);
    if (strcmp(vector->kind, "hello") == 0)
        return hello_decode(vector->parts[0].bytes, &hello, NULL);
    if (strcmp(vector->kind, "answer") == 0)
        return refuse_answer(vector);
    if (strcmp(vector->kind, "data") == 0 || strcmp(vector->kind, "channel") == 0)
        return refuse_data(vector);
    return strcmp(vector->from, "destination") == 0 ? refuse_accept(vector) : refuse_control(vector);
}

ParameterizedTestParameters(golden, bad_files_are_refused_with_the_code_they_name)
{
    return list("bad");
}

ParameterizedTest(struct file_name *file, golden, bad_files_are_refused_with_the_code_they_name, .timeout = 30)
{
    struct vector vector;
    read_file(file->path, &vector);
    enum godwit_err code = refuse(&vector);
    if (vector.deviation)
        cr_assert_neq(code, code_called(vector.expect), "%s is refused now: take its deviation line out", file->path);
    else
        cr_assert_eq(code, code_called(vector.expect), "%s: expected %s, got %d, %s", file->path, vector.expect, code,
                     godwit_err_text(code));
    vector_free(&vector);
}

/* ---- good streams through the real readers ---- */

Test(golden, records_up_to_commit_are_taken, .timeout = 30)
{
    struct vector vector;
    struct reader reader;
    read_file("good/control-until-commit.hex", &vector);
    reader_open(&reader);
    reader_open_data(&reader, &vector);
    cr_assert_eq(wait_failure(&reader, reader.control.a, &vector), GODWIT_ERR_PEER_CLOSED);
    cr_assert(reader.session->offered && reader.session->committed);
    cr_assert_eq(reader.session->commit_epoch, 1u);
    cr_assert_eq(reader.session->states.count, 1u);
    cr_assert(state_set_complete(&reader.session->states));
    cr_assert_eq(reader.session->states.streams[0].data.size, (size_t)9);
    cr_assert_arr_eq(reader.session->states.streams[0].data.bytes, "some rest", 9);
    reader_close(&reader);
    vector_free(&vector);
}

Test(golden, pages_are_stored_and_their_epochs_acknowledged, .timeout = 30)
{
    struct vector vector;
    struct reader reader;
    read_file("good/channel-two-epochs.hex", &vector);
    reader_open(&reader);
    reader_open_data(&reader, &vector);
    cr_assert_eq(wait_failure(&reader, reader.data.a, &vector), GODWIT_ERR_PEER_CLOSED);
    cr_assert_eq(reader.session->acked, 3u);
    cr_assert_eq(reader.memory[0], 0x5a);
    cr_assert_eq(reader.memory[3 * PAGE_SIZE - 1], 0x5a);
    cr_assert(bitmap_all_atomic(reader.session->ram->blocks[0].received, 0, 3));
    reader_close(&reader);
    vector_free(&vector);
}
