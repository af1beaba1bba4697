/*
 * What a page costs the engine's thread, when nothing else limits: source and destination in one process, joined by a
 * transport whose puts vanish.
 *
 *     engine_pages RAM CHANNELS ROUNDS
 *
 * The guest is address space without memory, so RAM may be a terabyte; its dirty log is made up: all pages, every second,
 * every hundredth. For each of these, ROUNDS times in turns, one pass is timed by the clock of the engine's thread, from the
 * return of the dirty log sync that brought the pages to the entry of the next. That is all the engine does for them: epochs,
 * taking runs from the bitmap, filling batches, handing them over, waiting for a free one, acknowledgements, the count at the
 * end. Zero detection is off (there is no memory to look at) and belongs to the senders anyway. Between two passes the log
 * stays empty until what was sent has been acknowledged, so that no page is held back.
 *
 * Prints one JSON object: an entry per pass, with ns of processor time, which is the result, and of wall time, which also has
 * the receivers in it, and the 10 ms that a short pass is made to last.
 */
#include <err.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "engine/destination.h"
#include "engine/source.h"
#include "perf/sink_transport.h"

enum { QUIET_SYNCS = 2, PATTERNS = 3 };

static const struct {
    const char *name;
    unsigned every;
} patterns[PATTERNS] = {{"all pages", 1}, {"every second page", 2}, {"every hundredth page", 100}};

struct bench {
    uint64_t pages;
    unsigned passes, done; /* of patterns, all rounds */
    unsigned quiet;        /* syncs left that report nothing */
    bool timing;
    uint64_t dirty, cpu_ns, wall_ns; /* of the pass that is timed: start */
};

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void end_pass(struct bench *bench)
{
    uint64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID) - bench->cpu_ns, wall = clock_ns(CLOCK_MONOTONIC) - bench->wall_ns;
    printf("%s\n  {\"pattern\": \"%s\", \"pages\": %" PRIu64 ", \"dirty\": %" PRIu64 ", \"cpu-ns\": %" PRIu64
           ", \"wall-ns\": %" PRIu64 "}",
           bench->done > 0 ? "," : "", patterns[bench->done % PATTERNS].name, bench->pages, bench->dirty, cpu, wall);
    bench->done++;
    bench->timing = false;
}

static uint64_t make_dirty(uint64_t *bitmap, uint64_t pages, unsigned every)
{
    if (every == 1) {
        memset(bitmap, 0xff, pages / 8);
        return pages;
    }
    uint64_t count = 0;
    for (uint64_t page = 0; page < pages; page += every, count++)
        bitmap[page / 64] |= UINT64_C(1) << (page % 64);
    return count;
}

static enum godwit_err log_sync(void *self, unsigned block, uint64_t *bitmap, struct godwit_error *error)
{
    struct bench *bench = self;
    if (bench->timing) {
        end_pass(bench);
        bench->quiet = QUIET_SYNCS;
        return GODWIT_OK;
    }
    if (bench->done == bench->passes)
        return GODWIT_OK;
    if (bench->quiet > 0) {
        bench->quiet--;
        return GODWIT_OK;
    }
    bench->dirty = make_dirty(bitmap, bench->pages, patterns[bench->done % PATTERNS].every);
    bench->timing = true;
    bench->wall_ns = clock_ns(CLOCK_MONOTONIC);
    bench->cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    return GODWIT_OK;
}

/* All of it is a hole in the beginning: the first pass is one extent. */
static enum godwit_err log_next_data(void *self, unsigned block, uint64_t from, uint64_t *first, uint64_t *pages,
                                     struct godwit_error *error)
{
    *first = from;
    *pages = 0;
    return GODWIT_OK;
}

static bool ready(void *self)
{
    const struct bench *bench = self;
    return bench->done == bench->passes;
}

static void *serve(void *opaque)
{
    struct godwit_error error = {0};
    if (godwit_destination_serve(opaque, &error) != GODWIT_OK)
        errx(1, "destination: %s", error.text);
    return NULL;
}

static void check(enum godwit_err err, const struct godwit_error *error)
{
    if (err != GODWIT_OK)
        errx(1, "%s", error->text);
}

static void migrate(struct bench *bench, const struct godwit_block *block, const char *channels)
{
    static const struct godwit_guest_ops source_ops = {.dirty_sync = log_sync, .next_data = log_next_data,
                                                       .switchover_ready = ready};
    static const struct godwit_guest_ops destination_ops = {0};
    struct godwit_guest guests[2] = {{.ops = &source_ops, .self = bench, .blocks = block, .block_count = 1},
                                     {.ops = &destination_ops, .blocks = block, .block_count = 1}};
    struct godwit_error error = {0};
    struct godwit_options *options = godwit_options_new();
    struct loop_net *loop = loop_net_new(1);
    if (options == NULL || loop == NULL)
        errx(1, "out of memory");
    struct sink_net sink;
    sink_net_init(&sink, loop_net_transport(loop));
    check(godwit_options_set(options, "multifd-channels", channels, &error), &error);
    check(godwit_options_set(options, "zero-page-detection", "none", &error), &error);
    check(godwit_options_set(options, "downtime-limit", "0", &error), &error); /* never "nearly done" */
    /* All of it can be put, from the first pass on. */
    check(godwit_options_set(options, "rdma-pin-all", "on", &error), &error);

    struct godwit_destination *destination;
    struct godwit_source *source;
    check(godwit_destination_new(&guests[1], NULL, NULL, NULL, &destination, &error), &error);
    destination_use_transport(destination, &sink.transport, &sink.transport);
    check(godwit_destination_listen(destination, "loop:engine-pages", NULL, 0, &error), &error);
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve, destination) != 0)
        errx(1, "cannot start a thread");
    check(godwit_source_new(&guests[0], options, NULL, NULL, &source, &error), &error);
    source_use_transport(source, &sink.transport, &sink.transport);
    check(godwit_source_migrate(source, "loop:engine-pages", &error), &error);
    pthread_join(thread, NULL);
    godwit_source_free(source);
    godwit_destination_free(destination);
    loop_net_free(loop);
    godwit_options_free(options);
}

int main(int argc, char *argv[])
{
    struct godwit_error error = {0};
    uint64_t size;
    unsigned rounds = argc == 4 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
    if (rounds == 0 || godwit_parse_size(argv[1], &size, &error) != GODWIT_OK || size % (64 * GODWIT_PAGE_SIZE) != 0)
        errx(2, "usage: engine_pages RAM CHANNELS ROUNDS");
    void *addr = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (addr == MAP_FAILED)
        err(1, "cannot reserve %" PRIu64 " bytes of address space", size);
    struct godwit_block block = {.id = "virtual", .addr = addr, .size = size, .page_size = GODWIT_PAGE_SIZE, .fd = -1,
                                 .content = GODWIT_BLOCK_SCRATCH, .presence = GODWIT_BLOCK_PRESENT};
    struct bench bench = {.pages = size / GODWIT_PAGE_SIZE, .passes = rounds * PATTERNS, .quiet = QUIET_SYNCS};
    printf("{\"passes\": [");
    migrate(&bench, &block, argv[2]);
    printf("\n]}\n");
    return 0;
}
