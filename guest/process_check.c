/*
 * The check of a guest's memory. Each page is made again (initial content, then the last stamp the counters imply) and
 * compared whole, so that a wrong byte anywhere counts; over a file's content only the stamp can be compared.
 */
#include "guest/process_check.h"

#include <inttypes.h>
#include <string.h>

#include <godwit/guest.h>

#include "guest/guest_error.h"
#include "guest/process_order.h"
#include "guest/process_stamp.h"

struct check_plan {
    const struct process_counters *counters;
    struct process_order order[PROCESS_WORKERS_MAX];
};

static uint64_t check_last(const struct check_plan *plan, uint64_t page)
{
    const struct process_counters *counters = plan->counters;
    unsigned worker = process_order_owner(counters->pages, counters->hot_pages, counters->threads, page);
    return process_order_last(&plan->order[worker], counters->steps[worker], page);
}

static enum page_verdict check_page(const void *context, uint64_t page, const void *content)
{
    const struct check_plan *plan = context;
    const struct process_counters *counters = plan->counters;
    uint64_t last = check_last(plan, page), expected[GODWIT_PAGE_SIZE / sizeof(uint64_t)];
    if (counters->pattern == PATTERN_FILE) {
        if (!last)
            return PAGE_SKIPPED;
        return process_stamp_matches(content, counters->seed, page, last - 1) ? PAGE_RIGHT : PAGE_WRONG;
    }
    pattern_fill_page(counters->pattern, counters->seed, page, expected);
    if (last)
        process_stamp_write(expected, counters->seed, page, last - 1);
    return memcmp(content, expected, sizeof expected) == 0 ? PAGE_RIGHT : PAGE_WRONG;
}

static enum godwit_err check_describe(const struct check_plan *plan, const struct process_view *view,
                                      const struct process_check *result, struct godwit_error *error)
{
    uint64_t page = result->first_wrong, last = check_last(plan, page);
    const uint64_t *words = (const uint64_t *)view->addr + page * (GODWIT_PAGE_SIZE / sizeof(uint64_t));
    char expected[64] = "its initial content", found[128] = "no stamp";
    if (last)
        snprintf(expected, sizeof expected, "step %" PRIu64, last - 1);
    if (words[PROCESS_STAMP_AT_MAGIC] == PROCESS_STAMP_MAGIC)
        snprintf(found, sizeof found, "the stamp of page %" PRIu64 " step %" PRIu64 ", ending in step %" PRIu64,
                 words[PROCESS_STAMP_AT_PAGE], words[PROCESS_STAMP_AT_STEP], words[PROCESS_STAMP_AT_TAIL]);
    return guest_fail(error, GODWIT_ERR_MISMATCH,
                      "%" PRIu64 " of %" PRIu64 " pages are wrong, %" PRIu64
                      " of them said to be holes, the first is page %" PRIu64 ": it must hold %s and holds %s",
                      result->wrong, plan->counters->pages, result->wrong_holes, page, expected, found);
}

enum godwit_err process_guest_check(const struct process_view *view, const struct process_counters *counters,
                                    struct process_check *out, struct godwit_error *error)
{
    struct check_plan plan = {.counters = counters};
    for (unsigned i = 0; i < counters->threads; i++)
        process_order_init(&plan.order[i], counters->pages, counters->hot_pages, counters->threads, i);
    enum godwit_err err = page_check_all(view, counters->pages, check_page, &plan, out, error);
    if (!err && out->wrong)
        err = check_describe(&plan, view, out, error);
    return err;
}
