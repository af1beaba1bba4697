/* One virtual processor: its descriptor, the page it shares with the kernel, and all of its state that migrates. */
#ifndef GUEST_KVM_CPU_H
#define GUEST_KVM_CPU_H

#include <linux/kvm.h>

#include <godwit/error.h>

#include "guest/kvm_vm.h"

struct kvm_cpu {
    int fd;
    unsigned index;
    struct kvm_run *run;
    size_t run_size;
};

/* The payload uses neither MSRs nor interrupts nor the local APIC, so these are not here. */
struct kvm_cpu_state {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_fpu fpu;
    struct kvm_mp_state mp;
};

/* Processor `index` of the machine. kvm_cpu_free gives it back and leaves it all zeros. */
enum godwit_err kvm_cpu_new(struct kvm_cpu *cpu, const struct kvm_vm *vm, unsigned index, struct godwit_error *error);
void kvm_cpu_free(struct kvm_cpu *cpu);

/* Only while nobody runs the processor, and not between an I/O exit and the run that completes it. */
enum godwit_err kvm_cpu_save(const struct kvm_cpu *cpu, struct kvm_cpu_state *out, struct godwit_error *error);

/* GUEST when the kernel refuses the state. */
enum godwit_err kvm_cpu_load(const struct kvm_cpu *cpu, const struct kvm_cpu_state *state, struct godwit_error *error);

#endif
