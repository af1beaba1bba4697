/* The arithmetic of the process guest: order of writes and pace, swept over sizes. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "guest/process_order.h"
#include "guest/process_pace.h"

TestSuite(process_order, .timeout = 60);

/* Replays every step and compares what the counters say with what happened. */
static void replay(uint64_t pages, uint64_t hot, unsigned workers, uint64_t steps)
{
    uint64_t *last = calloc(pages, sizeof *last);
    for (unsigned w = 0; w < workers; w++) {
        struct process_order order;
        process_order_init(&order, pages, hot, workers, w);
        if (process_order_empty(&order))
            continue;
        for (uint64_t step = 0; step < steps; step++) {
            uint64_t page = process_order_page(&order, step);
            cr_assert_lt(page, pages);
            cr_assert_eq(process_order_owner(pages, hot, workers, page), w, "page %lu of %lu/%lu", page, hot, pages);
            last[page] = step + 1;
        }
        for (uint64_t page = 0; page < pages; page++)
            if (process_order_owner(pages, hot, workers, page) == w)
                cr_assert_eq(process_order_last(&order, steps, page), last[page],
                             "%lu pages, %lu hot, %u workers, %lu steps: page %lu", pages, hot, workers, steps, page);
    }
    free(last);
}

Test(process_order, the_last_write_of_every_page_follows_from_the_counters)
{
    for (uint64_t pages = 1; pages <= 70; pages++)
        for (uint64_t hot = 0; hot <= pages; hot += 1 + pages / 9)
            for (unsigned workers = 1; workers <= 5; workers += 2)
                for (uint64_t steps = 0; steps < 400; steps = steps * 2 + 1)
                    replay(pages, hot, workers, steps);
    replay(4096, 1024, 2, 100000);
    replay(3000, 1, 3, 5000);
}

Test(process_order, a_share_is_covered_once_before_any_page_comes_again)
{
    for (uint64_t pages = 1; pages < 300; pages++) {
        struct process_order order;
        process_order_init(&order, pages, pages, 1, 0);
        unsigned char seen[300] = {0};
        for (uint64_t step = 0; step < pages; step++)
            cr_assert_eq(seen[process_order_page(&order, step)]++, 0, "%lu pages, step %lu", pages, step);
    }
}

Test(process_order, holds_at_the_largest_sizes_and_counters)
{
    const uint64_t pages = 1ull << 32, steps = PROCESS_STEPS_MAX - 12345;
    struct process_order order;
    process_order_init(&order, pages, pages / 4, 3, 1);
    for (uint64_t step = steps - 1000; step < steps; step++) {
        uint64_t page = process_order_page(&order, step);
        cr_assert_eq(process_order_owner(pages, pages / 4, 3, page), 1);
        cr_assert_eq(process_order_last(&order, steps, page), step + 1);
    }
}

Test(process_order, fifteen_of_sixteen_writes_are_hot)
{
    struct process_order order;
    unsigned hot = 0;
    process_order_init(&order, 1000, 250, 1, 0);
    for (uint64_t step = 0; step < 1600; step++)
        hot += process_order_page(&order, step) < 250;
    cr_expect_eq(hot, 1500);
}

Test(process_order, the_pace_is_exact_over_time)
{
    const uint64_t rates[] = {1, 7, 1000, 25600, 1000003};
    for (unsigned i = 0; i < 5; i++) {
        struct process_pace pace;
        uint64_t written = 0, now = 5;
        process_pace_init(&pace, rates[i], now);
        for (; now <= 5 + 10000000000; now += 777777) {
            uint64_t due = process_pace_due(&pace, now);
            process_pace_account(&pace, due);
            written += due;
        }
        cr_expect(written >= rates[i] * 10 - rates[i] / 100 - 1 && written <= rates[i] * 10, "rate %lu: %lu in 10 s",
                  rates[i], written);
    }
}

Test(process_order, the_pace_makes_up_at_most_ten_milliseconds)
{
    struct process_pace pace;
    const uint64_t pauses[] = {20000000, 900000000, 1100000000, 5000000000, 3600000000000};
    for (unsigned i = 0; i < 5; i++) {
        process_pace_init(&pace, 100000, 1000);
        cr_expect_leq(process_pace_due(&pace, 1000 + pauses[i]), 1000, "pause %lu", pauses[i]);
        cr_expect_geq(process_pace_due(&pace, 1000 + pauses[i]), 990, "pause %lu", pauses[i]);
    }
    process_pace_init(&pace, 0, 0);
    cr_expect_eq(process_pace_due(&pace, 1ull << 60), 0);
}
