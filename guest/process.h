/*
 * The process guest: a guest without a virtual machine. Worker threads write a checkable pattern into its memory at a
 * set rate; its device state is their counters and a clock. It plays both roles, source and destination.
 *
 * Source: new, start, migrate, then process_guest_counters() is the truth at switchover. Destination: new, serve, then
 * check process_guest_image() against process_guest_loaded(). Calls on one guest come from one thread at a time, except
 * that process_guest_gap() and process_guest_counters() may be called from any thread while the guest runs.
 */
#ifndef GUEST_PROCESS_H
#define GUEST_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/incoming.h"
#include "guest/memory.h"
#include "guest/pattern.h"
#include "guest/process_check.h"
#include "guest/process_clock.h"
#include "guest/process_plan.h"
#include "guest/witness.h"

struct process_guest;

struct process_guest_config {
    uint64_t ram;            /* bytes, whole pages; 0: the size of memory_from */
    const char *memory_from; /* initial content: the data of this file, at most ram bytes; NULL: pattern */
    enum pattern pattern;    /* not PATTERN_FILE */
    uint64_t dirty_rate;     /* bytes per second: distinct 4 KiB pages per second x 4096; 0: nothing is written */
    uint64_t hot_set;        /* bytes that 15 of 16 writes go to, at most ram; 0: a quarter of ram */
    enum memory_backing backing;
    unsigned threads; /* 1 to PROCESS_WORKERS_MAX */
    uint64_t seed;
    enum godwit_tracker_kind tracker;
    bool prealloc;
    struct witness *witness; /* borrowed until free: a log of when the guest runs; NULL: none */
};

struct process_destination_config {
    struct incoming_config memory; /* with keep_image the workers run on the view */
    struct witness *witness; /* borrowed until free; NULL: none */
};

/* ram unset, random, no writes, hot set a quarter, memfd, 2 threads, seed 1, tracker auto. */
void process_guest_config_init(struct process_guest_config *config);
void process_destination_config_init(struct process_destination_config *config);

/* Allocates and fills memory: may block for long. INVALID, NO_MEMORY, SYSTEM. The workers do not run yet. */
enum godwit_err process_guest_new_source(struct process_guest **out, const struct process_guest_config *config,
                                         struct godwit_error *error);

/* Memory comes with the migration's offer: exactly one block, "pc.ram". */
enum godwit_err process_guest_new_destination(struct process_guest **out,
                                              const struct process_destination_config *config,
                                              struct godwit_error *error);

/* Source: lets the workers run. Once. */
enum godwit_err process_guest_start(struct process_guest *guest, struct godwit_error *error);

/* Ends the workers and gives the memory back. NULL is allowed. Not while a migration runs. */
void process_guest_free(struct process_guest *guest);

/* What the migration works on. Valid until process_guest_free. A destination's has no blocks: it accepts them. */
const struct godwit_guest *process_guest_interface(const struct process_guest *guest);

/* Counters now; exact when the guest is stopped. */
void process_guest_counters(const struct process_guest *guest, struct process_counters *out);

/* Destination: the counters the guest arrived with, false before they were loaded. */
bool process_guest_loaded(const struct process_guest *guest, struct process_counters *out);

/* What tracks the writes: as configured, or what that became once a migration has begun. */
enum godwit_tracker_kind process_guest_tracker(const struct process_guest *guest);

/* The memory that is migrated (source) or received into (destination); addr NULL before a destination has accepted. */
struct process_view process_guest_image(const struct process_guest *guest);

void process_guest_gap(const struct process_guest *guest, struct process_gap *out);

#endif
