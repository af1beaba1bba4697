/*
 * The KVM guest as a source.
 *
 * Happy path: memory, machine, processors at the payload's begin; the migration arms the dirty log, syncs it, parks the
 * processors, syncs once more and saves plan, registers and clock. Failure modes: bad configurations, memory that
 * cannot be had, and KVM's refusals.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <godwit/tracker.h>

#include "guest/guest_error.h"
#include "guest/kvm_guest.h"
#include "guest/kvm_payload.h"
#include "guest/kvm_state.h"

_Static_assert((int)KVM_GUEST_CLEARED_EAGERLY == (int)KVM_DIRTY_EAGER &&
                   (int)KVM_GUEST_CLEARED_LAZILY == (int)KVM_DIRTY_LAZY &&
                   (int)KVM_GUEST_CLEARED_BEST == (int)KVM_DIRTY_LAZY_SET,
               "the public names are those of kvm_dirty.h");

static enum godwit_err log_start(void *self, struct godwit_error *error)
{
    struct kvm_guest *guest = self;
    return kvm_dirty_start(&guest->dirty, error);
}

static enum godwit_err log_sync(void *self, unsigned block, uint64_t *bitmap, struct godwit_error *error)
{
    struct kvm_guest *guest = self;
    return kvm_dirty_sync(&guest->dirty, bitmap, error);
}

static enum godwit_err log_clear(void *self, unsigned block, uint64_t first, uint64_t pages, struct godwit_error *error)
{
    struct kvm_guest *guest = self;
    return kvm_dirty_clear(&guest->dirty, first, pages, error);
}

static void log_stop(void *self)
{
    struct kvm_guest *guest = self;
    kvm_dirty_stop(&guest->dirty);
}

static enum godwit_err kvm_next_data(void *self, unsigned block, uint64_t from, uint64_t *first, uint64_t *pages,
                                     struct godwit_error *error)
{
    const struct kvm_guest *guest = self;
    return godwit_memory_next_data(guest->ram.addr, guest->ram.size, guest->ram.fd, 0, from, first, pages, error);
}

static enum godwit_err kvm_save_cpus(struct kvm_guest *guest, struct godwit_state_writer *writer,
                                     struct godwit_error *error)
{
    size_t size = kvm_cpus_state_size(guest->plan.threads);
    struct kvm_cpu_state *states = calloc(guest->plan.threads, sizeof *states);
    uint8_t *bytes = malloc(size);
    enum godwit_err err = states && bytes ? GODWIT_OK
                                          : guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for registers");
    for (unsigned i = 0; i < guest->plan.threads && !err; i++)
        err = kvm_cpu_save(&guest->cpus[i], &states[i], error);
    if (!err) {
        kvm_cpus_encode(states, guest->plan.threads, bytes);
        err = godwit_state_write(writer, bytes, size);
        if (err)
            guest_fail(error, err, "cannot save the guest's processors");
    }
    free(bytes);
    free(states);
    return err;
}

static enum godwit_err kvm_save_clock(struct kvm_guest *guest, struct godwit_state_writer *writer,
                                      struct godwit_error *error)
{
    uint8_t bytes[KVM_CLOCK_STATE];
    struct kvm_clock_data data = {0};
    if (kvm_vm_ioctl(guest->vm.fd, KVM_GET_CLOCK, &data) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot read the guest's clock");
    kvm_clock_encode(data.clock, &guest->clock, bytes);
    enum godwit_err err = godwit_state_write(writer, bytes, sizeof bytes);
    return err ? guest_fail(error, err, "cannot save the guest's clock") : GODWIT_OK;
}

static enum godwit_err kvm_save_rest(void *self, unsigned stream, struct godwit_state_writer *writer,
                                     struct godwit_error *error)
{
    struct kvm_guest *guest = self;
    uint8_t bytes[KVM_PLAN_STATE];
    if (stream == KVM_STREAM_CPU)
        return kvm_save_cpus(guest, writer, error);
    if (stream == KVM_STREAM_CLOCK)
        return kvm_save_clock(guest, writer, error);
    kvm_plan_save(&guest->plan, bytes);
    enum godwit_err err = godwit_state_write(writer, bytes, sizeof bytes);
    return err ? guest_fail(error, err, "cannot save the guest's machine") : GODWIT_OK;
}

static const struct godwit_guest_ops kvm_source_ops = {
    .dirty_start = log_start,
    .dirty_sync = log_sync,
    .dirty_clear = log_clear,
    .dirty_stop = log_stop,
    .next_data = kvm_next_data,
    .stop = kvm_guest_stop,
    .resume = kvm_guest_resume,
    .save_rest = kvm_save_rest,
};

void kvm_guest_config_init(struct kvm_guest_config *config)
{
    *config = (struct kvm_guest_config){.pattern = PATTERN_RANDOM,
                                        .backing = MEMORY_MEMFD,
                                        .cpus = KVM_GUEST_CPUS,
                                        .seed = 1,
                                        .clearing = KVM_GUEST_CLEARED_BEST};
}

static enum godwit_err kvm_configure(struct process_counters *plan, const struct kvm_guest_config *config,
                                     struct godwit_error *error)
{
    uint64_t rate = config->dirty_rate / GODWIT_PAGE_SIZE;
    *plan = (struct process_counters){
        .pages = config->ram / GODWIT_PAGE_SIZE,
        .rate = config->dirty_rate && !rate ? 1 : rate,
        .seed = config->seed,
        .pattern = config->pattern,
        .threads = config->cpus,
    };
    return kvm_plan_check(plan, error);
}

enum godwit_err kvm_guest_config_check(const struct kvm_guest_config *config, struct godwit_error *error)
{
    struct process_counters plan;
    return kvm_configure(&plan, config, error);
}

static enum godwit_err kvm_build(struct kvm_guest *guest, const struct kvm_guest_config *config,
                                 struct godwit_error *error)
{
    enum godwit_err err = kvm_configure(&guest->plan, config, error);
    if (!err)
        err = memory_alloc(&guest->ram, config->backing, config->ram, config->prealloc, error);
    if (!err)
        err = kvm_payload_fill(&guest->plan, guest->ram.addr, guest->ram.fd, error);
    if (!err)
        err = kvm_vm_create(&guest->vm, guest->ram.addr, guest->ram.size, error);
    if (!err)
        err = kvm_dirty_init(&guest->dirty, &guest->vm, guest->ram.fd, (enum kvm_dirty_mode)config->clearing, error);
    if (!err)
        err = kvm_guest_make_cpus(guest, error);
    for (unsigned i = 0; i < guest->plan.threads && !err; i++) {
        struct kvm_cpu_state state;
        err = kvm_cpu_save(&guest->cpus[i], &state, error);
        if (!err) {
            kvm_payload_start(&guest->plan, i, &state.regs, &state.sregs);
            state.mp.mp_state = KVM_MP_STATE_RUNNABLE; /* all but the first wait to be told, where there is an APIC */
            err = kvm_cpu_load(&guest->cpus[i], &state, error);
        }
    }
    return err;
}

enum godwit_err kvm_guest_new_source(struct kvm_guest **out, const struct kvm_guest_config *config,
                                     struct godwit_error *error)
{
    struct kvm_guest *guest;
    enum godwit_err err = kvm_guest_allocate(&guest, &kvm_source_ops, error);
    if (err)
        return err;
    err = kvm_build(guest, config, error);
    if (err) {
        kvm_guest_free(guest);
        return err;
    }
    guest->block = (struct godwit_block){.id = MEMORY_BLOCK_ID,
                                         .addr = guest->ram.addr,
                                         .size = guest->ram.size,
                                         .fd = guest->ram.fd,
                                         .page_size = guest->ram.page_size,
                                         .content = GODWIT_BLOCK_USED};
    guest->interface.block_count = 1;
    *out = guest;
    return GODWIT_OK;
}
