/*
 * The wire codec. A failed cursor stays failed and reads as zero, so a decoder checks once; what must not happen, ever,
 * is a touch outside the buffer: every access goes through wire_take() or wire_room(). The CRC is libdeflate's, which
 * is zlib's polynomial at memory speed.
 */
#include "transport/wire.h"

#include <libdeflate.h>
#include <string.h>

void wire_put_bytes(struct wire_out *out, const void *bytes, size_t size)
{
    uint8_t *at = wire_room(out, size);
    if (at && size)
        memcpy(at, bytes, size);
}

void wire_put_zeros(struct wire_out *out, size_t size)
{
    uint8_t *at = wire_room(out, size);
    if (at && size)
        memset(at, 0, size);
}

void wire_put_string8(struct wire_out *out, const char *text)
{
    size_t length = strlen(text);
    /* One wire_room() for both parts: a string that does not fit leaves no half of itself. */
    uint8_t *at = length <= UINT8_MAX ? wire_room(out, 1 + length) : NULL;
    if (!at) {
        out->failed = true;
        return;
    }
    at[0] = (uint8_t)length;
    memcpy(at + 1, text, length);
}

void wire_get_bytes(struct wire_in *in, void *bytes, size_t size)
{
    if (!size)
        return;
    const uint8_t *at = wire_take(in, size);
    if (at)
        memcpy(bytes, at, size);
    else
        memset(bytes, 0, size);
}

void wire_get_zeros(struct wire_in *in, size_t size)
{
    const uint8_t *at = wire_take(in, size);
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
    const uint8_t *at = wire_take(in, length);
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
