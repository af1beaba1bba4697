/* One range of items cut into equal slices, one thread each: filling, checking and hashing guest memory. */
#ifndef GUEST_PARALLEL_H
#define GUEST_PARALLEL_H

#include <stdint.h>

#include <godwit/error.h>

/* Works on items [first, end). Called from several threads with disjoint slices. */
typedef enum godwit_err parallel_fn(void *context, uint64_t first, uint64_t end, struct godwit_error *error);

/*
 * Runs fn over [0, items) in up to `threads` slices (0: as many as processors online), each a multiple of `align` items
 * but the last; returns when all have ended, with the error of the lowest slice that failed. A thread that cannot be
 * started is not an error: the caller's thread does its slice.
 */
enum godwit_err parallel_run(uint64_t items, uint64_t align, unsigned threads, parallel_fn *fn, void *context,
                             struct godwit_error *error);

#endif
