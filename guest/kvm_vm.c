/*
 * Opening KVM and making a machine.
 *
 * Failure modes: no /dev/kvm, no right to it, a kernel that lacks something, no memory for the machine. KVM ties a
 * machine to the process that created it: after a fork the child cannot use it.
 */
#include "guest/kvm_vm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <godwit/guest.h>

#include "guest/guest_error.h"

enum { CPUID_ENTRIES = 256 };

static const char device[] = "/dev/kvm";

static const struct {
    int number;
    const char *name;
} needed[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
};

int kvm_vm_ioctl(int fd, unsigned long request, void *argument)
{
    int result;
    do
        result = ioctl(fd, request, argument);
    while (result < 0 && errno == EINTR);
    return result;
}

/* For requests whose argument is a number. */
static int ask(int fd, unsigned long request, unsigned long number)
{
    return kvm_vm_ioctl(fd, request, (void *)number);
}

static const char *open_remedy(int cause)
{
    switch (cause) {
    case ENOENT:
    case ENXIO:
    case ENODEV: return "load the module kvm_intel or kvm_amd, or turn (nested) virtualization on";
    case EACCES:
    case EPERM: return "join the group that owns it, usually kvm, or run as root";
    default: return "see dmesg";
    }
}

static enum godwit_err vm_open_device(struct kvm_vm *vm, struct godwit_error *error)
{
    char reason[128];
    vm->kvm = open(device, O_RDWR | O_CLOEXEC);
    if (vm->kvm >= 0)
        return GODWIT_OK;
    int cause = errno;
    enum godwit_err err = guest_fail(error, GODWIT_ERR_SYSTEM, "%s: %s: %s", device,
                                     strerror_r(cause, reason, sizeof reason), open_remedy(cause));
    if (error)
        error->sys_errno = cause;
    return err;
}

static enum godwit_err vm_check(struct kvm_vm *vm, struct godwit_error *error)
{
    int version = ask(vm->kvm, KVM_GET_API_VERSION, 0), size = ask(vm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (version < 0)
        return guest_fail_sys(error, GODWIT_ERR_UNSUPPORTED, errno, "%s: does not answer like KVM", device);
    if (version != KVM_API_VERSION || size < (int)sizeof(struct kvm_run))
        return guest_fail(error, GODWIT_ERR_UNSUPPORTED, "%s: speaks version %d of its interface, not %d", device,
                          version, KVM_API_VERSION);
    for (unsigned i = 0; i < sizeof needed / sizeof needed[0]; i++)
        if (ask(vm->kvm, KVM_CHECK_EXTENSION, (unsigned long)needed[i].number) <= 0)
            return guest_fail(error, GODWIT_ERR_UNSUPPORTED, "%s: lacks %s: a newer kernel is needed", device,
                              needed[i].name);
    int most = ask(vm->kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    int caps = ask(vm->kvm, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
    vm->run_size = (size_t)size;
    vm->cpus_max = most > 0 ? (unsigned)most : 4; /* what the interface promises where it does not say */
    vm->dirty_caps = caps > 0 ? (unsigned)caps : 0;
    return GODWIT_OK;
}

static enum godwit_err vm_ask_cpuid(struct kvm_vm *vm, struct godwit_error *error)
{
    vm->cpuid = calloc(1, sizeof *vm->cpuid + CPUID_ENTRIES * sizeof vm->cpuid->entries[0]);
    if (!vm->cpuid)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for a guest");
    vm->cpuid->nent = CPUID_ENTRIES;
    if (kvm_vm_ioctl(vm->kvm, KVM_GET_SUPPORTED_CPUID, vm->cpuid) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "%s: cannot say what processors it can give", device);
    return GODWIT_OK;
}

enum godwit_err kvm_vm_open(struct kvm_vm *vm, struct godwit_error *error)
{
    *vm = (struct kvm_vm){.kvm = -1, .fd = -1};
    enum godwit_err err = vm_open_device(vm, error);
    if (!err)
        err = vm_check(vm, error);
    if (!err)
        err = vm_ask_cpuid(vm, error);
    if (err)
        kvm_vm_close(vm);
    return err;
}

void kvm_vm_close(struct kvm_vm *vm)
{
    if (vm->kvm < 0)
        return;
    kvm_vm_destroy(vm);
    free(vm->cpuid);
    close(vm->kvm);
    *vm = (struct kvm_vm){.kvm = -1, .fd = -1};
}

static int vm_set_slot(const struct kvm_vm *vm, uint32_t flags)
{
    struct kvm_userspace_memory_region region = {
        .flags = flags, .memory_size = vm->size, .userspace_addr = (uintptr_t)vm->addr};
    return kvm_vm_ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
}

enum godwit_err kvm_vm_create(struct kvm_vm *vm, void *addr, uint64_t size, struct godwit_error *error)
{
    vm->fd = ask(vm->kvm, KVM_CREATE_VM, 0);
    if (vm->fd < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "%s: cannot create a virtual machine", device);
    vm->addr = addr;
    vm->size = size;
    if (vm_set_slot(vm, 0) == 0)
        return GODWIT_OK;
    int cause = errno;
    kvm_vm_destroy(vm);
    return guest_fail_sys(error, GODWIT_ERR_SYSTEM, cause, "%s: cannot give a machine %" PRIu64 " bytes of memory",
                          device, size);
}

void kvm_vm_destroy(struct kvm_vm *vm)
{
    if (vm->fd >= 0)
        close(vm->fd);
    vm->fd = -1;
}

enum godwit_err kvm_vm_log(const struct kvm_vm *vm, bool on, struct godwit_error *error)
{
    if (vm_set_slot(vm, on ? KVM_MEM_LOG_DIRTY_PAGES : 0) == 0)
        return GODWIT_OK;
    return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "%s: cannot turn the dirty log %s", device,
                          on ? "on" : "off");
}
