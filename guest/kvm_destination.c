/*
 * The KVM guest as a destination.
 *
 * Happy path: accept allocates what is offered and makes the machine around it; load makes the processors (the plan
 * says how many) and gives them their registers, so that whatever KVM refuses is refused before the guest has run;
 * resume starts the threads and nothing else. After discard a destination is as new and may accept again.
 *
 * Failure modes: memory that cannot be had, an offer that is not one block "pc.ram", state that no such guest writes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "guest/guest_error.h"
#include "guest/kvm_guest.h"
#include "guest/kvm_state.h"
#include "guest/process_workers.h"

static enum godwit_err kvm_accept(void *self, const struct godwit_block *offered, unsigned count,
                                  struct godwit_block *mine, struct godwit_error *error)
{
    struct kvm_guest *guest = self;
    enum godwit_err err = incoming_accept(&guest->destination, "KVM", offered, count, &guest->ram, &guest->view, error);
    if (err)
        return err;
    err = kvm_vm_create(&guest->vm, kvm_guest_memory(guest), guest->ram.size, error);
    if (err) {
        kvm_guest_discard(guest);
        return err;
    }
    incoming_describe(&guest->destination, &guest->ram, &mine[0]);
    return GODWIT_OK;
}

static enum godwit_err kvm_load_machine(struct kvm_guest *guest, const void *data, size_t size,
                                        struct godwit_error *error)
{
    if (guest->loaded[KVM_STREAM_MACHINE])
        return guest_fail(error, GODWIT_ERR_GUEST, "the guest's machine came twice");
    enum godwit_err err = kvm_plan_load(&guest->plan, data, size, guest->ram.size / GODWIT_PAGE_SIZE, error);
    return err ? err : kvm_guest_make_cpus(guest, error);
}

static enum godwit_err kvm_load_cpus(struct kvm_guest *guest, const void *data, size_t size, struct godwit_error *error)
{
    if (!guest->loaded[KVM_STREAM_MACHINE])
        return guest_fail(error, GODWIT_ERR_GUEST, "the guest's processors came before its machine");
    struct kvm_cpu_state *states = calloc(guest->plan.threads, sizeof *states);
    if (!states)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for registers");
    struct process_counters plan = guest->plan;
    enum godwit_err err = kvm_cpus_decode(states, plan.steps, &plan, data, size, error);
    for (unsigned i = 0; i < plan.threads && !err; i++)
        err = kvm_cpu_load(&guest->cpus[i], &states[i], error);
    free(states);
    if (!err)
        guest->plan = plan;
    return err;
}

static enum godwit_err kvm_load_clock(struct kvm_guest *guest, const void *data, size_t size,
                                      struct godwit_error *error)
{
    uint64_t ns;
    enum godwit_err err = kvm_clock_decode(&ns, &guest->clock, data, size, process_now(), error);
    struct kvm_clock_data clock = {.clock = err ? 0 : ns};
    if (!err && kvm_vm_ioctl(guest->vm.fd, KVM_SET_CLOCK, &clock) < 0)
        err = guest_fail_sys(error, GODWIT_ERR_GUEST, errno, "the kernel refuses the guest's clock");
    return err;
}

static enum godwit_err kvm_load(void *self, const char *stream, const void *data, size_t size,
                                struct godwit_error *error)
{
    struct kvm_guest *guest = self;
    enum godwit_err err;
    unsigned which = 0;
    while (which < KVM_STREAMS && strcmp(stream, kvm_guest_streams[which]) != 0)
        which++;
    if (which == KVM_STREAM_MACHINE)
        err = kvm_load_machine(guest, data, size, error);
    else if (which == KVM_STREAM_CPU)
        err = kvm_load_cpus(guest, data, size, error);
    else if (which == KVM_STREAM_CLOCK)
        err = kvm_load_clock(guest, data, size, error);
    else
        return guest_fail(error, GODWIT_ERR_GUEST, "a KVM guest has no device \"%s\"", stream);
    guest->loaded[which] = guest->loaded[which] || !err;
    return err;
}

static const struct godwit_guest_ops kvm_destination_ops = {
    .stop = kvm_guest_stop,
    .resume = kvm_guest_resume,
    .accept = kvm_accept,
    .load = kvm_load,
    .discard = kvm_guest_discard,
};

enum godwit_err kvm_guest_new_destination(struct kvm_guest **out, const struct incoming_config *config,
                                          struct godwit_error *error)
{
    enum godwit_err err = incoming_config_check(config, error);
    if (!err)
        err = kvm_guest_allocate(out, &kvm_destination_ops, error);
    if (!err)
        (*out)->destination = *config;
    return err;
}
