/*
 * The wire codec: explicit big-endian put and get on a bounded cursor, and the CRC that headers carry. A cursor that
 * ran out stays failed: code puts or gets a whole structure and asks once at the end.
 */
#ifndef TRANSPORT_WIRE_H
#define TRANSPORT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct wire_out {
    uint8_t *at, *end;
    bool failed; /* something did not fit; nothing beyond end was touched */
};

struct wire_in {
    const uint8_t *at, *end;
    bool failed; /* asked for more than was there; gets return 0 from then on */
};

static inline struct wire_out wire_out(void *buffer, size_t size)
{
    return (struct wire_out){.at = buffer, .end = (uint8_t *)buffer + size};
}

static inline struct wire_in wire_in(const void *buffer, size_t size)
{
    return (struct wire_in){.at = buffer, .end = (const uint8_t *)buffer + size};
}

void wire_put_u8(struct wire_out *out, uint8_t value);
void wire_put_u16(struct wire_out *out, uint16_t value);
void wire_put_u32(struct wire_out *out, uint32_t value);
void wire_put_u64(struct wire_out *out, uint64_t value);
void wire_put_bytes(struct wire_out *out, const void *bytes, size_t size);
void wire_put_zeros(struct wire_out *out, size_t size);
/* A string as one length byte and its bytes; more than 255 bytes fail the cursor. */
void wire_put_string8(struct wire_out *out, const char *text);

uint8_t wire_get_u8(struct wire_in *in);
uint16_t wire_get_u16(struct wire_in *in);
uint32_t wire_get_u32(struct wire_in *in);
uint64_t wire_get_u64(struct wire_in *in);
void wire_get_bytes(struct wire_in *in, void *bytes, size_t size);
/* Reserved bytes: fails the cursor unless all are zero. */
void wire_get_zeros(struct wire_in *in, size_t size);
/* Reads into text[max + 1]; fails on longer strings and on embedded NULs. text is always terminated. */
void wire_get_string8(struct wire_in *in, char *text, size_t max);

/* Bytes left to read. */
static inline size_t wire_left(const struct wire_in *in)
{
    return (size_t)(in->end - in->at);
}

/* CRC-32 of ISO-HDLC (zlib's): initial 0, so wire_crc32(wire_crc32(0, a), b) is that of a followed by b. */
uint32_t wire_crc32(uint32_t crc, const void *bytes, size_t size);

#endif
