/*
 * Expected downtime: everything that still has to arrive, at the bandwidth at which data has been arriving, and one
 * more dirty log sync. The guest is stopped when that fits into downtime-limit less a reserve of a quarter, at most 100
 * ms, for what cannot be measured beforehand: stopping, loading and starting the guest (QEMU keeps none, and exceeds
 * its limit by just these).
 */
#include "engine/switchover.h"

static double line_speed(const struct switchover_inputs *inputs)
{
    return inputs->avail_bandwidth > 0 ? (double)inputs->avail_bandwidth : inputs->bandwidth;
}

static double expected_ms(const struct switchover_inputs *inputs, uint64_t bytes)
{
    return (double)bytes * 1000 / line_speed(inputs) + (double)inputs->sync_ns / 1e6;
}

uint64_t switchover_expected_ms(const struct switchover_inputs *inputs)
{
    if (line_speed(inputs) <= 0)
        return UINT64_MAX;
    double ms = expected_ms(inputs, inputs->remaining + inputs->unacked + inputs->state);
    return ms < 1e15 ? (uint64_t)(ms + 0.5) : UINT64_MAX;
}

enum switchover_decision switchover_decide(const struct switchover_inputs *inputs)
{
    double reserve = (double)inputs->downtime_limit_ms / 4;
    double limit = (double)inputs->downtime_limit_ms - (reserve < 100 ? reserve : 100);
    uint64_t still = inputs->remaining + inputs->state;
    if (line_speed(inputs) <= 0 && inputs->unacked > 0)
        return SWITCHOVER_DRAIN; /* what is on its way will tell */
    if (line_speed(inputs) <= 0)
        return still == 0 ? SWITCHOVER_NOW : SWITCHOVER_NOT_YET;
    if (still > 0 && expected_ms(inputs, still) > limit) /* both can become less while the guest runs */
        return SWITCHOVER_NOT_YET;
    if (inputs->unacked > 0 && expected_ms(inputs, still + inputs->unacked) > limit)
        return SWITCHOVER_DRAIN;
    return SWITCHOVER_NOW;
}
