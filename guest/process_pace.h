/*
 * A worker's rate: how many pages are due now. Absolute time, so that late wake-ups do not lower the rate; at most 10
 * ms of pages are made up after a pause, so that a stopped guest does not burst when it goes on. Pure: the caller
 * brings the time.
 */
#ifndef GUEST_PROCESS_PACE_H
#define GUEST_PROCESS_PACE_H

#include <stdint.h>

#define PROCESS_PACE_RATE_MAX (1ull << 32) /* pages per second; keeps rate * 1 s of nanoseconds in 64 bits */

struct process_pace {
    uint64_t rate;  /* pages per second */
    uint64_t epoch; /* ns; done counts from here, moved on once a second */
    uint64_t done;
};

static inline void process_pace_init(struct process_pace *pace, uint64_t rate, uint64_t now)
{
    *pace = (struct process_pace){.rate = rate, .epoch = now};
}

static inline uint64_t process_pace_due(struct process_pace *pace, uint64_t now)
{
    const uint64_t second = 1000000000;
    uint64_t most = pace->rate / 100 ? pace->rate / 100 : 1;
    if (pace->rate == 0 || now < pace->epoch)
        return 0;
    if (now - pace->epoch >= 2 * second) /* paused: 10 ms of pages are due and the past is forgotten */
        process_pace_init(pace, pace->rate, now - second / 100);
    if (now - pace->epoch >= second && pace->done >= pace->rate) {
        pace->epoch += second;
        pace->done -= pace->rate;
    }
    uint64_t owed = (now - pace->epoch) * pace->rate / second;
    if (owed > pace->done + most)
        pace->done = owed - most;
    return owed > pace->done ? owed - pace->done : 0;
}

static inline void process_pace_account(struct process_pace *pace, uint64_t pages)
{
    pace->done += pages;
}

#endif
