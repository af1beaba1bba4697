/*
 * The check of a KVM guest's memory. The rule alone looks at counters and needs nothing but memory; it finds a stale or
 * a lost page. It cannot see that all of memory is a round too old, nor a page in another's place: that is found by the
 * registers, and by comparing whole pages.
 */
#include "guest/kvm_check.h"

#include <inttypes.h>
#include <string.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/guest_error.h"
#include "guest/kvm.h"
#include "guest/kvm_payload.h"

static const uint8_t *page_at(const struct process_view *view, uint64_t page)
{
    return (const uint8_t *)view->addr + page * GODWIT_PAGE_SIZE;
}

/* Takes the counters of `pages` pages from `index` on, which are all `value`; false: the rule is broken. */
static bool take(struct kvm_step *step, uint64_t index, uint8_t value)
{
    if (index == 0)
        step->first = value;
    else if (value == (uint8_t)(step->first - 1) && step->place == 0)
        step->place = index;
    else if (value != (uint8_t)(step->first - (step->place != 0))) {
        step->bad = index;
        return false;
    }
    return true;
}

bool kvm_check_step(const struct process_view *view, const struct kvm_share *share, struct kvm_step *out)
{
    *out = (struct kvm_step){0};
    uint64_t page = share->first, end = share->first + share->pages;
    while (page < end) {
        uint64_t data, pages;
        if (godwit_memory_next_data(view->addr, end * GODWIT_PAGE_SIZE, view->fd, 0, page, &data, &pages, NULL)) {
            data = page; /* nobody can say where the holes are */
            pages = end - page;
        }
        data = pages ? data : end;
        for (; page < data; page++)
            if (!take(out, page - share->first, 0))
                goto broken;
        for (; page < data + pages; page++)
            if (!take(out, page - share->first, *page_at(view, page)))
                goto broken;
    }
    return true;
broken:
    out->bad += share->first;
    return false;
}

static enum godwit_err check_share(const struct process_view *view, const struct process_counters *counters,
                                   unsigned cpu, struct godwit_error *error)
{
    struct kvm_share share = kvm_plan_share(counters, cpu);
    struct kvm_step step;
    uint64_t steps = counters->steps[cpu];
    if (!kvm_check_step(view, &share, &step)) {
        uint8_t before = (uint8_t)(step.first - (step.place != 0));
        return guest_fail(
            error, GODWIT_ERR_MISMATCH,
            "the single-step rule is broken in the share of processor %u: the counter is %u from page %" PRIu64
            " on and %u at page %" PRIu64,
            cpu, before, share.first + step.place, *page_at(view, step.bad), step.bad);
    }
    if (step.place != steps % share.pages || step.first != kvm_plan_count(&share, steps, 0))
        return guest_fail(error, GODWIT_ERR_MISMATCH,
                          "processor %u says it has counted page %" PRIu64 " to %u, memory says page %" PRIu64 " to %u",
                          cpu, share.first + steps % share.pages, kvm_plan_count(&share, steps, 0),
                          share.first + step.place, step.first);
    return GODWIT_OK;
}

static enum page_verdict check_page(const void *context, uint64_t page, const void *content)
{
    const struct process_counters *plan = context;
    uint64_t expected[GODWIT_PAGE_SIZE / sizeof(uint64_t)];
    kvm_payload_page(plan, page, expected);
    if (page >= kvm_plan_system(plan->pages)) {
        unsigned cpu = kvm_plan_owner(plan, page);
        struct kvm_share share = kvm_plan_share(plan, cpu);
        *(uint8_t *)expected = kvm_plan_count(&share, plan->steps[cpu], page - share.first);
    }
    return memcmp(content, expected, sizeof expected) == 0 ? PAGE_RIGHT : PAGE_WRONG;
}

enum godwit_err kvm_guest_check(const struct process_view *view, const struct process_counters *counters,
                                struct process_check *out, struct godwit_error *error)
{
    enum godwit_err err = page_check_all(view, counters->pages, check_page, counters, out, error);
    for (unsigned cpu = 0; cpu < counters->threads && !err; cpu++)
        err = check_share(view, counters, cpu, error);
    if (!err && out->wrong)
        err = guest_fail(error, GODWIT_ERR_MISMATCH,
                         "%" PRIu64 " of %" PRIu64 " pages are wrong, the first is page %" PRIu64, out->wrong,
                         out->pages, out->first_wrong);
    return err;
}
