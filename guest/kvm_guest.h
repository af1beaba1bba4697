/* The KVM guest's struct, private to kvm.c (its life, both roles), kvm_source.c and kvm_destination.c. */
#ifndef GUEST_KVM_GUEST_H
#define GUEST_KVM_GUEST_H

#include "guest/kvm.h"
#include "guest/kvm_cpu.h"
#include "guest/kvm_dirty.h"
#include "guest/kvm_threads.h"

enum kvm_stream { KVM_STREAM_MACHINE, KVM_STREAM_CPU, KVM_STREAM_CLOCK, KVM_STREAMS };

struct kvm_guest {
    struct memory ram;  /* what is migrated, or received into */
    struct memory view; /* keep_image: what the machine writes; otherwise empty */
    struct kvm_vm vm;
    struct kvm_dirty dirty;
    struct kvm_cpu cpus[KVM_CPUS_MAX]; /* plan.threads of them, or none */
    struct kvm_threads threads;
    struct process_counters plan; /* as configured, or as loaded */
    struct process_clock clock;
    struct incoming_config destination;
    bool loaded[KVM_STREAMS];
    struct godwit_block block;
    struct godwit_guest interface;
};

extern const char *const kvm_guest_streams[KVM_STREAMS];

/* A guest without memory and machine, with KVM open. */
enum godwit_err kvm_guest_allocate(struct kvm_guest **out, const struct godwit_guest_ops *ops,
                                   struct godwit_error *error);

/* Creates plan.threads processors, in the state of a processor that was just switched on. None are left on failure. */
enum godwit_err kvm_guest_make_cpus(struct kvm_guest *guest, struct godwit_error *error);

/* Operations that both roles have. */
enum godwit_err kvm_guest_stop(void *self, struct godwit_error *error);
enum godwit_err kvm_guest_resume(void *self, struct godwit_error *error);
void kvm_guest_discard(void *self);

#endif
