/*
 * What the dirty tracker asks of a mechanism. tracker.c owns the ranges, checks every argument, and calls these from
 * one thread at a time: start only while stopped, sync only while started.
 */
#ifndef GUEST_TRACKER_OPS_H
#define GUEST_TRACKER_OPS_H

#include <stdint.h>

#include <godwit/error.h>
#include <godwit/tracker.h>

enum tracker_memory {
    TRACKER_MIXED, /* both, or nobody could say */
    TRACKER_ANONYMOUS,
    TRACKER_FILE, /* shared memory and files: everything that has an inode */
};

struct tracker_range {
    uint64_t start;
    uint64_t end;
    enum tracker_memory memory; /* decided before each start */
};

struct tracker_ops {
    enum godwit_tracker_kind kind;
    /* *self is owned by the caller, for free. */
    enum godwit_err (*new)(void **self, struct godwit_error *error);
    /* Arms all ranges, which stay where they are until stop has returned. A failure may leave some armed: stop
     * follows. */
    enum godwit_err (*start)(void *self, const struct tracker_range *ranges, unsigned count,
                             struct godwit_error *error);
    /* [start, end) lies in ranges[index]; bit 0 of bitmap is start. */
    enum godwit_err (*sync)(void *self, unsigned index, uint64_t start, uint64_t end, uint64_t *bitmap,
                            struct godwit_error *error);
    /* Disarms whatever is armed. Blocks until no thread of the mechanism runs. */
    void (*stop)(void *self);
    /* After stop. */
    void (*free)(void *self);
};

extern const struct tracker_ops tracker_scan_ops;
extern const struct tracker_ops tracker_fault_ops;

/* Sets the bits [first, end). */
void tracker_mark(uint64_t *bitmap, uint64_t first, uint64_t end);

/* Words the errno of a failed UFFDIO_REGISTER. */
enum godwit_err tracker_register_error(int cause, uint64_t start, struct godwit_error *error);

#endif
