/*
 * The dirty log of a KVM machine, cleared lazily: reading it leaves pages writable, and they are protected again in
 * chunks just before the first of them is read. QEMU does the same (clear-bitmap-shift).
 */
#ifndef GUEST_KVM_DIRTY_H
#define GUEST_KVM_DIRTY_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/error.h>

#include "guest/kvm_vm.h"

enum kvm_dirty_mode {
    KVM_DIRTY_EAGER,    /* reading the log clears it: kernels before 5.0 */
    KVM_DIRTY_LAZY,     /* cleared by us; all memory is protected when the log is turned on */
    KVM_DIRTY_LAZY_SET, /* and all pages count as dirty at first, so that turning it on costs nothing: from 5.7 */
};

struct kvm_dirty {
    const struct kvm_vm *vm;
    enum kvm_dirty_mode mode;
    int memory_fd; /* behind the slot, for its holes; -1 for anonymous memory */
    uint64_t pages;
    uint64_t *pending; /* lazy: reported, and neither cleared nor read since */
    uint64_t *log;     /* where the kernel writes */
    bool on;
    bool frozen; /* nobody writes: clearing can be left out */
};

/* The best mode at most `most` that the host offers. After kvm_vm_create; kvm_dirty_fini before kvm_vm_destroy. */
enum godwit_err kvm_dirty_init(struct kvm_dirty *dirty, const struct kvm_vm *vm, int memory_fd,
                               enum kvm_dirty_mode most, struct godwit_error *error);
void kvm_dirty_fini(struct kvm_dirty *dirty); /* all zeros is allowed */

/* As in <godwit/guest.h>. */
enum godwit_err kvm_dirty_start(struct kvm_dirty *dirty, struct godwit_error *error);
enum godwit_err kvm_dirty_sync(struct kvm_dirty *dirty, uint64_t *bitmap, struct godwit_error *error);
enum godwit_err kvm_dirty_clear(struct kvm_dirty *dirty, uint64_t first, uint64_t pages, struct godwit_error *error);
void kvm_dirty_stop(struct kvm_dirty *dirty);

/* The guest stands still, or runs again. */
void kvm_dirty_freeze(struct kvm_dirty *dirty, bool frozen);

#endif
