/*
 * What the virtual processors of a KVM guest do: pure arithmetic, and the "machine" stream that tells another host.
 *
 * Memory begins with the system pages: the payload's code, then its page tables. The rest is cut into one contiguous
 * share per processor, and each processor increments the first byte of every page of its share, page after page, round
 * after round. After s steps in a share of n pages the first s mod n pages are one ahead of the others.
 *
 * The plan is a struct process_counters like that of the process guest: threads are processors, there is no hot set.
 */
#ifndef GUEST_KVM_PLAN_H
#define GUEST_KVM_PLAN_H

#include <stdint.h>

#include <godwit/error.h>

#include "guest/process_plan.h"

enum {
    KVM_CPUS_MAX = PROCESS_WORKERS_MAX,
    KVM_PLAN_STATE = 4 + 4 + 4 + 3 * 8,
    KVM_PAGE_CODE = 0, /* then PML4, page directory pointers, and a page directory for each GiB */
    KVM_PAGE_PML4,
    KVM_PAGE_POINTERS,
    KVM_PAGE_DIRECTORIES,
};

#define KVM_RAM_MAX (1ull << 39) /* what one page of page directory pointers maps */

struct kvm_share {
    uint64_t first; /* page */
    uint64_t pages;
};

/* The pages before the first share, for a memory of `pages`. */
uint64_t kvm_plan_system(uint64_t pages);

struct kvm_share kvm_plan_share(const struct process_counters *plan, unsigned cpu);

/* The processor that increments a page; the page is not a system page. */
unsigned kvm_plan_owner(const struct process_counters *plan, uint64_t page);

/* What the first byte of page `index` of a share holds after `steps` steps. */
static inline uint8_t kvm_plan_count(const struct kvm_share *share, uint64_t steps, uint64_t index)
{
    return (uint8_t)(steps / share->pages + (index < steps % share->pages));
}

/* INVALID with a remedy for processors, memory or content that no KVM guest has. steps are not looked at. */
enum godwit_err kvm_plan_check(const struct process_counters *plan, struct godwit_error *error);

/* The stream holds everything but the steps, which are in the registers. */
void kvm_plan_save(const struct process_counters *plan, uint8_t out[KVM_PLAN_STATE]);

/* Foreign bytes: checked like a configuration, and against the memory that was accepted. *out only on success. */
enum godwit_err kvm_plan_load(struct process_counters *out, const void *data, size_t size, uint64_t pages,
                              struct godwit_error *error);

#endif
