#include "cli/receiver.h"

#include <stdlib.h>

#include "cli/check.h"
#include "cli/source_guest.h"
#include "guest/kvm.h"
#include "guest/process.h"
#include "guest/sink.h"
#include "transport/error.h"

struct receiver {
    struct receiver_config config;
    struct process_guest *process; /* at most one is set: the guest that was offered last */
    struct kvm_guest *kvm;
    struct sink_guest *sink;
    struct witness *witness; /* NULL: none */
    uint64_t ram; /* bytes offered */
    struct godwit_guest interface;
};

static void drop(struct receiver *receiver)
{
    process_guest_free(receiver->process);
    kvm_guest_free(receiver->kvm);
    sink_guest_free(receiver->sink);
    receiver->process = NULL;
    receiver->kvm = NULL;
    receiver->sink = NULL;
}

static enum sink_mode sink_mode(const struct receiver_config *config)
{
    if (config->discard)
        return SINK_DISCARD;
    return config->dump ? SINK_DUMP : SINK_MEMORY;
}

static enum godwit_err new_kvm(struct receiver *receiver, struct godwit_error *error)
{
    struct incoming_config config;
    incoming_config_init(&config);
    config.prealloc = receiver->config.prealloc;
    enum godwit_err err = kvm_guest_new_destination(&receiver->kvm, &config, error);
    return err ? error_prefix(error, "--guest kvm") : GODWIT_OK;
}

static enum godwit_err renew(struct receiver *receiver, struct godwit_error *error)
{
    const struct receiver_config *config = &receiver->config;
    drop(receiver);
    if (config->type == RECEIVER_PROCESS) {
        struct process_destination_config process;
        process_destination_config_init(&process);
        process.memory.prealloc = config->prealloc;
        process.witness = receiver->witness;
        return process_guest_new_destination(&receiver->process, &process, error);
    }
    if (config->type == RECEIVER_KVM)
        return new_kvm(receiver, error);
    struct sink_guest_config sink;
    sink_guest_config_init(&sink);
    sink.mode = sink_mode(config);
    sink.dump = config->dump;
    sink.memory_from = config->memory_from;
    sink.prealloc = config->prealloc;
    return sink_guest_new(&receiver->sink, &sink, error);
}

/* The guest at hand; there is one from receiver_new on, unless a later renew failed. */
static const struct godwit_guest *inner(const struct receiver *receiver)
{
    if (receiver->kvm)
        return kvm_guest_interface(receiver->kvm);
    return receiver->process ? process_guest_interface(receiver->process) : sink_guest_interface(receiver->sink);
}

static enum godwit_err receiver_accept(void *self, const struct godwit_block *offered, unsigned count,
                                       struct godwit_block *mine, struct godwit_error *error)
{
    struct receiver *receiver = self;
    enum godwit_err err = renew(receiver, error);
    if (err)
        return err;
    receiver->ram = 0;
    for (unsigned i = 0; i < count; i++)
        receiver->ram += offered[i].size;
    const struct godwit_guest *guest = inner(receiver);
    return guest->ops->accept(guest->self, offered, count, mine, error);
}

static enum godwit_err receiver_load(void *self, const char *stream, const void *data, size_t size,
                                     struct godwit_error *error)
{
    const struct godwit_guest *guest = inner(self);
    return guest->ops->load(guest->self, stream, data, size, error);
}

static enum godwit_err receiver_resume(void *self, struct godwit_error *error)
{
    const struct godwit_guest *guest = inner(self);
    return guest->ops->resume(guest->self, error);
}

static void receiver_discard(void *self)
{
    struct receiver *receiver = self;
    if (!receiver->process && !receiver->kvm && !receiver->sink)
        return; /* the guest could not even be made */
    const struct godwit_guest *guest = inner(receiver);
    guest->ops->discard(guest->self);
}

static const struct godwit_guest_ops receiver_ops = {
    .accept = receiver_accept,
    .load = receiver_load,
    .resume = receiver_resume,
    .discard = receiver_discard,
};

enum godwit_err receiver_new(const struct receiver_config *config, struct receiver **out, struct godwit_error *error)
{
    struct receiver *receiver = calloc(1, sizeof *receiver);
    if (!receiver)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a guest");
    receiver->config = *config;
    receiver->interface = (struct godwit_guest){.ops = &receiver_ops, .self = receiver};
    enum godwit_err err = GODWIT_OK;
    if (config->witness)
        err = witness_open(config->witness, WITNESS_DESTINATION, &receiver->witness, error);
    if (!err)
        err = renew(receiver, error);
    if (err) {
        witness_close(receiver->witness);
        free(receiver);
        return err;
    }
    *out = receiver;
    return GODWIT_OK;
}

void receiver_free(struct receiver *receiver)
{
    if (!receiver)
        return;
    drop(receiver);
    witness_close(receiver->witness);
    free(receiver);
}

const struct godwit_guest *receiver_interface(const struct receiver *receiver)
{
    return &receiver->interface;
}

enum godwit_err receiver_keep(struct receiver *receiver, struct godwit_error *error)
{
    return receiver->sink ? sink_guest_commit(receiver->sink, error) : GODWIT_OK;
}

uint64_t receiver_steps(const struct receiver *receiver)
{
    struct process_counters loaded, now;
    if (receiver->process && process_guest_loaded(receiver->process, &loaded))
        process_guest_counters(receiver->process, &now);
    else if (receiver->kvm && kvm_guest_loaded(receiver->kvm, &loaded))
        kvm_guest_counters(receiver->kvm, &now);
    else
        return 0;
    return source_guest_steps(&now) - source_guest_steps(&loaded);
}

enum godwit_err receiver_check(struct receiver *receiver, struct report_check *out, struct godwit_error *error)
{
    *out = (struct report_check){.runs = receiver_steps(receiver) > 0};
    return check_process(receiver->process, out, error);
}

void receiver_report(const struct receiver *receiver, struct report_guest *out)
{
    *out = (struct report_guest){.type = receiver->process ? "process" : receiver->kvm ? "kvm" : "sink",
                                 .ram = receiver->ram};
}
