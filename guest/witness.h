/*
 * The witness: a log of when a guest ran, in a file that outlives the process it ran in. Two hosts, or two processes of
 * one, that write such logs on one clock show together whether a guest ever ran twice, and whether its own counters
 * ever went back (tests/soak/witness.py reads it).
 *
 * A guest ran at the latest from START to STOP, and certainly at every TICK. The times of START and STOP are outside of
 * what they enclose: START is taken before the first worker runs, STOP after the last one has parked.
 */
#ifndef GUEST_WITNESS_H
#define GUEST_WITNESS_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/error.h>

enum witness_side { WITNESS_SOURCE = 1, WITNESS_DESTINATION = 2 };
enum witness_kind { WITNESS_START = 1, WITNESS_TICK = 2, WITNESS_STOP = 3 };

enum { WITNESS_RECORD = 64 /* bytes; written whole, big-endian, with a check word of its own */ };

struct witness;

/* Appends to the file at path, which is made if need be; both sides may share it. SYSTEM, NO_MEMORY. */
enum godwit_err witness_open(const char *path, enum witness_side side, struct witness **out,
                             struct godwit_error *error);
void witness_close(struct witness *witness); /* NULL allowed */

/*
 * Notes one event with the guest's own counters. START and STOP: any thread, none at a time that another notes; SYSTEM
 * when the file takes no more, and a guest that cannot be witnessed had better not start.
 */
enum godwit_err witness_note(struct witness *witness, enum witness_kind kind, uint64_t ticks, uint64_t steps,
                             struct godwit_error *error);

/* The ticking thread: true about every millisecond, when a TICK is due. */
bool witness_due(const struct witness *witness, uint64_t now_ns);

#endif
