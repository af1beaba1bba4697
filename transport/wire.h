/*
 * The wire codec: explicit big-endian put and get on a bounded cursor, and the CRC that headers carry. A cursor that
 * ran out stays failed: code puts or gets a whole structure and asks once at the end.
 */
#ifndef TRANSPORT_WIRE_H
#define TRANSPORT_WIRE_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

/* Where the next size bytes go, or NULL. */
static inline uint8_t *wire_room(struct wire_out *out, size_t size)
{
    if (out->failed || size > (size_t)(out->end - out->at)) {
        out->failed = true;
        return NULL;
    }
    uint8_t *at = out->at;
    out->at += size;
    return at;
}

/* Inline: a page that travels alone takes five of them on either side. */
static inline void wire_put_u8(struct wire_out *out, uint8_t value)
{
    uint8_t *at = wire_room(out, 1);
    if (at != NULL)
        *at = value;
}

static inline void wire_put_u16(struct wire_out *out, uint16_t value)
{
    uint8_t *at = wire_room(out, sizeof value);
    uint16_t big = htobe16(value);
    if (at != NULL)
        memcpy(at, &big, sizeof big);
}

static inline void wire_put_u32(struct wire_out *out, uint32_t value)
{
    uint8_t *at = wire_room(out, sizeof value);
    uint32_t big = htobe32(value);
    if (at != NULL)
        memcpy(at, &big, sizeof big);
}

static inline void wire_put_u64(struct wire_out *out, uint64_t value)
{
    uint8_t *at = wire_room(out, sizeof value);
    uint64_t big = htobe64(value);
    if (at != NULL)
        memcpy(at, &big, sizeof big);
}

void wire_put_bytes(struct wire_out *out, const void *bytes, size_t size);
void wire_put_zeros(struct wire_out *out, size_t size);
/* A string as one length byte and its bytes; more than 255 bytes fail the cursor. */
void wire_put_string8(struct wire_out *out, const char *text);

/* Bytes left to read. */
static inline size_t wire_left(const struct wire_in *in)
{
    return (size_t)(in->end - in->at);
}

/* Where the next size bytes are, or NULL. */
static inline const uint8_t *wire_take(struct wire_in *in, size_t size)
{
    if (in->failed || size > wire_left(in)) {
        in->failed = true;
        return NULL;
    }
    const uint8_t *at = in->at;
    in->at += size;
    return at;
}

static inline uint8_t wire_get_u8(struct wire_in *in)
{
    const uint8_t *at = wire_take(in, 1);
    return at != NULL ? *at : 0;
}

static inline uint16_t wire_get_u16(struct wire_in *in)
{
    const uint8_t *at = wire_take(in, sizeof(uint16_t));
    uint16_t big = 0;
    if (at != NULL)
        memcpy(&big, at, sizeof big);
    return be16toh(big);
}

static inline uint32_t wire_get_u32(struct wire_in *in)
{
    const uint8_t *at = wire_take(in, sizeof(uint32_t));
    uint32_t big = 0;
    if (at != NULL)
        memcpy(&big, at, sizeof big);
    return be32toh(big);
}

static inline uint64_t wire_get_u64(struct wire_in *in)
{
    const uint8_t *at = wire_take(in, sizeof(uint64_t));
    uint64_t big = 0;
    if (at != NULL)
        memcpy(&big, at, sizeof big);
    return be64toh(big);
}

void wire_get_bytes(struct wire_in *in, void *bytes, size_t size);
/* Reserved bytes: fails the cursor unless all are zero. */
void wire_get_zeros(struct wire_in *in, size_t size);
/* Reads into text[max + 1]; fails on longer strings and on embedded NULs. text is always terminated. */
void wire_get_string8(struct wire_in *in, char *text, size_t max);

/* CRC-32 of ISO-HDLC (zlib's): initial 0, so wire_crc32(wire_crc32(0, a), b) is that of a followed by b. */
uint32_t wire_crc32(uint32_t crc, const void *bytes, size_t size);

#endif
