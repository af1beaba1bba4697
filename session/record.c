/* Framing of control records: a 16-byte header with a CRC over itself and the body, then the body. */
#include "session/record.h"

#include <assert.h>
#include <string.h>

#include "transport/error.h"
#include "transport/wire.h"

enum { CRC_AT = 12, BODY_PARTS_MAX = 8 };

const char *record_name(uint16_t type)
{
    switch ((enum record_type)type) {
    case RECORD_HEARTBEAT: return "HEARTBEAT";
    case RECORD_ERROR: return "ERROR";
    case RECORD_OFFER: return "OFFER";
    case RECORD_ACCEPT: return "ACCEPT";
    case RECORD_KEY: return "KEY";
    case RECORD_EPOCH_ACK: return "EPOCH_ACK";
    case RECORD_STATE: return "STATE";
    case RECORD_COMMIT: return "COMMIT";
    case RECORD_LOADED: return "LOADED";
    case RECORD_RUN: return "RUN";
    case RECORD_RUNNING: return "RUNNING";
    case RECORD_BYE: return "BYE";
    case RECORD_OUTCOME_ASK: return "OUTCOME_ASK";
    case RECORD_OUTCOME: return "OUTCOME";
    case RECORD_REGISTER: return "REGISTER";
    }
    return "unknown record";
}

void record_header_encode(struct record_header *header, const struct iovec *body, unsigned count,
                          uint8_t bytes[RECORD_HEADER_SIZE])
{
    size_t size = 0;
    for (unsigned i = 0; i < count; i++)
        size += body[i].iov_len;
    assert(size <= RECORD_BODY_MAX && "callers split what could be larger");
    header->size = (uint32_t)size;

    struct wire_out out = wire_out(bytes, RECORD_HEADER_SIZE);
    wire_put_u16(&out, header->type);
    wire_put_zeros(&out, 2);
    wire_put_u32(&out, header->size);
    wire_put_u32(&out, header->sequence);
    header->crc = wire_crc32(0, bytes, CRC_AT);
    for (unsigned i = 0; i < count; i++)
        header->crc = wire_crc32(header->crc, body[i].iov_base, body[i].iov_len);
    wire_put_u32(&out, header->crc);
}

enum godwit_err record_header_decode(const uint8_t bytes[RECORD_HEADER_SIZE], struct record_header *header,
                                     struct godwit_error *error)
{
    struct wire_in in = wire_in(bytes, RECORD_HEADER_SIZE);
    struct record_header got = {.type = wire_get_u16(&in)};
    wire_get_zeros(&in, 2);
    got.size = wire_get_u32(&in);
    got.sequence = wire_get_u32(&in);
    got.crc = wire_get_u32(&in);
    if (in.failed)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed record header: reserved bits set");
    if (got.size > RECORD_BODY_MAX)
        return error_set(error, GODWIT_ERR_PROTOCOL, "%s of %u bytes, at most %u allowed", record_name(got.type),
                         got.size, RECORD_BODY_MAX);
    *header = got;
    return GODWIT_OK;
}

enum godwit_err record_check(const uint8_t bytes[RECORD_HEADER_SIZE], const struct record_header *header,
                             const void *body, uint32_t sequence, struct godwit_error *error)
{
    if (header->crc != wire_crc32(wire_crc32(0, bytes, CRC_AT), body, header->size))
        return error_set(error, GODWIT_ERR_PROTOCOL, "damaged %s: checksum does not match", record_name(header->type));
    if (header->sequence != sequence)
        return error_set(error, GODWIT_ERR_PROTOCOL, "%s number %u where %u was due", record_name(header->type),
                         header->sequence, sequence);
    return GODWIT_OK;
}

enum godwit_err record_send(struct channel *channel, uint16_t type, uint32_t sequence, const struct iovec *body,
                            unsigned count, int timeout_ms)
{
    assert(count <= BODY_PARTS_MAX);
    struct record_header header = {.type = type, .sequence = sequence};
    uint8_t bytes[RECORD_HEADER_SIZE];
    record_header_encode(&header, body, count, bytes);
    enum godwit_err err = channel_send(channel, bytes, sizeof bytes, body, count, timeout_ms);
    /* Also after a failure: what was taken of the body may be referenced until then, and it is the caller's again. */
    enum godwit_err flushed = channel_flush(channel, timeout_ms);
    if (err != GODWIT_OK)
        return err;
    return flushed == GODWIT_ERR_TIMEOUT ? GODWIT_ERR_STALLED : flushed; /* TIMEOUT says that nothing has left */
}

static const char *what_failed(const struct channel *channel, enum godwit_err err)
{
    const char *detail = channel_detail(channel);
    return detail[0] != 0 ? detail : godwit_err_text(err);
}

/* Of what was read ahead, at most size bytes. */
static size_t take(struct record_reader *reader, uint8_t *to, size_t size)
{
    size_t left = reader->end - reader->begin, taken = left < size ? left : size;
    memcpy(to, reader->ahead + reader->begin, taken);
    reader->begin += taken;
    return taken;
}

static enum godwit_err read_header(struct record_reader *reader, uint8_t bytes[RECORD_HEADER_SIZE], int first_ms,
                                   int rest_ms)
{
    enum godwit_err err = GODWIT_OK;
    if (reader->begin == reader->end) {
        reader->begin = reader->end = 0;
        err = channel_recv_some(reader->channel, reader->ahead, sizeof reader->ahead, first_ms, &reader->end);
        if (err != GODWIT_OK)
            return err;
    }
    size_t had = take(reader, bytes, RECORD_HEADER_SIZE);
    if (had < RECORD_HEADER_SIZE) /* it may be a retransmission away: the short wait for a first byte must not cut it */
        err = channel_recv_exact(reader->channel, bytes + had, RECORD_HEADER_SIZE - had, rest_ms);
    return err == GODWIT_ERR_TIMEOUT ? GODWIT_ERR_STALLED : err;
}

enum godwit_err record_recv(struct record_reader *reader, struct record_header *header, uint8_t *body,
                            uint32_t sequence, int first_ms, int rest_ms, struct godwit_error *error)
{
    struct channel *channel = reader->channel;
    uint8_t bytes[RECORD_HEADER_SIZE];
    enum godwit_err err = read_header(reader, bytes, first_ms, rest_ms);
    if (err == GODWIT_ERR_TIMEOUT)
        return err;
    if (err != GODWIT_OK)
        return error_set(error, err, "control connection: %s", what_failed(channel, err));
    err = record_header_decode(bytes, header, error);
    if (err != GODWIT_OK)
        return err;
    size_t had = take(reader, body, header->size);
    if (had < header->size)
        err = channel_recv_exact(channel, body + had, header->size - had, rest_ms);
    if (err != GODWIT_OK) /* a timeout here is in the middle of a record */
        return error_set(error, err == GODWIT_ERR_TIMEOUT ? GODWIT_ERR_STALLED : err,
                         "control connection: %s in the middle of %s", what_failed(channel, err),
                         record_name(header->type));
    return record_check(bytes, header, body, sequence, error);
}
