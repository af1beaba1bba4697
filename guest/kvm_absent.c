/* The KVM guest where it cannot be: its payload is x86-64 code. What makes one says so; the rest is never reached. */
#include "guest/kvm.h"

#include "guest/guest_error.h"

static enum godwit_err absent(struct godwit_error *error)
{
    return guest_fail(error, GODWIT_ERR_UNSUPPORTED, "needs an x86-64 host: use --guest process");
}

void kvm_guest_config_init(struct kvm_guest_config *config)
{
    *config = (struct kvm_guest_config){.pattern = PATTERN_RANDOM, .cpus = KVM_GUEST_CPUS, .seed = 1};
}

enum godwit_err kvm_guest_config_check(const struct kvm_guest_config *config, struct godwit_error *error)
{
    return absent(error);
}

enum godwit_err kvm_guest_new_source(struct kvm_guest **out, const struct kvm_guest_config *config,
                                     struct godwit_error *error)
{
    return absent(error);
}

enum godwit_err kvm_guest_new_destination(struct kvm_guest **out, const struct incoming_config *config,
                                          struct godwit_error *error)
{
    return absent(error);
}

enum godwit_err kvm_guest_start(struct kvm_guest *guest, struct godwit_error *error)
{
    return absent(error);
}

void kvm_guest_free(struct kvm_guest *guest)
{
}

const struct godwit_guest *kvm_guest_interface(const struct kvm_guest *guest)
{
    return NULL;
}

void kvm_guest_counters(const struct kvm_guest *guest, struct process_counters *out)
{
    *out = (struct process_counters){0};
}

bool kvm_guest_loaded(const struct kvm_guest *guest, struct process_counters *out)
{
    return false;
}

bool kvm_guest_alive(const struct kvm_guest *guest)
{
    return false;
}

struct process_view kvm_guest_image(const struct kvm_guest *guest)
{
    return (struct process_view){.fd = -1};
}

void *kvm_guest_memory(const struct kvm_guest *guest)
{
    return NULL;
}

void kvm_guest_gap(const struct kvm_guest *guest, struct process_gap *out)
{
    *out = (struct process_gap){0};
}

enum godwit_err kvm_guest_check(const struct process_view *view, const struct process_counters *counters,
                                struct process_check *out, struct godwit_error *error)
{
    *out = (struct process_check){0};
    return absent(error);
}
