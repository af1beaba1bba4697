/* When to stop the guest: pure functions of numbers, so that thousands of guests can be simulated in a second. */
#ifndef ENGINE_SWITCHOVER_H
#define ENGINE_SWITCHOVER_H

#include <stdbool.h>
#include <stdint.h>

struct switchover_inputs {
    uint64_t remaining;         /* bytes of dirty pages */
    uint64_t unacked;           /* bytes sent that have not arrived */
    uint64_t state;             /* bytes of device state to expect */
    double bandwidth;           /* measured, bytes per second; 0: unknown */
    uint64_t avail_bandwidth;   /* avail-switchover-bandwidth, bytes per second; 0: as measured */
    uint64_t sync_ns;           /* what the last dirty log sync took: the stop phase does one */
    uint64_t downtime_limit_ms;
};

enum switchover_decision {
    SWITCHOVER_NOT_YET, /* another pass */
    SWITCHOVER_DRAIN,   /* what is dirty fits, what is on its way does not: wait for that first */
    SWITCHOVER_NOW,
};

/* ms; UINT64_MAX while no bandwidth is known. Shown to users as expected-downtime. */
uint64_t switchover_expected_ms(const struct switchover_inputs *inputs);

enum switchover_decision switchover_decide(const struct switchover_inputs *inputs);

#endif
