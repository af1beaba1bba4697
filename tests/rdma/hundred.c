/*
 * Migrations over a real device, one after another, in one pair of processes: hundred HOST [RUNS], where HOST is an
 * address of a device of this machine. After a few, in which everything that stays has come, both processes take stock
 * of what they hold, and at the end again: descriptors, threads, mappings, pinned memory, and verbs objects, which are
 * counted when the destination listens and nothing else is there.
 *
 * A plain program: it forks, and Criterion's processes are not ours.
 */
#include <godwit/migration.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/process.h"
#include "tests/lib/census.h"
#include "transport/address.h"

enum { RUNS = 100, WARM_UP = 8, RAM = 4 << 20, DIRTY_RATE = 2 << 20, MAPS_SLACK = 24 };

struct stock {
    unsigned fds, threads, maps;
    unsigned long pinned; /* KiB */
    char verbs[256];      /* of the whole machine; empty: not asked */
};

static const char *side;
static struct godwit_error error;

static void check(enum godwit_err err, const char *what)
{
    if (err == GODWIT_OK)
        return;
    printf("%s: %s: %s\n", side, what, error.text);
    exit(1);
}

static struct stock take_stock(bool ask_verbs)
{
    struct stock now = {.fds = census_fds(), .threads = census_threads(1)};
    char line[512];
    malloc_trim(0);
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL)
        now.maps++;
    FILE *status = fopen("/proc/self/status", "re");
    while (status != NULL && fgets(line, sizeof line, status) != NULL && sscanf(line, "VmPin: %lu", &now.pinned) != 1)
        continue;
    FILE *verbs = ask_verbs ? popen("rdma resource show", "re") : NULL;
    if (ask_verbs && (verbs == NULL || fgets(now.verbs, sizeof now.verbs, verbs) == NULL))
        printf("%s: rdma resource show says nothing\n", side);
    if (maps != NULL)
        fclose(maps);
    if (status != NULL)
        fclose(status);
    if (verbs != NULL)
        pclose(verbs);
    return now;
}

static bool same(const struct stock *before, const struct stock *after)
{
    printf("%s: descriptors %u, then %u; threads %u, then %u; mappings %u, then %u; pinned %lu KiB, then %lu KiB\n",
           side, before->fds, after->fds, before->threads, after->threads, before->maps, after->maps, before->pinned,
           after->pinned);
    if (before->verbs[0] != '\0')
        printf("%s: %sthen %s", side, before->verbs, after->verbs);
    fflush(stdout);
    return before->fds == after->fds && before->threads == after->threads && before->pinned == after->pinned &&
           after->maps <= before->maps + MAPS_SLACK && strcmp(before->verbs, after->verbs) == 0;
}

static struct godwit_options *make_options(void)
{
    /* Emulated processors may stand still for seconds. */
    static const char *const patient[] = {"connect-timeout", "handshake-timeout", "peer-timeout", "progress-timeout"};
    struct godwit_options *options = godwit_options_new();
    for (unsigned i = 0; options != NULL && i < sizeof patient / sizeof *patient; i++)
        check(godwit_options_set(options, patient[i], "60s", &error), patient[i]);
    return options;
}

static void receive(const char *host, const struct godwit_options *options, int uris)
{
    struct process_destination_config config;
    struct process_guest *guest;
    struct godwit_destination *destination;
    char uri[ADDRESS_TEXT_MAX], bound[ADDRESS_TEXT_MAX] = "";
    process_destination_config_init(&config);
    check(process_guest_new_destination(&guest, &config, &error), "a guest");
    const struct godwit_guest *interface = process_guest_interface(guest);
    check(godwit_destination_new(interface, options, NULL, NULL, &destination, &error), "a destination");
    snprintf(uri, sizeof uri, "rdma:%.200s:0", host);
    check(godwit_destination_listen(destination, uri, bound, sizeof bound, &error), "listening");
    if (write(uris, bound, sizeof bound) != (ssize_t)sizeof bound)
        exit(1);
    check(godwit_destination_serve(destination, &error), "receiving");

    struct process_counters counters;
    struct process_check found;
    struct process_view view = process_guest_image(guest);
    check(interface->ops->stop(interface->self, &error), "stopping");
    process_guest_counters(guest, &counters);
    check(process_guest_check(&view, &counters, &found, &error), "the memory that arrived");
    godwit_destination_free(destination);
    process_guest_free(guest);
}

static void send_to(const char *uri, const struct godwit_options *options)
{
    struct process_guest_config config;
    struct process_guest *guest;
    struct godwit_source *source;
    process_guest_config_init(&config);
    config.ram = RAM;
    config.dirty_rate = DIRTY_RATE;
    check(process_guest_new_source(&guest, &config, &error), "a guest");
    check(process_guest_start(guest, &error), "starting");
    check(godwit_source_new(process_guest_interface(guest), options, NULL, NULL, &source, &error), "a source");
    check(godwit_source_migrate(source, uri, &error), "sending");
    struct godwit_info info;
    godwit_source_query(source, &info);
    for (unsigned i = 0; i < info.channel_count; i++)
        if (info.channels[i].device[0] == '\0') {
            printf("%s: channel %u has no device\n", side, i);
            exit(1);
        }
    godwit_source_free(source);
    process_guest_free(guest);
}

/* The last run is only there for the destination to listen when stock is taken for the last time. */
static int be_destination(const char *host, unsigned runs, int uris)
{
    struct stock before = {.fds = 0}, after;
    side = "destination";
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct godwit_options *options = make_options();
    for (unsigned i = 0; i < WARM_UP + runs; i++) {
        if (i == WARM_UP)
            before = take_stock(false);
        receive(host, options, uris);
    }
    after = take_stock(false);
    receive(host, options, uris);
    godwit_options_free(options);
    return same(&before, &after) ? 0 : 1;
}

static int be_source(unsigned runs, int uris)
{
    struct stock before = {.fds = 0}, after = {.fds = 0};
    char uri[ADDRESS_TEXT_MAX];
    side = "source";
    struct godwit_options *options = make_options();
    for (unsigned i = 0; i <= WARM_UP + runs; i++) {
        if (read(uris, uri, sizeof uri) != (ssize_t)sizeof uri) {
            printf("the destination has ended, in run %u\n", i);
            return 1;
        }
        if (i == WARM_UP)
            before = take_stock(true);
        if (i == WARM_UP + runs)
            after = take_stock(true);
        send_to(uri, options);
    }
    godwit_options_free(options);
    printf("%u migrations\n", WARM_UP + runs + 1);
    return same(&before, &after) ? 0 : 1;
}

int main(int argc, char *argv[])
{
    unsigned runs = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : RUNS;
    int uris[2], status = 1;
    if (argc < 2 || pipe(uris) != 0) {
        fprintf(stderr, "usage: hundred HOST [RUNS]\n");
        return 2;
    }
    mallopt(M_ARENA_MAX, 2);
    pid_t pid = fork();
    if (pid == 0) {
        close(uris[0]);
        exit(be_destination(argv[1], runs, uris[1]));
    }
    close(uris[1]);
    int bad = be_source(runs, uris[0]);
    waitpid(pid, &status, 0);
    return bad != 0 || status != 0;
}
