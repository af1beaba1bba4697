/*
 * Migrations in one process, one after another, each with a fault of its own: calls that fail, connections that are cut,
 * damaged, delayed and split, cancels of either side. After each the guest runs on exactly one side with the memory that
 * its counters say; at the end descriptors, threads, mappings and memory are what they were after the first few.
 *
 * leak [RUNS [SEED]]. A plain program: Criterion does not start under ThreadSanitizer.
 */
#include <dirent.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/destination.h"
#include "engine/source.h"
#include "guest/process.h"
#include "tcp/tcp.h"
#include "transport/fault.h"
#include "transport/loop.h"

enum {
    RUNS = 120,
    WARM_UP = 24, /* runs after which everything that stays has come: stacks and arenas that are kept, for one */
    RAM = 2 << 20,
    MAPS_SLACK = 24,
    RSS_SLACK = 8 << 20,
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool sanitized = true; /* which keeps memory of its own, and counts leaks itself */
#else
static const bool sanitized = false;
#endif

enum fault {
    FAULT_NONE,
    FAULT_FAIL,      /* the n-th call of a kind */
    FAULT_CUT,       /* each connection after n bytes */
    FAULT_CUT_ONE,   /* one connection after n bytes */
    FAULT_FLIP,      /* one bit of the control connection: payload has no checksum of ours */
    FAULT_SLOW,      /* delayed and split */
    FAULT_CANCEL,    /* at the source */
    FAULT_CANCEL_THERE,
    FAULTS
};

static const char *const fault_names[] = {"none", "fail", "cut", "cut-one", "flip", "slow", "cancel", "cancel-there"};

struct trial {
    enum fault fault;
    bool tcp;
    uint64_t random;
    struct godwit_options *options;
    struct loop_net *loop;
    struct fault_net *net;
    struct process_guest *here, *there;
    struct godwit_source *source;
    struct godwit_destination *destination;
    char uri[ADDRESS_TEXT_MAX];
    enum godwit_err served;
    atomic_bool over;
    int delay_ms;
};

static unsigned bad;

static void complain(const struct trial *trial, const char *what, const char *text)
{
    printf("%s over %s: %s: %s\n", fault_names[trial->fault], trial->tcp ? "tcp" : "loop", what, text);
    bad++;
}

static uint64_t draw(struct trial *trial, uint64_t below)
{
    trial->random += 0x9e3779b97f4a7c15u;
    return pattern_mix(trial->random) % below;
}

static struct fault_plan make_plan(struct trial *trial, struct fault_counts *counts, uint64_t *only)
{
    struct fault_plan plan = fault_plan_none();
    uint64_t sizes[] = {64, 300, 4000, 200000, RAM};
    uint64_t bytes = draw(trial, sizes[draw(trial, 5)]);
    *only = FAULT_NEVER;
    switch (trial->fault) {
    case FAULT_FAIL:
        plan.fail_op = (enum fault_op)draw(trial, 5);
        plan.fail_at = draw(trial, 120);
        plan.fail_code = GODWIT_ERR_RESET;
        plan.counts = counts;
        break;
    case FAULT_CUT_ONE:
        *only = draw(trial, 6);
        /* fall through */
    case FAULT_CUT:
        *(draw(trial, 2) ? &plan.cut_sent : &plan.cut_received) = bytes;
        break;
    case FAULT_FLIP:
        *only = draw(trial, 2); /* both ends of the first connection */
        *(draw(trial, 2) ? &plan.flip_sent : &plan.flip_received) = bytes % 3000;
        break;
    case FAULT_SLOW:
        plan.chunk = 1000 + draw(trial, 60000);
        plan.delay_ms = (unsigned)draw(trial, 2);
        break;
    default:
        break;
    }
    return plan;
}

static bool set_up(struct trial *trial, struct fault_counts *counts)
{
    struct godwit_error error = {0};
    uint64_t only;
    struct fault_plan plan = make_plan(trial, counts, &only);
    static const char *const options[][2] = {
        {"connect-timeout", "500ms"}, {"handshake-timeout", "500ms"}, {"setup-timeout", "1s"},
        {"heartbeat-interval", "50ms"}, {"peer-timeout", "400ms"}, {"progress-timeout", "500ms"},
        {"max-bandwidth", "40M"}};
    trial->options = godwit_options_new();
    trial->loop = loop_net_new(trial->random);
    trial->net = fault_net_new(trial->tcp ? &tcp_transport : loop_net_transport(trial->loop), &plan, only);
    if (trial->options == NULL || trial->loop == NULL || trial->net == NULL)
        return false;
    for (unsigned i = 0; i < sizeof options / sizeof *options; i++)
        if (godwit_options_set(trial->options, options[i][0], options[i][1], &error) != GODWIT_OK)
            return false;
    struct process_guest_config config;
    struct process_destination_config arrival;
    process_guest_config_init(&config);
    process_destination_config_init(&arrival);
    config.ram = RAM;
    config.dirty_rate = 4 << 20;
    config.pattern = PATTERN_MIXED;
    if (process_guest_new_source(&trial->here, &config, &error) != GODWIT_OK ||
        process_guest_new_destination(&trial->there, &arrival, &error) != GODWIT_OK ||
        process_guest_start(trial->here, &error) != GODWIT_OK ||
        godwit_source_new(process_guest_interface(trial->here), trial->options, NULL, NULL, &trial->source, &error) ||
        godwit_destination_new(process_guest_interface(trial->there), trial->options, NULL, NULL, &trial->destination, &error))
        return false;
    source_use_transport(trial->source, fault_net_transport(trial->net), fault_net_transport(trial->net));
    destination_use_transport(trial->destination, fault_net_transport(trial->net), fault_net_transport(trial->net));
    if (godwit_destination_listen(trial->destination, trial->tcp ? "tcp:127.0.0.1:0" : "loop:there", trial->uri,
                                  sizeof trial->uri, &error) == GODWIT_OK)
        return true;
    complain(trial, "cannot listen", error.text);
    return false;
}

static void tear_down(struct trial *trial)
{
    godwit_source_free(trial->source);
    godwit_destination_free(trial->destination);
    process_guest_free(trial->here);
    process_guest_free(trial->there);
    fault_net_free(trial->net);
    loop_net_free(trial->loop);
    godwit_options_free(trial->options);
}

static void *serve(void *opaque)
{
    struct trial *trial = opaque;
    struct godwit_error error = {0};
    trial->served = godwit_destination_serve(trial->destination, &error);
    atomic_store(&trial->over, true);
    return NULL;
}

static void *cancel(void *opaque)
{
    struct trial *trial = opaque;
    poll(NULL, 0, trial->delay_ms);
    if (trial->fault == FAULT_CANCEL)
        godwit_source_cancel(trial->source);
    else
        godwit_destination_cancel(trial->destination);
    return NULL;
}

/* The guest that runs, stopped and looked at. */
static void check_guest(struct trial *trial, struct process_guest *guest, const char *side)
{
    const struct godwit_guest *interface = process_guest_interface(guest);
    struct process_counters before, now;
    struct godwit_error error = {0};
    process_guest_counters(guest, &before);
    for (unsigned i = 0; i < 2000; i++) {
        process_guest_counters(guest, &now);
        if (now.steps[0] != before.steps[0])
            break;
        poll(NULL, 0, 1);
    }
    if (now.steps[0] == before.steps[0])
        complain(trial, side, "the guest does not run");
    struct process_view view = process_guest_image(guest);
    struct process_check check;
    interface->ops->stop(interface->self, &error);
    process_guest_counters(guest, &now);
    if (process_guest_check(&view, &now, &check, &error) != GODWIT_OK)
        complain(trial, side, error.text);
}

static void judge(struct trial *trial, enum godwit_err err, const struct godwit_error *error)
{
    if (err == GODWIT_ERR_OUTCOME_UNKNOWN)
        complain(trial, "the outcome is unknown, though the destination could be asked", error->text);
    else if ((err == GODWIT_OK) != (trial->served == GODWIT_OK))
        complain(trial, "the two sides do not agree", error->text);
    else
        check_guest(trial, err == GODWIT_OK ? trial->there : trial->here, err == GODWIT_OK ? "destination" : "source");
    bool harmless = trial->fault == FAULT_NONE || trial->fault == FAULT_SLOW;
    if (harmless && err != GODWIT_OK)
        complain(trial, "failed", error->text);
}

static bool migrate(struct trial *trial)
{
    struct fault_counts counts = {0};
    struct godwit_error error = {0};
    pthread_t server, canceller;
    if (!set_up(trial, &counts)) {
        tear_down(trial);
        return false;
    }
    bool cancels = trial->fault == FAULT_CANCEL || trial->fault == FAULT_CANCEL_THERE;
    trial->delay_ms = (int)draw(trial, 120);
    pthread_create(&server, NULL, serve, trial);
    if (cancels)
        pthread_create(&canceller, NULL, cancel, trial);
    enum godwit_err err = godwit_source_migrate(trial->source, trial->uri, &error);
    if (cancels)
        pthread_join(canceller, NULL);
    for (unsigned i = 0; i < 3000 && err != GODWIT_OK && !atomic_load(&trial->over); i++) {
        poll(NULL, 0, 1);
        if (i > 1000) /* it has noticed nothing: perhaps no source ever came */
            godwit_destination_cancel(trial->destination);
    }
    pthread_join(server, NULL);
    judge(trial, err, &error);
    tear_down(trial);
    return err == GODWIT_OK;
}

/* ---- what this process has ---- */

struct holdings {
    unsigned fds, threads, maps;
    uint64_t rss; /* bytes */
};

static unsigned entries(const char *path)
{
    unsigned count = 0;
    DIR *folder = opendir(path);
    while (folder != NULL && readdir(folder) != NULL)
        count++;
    if (folder != NULL)
        closedir(folder);
    return count > 2 ? count - 2 : 0; /* . and .. */
}

static struct holdings take_stock(void)
{
    struct holdings now = {.fds = entries("/proc/self/fd"), .threads = entries("/proc/self/task")};
    malloc_trim(0);
    FILE *maps = fopen("/proc/self/maps", "r");
    for (int c; maps != NULL && (c = getc(maps)) != EOF;)
        now.maps += c == '\n';
    if (maps != NULL)
        fclose(maps);
    unsigned long size = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    if (statm != NULL && fscanf(statm, "%lu %lu", &size, &resident) == 2)
        now.rss = (uint64_t)resident * 4096;
    if (statm != NULL)
        fclose(statm);
    return now;
}

static void compare(const struct holdings *before, const struct holdings *after)
{
    printf("descriptors %u, then %u; threads %u, then %u; mappings %u, then %u; memory %llu KiB, then %llu KiB\n",
           before->fds, after->fds, before->threads, after->threads, before->maps, after->maps,
           (unsigned long long)before->rss >> 10, (unsigned long long)after->rss >> 10);
    if (after->fds != before->fds || after->threads != before->threads)
        bad++;
    if (!sanitized && (after->maps > before->maps + MAPS_SLACK || after->rss > before->rss + RSS_SLACK))
        bad++;
}

int main(int argc, char *argv[])
{
    unsigned runs = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : RUNS;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    unsigned done[FAULTS] = {0}, completed[FAULTS] = {0};
    struct holdings before = {0};
    mallopt(M_ARENA_MAX, 2);
    for (unsigned i = 0; i < WARM_UP + runs; i++) {
        if (i == WARM_UP)
            before = take_stock();
        struct trial trial = {.fault = (enum fault)(i % FAULTS), .tcp = i / FAULTS % 2 == 1, .random = seed * 1000003 + i};
        unsigned bad_before = bad;
        done[trial.fault]++;
        completed[trial.fault] += migrate(&trial);
        if (bad > bad_before)
            printf("  run %u of seed %llu\n", i, (unsigned long long)seed);
    }
    struct holdings after = take_stock();
    for (unsigned i = 0; i < FAULTS; i++)
        printf("%-14s %u runs, %u completed\n", fault_names[i], done[i], completed[i]);
    compare(&before, &after);
    return bad ? 1 : 0;
}
