/*
 * `godwit recv`: listens and receives guest after guest, or one.
 *
 * Happy path: listen, say where, serve, keep the dump, report, again. With --guest process or kvm the guest that
 * arrives runs on here, so it is the last one. Failure modes: a failed migration is one line and the next may come;
 * SIGINT and SIGTERM cancel the one under way and end the command.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/progress.h"
#include "cli/receiver.h"
#include "cli/report.h"
#include "cli/watch.h"
#include "transport/error.h"

enum {
    LINGER_MS = 10000,
    LINGER_LOOK_MS = 100,
    RUN_ON_MS = 1000,    /* how long --once watches a guest that runs on */
    RETRY_PAUSE_MS = 50, /* a serve that fails at once, again and again, must not burn a processor */
    BOUND_URI_MAX = 320,
};

struct recv_settings {
    const char *dump;
    bool discard;
    const char *memory_from;
    bool prealloc;
    bool once;
    const char *witness;
    bool check;
    unsigned type; /* enum receiver_type */
    bool json;
};

static const char *const type_names[] = {[RECEIVER_SINK] = "sink", [RECEIVER_PROCESS] = "process",
                                         [RECEIVER_KVM] = "kvm", NULL};

#define FIELD(name) offsetof(struct recv_settings, name)

static const struct arg_spec recv_specs[] = {
    {.name = "guest", .kind = ARG_CHOICE, .offset = FIELD(type), .choices = type_names, .standard = "sink",
     .summary = "sink: takes any guest and keeps its memory; process, kvm: really runs a guest of this kind on"},
    {.name = "dump", .kind = ARG_TEXT, .offset = FIELD(dump), .value = "FILE",
     .summary = "keep the memory in FILE; it is FILE.partial until the migration has succeeded"},
    {.name = "discard", .kind = ARG_FLAG, .offset = FIELD(discard), .summary = "do not keep the memory"},
    {.name = "memory-from", .kind = ARG_TEXT, .offset = FIELD(memory_from), .value = "FILE",
     .summary = "what the memory holds before the guest arrives"},
    {.name = "prealloc", .kind = ARG_FLAG, .offset = FIELD(prealloc),
     .summary = "have all memory, or the dump's disk space, before the first page arrives"},
    {.name = "once", .kind = ARG_FLAG, .offset = FIELD(once), .summary = "end after one migration, with its exit code"},
    {.name = "witness", .kind = ARG_TEXT, .offset = FIELD(witness), .value = "FILE",
     .summary = "append to FILE when a process guest runs, about every millisecond"},
    {.name = "check", .kind = ARG_FLAG, .offset = FIELD(check),
     .summary = "with --once: after a process guest ran on here, stop it and check its memory"},
    {.name = "json", .kind = ARG_FLAG, .offset = FIELD(json),
     .summary = "one JSON object per migration on stdout instead of the table"},
};

static const struct arg_command recv_args = {
    .name = "recv",
    .synopsis = "URI [--channels N] [--dump FILE | --discard] [--memory-from FILE] [--prealloc] [--once] "
                "[migration options] [--json]",
    .summary = "Listens at URI and receives guests until it is interrupted. A port of 0 lets the system choose one.",
    .groups = {{.title = "Receive:", .specs = recv_specs, .count = sizeof recv_specs / sizeof *recv_specs}},
    .group_count = 1,
    .takes_uri = true,
    .side = GODWIT_SIDE_DESTINATION,
    .other_side = "send",
};

struct recv {
    struct recv_settings settings;
    struct godwit_options *options;
    const char *uri;
    int signal_fd;
    bool interrupted;
    atomic_bool visited; /* a source has come since serve began; the engine's thread sets it */
    struct progress progress;
    struct receiver *receiver;
    struct godwit_destination *destination;
    struct godwit_info info;
};

static void on_event(void *opaque, const struct godwit_event *event)
{
    struct recv *recv = opaque;
    if (event->kind == GODWIT_EVENT_WARNING)
        progress_say(&recv->progress, "godwit: warning: %s", event->text);
    else if (event->kind == GODWIT_EVENT_MIGRATION && event->value == GODWIT_STATUS_SETUP)
        atomic_store(&recv->visited, true);
}

static void query(void *object, struct godwit_info *info)
{
    godwit_destination_query(object, info);
}

static void cancel(void *object)
{
    godwit_destination_cancel(object);
}

/* What we know ends with us: a source that lost RUN, or the answer to it, is waited for, unless
 * a signal, perhaps the second one, says enough. */
static void linger(struct recv *recv)
{
    for (int waited = 0; waited < LINGER_MS; waited += LINGER_LOOK_MS) {
        if (godwit_destination_linger(recv->destination, LINGER_LOOK_MS))
            return;
        if (watch_signalled(recv->signal_fd, 0)) {
            recv->interrupted = true;
            return;
        }
    }
}

/* One migration, from waiting for a source to a dump that has its name. */
static enum godwit_err serve(struct recv *recv, struct godwit_error *error)
{
    struct watch_subject subject = {.query = query, .cancel = cancel, .object = recv->destination};
    struct watch *watch;
    enum godwit_err err = watch_start(recv->signal_fd, &recv->progress, &subject, &watch, error);
    if (err)
        return err;
    atomic_store(&recv->visited, false);
    err = godwit_destination_serve(recv->destination, error);
    recv->interrupted = watch_stop(watch);
    if (recv->settings.once || (!err && recv->settings.type != RECEIVER_SINK))
        linger(recv);
    progress_reset(&recv->progress);
    godwit_destination_query(recv->destination, &recv->info);
    if (err)
        return err;
    err = receiver_keep(recv->receiver, error);
    return err ? error_prefix(error, "the guest was received and let go by the source, but") : GODWIT_OK;
}

/* Interrupted while it waited for a source: the ordinary end of a service, nothing failed. */
static bool was_idle(struct recv *recv, enum godwit_err err)
{
    return err == GODWIT_ERR_CANCELLED && recv->interrupted && !atomic_load(&recv->visited);
}

static bool report(struct recv *recv, enum godwit_err err, const struct godwit_error *error,
                   const struct report_check *check)
{
    struct report_guest guest = {.type = type_names[recv->settings.type]};
    if (recv->receiver)
        receiver_report(recv->receiver, &guest);
    struct report report = {.side = REPORT_DESTINATION, .info = &recv->info, .error = err ? error : NULL,
                            .guest = &guest, .guest_gap_ms = -1, .check = check, .dump = recv->settings.dump};
    if (err)
        command_complain("%s", error->text);
    return report_print(&report, recv->settings.json);
}

/* The guest has moved in: let it run, with --once for as long as it takes to see that it does. */
static void run_on(struct recv *recv)
{
    if (recv->interrupted)
        ; /* enough */
    else if (recv->settings.once)
        recv->interrupted = watch_signalled(recv->signal_fd, RUN_ON_MS);
    else
        while (!watch_signalled(recv->signal_fd, -1))
            continue;
    progress_say(&recv->progress, "the guest ran on and wrote %" PRIu64 " pages", receiver_steps(recv->receiver));
}

/* The guest has run on: its memory must be what its counters say. */
static enum godwit_err check(struct recv *recv, struct report_check *out)
{
    struct godwit_error error = {0};
    if (receiver_check(recv->receiver, out, &error))
        command_complain("%s", error.text);
    return error.code;
}

static int serve_all(struct recv *recv)
{
    for (;;) {
        struct godwit_error error = {0};
        enum godwit_err err = serve(recv, &error);
        if (!recv->settings.once && was_idle(recv, err))
            return COMMAND_DONE;
        if (!err && recv->settings.check) {
            struct report_check found;
            run_on(recv);
            err = check(recv, &found);
            bool printed = report(recv, GODWIT_OK, NULL, &found);
            return err || !printed ? COMMAND_FAILED : COMMAND_DONE;
        }
        bool printed = report(recv, err, &error, NULL);
        if (!err && recv->settings.type != RECEIVER_SINK)
            run_on(recv);
        else if (!recv->settings.once && !recv->interrupted &&
                 (!err || !watch_signalled(recv->signal_fd, RETRY_PAUSE_MS)))
            continue;
        return err || !printed ? COMMAND_FAILED : COMMAND_DONE;
    }
}

static int open_and_serve(struct recv *recv)
{
    struct godwit_error error = {0};
    struct receiver_config config = {
        .type = (enum receiver_type)recv->settings.type, .dump = recv->settings.dump, .discard = recv->settings.discard,
        .memory_from = recv->settings.memory_from, .prealloc = recv->settings.prealloc,
        .witness = recv->settings.witness,
    };
    char bound[BOUND_URI_MAX] = "";
    enum godwit_err err = receiver_new(&config, &recv->receiver, &error);
    if (!err)
        err = godwit_destination_new(receiver_interface(recv->receiver), recv->options, on_event, recv,
                                     &recv->destination, &error);
    if (!err)
        err = godwit_destination_listen(recv->destination, recv->uri, bound, sizeof bound, &error);
    if (err == GODWIT_ERR_INVALID) {
        command_complain("%s", error.text);
        return COMMAND_USAGE;
    }
    if (err) {
        report(recv, err, &error, NULL);
        return COMMAND_FAILED;
    }
    progress_say(&recv->progress, "listening on %s", bound);
    return serve_all(recv);
}

static int recv_perform(struct recv *recv)
{
    recv->signal_fd = watch_block_signals();
    if (recv->signal_fd < 0) {
        command_complain("cannot receive signals: %s", strerror(errno));
        return COMMAND_FAILED;
    }
    progress_init(&recv->progress, PROGRESS_DESTINATION);
    int code = open_and_serve(recv);
    godwit_destination_free(recv->destination);
    receiver_free(recv->receiver);
    progress_fini(&recv->progress);
    close(recv->signal_fd);
    return code;
}

/* What the table cannot say: options that exclude each other. NULL: all is well. */
static const char *contradiction(const struct recv_settings *settings)
{
    if (settings->dump && settings->discard)
        return "--dump keeps the memory and --discard does not: use one";
    if (settings->type != RECEIVER_SINK && (settings->dump || settings->discard || settings->memory_from))
        return "--guest process and kvm run the guest on: leave --dump, --discard and --memory-from out";
    if (settings->type != RECEIVER_PROCESS && (settings->witness || settings->check))
        return "--witness and --check are about the process guest: use --guest process";
    if (settings->check && !settings->once)
        return "--check ends the guest: use --once";
    return NULL;
}

static int recv_run(int argc, char *const argv[])
{
    struct recv *recv = calloc(1, sizeof *recv);
    int code = COMMAND_FAILED;
    if (!recv || !(recv->options = godwit_options_new())) {
        command_complain("out of memory");
        goto end;
    }
    struct arg_command args = recv_args;
    args.groups[0].settings = &recv->settings;
    args.options = recv->options;
    struct args_result result;
    if (!command_begin(&args, argc, argv, &result, &code))
        goto end;
    const char *wrong = contradiction(&recv->settings);
    if (wrong) {
        command_complain("%s", wrong);
        code = COMMAND_USAGE;
        goto end;
    }
    recv->uri = result.uri;
    code = recv_perform(recv);
end:
    if (recv)
        godwit_options_free(recv->options);
    free(recv);
    return code;
}

const struct command recv_command = {.args = &recv_args, .run = recv_run};
