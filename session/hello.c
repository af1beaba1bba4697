/*
 * Hello and answer. Happy path: greet sends 96 bytes, reads 32 and the text; receive and reply are the mirror image.
 * Bytes are checked in the order magic, CRC, version, rest: a hello of another version is answered in words, anything
 * else is not worth an answer.
 */
#include "session/hello.h"

#include <string.h>

#include "transport/clock.h"
#include "transport/error.h"
#include "transport/wire.h"

/* A carriage return and a line feed, swapped in the answer: transfers that rewrite line ends are found out, as PNG
 * does. */
static const uint8_t hello_magic[8] = {'G', 'O', 'D', 'W', 'I', 'T', '\r', '\n'};
static const uint8_t answer_magic[8] = {'G', 'O', 'D', 'W', 'I', 'T', '\n', '\r'};

/* Records of TLS: what a peer begins with that has tls-creds where this side has none, or the other way round. */
enum { TLS_ALERT = 21, TLS_HANDSHAKE = 22, TLS_MAJOR = 3 };

enum { HELLO_CRC_AT = 92, ANSWER_CRC_AT = 28, GREET_TICK_MS = 50 };

void hello_encode(const struct hello *hello, uint8_t bytes[HELLO_SIZE])
{
    struct wire_out out = wire_out(bytes, HELLO_SIZE);
    wire_put_bytes(&out, hello_magic, sizeof hello_magic);
    wire_put_u16(&out, hello->version);
    wire_put_u16(&out, hello->oldest);
    wire_put_u8(&out, (uint8_t)hello->role);
    wire_put_zeros(&out, 1);
    wire_put_u16(&out, hello->channel);
    wire_put_bytes(&out, hello->session, SESSION_ID_SIZE);
    wire_put_u32(&out, hello->epoch);
    wire_put_zeros(&out, 4);
    wire_put_bytes(&out, hello->token, TOKEN_SIZE);
    wire_put_zeros(&out, 20);
    wire_put_u32(&out, wire_crc32(0, bytes, HELLO_CRC_AT));
}

enum godwit_err hello_decode(const uint8_t bytes[HELLO_SIZE], struct hello *hello, struct godwit_error *error)
{
    struct wire_in in = wire_in(bytes, HELLO_SIZE);
    uint8_t magic[sizeof hello_magic];
    wire_get_bytes(&in, magic, sizeof magic);
    if (bytes[0] == TLS_HANDSHAKE && bytes[1] == TLS_MAJOR)
        return error_set(error, GODWIT_ERR_MISMATCH, "the source speaks TLS and the destination has no tls-creds");
    if (memcmp(magic, hello_magic, sizeof magic) != 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "the peer does not speak godwit's protocol");

    struct wire_in crc = wire_in(bytes + HELLO_CRC_AT, 4);
    if (wire_get_u32(&crc) != wire_crc32(0, bytes, HELLO_CRC_AT))
        return error_set(error, GODWIT_ERR_PROTOCOL, "damaged hello: checksum does not match");

    struct hello got = {.version = wire_get_u16(&in), .oldest = wire_get_u16(&in)};
    if (got.oldest > PROTOCOL_VERSION || got.version < PROTOCOL_OLDEST)
        return error_set(error, GODWIT_ERR_MISMATCH,
                         "protocol version mismatch: the peer speaks %u to %u, this side %u to %u", got.oldest,
                         got.version, PROTOCOL_OLDEST, PROTOCOL_VERSION);

    uint8_t role = wire_get_u8(&in);
    wire_get_zeros(&in, 1);
    got.channel = wire_get_u16(&in);
    wire_get_bytes(&in, got.session, SESSION_ID_SIZE);
    got.epoch = wire_get_u32(&in);
    wire_get_zeros(&in, 4);
    wire_get_bytes(&in, got.token, TOKEN_SIZE);
    wire_get_zeros(&in, 20);
    static const uint8_t no_token[TOKEN_SIZE];
    bool first = role == HELLO_CONTROL && got.epoch == 0;
    if (first && (got.channel != 0 || memcmp(got.token, no_token, sizeof no_token) != 0))
        return error_set(error, GODWIT_ERR_PROTOCOL,
                         "malformed hello: a first control connection has no channel or token");
    if (in.failed || role > HELLO_STREAM)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed hello: reserved bytes or role %u", role);
    got.role = (enum hello_role)role;
    *hello = got;
    return GODWIT_OK;
}

size_t hello_answer_encode(const struct hello_answer *answer, uint8_t *bytes)
{
    size_t text = strnlen(answer->text, ANSWER_TEXT_MAX);
    struct wire_out out = wire_out(bytes, ANSWER_SIZE + text);
    wire_put_bytes(&out, answer_magic, sizeof answer_magic);
    wire_put_u16(&out, answer->version);
    wire_put_u16(&out, (uint16_t)answer->code);
    wire_put_u16(&out, (uint16_t)text);
    wire_put_zeros(&out, 14);
    uint8_t *crc_at = out.at;
    wire_put_zeros(&out, 4);
    wire_put_bytes(&out, answer->text, text);
    uint32_t crc = wire_crc32(wire_crc32(0, bytes, ANSWER_CRC_AT), bytes + ANSWER_SIZE, text);
    struct wire_out at = wire_out(crc_at, 4);
    wire_put_u32(&at, crc);
    return ANSWER_SIZE + text;
}

enum godwit_err hello_answer_text_size(const uint8_t bytes[ANSWER_SIZE], size_t *size, struct godwit_error *error)
{
    struct wire_in in = wire_in(bytes, ANSWER_SIZE);
    uint8_t magic[sizeof answer_magic];
    wire_get_bytes(&in, magic, sizeof magic);
    wire_get_u16(&in);
    wire_get_u16(&in);
    uint16_t text = wire_get_u16(&in);
    if (memcmp(magic, answer_magic, sizeof magic) != 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "the listener does not speak godwit's protocol");
    if (text > ANSWER_TEXT_MAX)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed answer: %u bytes of text, at most %u allowed", text,
                         ANSWER_TEXT_MAX);
    *size = text;
    return GODWIT_OK;
}

enum godwit_err hello_answer_decode(const uint8_t *bytes, size_t size, struct hello_answer *answer,
                                    struct godwit_error *error)
{
    size_t text;
    if (size < ANSWER_SIZE)
        return error_set(error, GODWIT_ERR_PROTOCOL, "truncated answer");
    enum godwit_err err = hello_answer_text_size(bytes, &text, error);
    if (err != GODWIT_OK)
        return err;
    if (size != ANSWER_SIZE + text)
        return error_set(error, GODWIT_ERR_PROTOCOL, "truncated answer");

    struct wire_in in = wire_in(bytes + sizeof answer_magic, ANSWER_SIZE - sizeof answer_magic);
    struct hello_answer got = {.version = wire_get_u16(&in)};
    got.code = (enum godwit_err)wire_get_u16(&in);
    wire_get_u16(&in);
    wire_get_zeros(&in, 14);
    uint32_t crc = wire_get_u32(&in);
    if (crc != wire_crc32(wire_crc32(0, bytes, ANSWER_CRC_AT), bytes + ANSWER_SIZE, text))
        return error_set(error, GODWIT_ERR_PROTOCOL, "damaged answer: checksum does not match");
    if (in.failed || memchr(bytes + ANSWER_SIZE, 0, text) != NULL)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed answer");
    memcpy(got.text, bytes + ANSWER_SIZE, text);
    *answer = got;
    return GODWIT_OK;
}

/* Byte by byte, since a channel's own deadline starts anew with every byte that comes; it is a few hundred, once. */
static enum godwit_err receive_by(struct channel *channel, uint8_t *bytes, size_t size, uint64_t deadline_ms,
                                  const atomic_bool *cancel)
{
    for (size_t at = 0; at < size;) {
        int left = clock_left_ms(deadline_ms);
        enum godwit_err err = channel_recv_exact(channel, bytes + at, 1,
                                                 left < GREET_TICK_MS ? left + 1 : GREET_TICK_MS);
        if (err == GODWIT_OK)
            at++;
        else if (err != GODWIT_ERR_TIMEOUT || left == 0)
            return err;
        if (cancel != NULL && atomic_load(cancel))
            return GODWIT_ERR_CANCELLED;
    }
    return GODWIT_OK;
}

static enum godwit_err answer_receive(struct channel *channel, struct hello_answer *answer, uint64_t deadline_ms,
                                      const atomic_bool *cancel, struct godwit_error *error)
{
    uint8_t bytes[ANSWER_SIZE + ANSWER_TEXT_MAX] = {0};
    size_t text = 0;
    enum godwit_err err = receive_by(channel, bytes, ANSWER_SIZE, deadline_ms, cancel);
    if (bytes[0] == TLS_ALERT && bytes[1] == TLS_MAJOR)
        return error_set(error, GODWIT_ERR_MISMATCH, "the destination speaks TLS and this side has no tls-creds");
    if (err == GODWIT_OK) {
        err = hello_answer_text_size(bytes, &text, error);
        if (err != GODWIT_OK)
            return err;
        if (text > 0)
            err = receive_by(channel, bytes + ANSWER_SIZE, text, deadline_ms, cancel);
    }
    if (err != GODWIT_OK)
        return error_set(error, err, "no answer to our hello: %s", godwit_err_text(err));
    return hello_answer_decode(bytes, ANSWER_SIZE + text, answer, error);
}

enum godwit_err hello_greet(struct channel *channel, const struct hello *hello, int timeout_ms,
                            const atomic_bool *cancel, struct godwit_error *error)
{
    uint64_t deadline = clock_now_ms() + (uint64_t)timeout_ms;
    uint8_t bytes[HELLO_SIZE];
    hello_encode(hello, bytes);
    enum godwit_err sent = channel_send(channel, bytes, sizeof bytes, NULL, 0, timeout_ms);
    if (sent != GODWIT_OK && sent != GODWIT_ERR_RESET)
        return error_set(error, sent, "cannot send our hello: %s", godwit_err_text(sent));

    /* Also over a broken connection: a listener that refuses without having heard us, as TLS does with a certificate,
     * has hung up by now, and its words are still to be read. */
    struct hello_answer answer;
    enum godwit_err err = answer_receive(channel, &answer, deadline, cancel, error);
    if (err == GODWIT_OK && answer.code == GODWIT_OK && sent != GODWIT_OK)
        err = error_set(error, sent, "cannot send our hello: %s", godwit_err_text(sent));
    if (err != GODWIT_OK)
        return err;
    if (answer.code != GODWIT_OK)
        return error_set(error, answer.code == GODWIT_ERR_MISMATCH || answer.code == GODWIT_ERR_BUSY ? answer.code
                                                                                              : GODWIT_ERR_NOT_ADMITTED,
                         "the listener refuses: %s", answer.text);
    if (answer.version < PROTOCOL_OLDEST || answer.version > PROTOCOL_VERSION)
        return error_set(error, GODWIT_ERR_PROTOCOL, "the listener chose version %u, which was not offered",
                         answer.version);
    return GODWIT_OK;
}

enum godwit_err hello_receive(struct channel *channel, struct hello *hello, int timeout_ms, struct godwit_error *error)
{
    uint8_t bytes[HELLO_SIZE];
    enum godwit_err err = channel_recv_exact(channel, bytes, sizeof bytes, timeout_ms);
    if (err != GODWIT_OK)
        return error_set(error, err, "no hello: %s", godwit_err_text(err));
    return hello_decode(bytes, hello, error);
}

enum godwit_err hello_reply(struct channel *channel, enum godwit_err code, const char *text, int timeout_ms)
{
    struct hello_answer answer = {.version = code == GODWIT_OK ? PROTOCOL_VERSION : 0, .code = code};
    uint8_t bytes[ANSWER_SIZE + ANSWER_TEXT_MAX];
    strncpy(answer.text, text, ANSWER_TEXT_MAX);
    return channel_send(channel, bytes, hello_answer_encode(&answer, bytes), NULL, 0, timeout_ms);
}
