/* The process guest's device state. First byte: the clock, or the workers of a memory of as many pages. */
#include <string.h>

#include "guest/process_clock.h"
#include "guest/process_order.h"
#include "guest/process_plan.h"
#include "tests/fuzz/fuzz.h"

static void load_clock(const uint8_t *data, size_t size)
{
    struct process_clock clock = {0};
    struct godwit_error error;
    uint8_t again[PROCESS_CLOCK_STATE];
    if (process_clock_load(&clock, data, size, UINT64_C(1) << 40, &error) != GODWIT_OK)
        return;
    struct process_gap gap;
    process_clock_tick(&clock, UINT64_C(1) << 41);
    process_clock_gap(&clock, &gap);
    process_clock_save(&clock, again);
}

static void load_plan(const uint8_t *data, size_t size, uint64_t pages)
{
    struct process_counters plan;
    struct godwit_error error;
    uint8_t again[PROCESS_PLAN_STATE_MAX];
    if (process_plan_load(&plan, data, size, pages, &error) != GODWIT_OK)
        return;
    fuzz_require(process_plan_save(&plan, again) == size && memcmp(data, again, size) == 0,
                 "a plan that is accepted has one form");
    for (unsigned i = 0; i < plan.threads; i++) { /* what the workers would do with it first */
        struct process_order order;
        process_order_init(&order, plan.pages, plan.hot_pages, plan.threads, i);
        if (process_order_empty(&order))
            continue;
        fuzz_require(process_order_page(&order, plan.steps[i]) < plan.pages, "a worker stays in its memory");
        uint64_t page = process_order_page(&order, 0);
        fuzz_require(process_order_last(&order, plan.steps[i], page) <= plan.steps[i], "the last step is in the past");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] == 0)
        load_clock(data + 1, size - 1);
    else
        load_plan(data + 1, size - 1, data[0]);
    return 0;
}
