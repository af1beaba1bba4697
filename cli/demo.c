/*
 * `godwit demo`: a migration between two processes of this machine, and the proof that it was right.
 *
 * Happy path: fork the destination before any thread exists; wait until it says where it listens; make the guest,
 * migrate it, fingerprint the stopped original, wait for the destination's claim, compare. This process is the source
 * and the judge. Failure modes: the destination crashes (its pipe ends: said so), the migration fails (the destination
 * is killed, it has nothing of value), Ctrl-C (cancels). The destination dies with this process by PR_SET_PDEATHSIG;
 * the folder of a Unix socket is removed on every way out that is not a crash of this process.
 */
#include "cli/demo.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <godwit/devices.h>

#include "cli/command.h"
#include "cli/demo_tls.h"
#include "cli/migration.h"
#include "cli/progress.h"
#include "cli/report.h"
#include "cli/source_guest.h"
#include "cli/watch.h"
#include "transport/clock.h"
#include "transport/error.h"

enum {
    LISTEN_TIMEOUT_MS = 10000,
    CLAIM_TIMEOUT_MS = 60000, /* and a second per GiB */
    OUTCOME_TIMEOUT_MS = 3000,
};

static const uint64_t demo_dirty_rate = 200ull << 20;
static const char demo_channels[] = "4";

enum demo_transport { DEMO_TCP, DEMO_UNIX, DEMO_RDMA };

static const char *const transport_names[] = {[DEMO_TCP] = "tcp", [DEMO_UNIX] = "unix",
                                              [DEMO_RDMA] = "rdma", NULL};

static const char *const tls_names[] = {[DEMO_TLS_NONE] = "none", [DEMO_TLS_X509] = "x509",
                                        [DEMO_TLS_PSK] = "psk", NULL};

struct demo_settings {
    unsigned transport;
    unsigned tls; /* enum demo_tls */
    bool json;
};

static const struct arg_spec demo_specs[] = {
    {.name = "transport", .kind = ARG_CHOICE, .offset = offsetof(struct demo_settings, transport),
     .choices = transport_names, .standard = "tcp", .summary = "between the two processes"},
    {.name = "tls", .kind = ARG_CHOICE, .offset = offsetof(struct demo_settings, tls), .choices = tls_names,
     .implied = "x509", .summary = "encrypt, with certificates or a key made for this run; --tls alone means x509"},
    {.name = "json", .kind = ARG_FLAG, .offset = offsetof(struct demo_settings, json),
     .summary = "one JSON object on stdout instead of the table"},
};

static const struct arg_command demo_args = {
    .name = "demo",
    .synopsis = "[--transport tcp|unix|rdma] [--tls[=x509|psk]] [guest options] [migration options] [--json]",
    .summary = "Migrates a guest between two processes of this machine, here with 4 channels unless told otherwise. "
               "Exits 0 only if every page arrived as it was at switchover and the guest runs on.",
    .groups = {{.title = "Demo:", .specs = demo_specs, .count = sizeof demo_specs / sizeof *demo_specs},
               {.title = "Guest:", .specs = guest_option_specs, .count = GUEST_OPTION_COUNT}},
    .group_count = 2,
    .side = GODWIT_SIDE_BOTH,
};

/* One run, as the source sees it. */
struct run {
    struct demo demo;
    struct godwit_options *options; /* of both sides */
    struct demo_settings settings;
    struct guest_options guest_options;
    char folder[64]; /* of the Unix socket, and of credentials; empty: none */
    int signal_fd;
    struct progress progress;
    struct source_guest *guest;
    struct verify_prints mine;
    struct godwit_info info;
    struct verify_verdict verdict;
    uint64_t verify_ms;
    bool judged;
};

/* An address of the first port that is up. Link-local ones need a scope and are left out. */
static bool port_address(const struct godwit_device_port *port, char *uri, size_t size)
{
    for (unsigned i = 0; i < port->netdev_count && port->state == GODWIT_PORT_ACTIVE; i++)
        for (unsigned k = 0; k < port->netdevs[i].address_count; k++) {
            const char *address = port->netdevs[i].addresses[k];
            int length = (int)strcspn(address, "/");
            if (strncmp(address, "fe80:", 5) == 0)
                continue;
            snprintf(uri, size, strchr(address, ':') ? "rdma:[%.*s]:0" : "rdma:%.*s:0", length, address);
            return true;
        }
    return false;
}

static enum godwit_err find_rdma(char *uri, size_t size, struct godwit_error *error)
{
    struct godwit_device *devices;
    unsigned count;
    bool found = false;
    enum godwit_err err = godwit_devices_list(&devices, &count, error);
    if (err)
        return err;
    for (unsigned i = 0; i < count && !found; i++)
        for (unsigned k = 0; k < devices[i].port_count && !found; k++)
            found = port_address(&devices[i].ports[k], uri, size);
    godwit_devices_free(devices, count);
    return found ? GODWIT_OK
                 : error_set(error, GODWIT_ERR_UNSUPPORTED,
                             "no RDMA device of this host has a port that is up and an address (see godwit devices)");
}

static enum godwit_err make_folder(struct run *run, struct godwit_error *error)
{
    snprintf(run->folder, sizeof run->folder, "/tmp/godwit-demo-XXXXXX");
    if (mkdtemp(run->folder))
        return GODWIT_OK;
    run->folder[0] = '\0';
    return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot make a folder in /tmp");
}

static enum godwit_err prepare(struct run *run, struct godwit_error *error)
{
    struct demo *demo = &run->demo;
    void *account = mmap(NULL, sizeof *demo->account, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (account == MAP_FAILED)
        return error_set_sys(error, GODWIT_ERR_NO_MEMORY, errno, "cannot map memory to share with the destination");
    demo->account = account;
    if (pipe(demo->notes) != 0)
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot make a pipe to the destination");
    enum godwit_err err = verify_prints_init(&demo->theirs, error);
    if (!err)
        err = verify_prints_init(&run->mine, error);
    if (err)
        return err;
    if (run->settings.transport == DEMO_UNIX || run->settings.tls != DEMO_TLS_NONE)
        err = make_folder(run, error);
    if (!err && run->settings.tls != DEMO_TLS_NONE)
        err = demo_tls_make(run->settings.tls, run->folder, run->options, error);
    if (err)
        return err;
    if (run->settings.transport == DEMO_RDMA)
        return find_rdma(demo->listen_uri, sizeof demo->listen_uri, error);
    if (run->settings.transport == DEMO_TCP)
        snprintf(demo->listen_uri, sizeof demo->listen_uri, "tcp:127.0.0.1:0");
    else
        snprintf(demo->listen_uri, sizeof demo->listen_uri, "unix:%s/socket", run->folder);
    return GODWIT_OK;
}

static enum godwit_err migrate(struct run *run, struct godwit_error *error)
{
    struct migration *migration;
    enum godwit_err err = migration_new(source_guest_interface(run->guest), run->demo.options, &run->progress,
                                        &migration, error);
    if (err)
        return err;
    err = migration_run(migration, run->demo.account->uri, run->signal_fd, error);
    if (err == GODWIT_ERR_OUTCOME_UNKNOWN) {
        enum godwit_outcome outcome = godwit_source_outcome(migration_source(migration), OUTCOME_TIMEOUT_MS, error);
        err = outcome == GODWIT_OUTCOME_RUNNING ? GODWIT_OK
              : outcome == GODWIT_OUTCOME_NEVER ? GODWIT_ERR_PEER_FAILED
                                                : err;
        error->code = err;
    }
    godwit_source_query(migration_source(migration), &run->info);
    migration_free(migration);

    struct godwit_error crash;
    if (err && err != GODWIT_ERR_CANCELLED && demo_crashed(&run->demo, &crash))
        error_prefix(error, "%s", crash.text);
    return err;
}

static enum godwit_err collect(struct run *run, struct godwit_error *error)
{
    const struct godwit_guest *guest = source_guest_interface(run->guest);
    struct process_view view = verify_view(&guest->blocks[0]);
    enum godwit_err err = verify_prints_take(&run->mine, &view, error);
    if (!err)
        err = demo_wait(&run->demo, DEMO_VERIFIED, run->signal_fd,
                        CLAIM_TIMEOUT_MS + (int)(run->guest_options.ram >> 30) * 1000, error);
    if (!err && run->demo.account->claim.pages)
        err = verify_prints_map(&run->demo.theirs, run->demo.account->claim.pages, error);
    return err;
}

static void verify(struct run *run)
{
    uint64_t begin = clock_now_ns();
    struct process_counters counters;
    struct verify_truth truth = {.counters = source_guest_counters(run->guest, &counters) ? &counters : NULL,
                                 .who = run->guest_options.type == GUEST_KVM ? "processor" : "worker"};
    struct godwit_error error = {0};
    if (collect(run, &error)) {
        run->verdict.verified = false;
        snprintf(run->verdict.text, sizeof run->verdict.text, "not compared: %s", error.text);
    } else {
        verify_judge(&run->demo.account->claim, &run->mine, &run->demo.theirs, &truth, &run->verdict);
    }
    run->verify_ms = (clock_now_ns() - begin + 999999) / 1000000;
    run->judged = true;
}

static enum godwit_err perform(struct run *run, struct godwit_error *error)
{
    enum godwit_err err = prepare(run, error);
    if (!err)
        err = demo_spawn(&run->demo, error);
    if (!err)
        err = demo_wait(&run->demo, DEMO_LISTENS, run->signal_fd, LISTEN_TIMEOUT_MS, error);
    if (!err)
        err = source_guest_new(&run->guest_options, &run->guest, error);
    if (!err)
        err = migrate(run, error);
    if (!err)
        verify(run);
    return err;
}

static void tidy(struct run *run, bool done)
{
    struct demo *demo = &run->demo;
    demo_reap(demo, done);
    source_guest_free(run->guest);
    verify_prints_fini(&run->mine);
    verify_prints_fini(&demo->theirs);
    for (unsigned end = 0; end < 2; end++)
        if (demo->notes[end] >= 0)
            close(demo->notes[end]);
    if (demo->account)
        munmap(demo->account, sizeof *demo->account);
    if (run->folder[0]) {
        if (run->settings.transport == DEMO_UNIX)
            unlink(demo->listen_uri + strlen("unix:"));
        demo_tls_remove(run->folder);
        rmdir(run->folder);
    }
}

/* What the user is told, and the exit code. */
static int conclude(struct run *run, enum godwit_err err, const struct godwit_error *error)
{
    struct report_guest guest;
    guest_options_report(&run->guest_options, &guest);
    guest.tracker = source_guest_tracker(run->guest);
    struct report_proof proof = {.verified = run->verdict.verified, .verify_time_ms = run->verify_ms,
                                 .pages = run->verdict.pages, .text = run->verdict.text};
    struct report report = {.side = REPORT_SOURCE, .info = &run->info, .error = err ? error : NULL, .guest = &guest,
                            .proof = run->judged ? &proof : NULL,
                            .guest_gap_ms = run->judged ? run->demo.account->claim.guest_gap_ms : -1};
    if (err == GODWIT_ERR_OUTCOME_UNKNOWN)
        command_complain("%s", error->text);
    else if (err)
        command_complain("%s%s", error->text, source_guest_fate(run->guest));
    else if (!proof.verified)
        command_complain("not verified: %s", proof.text);
    bool printed = report_print(&report, run->settings.json);
    if (err == GODWIT_ERR_OUTCOME_UNKNOWN)
        return COMMAND_OUTCOME_UNKNOWN;
    return !err && proof.verified && printed ? COMMAND_DONE : COMMAND_FAILED;
}

static int demo_perform(struct run *run)
{
    struct godwit_error error = {0};
    run->signal_fd = watch_block_signals();
    if (run->signal_fd < 0) {
        command_complain("cannot receive signals: %s", strerror(errno));
        return COMMAND_FAILED;
    }
    progress_init(&run->progress, PROGRESS_SOURCE);
    enum godwit_err err = perform(run, &error);
    progress_fini(&run->progress);
    int code = conclude(run, err, &error);
    tidy(run, !err && run->verdict.verified);
    close(run->signal_fd);
    return code;
}

static int demo_run(int argc, char *const argv[])
{
    struct run *run = calloc(1, sizeof *run);
    struct godwit_options *options = godwit_options_new();
    int code = COMMAND_FAILED;
    if (!run || !options) {
        command_complain("out of memory");
        goto end;
    }
    run->demo = (struct demo){.guest = &run->guest_options, .options = options, .notes = {-1, -1},
                              .theirs = {.fd = -1}};
    run->options = options;
    run->mine.fd = -1;
    guest_options_init(&run->guest_options);

    struct arg_command args = demo_args;
    args.groups[0].settings = &run->settings;
    args.groups[1].settings = &run->guest_options;
    args.options = options;
    struct args_result result;
    struct godwit_error error = {0};
    if (!command_begin(&args, argc, argv, &result, &code))
        goto end;
    enum godwit_err err = guest_options_settle(&run->guest_options, demo_dirty_rate, &error);
    if (!err && !godwit_options_is_set(options, "multifd-channels"))
        err = godwit_options_set(options, "multifd-channels", demo_channels, &error);
    if (!err && run->settings.tls != DEMO_TLS_NONE &&
        (godwit_options_get_text(options, "tls-creds")[0] || godwit_options_get_text(options, "tls-hostname")[0]))
        err = error_set(&error, GODWIT_ERR_INVALID,
                        "--tls makes credentials of its own: use it without --tls-creds and --tls-hostname");
    if (err) {
        command_complain("%s", error.text);
        code = COMMAND_USAGE;
        goto end;
    }
    code = demo_perform(run);
end:
    godwit_options_free(options);
    free(run);
    return code;
}

const struct command demo_command = {.args = &demo_args, .run = demo_run};
