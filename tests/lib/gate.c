#include "tests/lib/gate.h"

#include "transport/clock.h"

void gate_note(struct gate *gate, const struct godwit_error *error)
{
    pthread_mutex_lock(&gate->lock);
    gate->count++;
    if (error)
        gate->last = *error;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

unsigned gate_count(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    unsigned count = gate->count;
    pthread_mutex_unlock(&gate->lock);
    return count;
}

bool gate_wait(struct gate *gate, unsigned count, int timeout_ms)
{
    uint64_t deadline = clock_now_ns() + (uint64_t)timeout_ms * 1000000u;
    struct timespec until = clock_timespec(deadline);
    pthread_mutex_lock(&gate->lock);
    while (gate->count < count && clock_now_ns() < deadline)
        pthread_cond_clockwait(&gate->changed, &gate->lock, CLOCK_MONOTONIC, &until);
    bool reached = gate->count >= count;
    pthread_mutex_unlock(&gate->lock);
    return reached;
}
