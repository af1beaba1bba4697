/*
 * REGISTER and KEY (docs/protocol.md §5.4): which slices of the guest's memory the source will put pages into, and what
 * lets it. Pure encoding and checked decoding; whether a slice exists, or was asked for, is the reader's to know.
 */
#ifndef SESSION_REGISTRATION_H
#define SESSION_REGISTRATION_H

#include "session/record.h"
#include "transport/region.h"

enum {
    REGISTER_RUN_SIZE = 12,
    REGISTER_RUNS_MAX = 1024, /* of one record */
    REGISTER_SIZE_MAX = REGISTER_RUNS_MAX * REGISTER_RUN_SIZE,
    KEY_HEAD_SIZE = 8,
    KEY_SIZE_MAX = KEY_HEAD_SIZE + REGION_KEY_MAX,
};

/* Slices that follow one another in a block. */
struct register_run {
    uint16_t block;
    uint32_t first, slices;
};

struct slice_key {
    uint16_t block;
    uint32_t slice;
    struct region_key key; /* size 0: the slice is not registered, its pages go inline */
};

/* Return the bytes used. bytes has room for the maximum. */
size_t register_encode(const struct register_run *runs, unsigned count, uint8_t *bytes);
size_t slice_key_encode(const struct slice_key *key, uint8_t *bytes);

/* PROTOCOL for malformed bytes. runs has room for REGISTER_RUNS_MAX. */
enum godwit_err register_decode(const void *bytes, size_t size, struct register_run *runs, unsigned *count,
                                struct godwit_error *error);
enum godwit_err slice_key_decode(const void *bytes, size_t size, struct slice_key *key, struct godwit_error *error);

#endif
