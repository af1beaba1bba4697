/* A virtual machine of KVM with one memory slot from address 0. */
#ifndef GUEST_KVM_VM_H
#define GUEST_KVM_VM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <godwit/error.h>

struct kvm_vm {
    int kvm;                  /* /dev/kvm */
    int fd;                   /* the machine, -1: none */
    size_t run_size;          /* bytes of a processor's shared page */
    struct kvm_cpuid2 *cpuid; /* what this host can give a processor */
    unsigned cpus_max;
    unsigned dirty_caps; /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 */
    void *addr;          /* of the slot */
    uint64_t size;
};

/*
 * Opens /dev/kvm and sees whether it can do what this guest needs. UNSUPPORTED or SYSTEM, naming the device, the cause
 * and the remedy. vm is empty after a failure; kvm_vm_close gives everything back.
 */
enum godwit_err kvm_vm_open(struct kvm_vm *vm, struct godwit_error *error);
void kvm_vm_close(struct kvm_vm *vm); /* an empty one is allowed */

/* Creates the machine with [addr, addr + size) as its memory, which stays mapped until kvm_vm_destroy. */
enum godwit_err kvm_vm_create(struct kvm_vm *vm, void *addr, uint64_t size, struct godwit_error *error);
void kvm_vm_destroy(struct kvm_vm *vm); /* its processors must be gone */

/* Turns the slot's dirty log on or off. */
enum godwit_err kvm_vm_log(const struct kvm_vm *vm, bool on, struct godwit_error *error);

/* ioctl() with EINTR taken as "again"; -1 and errno otherwise. */
int kvm_vm_ioctl(int fd, unsigned long request, void *argument);

#endif
