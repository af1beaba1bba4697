/*
 * The wire codec. A failed cursor stays failed and reads as zero, so a decoder checks once; what must not happen, ever,
 * is a touch outside the buffer: every access goes through take() or room(). The CRC is libdeflate's, which is zlib's
 * polynomial at memory speed.
 */
#include "transport/wire.h"

#include <libdeflate.h>
#include <string.h>

/* Where the next size bytes go, or NULL. */
static uint8_t *room(struct wire_out *out, size_t size)
{
    if (out->failed || size > (size_t)(out->end - out->at)) {
        out->failed = true;
        return NULL;
    }
    uint8_t *at = out->at;
    out->at += size;
    return at;
}

static const uint8_t *take(struct wire_in *in, size_t size)
{
    if (in->failed || size > wire_left(in)) {
        in->failed = true;
        return NULL;
    }
    const uint8_t *at = in->at;
    in->at += size;
    return at;
}

static void put_integer(struct wire_out *out, uint64_t value, unsigned size)
{
    uint8_t *at = room(out, size);
    if (!at)
        return;
    for (unsigned i = 0; i < size; i++)
        at[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
}

static uint64_t get_integer(struct wire_in *in, unsigned size)
{
    const uint8_t *at = take(in, size);
    if (!at)
        return 0;
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value = value << 8 | at[i];
    return value;
}

void wire_put_u8(struct wire_out *out, uint8_t value)
{
    put_integer(out, value, 1);
}

void wire_put_u16(struct wire_out *out, uint16_t value)
{
    put_integer(out, value, 2);
}

void wire_put_u32(struct wire_out *out, uint32_t value)
{
    put_integer(out, value, 4);
}

void wire_put_u64(struct wire_out *out, uint64_t value)
{
    put_integer(out, value, 8);
}

void wire_put_bytes(struct wire_out *out, const void *bytes, size_t size)
{
    uint8_t *at = room(out, size);
    if (at && size)
        memcpy(at, bytes, size);
}

void wire_put_zeros(struct wire_out *out, size_t size)
{
    uint8_t *at = room(out, size);
    if (at && size)
        memset(at, 0, size);
}

void wire_put_string8(struct wire_out *out, const char *text)
{
    size_t length = strlen(text);
    /* One room() for both parts: a string that does not fit leaves no half of itself. */
    uint8_t *at = length <= UINT8_MAX ? room(out, 1 + length) : NULL;
    if (!at) {
        out->failed = true;
        return;
    }
    at[0] = (uint8_t)length;
    memcpy(at + 1, text, length);
}

uint8_t wire_get_u8(struct wire_in *in)
{
    return (uint8_t)get_integer(in, 1);
}

uint16_t wire_get_u16(struct wire_in *in)
{
    return (uint16_t)get_integer(in, 2);
}

uint32_t wire_get_u32(struct wire_in *in)
{
    return (uint32_t)get_integer(in, 4);
}

uint64_t wire_get_u64(struct wire_in *in)
{
    return get_integer(in, 8);
}

void wire_get_bytes(struct wire_in *in, void *bytes, size_t size)
{
    if (!size)
        return;
    const uint8_t *at = take(in, size);
    if (at)
        memcpy(bytes, at, size);
    else
        memset(bytes, 0, size);
}

void wire_get_zeros(struct wire_in *in, size_t size)
{
    const uint8_t *at = take(in, size);
    for (size_t i = 0; at && i < size; i++) {
        if (at[i])
            in->failed = true;
    }
}

void wire_get_string8(struct wire_in *in, char *text, size_t max)
{
    text[0] = '\0';
    size_t length = wire_get_u8(in);
    if (in->failed || length > max) {
        in->failed = true;
        return;
    }
    const uint8_t *at = take(in, length);
    if (!at)
        return;
    if (memchr(at, 0, length)) {
        in->failed = true;
        return;
    }
    memcpy(text, at, length);
    text[length] = '\0';
}

uint32_t wire_crc32(uint32_t crc, const void *bytes, size_t size)
{
    return size ? libdeflate_crc32(crc, bytes, size) : crc;
}
