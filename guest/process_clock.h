/*
 * The process guest's own clock: what a service inside it would feel. One thread ticks; anybody may read. The longest
 * pause between two ticks is the guest gap; it goes on across a migration when both ends share a clock (same boot).
 */
#ifndef GUEST_PROCESS_CLOCK_H
#define GUEST_PROCESS_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <godwit/error.h>

enum {
    PROCESS_BOOT_ID = 36, /* characters of /proc/sys/kernel/random/boot_id */
    PROCESS_CLOCK_STATE = 4 + 8 + 8 + 8 + PROCESS_BOOT_ID,
};

struct process_gap {
    uint64_t longest_ns;    /* since the guest was started, on whichever host */
    uint64_t switchover_ns; /* from the last tick before stop to the first after resume */
    bool switchover_known;  /* false: not migrated or not resumed yet, or the hosts' clocks cannot be compared */
};

struct process_clock {
    /* Written by the ticking thread, or while it does not run; relaxed: each is a figure of its own. */
    _Atomic uint64_t ticks;
    _Atomic uint64_t last_ns; /* 0: the next tick closes no gap */
    _Atomic uint64_t longest_ns;
    _Atomic uint64_t switchover_ns;
    _Atomic bool switchover_known;
    _Atomic bool arriving;         /* loaded from elsewhere, first tick not seen */
    char boot_id[PROCESS_BOOT_ID]; /* of this host, zeros when unknown; set by init */
};

void process_clock_init(struct process_clock *clock);
void process_clock_tick(struct process_clock *clock, uint64_t now_ns);
void process_clock_gap(const struct process_clock *clock, struct process_gap *out);

/*
 * Device state, guest stopped. load refuses what save could not have written and changes nothing then; now_ns is this
 * host's clock.
 */
void process_clock_save(const struct process_clock *clock, uint8_t out[PROCESS_CLOCK_STATE]);
enum godwit_err process_clock_load(struct process_clock *clock, const void *data, size_t size, uint64_t now_ns,
                                   struct godwit_error *error);

#endif
