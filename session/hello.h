/*
 * The hello: the first bytes of every connection, and their answer. Fixed size, so that a peer that is not one of ours
 * is found out after 96 bytes at the most (docs/protocol.md §3).
 */
#ifndef SESSION_HELLO_H
#define SESSION_HELLO_H

#include <stdatomic.h>
#include <stdint.h>

#include "transport/channel.h"

enum {
    PROTOCOL_VERSION = 1, /* newest spoken here */
    PROTOCOL_OLDEST = 1,  /* oldest spoken here */
    HELLO_SIZE = 96,
    ANSWER_SIZE = 32,      /* followed by text */
    ANSWER_TEXT_MAX = 400, /* bytes of text */
    SESSION_ID_SIZE = 16,
    TOKEN_SIZE = 32,
};

enum hello_role {
    HELLO_CONTROL = 0,
    HELLO_DATA = 1,
    HELLO_URGENT = 2, /* pages somebody waits for; not admitted by version 1 */
    HELLO_STREAM = 3, /* bytes of the embedder; not admitted by version 1 */
};

struct hello {
    uint16_t version, oldest; /* range the sender speaks */
    enum hello_role role;
    uint16_t channel;         /* index among its role */
    uint8_t session[SESSION_ID_SIZE];
    uint32_t epoch;           /* how often this channel was connected before, from 0 */
    uint8_t token[TOKEN_SIZE]; /* all zero for the first control connection */
};

struct hello_answer {
    uint16_t version;      /* to be spoken on this connection; 0 when refused */
    enum godwit_err code;  /* GODWIT_OK: admitted */
    char text[ANSWER_TEXT_MAX + 1];
};

void hello_encode(const struct hello *hello, uint8_t bytes[HELLO_SIZE]);
/* PROTOCOL for bytes that are no hello; MISMATCH for a hello whose versions do not meet ours. */
enum godwit_err hello_decode(const uint8_t bytes[HELLO_SIZE], struct hello *hello, struct godwit_error *error);

/* Returns the bytes used of ANSWER_SIZE + ANSWER_TEXT_MAX. Longer text is cut. */
size_t hello_answer_encode(const struct hello_answer *answer, uint8_t *bytes);
/* The fixed part: how much text follows. The whole: checks it all. */
enum godwit_err hello_answer_text_size(const uint8_t bytes[ANSWER_SIZE], size_t *size, struct godwit_error *error);
enum godwit_err hello_answer_decode(const uint8_t *bytes, size_t size, struct hello_answer *answer,
                                    struct godwit_error *error);

/* Connecting side: sends the hello and waits for the answer, timeout_ms for all of it; CANCELLED soon after *cancel
 * (may be NULL) reads true. A refusal is the listener's own code and words. */
enum godwit_err hello_greet(struct channel *channel, const struct hello *hello, int timeout_ms,
                            const atomic_bool *cancel, struct godwit_error *error);
/* Listening side. */
enum godwit_err hello_receive(struct channel *channel, struct hello *hello, int timeout_ms, struct godwit_error *error);
enum godwit_err hello_reply(struct channel *channel, enum godwit_err code, const char *text, int timeout_ms);

#endif
