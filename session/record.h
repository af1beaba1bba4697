/* Control records: what travels on the control connection after the hello (docs/protocol.md §4). */
#ifndef SESSION_RECORD_H
#define SESSION_RECORD_H

#include <stdint.h>

#include "transport/channel.h"

enum {
    RECORD_HEADER_SIZE = 16,
    RECORD_BODY_MAX = 1 << 20, /* bytes; checked before the body is asked for */
    RECORD_OPTIONAL = 0x8000,  /* types from here on are skipped by a receiver that does not know them */
};

enum record_type {
    RECORD_HEARTBEAT = 1,
    RECORD_ERROR = 2,
    RECORD_OFFER = 3,
    RECORD_ACCEPT = 4,
    RECORD_KEY = 5,
    RECORD_EPOCH_ACK = 6,
    RECORD_STATE = 7,
    RECORD_COMMIT = 8,
    RECORD_LOADED = 9,
    RECORD_RUN = 10,
    RECORD_RUNNING = 11,
    RECORD_BYE = 12,
    RECORD_OUTCOME_ASK = 13,
    RECORD_OUTCOME = 14,
    RECORD_REGISTER = 15,
};

struct record_header {
    uint16_t type;
    uint32_t size;     /* of the body */
    uint32_t sequence; /* of this direction, from 0: a lost or repeated record is found out */
    uint32_t crc;      /* of header bytes 0..11 and the body */
};

/* "OFFER" and so on, for messages. */
const char *record_name(uint16_t type);

void record_header_encode(struct record_header *header, const struct iovec *body, unsigned count,
                          uint8_t bytes[RECORD_HEADER_SIZE]);
/* PROTOCOL when the size exceeds RECORD_BODY_MAX or reserved bits are set. The CRC is checked by record_check. */
enum godwit_err record_header_decode(const uint8_t bytes[RECORD_HEADER_SIZE], struct record_header *header,
                                     struct godwit_error *error);
enum godwit_err record_check(const uint8_t bytes[RECORD_HEADER_SIZE], const struct record_header *header,
                             const void *body, uint32_t sequence, struct godwit_error *error);

/* Sends one record with these body parts, at most RECORD_BODY_MAX in all; flushes. */
enum godwit_err record_send(struct channel *channel, uint16_t type, uint32_t sequence, const struct iovec *body,
                            unsigned count, int timeout_ms);

/* Who reads records, from where, and what it has read of those that follow. Zero but for the channel to begin with. */
struct record_reader {
    struct channel *channel; /* nobody else reads from it */
    size_t begin, end;       /* of what is in ahead */
    uint8_t ahead[4096];
};

/*
 * Receives one record; body has room for RECORD_BODY_MAX. first_ms: for its first byte, rest_ms: for what is missing of
 * its header then, and of its body. TIMEOUT: nothing came, try again.
 */
enum godwit_err record_recv(struct record_reader *reader, struct record_header *header, uint8_t *body,
                            uint32_t sequence, int first_ms, int rest_ms, struct godwit_error *error);

#endif
