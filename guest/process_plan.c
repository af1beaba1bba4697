/* The workers' device state: encoding, decoding, and refusing what no process guest can have written. */
#include "guest/process_plan.h"

#include <assert.h>
#include <inttypes.h>

#include "guest/guest_error.h"
#include "guest/process_order.h"
#include "guest/process_pace.h"
#include "guest/state_codec.h"

enum { PLAN_STATE_VERSION = 1 };

size_t process_plan_save(const struct process_counters *counters, uint8_t out[PROCESS_PLAN_STATE_MAX])
{
    struct state_cursor cursor = {out, out + PROCESS_PLAN_STATE_MAX, false};
    state_put(&cursor, PLAN_STATE_VERSION, 4);
    state_put(&cursor, (uint64_t)counters->pattern, 4);
    state_put(&cursor, counters->threads, 4);
    state_put(&cursor, counters->pages, 8);
    state_put(&cursor, counters->hot_pages, 8);
    state_put(&cursor, counters->rate, 8);
    state_put(&cursor, counters->seed, 8);
    for (unsigned i = 0; i < counters->threads; i++)
        state_put(&cursor, counters->steps[i], 8);
    assert(!cursor.bad && "the buffer holds the largest state");
    return (size_t)(cursor.at - out);
}

static enum godwit_err plan_check(const struct process_counters *plan, uint64_t pages, struct godwit_error *error)
{
    if (plan->pages != pages)
        return guest_fail(error, GODWIT_ERR_GUEST,
                          "the guest's workers know a memory of %" PRIu64 " pages, this one has %" PRIu64, plan->pages,
                          pages);
    if (plan->hot_pages > plan->pages)
        return guest_fail(error, GODWIT_ERR_GUEST, "the guest's hot set of %" PRIu64 " pages is larger than its memory",
                          plan->hot_pages);
    if (plan->rate > PROCESS_PACE_RATE_MAX)
        return guest_fail(error, GODWIT_ERR_GUEST, "the guest's rate of %" PRIu64 " pages per second is impossible",
                          plan->rate);
    return GODWIT_OK;
}

enum godwit_err process_plan_load(struct process_counters *out, const void *data, size_t size, uint64_t pages,
                                  struct godwit_error *error)
{
    struct state_reader reader = {data, (const uint8_t *)data + size, false};
    struct process_counters plan = {0};
    uint64_t version = state_get(&reader, 4), pattern = state_get(&reader, 4), threads = state_get(&reader, 4);
    if (!reader.bad && version != PLAN_STATE_VERSION)
        return guest_fail(error, GODWIT_ERR_GUEST,
                          "the guest's workers have state of version %" PRIu64 ", this side knows %d", version,
                          PLAN_STATE_VERSION);
    if (!reader.bad && (threads < 1 || threads > PROCESS_WORKERS_MAX || pattern >= PATTERN_COUNT))
        return guest_fail(error, GODWIT_ERR_GUEST,
                          "the guest has %" PRIu64 " workers and pattern %" PRIu64 ", which is impossible", threads,
                          pattern);
    plan.pattern = (enum pattern)pattern;
    plan.threads = (unsigned)threads;
    plan.pages = state_get(&reader, 8);
    plan.hot_pages = state_get(&reader, 8);
    plan.rate = state_get(&reader, 8);
    plan.seed = state_get(&reader, 8);
    for (unsigned i = 0; i < plan.threads && !reader.bad; i++)
        plan.steps[i] = state_get(&reader, 8);
    if (!state_done(&reader))
        return guest_fail(error, GODWIT_ERR_GUEST,
                          "the guest's workers have %zu bytes of state, which is the wrong number", size);
    for (unsigned i = 0; i < plan.threads; i++)
        if (plan.steps[i] > PROCESS_STEPS_MAX)
            return guest_fail(error, GODWIT_ERR_GUEST,
                              "worker %u of the guest has taken %" PRIu64 " steps, which is impossible", i,
                              plan.steps[i]);
    enum godwit_err err = plan_check(&plan, pages, error);
    if (!err)
        *out = plan;
    return err;
}
