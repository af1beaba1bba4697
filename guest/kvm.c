/*
 * The KVM guest: its life, and what both roles do.
 *
 * Failure modes here: no usable KVM, processors that cannot be had, a guest that is to run before all of it has
 * arrived.
 *
 * Teardown: threads, then processors, then the log (which may want to turn itself off), then the machine, then the
 * memory that it maps.
 */
#include "guest/kvm_guest.h"

#include <stdlib.h>
#include <string.h>

#include "guest/guest_error.h"

const char *const kvm_guest_streams[KVM_STREAMS] = {
    [KVM_STREAM_MACHINE] = "machine", [KVM_STREAM_CPU] = "cpu", [KVM_STREAM_CLOCK] = "clock"};

static void kvm_free_cpus(struct kvm_guest *guest)
{
    for (unsigned i = 0; i < KVM_CPUS_MAX; i++)
        kvm_cpu_free(&guest->cpus[i]);
}

enum godwit_err kvm_guest_make_cpus(struct kvm_guest *guest, struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i < guest->plan.threads && !err; i++)
        err = kvm_cpu_new(&guest->cpus[i], &guest->vm, i, error);
    if (err)
        kvm_free_cpus(guest);
    return err;
}

enum godwit_err kvm_guest_allocate(struct kvm_guest **out, const struct godwit_guest_ops *ops,
                                   struct godwit_error *error)
{
    /* Aligned for the threads' cache lines. */
    struct kvm_guest *guest = aligned_alloc(_Alignof(struct kvm_guest), sizeof *guest);
    if (!guest)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for a guest");
    *guest = (struct kvm_guest){.ram = {.fd = -1}, .view = {.fd = -1}};
    guest->interface = (struct godwit_guest){
        .ops = ops, .self = guest, .blocks = &guest->block, .streams = kvm_guest_streams, .stream_count = KVM_STREAMS};
    process_clock_init(&guest->clock);
    enum godwit_err err = kvm_vm_open(&guest->vm, error);
    if (err)
        free(guest);
    else
        *out = guest;
    return err;
}

enum godwit_err kvm_guest_stop(void *self, struct godwit_error *error)
{
    struct kvm_guest *guest = self;
    enum godwit_err err = kvm_threads_park(&guest->threads, error);
    kvm_dirty_freeze(&guest->dirty, true);
    return err;
}

enum godwit_err kvm_guest_resume(void *self, struct godwit_error *error)
{
    struct kvm_guest *guest = self;
    kvm_dirty_freeze(&guest->dirty, false);
    if (kvm_threads_started(&guest->threads)) {
        kvm_threads_unpark(&guest->threads);
        return GODWIT_OK;
    }
    for (unsigned i = 0; i < KVM_STREAMS; i++)
        if (!guest->loaded[i])
            return guest_fail(error, GODWIT_ERR_GUEST, "the guest cannot run: its %s did not arrive",
                              kvm_guest_streams[i]);
    return kvm_threads_start(&guest->threads, guest->cpus, &guest->plan, &guest->clock, error);
}

void kvm_guest_discard(void *self)
{
    struct kvm_guest *guest = self;
    kvm_threads_stop(&guest->threads);
    kvm_free_cpus(guest);
    kvm_dirty_fini(&guest->dirty);
    kvm_vm_destroy(&guest->vm);
    memory_free(&guest->view);
    memory_free(&guest->ram);
    memset(guest->loaded, 0, sizeof guest->loaded);
}

enum godwit_err kvm_guest_start(struct kvm_guest *guest, struct godwit_error *error)
{
    if (kvm_threads_started(&guest->threads))
        return guest_fail(error, GODWIT_ERR_BUSY, "the guest runs already");
    return kvm_threads_start(&guest->threads, guest->cpus, &guest->plan, &guest->clock, error);
}

void kvm_guest_free(struct kvm_guest *guest)
{
    if (!guest)
        return;
    kvm_guest_discard(guest);
    kvm_vm_close(&guest->vm);
    free(guest);
}

const struct godwit_guest *kvm_guest_interface(const struct kvm_guest *guest)
{
    return &guest->interface;
}

void kvm_guest_counters(const struct kvm_guest *guest, struct process_counters *out)
{
    if (kvm_threads_started(&guest->threads))
        kvm_threads_counters(&guest->threads, out);
    else
        *out = guest->plan;
}

bool kvm_guest_loaded(const struct kvm_guest *guest, struct process_counters *out)
{
    if (guest->loaded[KVM_STREAM_CPU])
        *out = guest->plan;
    return guest->loaded[KVM_STREAM_CPU];
}

/* Is the page that was a processor's next on arrival no longer as it arrived? Written meanwhile: read once. */
static bool has_moved(const struct kvm_guest *guest, unsigned cpu)
{
    struct kvm_share share = kvm_plan_share(&guest->plan, cpu);
    uint64_t steps = guest->plan.steps[cpu], index = steps % share.pages;
    const volatile uint8_t *counter = kvm_guest_memory(guest);
    return counter[(share.first + index) * GODWIT_PAGE_SIZE] != kvm_plan_count(&share, steps, index);
}

bool kvm_guest_alive(const struct kvm_guest *guest)
{
    if (!guest->loaded[KVM_STREAM_CPU] || !kvm_threads_started(&guest->threads) || guest->plan.rate == 0)
        return false;
    for (unsigned cpu = 0; cpu < guest->plan.threads; cpu++)
        if (guest->threads.thread[cpu].rate && !has_moved(guest, cpu))
            return false;
    return true;
}

struct process_view kvm_guest_image(const struct kvm_guest *guest)
{
    return (struct process_view){guest->ram.addr, guest->ram.size, guest->ram.fd};
}

void *kvm_guest_memory(const struct kvm_guest *guest)
{
    return guest->view.addr ? guest->view.addr : guest->ram.addr;
}

void kvm_guest_gap(const struct kvm_guest *guest, struct process_gap *out)
{
    process_clock_gap(&guest->clock, out);
}
