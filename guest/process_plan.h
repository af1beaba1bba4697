/*
 * What a process guest's workers do, and how far they are: all that another host needs to go on, and all that a checker
 * needs to say what every page must hold.
 */
#ifndef GUEST_PROCESS_PLAN_H
#define GUEST_PROCESS_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include <godwit/error.h>

#include "guest/pattern.h"

enum {
    PROCESS_WORKERS_MAX = 64,
    PROCESS_PLAN_STATE_MAX = 4 + 4 + 4 + 4 * 8 + PROCESS_WORKERS_MAX * 8,
};

struct process_counters {
    uint64_t pages;     /* of memory */
    uint64_t hot_pages; /* at most pages */
    uint64_t rate;      /* pages per second, all workers together; 0: nobody writes */
    uint64_t seed;
    enum pattern pattern; /* of the initial content */
    unsigned threads;
    uint64_t steps[PROCESS_WORKERS_MAX]; /* taken by each worker so far */
};

/* Big-endian, versioned; returns the bytes used of out. */
size_t process_plan_save(const struct process_counters *counters, uint8_t out[PROCESS_PLAN_STATE_MAX]);

/* Foreign bytes: everything is checked, also against the memory that was accepted. *out is written only on success. */
enum godwit_err process_plan_load(struct process_counters *out, const void *data, size_t size, uint64_t pages,
                                  struct godwit_error *error);

#endif
