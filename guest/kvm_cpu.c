/*
 * A virtual processor. Failure modes: more processors than the host allows, no memory, and state that the kernel does
 * not accept, which is how a corrupted or hostile migration ends.
 */
#include "guest/kvm_cpu.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest/guest_error.h"

static enum godwit_err cpu_map(struct kvm_cpu *cpu, const struct kvm_vm *vm, struct godwit_error *error)
{
    void *run = mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, cpu->fd, 0);
    if (run == MAP_FAILED)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot map processor %u of the machine", cpu->index);
    cpu->run = run;
    cpu->run_size = vm->run_size;
    if (kvm_vm_ioctl(cpu->fd, KVM_SET_CPUID2, vm->cpuid) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot give processor %u its features", cpu->index);
    return GODWIT_OK;
}

enum godwit_err kvm_cpu_new(struct kvm_cpu *cpu, const struct kvm_vm *vm, unsigned index, struct godwit_error *error)
{
    if (index >= vm->cpus_max)
        return guest_fail(error, GODWIT_ERR_INVALID, "KVM of this host allows %u processors in a machine",
                          vm->cpus_max);
    *cpu = (struct kvm_cpu){.index = index};
    cpu->fd = kvm_vm_ioctl(vm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)index);
    if (cpu->fd < 0) {
        *cpu = (struct kvm_cpu){0};
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot create processor %u of the machine", index);
    }
    enum godwit_err err = cpu_map(cpu, vm, error);
    if (err)
        kvm_cpu_free(cpu);
    return err;
}

void kvm_cpu_free(struct kvm_cpu *cpu)
{
    if (cpu->run)
        munmap(cpu->run, cpu->run_size);
    if (cpu->fd > 0) /* 0 is none: /dev/kvm was opened before and would have it */
        close(cpu->fd);
    *cpu = (struct kvm_cpu){0};
}

enum godwit_err kvm_cpu_save(const struct kvm_cpu *cpu, struct kvm_cpu_state *out, struct godwit_error *error)
{
    if (kvm_vm_ioctl(cpu->fd, KVM_GET_REGS, &out->regs) < 0 || kvm_vm_ioctl(cpu->fd, KVM_GET_SREGS, &out->sregs) < 0 ||
        kvm_vm_ioctl(cpu->fd, KVM_GET_FPU, &out->fpu) < 0 || kvm_vm_ioctl(cpu->fd, KVM_GET_MP_STATE, &out->mp) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot read the registers of processor %u", cpu->index);
    return GODWIT_OK;
}

enum godwit_err kvm_cpu_load(const struct kvm_cpu *cpu, const struct kvm_cpu_state *state, struct godwit_error *error)
{
    struct kvm_cpu_state copy = *state; /* the interface is not const */
    if (kvm_vm_ioctl(cpu->fd, KVM_SET_SREGS, &copy.sregs) < 0 || kvm_vm_ioctl(cpu->fd, KVM_SET_REGS, &copy.regs) < 0 ||
        kvm_vm_ioctl(cpu->fd, KVM_SET_FPU, &copy.fpu) < 0 || kvm_vm_ioctl(cpu->fd, KVM_SET_MP_STATE, &copy.mp) < 0)
        return guest_fail_sys(error, GODWIT_ERR_GUEST, errno, "the kernel refuses the registers of processor %u",
                              cpu->index);
    return GODWIT_OK;
}
