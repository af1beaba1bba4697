/*
 * Device state of the reference guests: big-endian integers on a bounded cursor. Reading past the end yields zeros and
 * sets `bad`, so that a decoder checks once, at the end. state_done also wants every byte used.
 */
#ifndef GUEST_STATE_CODEC_H
#define GUEST_STATE_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct state_cursor {
    uint8_t *at;
    uint8_t *end;
    bool bad;
};

struct state_reader {
    const uint8_t *at;
    const uint8_t *end;
    bool bad;
};

static inline void state_put(struct state_cursor *cursor, uint64_t value, unsigned bytes)
{
    if ((size_t)(cursor->end - cursor->at) < bytes) {
        cursor->bad = true;
        return;
    }
    for (unsigned i = 0; i < bytes; i++)
        *cursor->at++ = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static inline void state_put_bytes(struct state_cursor *cursor, const void *data, size_t size)
{
    if ((size_t)(cursor->end - cursor->at) < size) {
        cursor->bad = true;
        return;
    }
    memcpy(cursor->at, data, size);
    cursor->at += size;
}

static inline uint64_t state_get(struct state_reader *reader, unsigned bytes)
{
    uint64_t value = 0;
    if (reader->bad || (size_t)(reader->end - reader->at) < bytes) {
        reader->bad = true;
        return 0;
    }
    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | *reader->at++;
    return value;
}

static inline void state_get_bytes(struct state_reader *reader, void *out, size_t size)
{
    if (reader->bad || (size_t)(reader->end - reader->at) < size) {
        reader->bad = true;
        memset(out, 0, size);
        return;
    }
    memcpy(out, reader->at, size);
    reader->at += size;
}

static inline bool state_done(const struct state_reader *reader)
{
    return !reader->bad && reader->at == reader->end;
}

#endif
