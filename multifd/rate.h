/*
 * migration_rate_*: one budget in bytes per second across all channels. Names as in QEMU's migration-stats; the
 * mechanism is a virtual clock (GCRA): every batch books the time its bytes take at the limit, and may start when the
 * bookings before it have run out. At most RATE_SLACK_NS of unused time is kept, so lateness of the scheduler is made
 * up for, and idle time does not become a burst.
 *
 * All calls from any thread. The booking functions take the time from their caller, so that they can be tested without
 * a clock; migration_rate_wait is the one that sleeps.
 */
#ifndef MULTIFD_RATE_H
#define MULTIFD_RATE_H

#include <stdbool.h>
#include <stdint.h>

enum { RATE_SLACK_NS = 14 * 1000 * 1000 };

struct migration_rate;

struct migration_rate *migration_rate_new(void); /* unlimited; NULL when memory is out */
void migration_rate_free(struct migration_rate *rate);

/* Bytes per second, 0: unlimited. Takes effect at once, also on those who wait. */
void migration_rate_set(struct migration_rate *rate, uint64_t bytes_per_second);
uint64_t migration_rate_get(struct migration_rate *rate);
/* Books bytes; returns the time (ns, as now_ns) from which they may be sent. */
uint64_t migration_rate_account(struct migration_rate *rate, uint64_t bytes, uint64_t now_ns);
/* Is the budget used up at this time? */
bool migration_rate_exceeded(struct migration_rate *rate, uint64_t now_ns);
/* Forgets all bookings. */
void migration_rate_reset(struct migration_rate *rate, uint64_t now_ns);

/* Books and sleeps until the bytes may be sent; returns how long that took (ns). Ends early on migration_rate_end. */
uint64_t migration_rate_wait(struct migration_rate *rate, uint64_t bytes);
/* For cancel: nobody waits any more. */
void migration_rate_end(struct migration_rate *rate);

/* The most pages a batch may have so that it takes at most 5 ms of the budget; at least 1, at most `most`. */
unsigned migration_rate_batch_pages(struct migration_rate *rate, unsigned most);

#endif
