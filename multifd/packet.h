/* The data record: what travels on a data channel (docs/protocol.md §6). Pure encoding and checked decoding. */
#ifndef MULTIFD_PACKET_H
#define MULTIFD_PACKET_H

#include <godwit/error.h>

#include "multifd/batch.h"

enum {
    PACKET_HEADER_SIZE = 32,
    PACKET_EXTENT_SIZE = 16,
    PACKET_HEAD_MAX = PACKET_HEADER_SIZE + BATCH_EXTENTS * PACKET_EXTENT_SIZE,
    PACKET_PAYLOAD_MAX = BATCH_PAGES * PAGE_SIZE,
};

enum packet_type {
    PACKET_PAGES = 1,
    PACKET_MARKER = 2, /* everything of this epoch on this channel lies before it */
    PACKET_END = 3,    /* the last record of its connection: the channel goes on by the next one */
};

enum packet_flags {
    PACKET_PLACED = 1 << 0, /* the content was put before this record on the same channel; payload is 0 */
};

struct packet {
    enum packet_type type;
    uint16_t flags;
    uint32_t epoch;
    uint32_t sequence; /* of this channel, from 0 */
    uint16_t extents;
    uint32_t payload; /* bytes that follow the extents */
    uint32_t crc;     /* of header bytes 0..27 and the extents */
};

/* Writes header and extents; returns their size, at most PACKET_HEAD_MAX. Sets packet->crc. */
size_t packet_encode(struct packet *packet, const struct extent *extents, uint8_t *head);

/* The fixed header alone: sizes are within their maxima afterwards. */
enum godwit_err packet_decode(const uint8_t header[PACKET_HEADER_SIZE], struct packet *packet,
                              struct godwit_error *error);
/* The extents, from the bytes that follow the header: CRC, kinds, ranges inside ram, payload equal to their content. */
enum godwit_err packet_decode_extents(const struct packet *packet, const uint8_t header[PACKET_HEADER_SIZE],
                                      const uint8_t *bytes, const struct ram *ram, struct extent *extents,
                                      struct godwit_error *error);

#endif
