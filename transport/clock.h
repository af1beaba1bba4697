/* Monotonic time and deadlines. Policy never calls these: it is handed numbers (engine/switchover.h,
 * multifd/rate.h). */
#ifndef TRANSPORT_CLOCK_H
#define TRANSPORT_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t clock_now_ms(void)
{
    return clock_now_ns() / 1000000u;
}

/* Milliseconds left until deadline_ms (of clock_now_ms), 0 when it has passed. */
static inline int clock_left_ms(uint64_t deadline_ms)
{
    uint64_t now = clock_now_ms();
    if (deadline_ms <= now)
        return 0;
    uint64_t left = deadline_ms - now;
    return left > INT32_MAX ? INT32_MAX : (int)left;
}

/* An absolute CLOCK_MONOTONIC time for pthread_cond_clockwait(). */
static inline struct timespec clock_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

#endif
