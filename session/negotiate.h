/*
 * What the two sides agree on before any page travels: features, channel count, codec, blocks (docs/protocol.md §5).
 * The source offers, the destination accepts or gives up with an ERROR record; there is no second round.
 */
#ifndef SESSION_NEGOTIATE_H
#define SESSION_NEGOTIATE_H

#include <stdbool.h>

#include "session/token.h"

enum {
    NEGOTIATE_BLOCKS_MAX = 1024,
    NEGOTIATE_NAME_MAX = 63,
    NEGOTIATE_CHANNELS_MAX = 255,
    OFFER_SIZE_MAX = 28 + 1 + NEGOTIATE_NAME_MAX + NEGOTIATE_BLOCKS_MAX * (1 + NEGOTIATE_NAME_MAX + 12),
    ACCEPT_SIZE_MAX = 32 + NEGOTIATE_BLOCKS_MAX + (NEGOTIATE_CHANNELS_MAX + 1) * (8 + TOKEN_SIZE),
};

/* Bits of features: offered, and chosen from among those offered. */
enum {
    FEATURE_PLACED = 1 << 0, /* pages may be put straight into the destination's memory */
    FEATURE_RDMA = 1 << 1,   /* data channels are RDMA queue pairs: all of them, or none */
};

struct offer_block {
    char id[NEGOTIATE_NAME_MAX + 1];
    uint64_t size; /* bytes */
    uint32_t page_size;
};

struct offer {
    uint64_t features;
    uint16_t channels;
    uint32_t page_size;   /* of the wire: 4096 */
    uint64_t populated;   /* bytes of RAM that hold something, about; for an early "does not fit" */
    uint32_t slice_size;  /* bytes that one key opens: 2, 4, 8 or 16 MiB; 0 without FEATURE_PLACED */
    char compression[NEGOTIATE_NAME_MAX + 1]; /* multifd-compression */
    uint16_t block_count;
    struct offer_block blocks[NEGOTIATE_BLOCKS_MAX];
};

struct acceptance {
    uint64_t features;
    uint16_t channels;
    uint16_t block_count;
    uint8_t fresh[NEGOTIATE_BLOCKS_MAX]; /* 1: the block reads as zeros everywhere */
    uint16_t token_count;
    struct token tokens[NEGOTIATE_CHANNELS_MAX + 1];
};

/* Returns the bytes used. bytes has room for the maximum. */
size_t offer_encode(const struct offer *offer, uint8_t *bytes);
size_t acceptance_encode(const struct acceptance *acceptance, uint8_t *bytes);

/* PROTOCOL for malformed bytes: sizes of 0 or not whole pages, double ids, counts out of range, a slice size that does
 * not fit the features. */
enum godwit_err offer_decode(const void *bytes, size_t size, struct offer *offer, struct godwit_error *error);
enum godwit_err acceptance_decode(const void *bytes, size_t size, struct acceptance *acceptance,
                                  struct godwit_error *error);

/* What a destination demands: MISMATCH, worded for the users of both sides. channels 0: adopt the source's. rdma: its
 * data channels are queue pairs, scheme says what it listens on. */
enum godwit_err offer_check(const struct offer *offer, unsigned channels, bool rdma, const char *scheme,
                            struct godwit_error *error);
/* Does the acceptance fit what was offered? PROTOCOL if not; MISMATCH if it lacks RDMA, which must not be. */
enum godwit_err acceptance_check(const struct acceptance *acceptance, const struct offer *offer,
                                 struct godwit_error *error);

#endif
