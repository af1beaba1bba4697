/*
 * Generated memory content. Every page is a function of (pattern, seed, page number) alone, so that any thread can make
 * any page and a checker can make it again.
 */
#ifndef GUEST_PATTERN_H
#define GUEST_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/error.h>

/* Values are pinned: they travel in the process guest's device state. */
enum pattern {
    PATTERN_RANDOM = 0, /* incompressible */
    PATTERN_ZERO = 1,   /* never written: as sparse as the backing allows */
    PATTERN_MIXED = 2,  /* by page: about 1/2 random, 1/4 zero (and present), 1/4 text-like */
    PATTERN_FILE = 3,   /* content of a file; cannot be generated */
    PATTERN_COUNT
};

/* "random", "zero", "mixed"; false for anything else. */
bool pattern_parse(const char *name, enum pattern *out);

/* One page of 4096 bytes, 8-byte aligned. Not for PATTERN_FILE. */
void pattern_fill_page(enum pattern pattern, uint64_t seed, uint64_t page, void *out);

/* Whole memory that reads as zero so far, in parallel; PATTERN_ZERO and PATTERN_FILE touch nothing. */
void pattern_fill(enum pattern pattern, uint64_t seed, void *addr, uint64_t size);

/* splitmix64 (Steele, Lea, Flood 2014): a bijection of 64 bits that looks random. */
static inline uint64_t pattern_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

#endif
