/* The single-step rule, a part of kvm_guest_check(), which see in kvm.h. */
#ifndef GUEST_KVM_CHECK_H
#define GUEST_KVM_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/kvm_plan.h"
#include "guest/process_check.h"

/* What the single-step rule found in one share. */
struct kvm_step {
    uint8_t first;  /* counter of the first page */
    uint64_t place; /* pages that have it; those behind it have one less. 0: all have the same */
    uint64_t bad;   /* the first page that breaks the rule, where it is broken */
};

/*
 * QEMU's rule (tests/qtest/migration: check_guests_ram): the first bytes of a share's pages are all equal, or drop by
 * exactly one, modulo 256, at one single place. False: broken. Holes count as zeros and are not touched.
 */
bool kvm_check_step(const struct process_view *view, const struct kvm_share *share, struct kvm_step *out);

#endif
