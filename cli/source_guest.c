#include "cli/source_guest.h"

#include <stdlib.h>
#include <time.h>

#include "cli/check.h"
#include "guest/idle.h"
#include "guest/kvm.h"
#include "transport/clock.h"
#include "transport/error.h"

enum { LOOK_INTERVAL_NS = 2 * 1000 * 1000, RUNS_TIMEOUT_MS = 2000 };

struct source_guest {
    struct process_guest *process; /* exactly one is set */
    struct kvm_guest *kvm;
    struct idle_guest *idle;
    struct witness *witness; /* the process guest's; NULL: none */
};

static enum godwit_err new_process(struct source_guest *guest, const struct guest_options *options,
                                   struct godwit_error *error)
{
    struct process_guest_config config;
    process_guest_config_init(&config);
    config.ram = options->ram;
    config.memory_from = options->memory_from;
    config.pattern = (enum pattern)options->pattern;
    config.dirty_rate = options->dirty_rate;
    config.hot_set = options->hot_set;
    config.backing = (enum memory_backing)options->backing;
    config.tracker = (enum godwit_tracker_kind)options->tracker;
    if (options->witness) {
        enum godwit_err err = witness_open(options->witness, WITNESS_SOURCE, &guest->witness, error);
        if (err)
            return err;
        config.witness = guest->witness;
    }
    enum godwit_err err = process_guest_new_source(&guest->process, &config, error);
    return err ? err : process_guest_start(guest->process, error);
}

static enum godwit_err new_kvm(struct source_guest *guest, const struct guest_options *options,
                               struct godwit_error *error)
{
    struct kvm_guest_config config;
    guest_options_kvm(options, &config);
    enum godwit_err err = kvm_guest_new_source(&guest->kvm, &config, error);
    if (!err)
        err = kvm_guest_start(guest->kvm, error);
    return err ? error_prefix(error, "--guest kvm") : GODWIT_OK;
}

static enum godwit_err new_idle(struct source_guest *guest, const struct guest_options *options,
                                struct godwit_error *error)
{
    struct idle_guest_config config;
    idle_guest_config_init(&config);
    config.memory_from = options->memory_from;
    config.ram = options->ram;
    if (!options->memory_from) {
        config.pattern = (enum pattern)options->pattern;
        config.backing = (enum memory_backing)options->backing;
    }
    return idle_guest_new(&guest->idle, &config, error);
}

enum godwit_err source_guest_new(const struct guest_options *options, struct source_guest **out,
                                 struct godwit_error *error)
{
    struct source_guest *guest = calloc(1, sizeof *guest);
    if (!guest)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a guest");
    enum godwit_err err = options->type == GUEST_IDLE  ? new_idle(guest, options, error)
                          : options->type == GUEST_KVM ? new_kvm(guest, options, error)
                                                       : new_process(guest, options, error);
    if (err) {
        source_guest_free(guest);
        return err;
    }
    *out = guest;
    return GODWIT_OK;
}

void source_guest_free(struct source_guest *guest)
{
    if (!guest)
        return;
    process_guest_free(guest->process);
    kvm_guest_free(guest->kvm);
    idle_guest_free(guest->idle);
    witness_close(guest->witness);
    free(guest);
}

const struct godwit_guest *source_guest_interface(const struct source_guest *guest)
{
    if (guest->kvm)
        return kvm_guest_interface(guest->kvm);
    return guest->process ? process_guest_interface(guest->process) : idle_guest_interface(guest->idle);
}

uint64_t source_guest_steps(const struct process_counters *counters)
{
    uint64_t steps = 0;
    for (unsigned worker = 0; worker < counters->threads; worker++)
        steps += counters->steps[worker];
    return steps;
}

const char *source_guest_tracker(const struct source_guest *guest)
{
    if (!guest || !guest->process)
        return NULL;
    return godwit_tracker_kind_name(process_guest_tracker(guest->process));
}

bool source_guest_counters(const struct source_guest *guest, struct process_counters *out)
{
    if (guest->process)
        process_guest_counters(guest->process, out);
    else if (guest->kvm)
        kvm_guest_counters(guest->kvm, out);
    return guest->process || guest->kvm;
}

bool source_guest_runs(const struct source_guest *guest, int timeout_ms)
{
    struct process_counters before, now;
    if (!source_guest_counters(guest, &before) || before.rate == 0)
        return true;
    uint64_t deadline = clock_now_ms() + (uint64_t)timeout_ms;
    do {
        source_guest_counters(guest, &now);
        if (source_guest_steps(&now) != source_guest_steps(&before))
            return true;
        nanosleep(&(struct timespec){.tv_nsec = LOOK_INTERVAL_NS}, NULL);
    } while (clock_left_ms(deadline) > 0);
    return false;
}

enum godwit_err source_guest_check(struct source_guest *guest, struct report_check *out, struct godwit_error *error)
{
    *out = (struct report_check){.runs = source_guest_runs(guest, RUNS_TIMEOUT_MS)};
    return check_process(guest->process, out, error);
}

const char *source_guest_fate(const struct source_guest *guest)
{
    if (!guest)
        return "";
    return source_guest_runs(guest, RUNS_TIMEOUT_MS) ? "; the guest runs on at the source"
                                                     : "; the guest stands still at the source";
}
