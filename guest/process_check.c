/*
 * The check of a guest's memory.
 *
 * Each page is made again (initial content, then the last stamp the counters imply) and compared whole, so that a wrong
 * byte anywhere counts; over a file's content only the stamp can be compared. Holes are compared as zero pages without
 * reading them, which would allocate them. Wrong pages do not end the walk: their number tells a lost page from a lost
 * memory.
 */
#include "guest/process_check.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/guest_error.h"
#include "guest/parallel.h"
#include "guest/process_order.h"
#include "guest/process_stamp.h"

struct check_job {
    const struct process_view *view;
    const struct process_counters *counters;
    struct process_order order[PROCESS_WORKERS_MAX];
    _Atomic uint64_t compared;
    _Atomic uint64_t skipped;
    _Atomic uint64_t wrong;
    _Atomic uint64_t first_wrong;
};

static uint64_t check_last(const struct check_job *job, uint64_t page)
{
    const struct process_counters *plan = job->counters;
    unsigned worker = process_order_owner(plan->pages, plan->hot_pages, plan->threads, page);
    return process_order_last(&job->order[worker], plan->steps[worker], page);
}

static void check_wrong(struct check_job *job, uint64_t page)
{
    atomic_fetch_add_explicit(&job->wrong, 1, memory_order_relaxed);
    uint64_t first = atomic_load_explicit(&job->first_wrong, memory_order_relaxed);
    while (page < first && !atomic_compare_exchange_weak(&job->first_wrong, &first, page))
        ;
}

/* content: the page's 4096 bytes, 8-byte aligned. */
static void check_page(struct check_job *job, uint64_t page, const void *content)
{
    const struct process_counters *plan = job->counters;
    uint64_t last = check_last(job, page), expected[GODWIT_PAGE_SIZE / sizeof(uint64_t)];
    bool right;
    if (plan->pattern == PATTERN_FILE && !last) {
        atomic_fetch_add_explicit(&job->skipped, 1, memory_order_relaxed);
        return;
    }
    if (plan->pattern == PATTERN_FILE) {
        right = process_stamp_matches(content, plan->seed, page, last - 1);
    } else {
        pattern_fill_page(plan->pattern, plan->seed, page, expected);
        if (last)
            process_stamp_write(expected, plan->seed, page, last - 1);
        right = memcmp(content, expected, sizeof expected) == 0;
    }
    atomic_fetch_add_explicit(&job->compared, 1, memory_order_relaxed);
    if (!right)
        check_wrong(job, page);
}

static enum godwit_err check_slice(void *context, uint64_t page, uint64_t end, struct godwit_error *error)
{
    struct check_job *job = context;
    const struct process_view *view = job->view;
    const uint64_t zeros[GODWIT_PAGE_SIZE / sizeof(uint64_t)] = {0};
    while (page < end) {
        uint64_t first, pages;
        enum godwit_err err = godwit_memory_next_data(view->addr, end * GODWIT_PAGE_SIZE, view->fd, 0, page, &first,
                                                      &pages, error);
        if (err)
            return err;
        uint64_t data = pages ? first : end;
        for (; page < data; page++)
            check_page(job, page, zeros);
        for (; page < data + pages; page++)
            check_page(job, page, (const char *)view->addr + page * GODWIT_PAGE_SIZE);
    }
    return GODWIT_OK;
}

static enum godwit_err check_describe(const struct check_job *job, const struct process_check *result,
                                      struct godwit_error *error)
{
    uint64_t page = result->first_wrong, last = check_last(job, page);
    const uint64_t *words = (const uint64_t *)job->view->addr + page * (GODWIT_PAGE_SIZE / sizeof(uint64_t));
    char expected[64] = "its initial content", found[128] = "no stamp";
    if (last)
        snprintf(expected, sizeof expected, "step %" PRIu64, last - 1);
    if (words[PROCESS_STAMP_AT_MAGIC] == PROCESS_STAMP_MAGIC)
        snprintf(found, sizeof found, "the stamp of page %" PRIu64 " step %" PRIu64 ", ending in step %" PRIu64,
                 words[PROCESS_STAMP_AT_PAGE], words[PROCESS_STAMP_AT_STEP], words[PROCESS_STAMP_AT_TAIL]);
    return guest_fail(error, GODWIT_ERR_MISMATCH,
                      "%" PRIu64 " of %" PRIu64 " pages are wrong, the first is page %" PRIu64
                      ": it must hold %s and holds %s",
                      result->wrong, job->counters->pages, page, expected, found);
}

enum godwit_err process_guest_check(const struct process_view *view, const struct process_counters *counters,
                                    struct process_check *out, struct godwit_error *error)
{
    struct check_job job = {.view = view, .counters = counters, .first_wrong = UINT64_MAX};
    *out = (struct process_check){0};
    if (view->size != counters->pages * GODWIT_PAGE_SIZE)
        return guest_fail(error, GODWIT_ERR_MISMATCH,
                          "the memory has %" PRIu64 " bytes, the counters speak of %" PRIu64 " pages", view->size,
                          counters->pages);
    for (unsigned i = 0; i < counters->threads; i++)
        process_order_init(&job.order[i], counters->pages, counters->hot_pages, counters->threads, i);
    enum godwit_err err = parallel_run(counters->pages, 512, 0, check_slice, &job, error);
    *out = (struct process_check){job.compared, job.skipped, job.wrong, job.first_wrong};
    if (!err && out->wrong)
        err = check_describe(&job, out, error);
    return err;
}
