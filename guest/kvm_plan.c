/* Shares are cut like slices of a loaf: page boundaries at pages * i / n, so that sizes differ by one page at most. */
#include "guest/kvm_plan.h"

#include <inttypes.h>

#include <godwit/guest.h>

#include "guest/guest_error.h"
#include "guest/process_pace.h"
#include "guest/state_codec.h"

enum { KVM_PLAN_VERSION = 1 };

#define GIB_PAGES ((1ull << 30) / GODWIT_PAGE_SIZE)

uint64_t kvm_plan_system(uint64_t pages)
{
    return KVM_PAGE_DIRECTORIES + (pages + GIB_PAGES - 1) / GIB_PAGES;
}

struct kvm_share kvm_plan_share(const struct process_counters *plan, unsigned cpu)
{
    uint64_t system = kvm_plan_system(plan->pages), free = plan->pages - system;
    uint64_t begin = free * cpu / plan->threads, end = free * (cpu + 1) / plan->threads;
    return (struct kvm_share){.first = system + begin, .pages = end - begin};
}

unsigned kvm_plan_owner(const struct process_counters *plan, uint64_t page)
{
    uint64_t system = kvm_plan_system(plan->pages), free = plan->pages - system;
    unsigned cpu = (unsigned)((page - system) * plan->threads / free);
    /* Rounding down twice: the guess is one too low where the share begins exactly at the page. */
    while (cpu + 1 < plan->threads && page >= kvm_plan_share(plan, cpu + 1).first)
        cpu++;
    return cpu;
}

enum godwit_err kvm_plan_check(const struct process_counters *plan, struct godwit_error *error)
{
    if (plan->threads < 1 || plan->threads > KVM_CPUS_MAX)
        return guest_fail(error, GODWIT_ERR_INVALID, "a KVM guest has 1 to %d processors, not %u", KVM_CPUS_MAX,
                          plan->threads);
    if (plan->pages > KVM_RAM_MAX / GODWIT_PAGE_SIZE)
        return guest_fail(error, GODWIT_ERR_INVALID,
                          "a KVM guest has at most %llu bytes of memory, not %" PRIu64 " pages", KVM_RAM_MAX,
                          plan->pages);
    uint64_t least = kvm_plan_system(plan->pages) + plan->threads;
    if (plan->pages < least)
        return guest_fail(error, GODWIT_ERR_INVALID,
                          "a KVM guest with %u processors needs at least %" PRIu64 " bytes of memory", plan->threads,
                          least * GODWIT_PAGE_SIZE);
    if (plan->rate > PROCESS_PACE_RATE_MAX)
        return guest_fail(error, GODWIT_ERR_INVALID, "a KVM guest cannot write %" PRIu64 " pages per second",
                          plan->rate);
    if (plan->pattern >= PATTERN_FILE)
        return guest_fail(error, GODWIT_ERR_INVALID, "a KVM guest's memory has generated content, not that of a file");
    return GODWIT_OK;
}

void kvm_plan_save(const struct process_counters *plan, uint8_t out[KVM_PLAN_STATE])
{
    struct state_cursor cursor = {out, out + KVM_PLAN_STATE, false};
    state_put(&cursor, KVM_PLAN_VERSION, 4);
    state_put(&cursor, (uint64_t)plan->pattern, 4);
    state_put(&cursor, plan->threads, 4);
    state_put(&cursor, plan->pages, 8);
    state_put(&cursor, plan->rate, 8);
    state_put(&cursor, plan->seed, 8);
}

enum godwit_err kvm_plan_load(struct process_counters *out, const void *data, size_t size, uint64_t pages,
                              struct godwit_error *error)
{
    struct state_reader reader = {data, (const uint8_t *)data + size, false};
    uint64_t version = state_get(&reader, 4), pattern = state_get(&reader, 4), cpus = state_get(&reader, 4);
    struct process_counters plan = {.pages = state_get(&reader, 8)};
    plan.rate = state_get(&reader, 8);
    plan.seed = state_get(&reader, 8);
    if (!state_done(&reader))
        return guest_fail(error, GODWIT_ERR_GUEST, "the KVM machine has %zu bytes of state instead of %d", size,
                          KVM_PLAN_STATE);
    if (version != KVM_PLAN_VERSION)
        return guest_fail(error, GODWIT_ERR_GUEST,
                          "the KVM machine has state of version %" PRIu64 ", this side knows %d", version,
                          KVM_PLAN_VERSION);
    if (plan.pages != pages)
        return guest_fail(error, GODWIT_ERR_GUEST,
                          "the KVM machine knows a memory of %" PRIu64 " pages, this one has %" PRIu64, plan.pages,
                          pages);
    plan.pattern = pattern < PATTERN_COUNT ? (enum pattern)pattern : PATTERN_COUNT;
    plan.threads = cpus <= KVM_CPUS_MAX ? (unsigned)cpus : KVM_CPUS_MAX + 1u;
    if (kvm_plan_check(&plan, error)) {
        if (error)
            error->code = GODWIT_ERR_GUEST; /* invalid there, a broken peer here */
        return GODWIT_ERR_GUEST;
    }
    *out = plan;
    return GODWIT_OK;
}
