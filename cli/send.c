/*
 * `godwit send`: makes a guest, lets it run, and migrates it to a destination that listens.
 *
 * Happy path: the guest runs there, stands here, and is given up. Failure modes: a failed or cancelled migration leaves
 * the guest running here, which is checked and said before it ends with this process; an outcome nobody knows is held
 * (hold.c).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/guest_options.h"
#include "cli/hold.h"
#include "cli/migration.h"
#include "cli/report.h"
#include "cli/source_guest.h"
#include "cli/watch.h"
#include "transport/error.h"

struct send_settings {
    bool check;
    bool json;
};

static const struct arg_spec send_specs[] = {
    {.name = "check", .kind = ARG_FLAG, .offset = offsetof(struct send_settings, check),
     .summary = "after a failure stop the process guest, which ran on here, and check its memory"},
    {.name = "json", .kind = ARG_FLAG, .offset = offsetof(struct send_settings, json),
     .summary = "one JSON object on stdout instead of the table"},
};

static const struct arg_command send_args = {
    .name = "send",
    .synopsis = "URI [--channels N] [guest options] [migration options] [--json]",
    .summary = "Makes a guest and migrates it to the destination that listens at URI.",
    .groups = {{.title = "Send:", .specs = send_specs, .count = sizeof send_specs / sizeof *send_specs},
               {.title = "Guest:", .specs = guest_option_specs, .count = GUEST_OPTION_COUNT}},
    .group_count = 2,
    .takes_uri = true,
    .side = GODWIT_SIDE_SOURCE,
    .other_side = "recv",
};

struct send {
    struct send_settings settings;
    struct guest_options guest_options;
    struct godwit_options *options;
    const char *uri;
    int signal_fd;
    struct progress progress;
    struct source_guest *guest;
    struct godwit_info info;
};

static enum godwit_err hold(struct send *send, struct migration *migration, struct godwit_error *error)
{
    enum hold_end end = hold_guest(migration_source(migration), send->signal_fd, error);
    if (end == HOLD_QUIT)
        return GODWIT_ERR_OUTCOME_UNKNOWN;
    if (end == HOLD_RUNS_THERE)
        return GODWIT_OK;
    error->code = GODWIT_ERR_PEER_FAILED; /* the outcome is known now */
    return error->code;
}

static enum godwit_err migrate(struct send *send, struct godwit_error *error)
{
    struct migration *migration;
    enum godwit_err err = migration_new(source_guest_interface(send->guest), send->options, &send->progress, &migration,
                                        error);
    if (err)
        return err;
    err = migration_run(migration, send->uri, send->signal_fd, error);
    if (err == GODWIT_ERR_OUTCOME_UNKNOWN)
        err = hold(send, migration, error);
    godwit_source_query(migration_source(migration), &send->info);
    migration_free(migration);
    return err;
}

/* True when there was something to check. */
static bool check(struct send *send, struct report_check *out)
{
    struct godwit_error error = {0};
    if (source_guest_check(send->guest, out, &error))
        command_complain("%s", error.text);
    return error.code == GODWIT_OK || out->pages > 0;
}

static int conclude(struct send *send, enum godwit_err err, const struct godwit_error *error)
{
    struct report_guest guest;
    guest_options_report(&send->guest_options, &guest);
    guest.tracker = source_guest_tracker(send->guest);
    struct report report = {.side = REPORT_SOURCE, .info = &send->info, .error = err ? error : NULL, .guest = &guest,
                            .guest_gap_ms = -1};
    if (err == GODWIT_ERR_OUTCOME_UNKNOWN)
        command_complain("the outcome is unknown: the guest may run on the destination, here it is given up");
    else if (err)
        command_complain("%s%s", error->text, source_guest_fate(send->guest));
    struct report_check checked;
    if (send->settings.check && send->guest && err && err != GODWIT_ERR_OUTCOME_UNKNOWN && check(send, &checked))
        report.check = &checked;
    bool printed = report_print(&report, send->settings.json);
    if (err == GODWIT_ERR_OUTCOME_UNKNOWN)
        return COMMAND_OUTCOME_UNKNOWN;
    return !err && printed ? COMMAND_DONE : COMMAND_FAILED;
}

static int send_perform(struct send *send)
{
    struct godwit_error error = {0};
    send->signal_fd = watch_block_signals();
    if (send->signal_fd < 0) {
        command_complain("cannot receive signals: %s", strerror(errno));
        return COMMAND_FAILED;
    }
    progress_init(&send->progress, PROGRESS_SOURCE);
    enum godwit_err err = source_guest_new(&send->guest_options, &send->guest, &error);
    if (!err)
        err = migrate(send, &error);
    progress_fini(&send->progress);
    int code = conclude(send, err, &error);
    source_guest_free(send->guest);
    close(send->signal_fd);
    return code;
}

static int send_run(int argc, char *const argv[])
{
    struct send *send = calloc(1, sizeof *send);
    int code = COMMAND_FAILED;
    if (!send || !(send->options = godwit_options_new())) {
        command_complain("out of memory");
        goto end;
    }
    guest_options_init(&send->guest_options);

    struct arg_command args = send_args;
    args.groups[0].settings = &send->settings;
    args.groups[1].settings = &send->guest_options;
    args.options = send->options;
    struct args_result result;
    if (!command_begin(&args, argc, argv, &result, &code))
        goto end;
    struct godwit_error error = {0};
    if (send->settings.check && send->guest_options.type != GUEST_PROCESS)
        error_set(&error, GODWIT_ERR_INVALID, "--check is about the process guest: use --guest process");
    if (error.code || guest_options_settle(&send->guest_options, 0, &error)) {
        command_complain("%s", error.text);
        code = COMMAND_USAGE;
        goto end;
    }
    send->uri = result.uri;
    code = send_perform(send);
end:
    if (send)
        godwit_options_free(send->options);
    free(send);
    return code;
}

const struct command send_command = {.args = &send_args, .run = send_run};
