/*
 * What the fuzz targets share. A target is one function over bytes a peer could have sent; it returns 0 and, where a
 * property does not hold, aborts. Run by libFuzzer (tests/soak/run) or by replay.c over the corpus.
 *
 * Where a CRC stands in front of a decoder a target goes twice: over the bytes as they are, and over a copy whose CRC
 * was made right, since no mutation would guess it.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* assert() that no build leaves out. */
#define fuzz_require(condition, text)                                                                                  \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, text);                                                  \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

static inline void fuzz_put_u32(uint8_t *at, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

static inline uint16_t fuzz_get_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

#endif
