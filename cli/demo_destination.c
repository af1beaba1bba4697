/*
 * The demo's destination.
 *
 * Happy path: listen, tell the address, serve, wait for the guest to move, note its clock, fingerprint the image and
 * check it against the counters that arrived, tell, linger. The guest's threads run on a private view, so the image
 * stays what it was at switchover. SIGINT and SIGTERM stay blocked here: Ctrl-C reaches both processes, and the
 * source's cancel is what ends the migration, in order. Failure modes: all are told through the account; whoever
 * started us kills us otherwise.
 */
#include "cli/demo.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/source_guest.h"
#include "guest/kvm.h"
#include "guest/process.h"
#include "guest/sink.h"
#include "transport/clock.h"
#include "transport/error.h"

enum { RUNS_ON_TIMEOUT_MS = 2000, LOOK_INTERVAL_NS = 1000 * 1000, LINGER_MS = 10000 };

struct arrival {
    struct process_guest *process; /* exactly one is set */
    struct kvm_guest *kvm;
    struct sink_guest *sink;
    struct witness *witness; /* NULL: none */
};

static enum godwit_err new_arrival(const struct guest_options *options, struct arrival *out, struct godwit_error *error)
{
    /* An image that stays needs a second mapping of it, which anonymous memory cannot have. */
    enum memory_backing backing = options->backing == MEMORY_HUGETLB ? MEMORY_HUGETLB : MEMORY_MEMFD;
    *out = (struct arrival){0};
    if (options->type == GUEST_IDLE) {
        struct sink_guest_config config;
        sink_guest_config_init(&config);
        config.backing = backing;
        return sink_guest_new(&out->sink, &config, error);
    }
    if (options->type == GUEST_KVM) {
        struct incoming_config config;
        incoming_config_init(&config);
        config.backing = backing;
        config.keep_image = true;
        enum godwit_err err = kvm_guest_new_destination(&out->kvm, &config, error);
        return err ? error_prefix(error, "--guest kvm") : GODWIT_OK;
    }
    struct process_destination_config config;
    process_destination_config_init(&config);
    config.memory.backing = backing;
    config.memory.keep_image = true;
    if (options->witness) {
        enum godwit_err err = witness_open(options->witness, WITNESS_DESTINATION, &out->witness, error);
        if (err)
            return err;
        config.witness = out->witness;
    }
    return process_guest_new_destination(&out->process, &config, error);
}

static const struct godwit_guest *arrival_interface(const struct arrival *arrival)
{
    if (arrival->kvm)
        return kvm_guest_interface(arrival->kvm);
    return arrival->process ? process_guest_interface(arrival->process) : sink_guest_interface(arrival->sink);
}

static bool arrival_loaded(const struct arrival *arrival, struct process_counters *out)
{
    return arrival->kvm ? kvm_guest_loaded(arrival->kvm, out) : process_guest_loaded(arrival->process, out);
}

static void arrival_gap(const struct arrival *arrival, struct process_gap *out)
{
    if (arrival->kvm)
        kvm_guest_gap(arrival->kvm, out);
    else
        process_guest_gap(arrival->process, out);
}

static struct process_view arrival_image(const struct arrival *arrival)
{
    return arrival->kvm ? kvm_guest_image(arrival->kvm) : process_guest_image(arrival->process);
}

static enum godwit_err arrival_check(const struct arrival *arrival, const struct process_counters *loaded,
                                     struct godwit_error *error)
{
    struct process_view image = arrival_image(arrival);
    struct process_check check;
    return arrival->kvm ? kvm_guest_check(&image, loaded, &check, error)
                        : process_guest_check(&image, loaded, &check, error);
}

/* A guest that writes moves its counters, and memory with them; one whose rate is 0 still has a clock that ticks. */
static bool has_moved(const struct arrival *arrival, const struct process_counters *loaded,
                      const struct process_gap *gap)
{
    struct process_counters now;
    if (loaded->rate == 0)
        return gap->switchover_known;
    if (arrival->kvm)
        kvm_guest_counters(arrival->kvm, &now);
    else
        process_guest_counters(arrival->process, &now);
    return source_guest_steps(&now) > source_guest_steps(loaded) && (!arrival->kvm || kvm_guest_alive(arrival->kvm));
}

static void look_at_run(const struct arrival *arrival, struct verify_claim *claim)
{
    struct process_gap gap;
    uint64_t deadline = clock_now_ms() + RUNS_ON_TIMEOUT_MS;
    do {
        arrival_gap(arrival, &gap);
        claim->runs_on = has_moved(arrival, &claim->loaded, &gap);
        if (claim->runs_on && gap.switchover_known)
            break;
        nanosleep(&(struct timespec){.tv_nsec = LOOK_INTERVAL_NS}, NULL);
    } while (clock_left_ms(deadline) > 0);
    claim->guest_gap_ms = gap.switchover_known ? (int64_t)((gap.longest_ns + 999999) / 1000000) : -1;
}

static void claim_running(const struct arrival *arrival, struct verify_prints *prints, struct verify_claim *claim)
{
    claim->has_counters = arrival_loaded(arrival, &claim->loaded);
    if (claim->has_counters)
        look_at_run(arrival, claim); /* before the work below slows the guest's clock down */

    struct process_view image = arrival_image(arrival);
    struct godwit_error error = {0};
    if (verify_prints_take(prints, &image, &error) == GODWIT_OK)
        claim->pages = prints->pages;
    claim->checks = claim->pages && claim->has_counters && arrival_check(arrival, &claim->loaded, &error) == GODWIT_OK;
    if (!claim->checks)
        snprintf(claim->check_text, sizeof claim->check_text, "%s", claim->has_counters ? error.text : "no counters");
}

/* Memory is all there is of an idle guest, so it runs as soon as it was resumed, and any content is right by itself. */
static void claim_idle(const struct sink_guest *sink, struct verify_prints *prints, struct verify_claim *claim)
{
    struct process_view image = verify_view(sink_guest_block(sink, 0));
    struct godwit_error error = {0};
    claim->guest_gap_ms = -1;
    claim->runs_on = true;
    claim->checks = verify_prints_take(prints, &image, &error) == GODWIT_OK;
    if (claim->checks)
        claim->pages = prints->pages;
    else
        snprintf(claim->check_text, sizeof claim->check_text, "%s", error.text);
}

static void warn(void *opaque, const struct godwit_event *event)
{
    if (event->kind == GODWIT_EVENT_WARNING)
        command_complain("warning: destination: %s", event->text);
}

static void tell(struct demo *demo, enum demo_note note)
{
    char byte = (char)note;
    ssize_t written = write(demo->notes[1], &byte, 1);
    (void)written; /* nobody reads: the source is gone, and we go with it */
}

static enum godwit_err serve(struct demo *demo, struct godwit_destination *destination, const struct arrival *arrival,
                             struct godwit_error *error)
{
    struct demo_account *account = demo->account;
    enum godwit_err err = godwit_destination_listen(destination, demo->listen_uri, account->uri, sizeof account->uri,
                                                    error);
    if (err)
        return err;
    tell(demo, DEMO_LISTENS);
    err = godwit_destination_serve(destination, error);
    if (err)
        return err;
    if (arrival->sink)
        claim_idle(arrival->sink, &demo->theirs, &account->claim);
    else
        claim_running(arrival, &demo->theirs, &account->claim);
    tell(demo, DEMO_VERIFIED);
    godwit_destination_linger(destination, LINGER_MS);
    return GODWIT_OK;
}

_Noreturn void demo_destination_run(struct demo *demo)
{
    struct godwit_error *error = &demo->account->error;
    struct arrival arrival;
    struct godwit_destination *destination = NULL;

    prctl(PR_SET_NAME, "godwit-dest");
    enum godwit_err err = new_arrival(demo->guest, &arrival, error);
    if (!err)
        err = godwit_destination_new(arrival_interface(&arrival), demo->options, warn, NULL, &destination, error);
    if (!err)
        err = serve(demo, destination, &arrival, error);
    if (err)
        tell(demo, DEMO_FAILED);
    if (err && destination)
        godwit_destination_linger(destination, LINGER_MS);
    godwit_destination_free(destination);
    process_guest_free(arrival.process);
    kvm_guest_free(arrival.kvm);
    sink_guest_free(arrival.sink);
    witness_close(arrival.witness);
    _exit(err ? COMMAND_FAILED : COMMAND_DONE); /* no atexit: the parent's buffers are not ours to write */
}
