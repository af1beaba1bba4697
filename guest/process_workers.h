/* The threads of the process guest: they write stamps at a set rate, and worker 0 keeps the guest's clock. */
#ifndef GUEST_PROCESS_WORKERS_H
#define GUEST_PROCESS_WORKERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "guest/process_clock.h"
#include "guest/process_order.h"
#include "guest/process_plan.h"
#include "guest/witness.h"

struct process_workers;

struct process_worker {
    _Alignas(64) _Atomic uint64_t steps; /* written by the worker alone: a line of its own */
    struct process_workers *all;
    struct process_order order;
    uint64_t rate; /* pages per second, its share */
    unsigned index;
    pthread_t thread;
};

struct process_workers {
    /* Constant while threads run. */
    char *memory;
    struct process_counters plan; /* steps as of the start */
    struct process_clock *clock;
    struct witness *witness; /* worker 0's while the workers run; NULL: none */
    unsigned running; /* threads to join */

    /* Under lock. pause and quit are also read without it, as a hint to look. */
    pthread_mutex_t lock;
    pthread_cond_t wake;   /* pause or quit changed; CLOCK_MONOTONIC */
    pthread_cond_t parked; /* parked_count changed */
    unsigned parked_count;
    _Atomic bool pause;
    _Atomic bool quit;

    struct process_worker worker[PROCESS_WORKERS_MAX];
};

uint64_t process_now(void); /* CLOCK_MONOTONIC in ns */

/*
 * Starts plan->threads threads, parked until unpark, from plan's counters on memory of plan->pages pages. Memory, clock
 * and witness (NULL: none) outlive them; *workers is all zeros or was stopped before. NO_MEMORY when threads cannot be
 * had; none is left then.
 */
enum godwit_err process_workers_start(struct process_workers *workers, void *memory,
                                      const struct process_counters *plan, struct process_clock *clock,
                                      struct witness *witness, struct godwit_error *error);

/* Ends and joins the threads, parked or not. Does nothing when none were started. */
void process_workers_stop(struct process_workers *workers);

bool process_workers_started(const struct process_workers *workers);

/* When park returns no worker writes or ticks until unpark: sleepers are woken, so it takes well under 1 ms. */
void process_workers_park(struct process_workers *workers);
void process_workers_unpark(struct process_workers *workers);

/* The plan with the counters of now: exact while parked, otherwise a moment old. Only while started. */
void process_workers_counters(const struct process_workers *workers, struct process_counters *out);

#endif
