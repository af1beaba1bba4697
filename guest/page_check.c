#include "guest/page_check.h"

#include <inttypes.h>
#include <stdatomic.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/guest_error.h"
#include "guest/parallel.h"

struct check_job {
    const struct process_view *view;
    page_judge_fn *judge;
    const void *context;
    /* Added up by each slice at its end. */
    _Atomic uint64_t count[PAGE_SKIPPED + 1]; /* by verdict */
    _Atomic uint64_t wrong_holes, first_wrong;
};

/* What one slice has found. */
struct slice_count {
    uint64_t count[PAGE_SKIPPED + 1];
    uint64_t wrong_holes, first_wrong;
};

static void judge_page(const struct check_job *job, uint64_t page, const void *content, struct slice_count *found)
{
    enum page_verdict verdict = job->judge(job->context, page, content);
    if (verdict == PAGE_WRONG && found->count[PAGE_WRONG] == 0)
        found->first_wrong = page;
    found->count[verdict]++;
}

static enum godwit_err walk(const struct check_job *job, uint64_t page, uint64_t end, struct slice_count *found,
                            struct godwit_error *error)
{
    const struct process_view *view = job->view;
    const uint64_t zeros[GODWIT_PAGE_SIZE / sizeof(uint64_t)] = {0};
    while (page < end) {
        uint64_t first, pages;
        enum godwit_err err = godwit_memory_next_data(view->addr, end * GODWIT_PAGE_SIZE, view->fd, 0, page, &first,
                                                      &pages, error);
        if (err)
            return err;
        uint64_t data = pages ? first : end, wrong = found->count[PAGE_WRONG];
        for (; page < data; page++)
            judge_page(job, page, zeros, found);
        found->wrong_holes += found->count[PAGE_WRONG] - wrong;
        for (; page < data + pages; page++)
            judge_page(job, page, (const char *)view->addr + page * GODWIT_PAGE_SIZE, found);
    }
    return GODWIT_OK;
}

static enum godwit_err check_slice(void *context, uint64_t page, uint64_t end, struct godwit_error *error)
{
    struct check_job *job = context;
    struct slice_count found = {.first_wrong = UINT64_MAX};
    enum godwit_err err = walk(job, page, end, &found, error);
    for (unsigned verdict = 0; verdict <= PAGE_SKIPPED; verdict++)
        atomic_fetch_add_explicit(&job->count[verdict], found.count[verdict], memory_order_relaxed);
    atomic_fetch_add_explicit(&job->wrong_holes, found.wrong_holes, memory_order_relaxed);
    uint64_t first = atomic_load_explicit(&job->first_wrong, memory_order_relaxed);
    while (found.first_wrong < first && !atomic_compare_exchange_weak(&job->first_wrong, &first, found.first_wrong))
        ;
    return err;
}

enum godwit_err page_check_all(const struct process_view *view, uint64_t pages, page_judge_fn *judge,
                               const void *context, struct process_check *out, struct godwit_error *error)
{
    struct check_job job = {.view = view, .judge = judge, .context = context, .first_wrong = UINT64_MAX};
    *out = (struct process_check){0};
    if (view->size != pages * GODWIT_PAGE_SIZE)
        return guest_fail(error, GODWIT_ERR_MISMATCH,
                          "the memory has %" PRIu64 " bytes, the guest's state speaks of %" PRIu64 " pages", view->size,
                          pages);
    enum godwit_err err = parallel_run(pages, 512, 0, check_slice, &job, error);
    *out = (struct process_check){.pages = job.count[PAGE_RIGHT] + job.count[PAGE_WRONG],
                                  .skipped = job.count[PAGE_SKIPPED],
                                  .wrong = job.count[PAGE_WRONG],
                                  .wrong_holes = job.wrong_holes,
                                  .first_wrong = job.first_wrong};
    return err;
}
