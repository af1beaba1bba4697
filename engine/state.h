/*
 * Device state: named streams of bytes. On the source a writer collects what the guest saves; it travels as bounded
 * STATE records. On the destination the streams are put together again in memory, in full, before any of it is loaded.
 */
#ifndef ENGINE_STATE_H
#define ENGINE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <godwit/guest.h>

enum {
    STATE_STREAM_MAX = 256 << 20, /* bytes of one stream */
    STATE_TOTAL_MAX = 512 << 20,  /* bytes of all streams, at the destination */
    STATE_CHUNK = 512 << 10,      /* bytes of one STATE record */
    STATE_HEAD_MAX = 1 + GODWIT_STATE_NAME_MAX + 1 + 8,
};

/* A growing buffer; also what the embedder knows as a writer. */
struct godwit_state_writer {
    uint8_t *bytes;
    size_t size, room;
    uint64_t before; /* bytes of the stream that were here and have been sent */
};

void state_writer_clear(struct godwit_state_writer *writer); /* frees */

/* The part of a STATE record before its data. */
struct state_head {
    char name[GODWIT_STATE_NAME_MAX + 1];
    bool last;       /* the stream ends with this record */
    uint64_t offset; /* of the data in its stream */
};

size_t state_head_encode(const struct state_head *head, uint8_t bytes[STATE_HEAD_MAX]);
/* Returns where the data begins, NULL for malformed bytes. */
const uint8_t *state_head_decode(const uint8_t *bytes, size_t size, struct state_head *head);

/* One stream at the destination. */
struct state_stream {
    char name[GODWIT_STATE_NAME_MAX + 1];
    bool complete;
    struct godwit_state_writer data;
};

struct state_set {
    struct state_stream *streams;
    unsigned count;
    size_t total; /* bytes of all */
};

/* Adds one STATE record: names appear in the order of their first record, offsets without gaps, nothing after the
 * last. */
enum godwit_err state_set_add(struct state_set *set, const uint8_t *bytes, size_t size, struct godwit_error *error);
bool state_set_complete(const struct state_set *set);
void state_set_clear(struct state_set *set); /* frees */

#endif
