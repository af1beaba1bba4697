/*
 * The process guest: its life and its table of operations.
 *
 * Happy path, source: fill memory, start workers; the migration arms the tracker, syncs it, stops the workers, syncs
 * once more and saves counters and clock. Destination: accept allocates what is offered, load checks and keeps counters
 * and clock, resume starts the workers where they were.
 *
 * Failure modes: memory that cannot be had, a kernel without dirty tracking, an offer that is not one block "pc.ram",
 * state that no process guest writes. After discard a destination is as new and may accept again.
 */
#include "guest/process.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <godwit/tracker.h>

#include "guest/guest_error.h"
#include "guest/memory_file.h"
#include "guest/process_pace.h"
#include "guest/process_workers.h"

enum process_stream { PROCESS_STREAM_CLOCK, PROCESS_STREAM_WORKERS, PROCESS_STREAMS };

struct process_guest {
    struct memory ram;               /* what is migrated, or received into */
    struct memory view;              /* keep_image: what the workers write; otherwise empty */
    struct process_counters plan; /* as configured, or as loaded */
    struct process_clock clock;
    struct process_workers workers;
    enum godwit_tracker_kind tracker_kind; /* as configured */
    struct godwit_tracker *tracker; /* made by the first dirty_start */
    struct incoming_config incoming; /* destination: the memory to come */
    struct witness *witness; /* NULL: none */
    bool witnessed;          /* START was noted, and no STOP since */
    bool clock_loaded;
    bool plan_loaded;
    struct godwit_block block;
    struct godwit_guest interface;
};

_Static_assert((int)PROCESS_PLAN_STATE_MAX > (int)PROCESS_CLOCK_STATE, "one buffer serves both streams");

static const char *const process_streams[PROCESS_STREAMS] = {
    [PROCESS_STREAM_CLOCK] = "clock", [PROCESS_STREAM_WORKERS] = "workers"};

static void *process_running_memory(const struct process_guest *guest)
{
    return guest->view.addr ? guest->view.addr : guest->ram.addr;
}

static enum godwit_err process_dirty_start(void *self, struct godwit_error *error)
{
    struct process_guest *guest = self;
    if (guest->view.addr)
        return guest_fail(error, GODWIT_ERR_UNSUPPORTED, "a guest that keeps its arrival image cannot be migrated on");
    if (!guest->tracker) {
        struct godwit_tracker *tracker;
        enum godwit_err err = godwit_tracker_new_kind(guest->tracker_kind, &tracker, error);
        if (err)
            return err;
        err = godwit_tracker_add(tracker, guest->ram.addr, guest->ram.size, error);
        if (err) {
            godwit_tracker_free(tracker);
            return err;
        }
        guest->tracker = tracker;
    }
    return godwit_tracker_start(guest->tracker, error);
}

static enum godwit_err process_dirty_sync(void *self, unsigned block, uint64_t *bitmap, struct godwit_error *error)
{
    struct process_guest *guest = self;
    return godwit_tracker_sync(guest->tracker, guest->ram.addr, guest->ram.size, bitmap, error);
}

static void process_dirty_stop(void *self)
{
    struct process_guest *guest = self;
    godwit_tracker_stop(guest->tracker);
}

static enum godwit_err process_next_data(void *self, unsigned block, uint64_t from, uint64_t *first, uint64_t *pages,
                                         struct godwit_error *error)
{
    const struct process_guest *guest = self;
    return godwit_memory_next_data(guest->ram.addr, guest->ram.size, guest->ram.fd, 0, from, first, pages, error);
}

static enum godwit_err process_witness(struct process_guest *guest, enum witness_kind kind, struct godwit_error *error)
{
    struct process_counters counters;
    uint64_t steps = 0;
    if (!guest->witness || (kind == WITNESS_START) == guest->witnessed)
        return GODWIT_OK;
    process_guest_counters(guest, &counters);
    for (unsigned i = 0; i < counters.threads; i++)
        steps += counters.steps[i];
    enum godwit_err err = witness_note(guest->witness, kind,
                                       atomic_load_explicit(&guest->clock.ticks, memory_order_relaxed), steps, error);
    guest->witnessed = kind == WITNESS_START && !err;
    return err;
}

/* The workers run, and the witness knows of it before. A guest that cannot be witnessed does not run. */
static enum godwit_err process_run(struct process_guest *guest, void *memory, struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    if (!process_workers_started(&guest->workers))
        err = process_workers_start(&guest->workers, memory, &guest->plan, &guest->clock, guest->witness, error);
    if (!err)
        err = process_witness(guest, WITNESS_START, error);
    if (!err)
        process_workers_unpark(&guest->workers);
    return err;
}

static enum godwit_err process_stop(void *self, struct godwit_error *error)
{
    struct process_guest *guest = self;
    struct godwit_error ignored; /* without it the witness says at most that the guest ran longer */
    process_workers_park(&guest->workers);
    process_witness(guest, WITNESS_STOP, &ignored);
    return GODWIT_OK;
}

static enum godwit_err process_resume(void *self, struct godwit_error *error)
{
    struct process_guest *guest = self;
    if (process_workers_started(&guest->workers))
        return process_run(guest, NULL, error);
    if (!guest->clock_loaded || !guest->plan_loaded)
        return guest_fail(error, GODWIT_ERR_GUEST, "the guest cannot run: its %s did not arrive",
                          guest->clock_loaded ? "workers" : "clock");
    return process_run(guest, process_running_memory(guest), error);
}

static enum godwit_err process_save_rest(void *self, unsigned stream, struct godwit_state_writer *writer,
                                         struct godwit_error *error)
{
    struct process_guest *guest = self;
    uint8_t bytes[PROCESS_PLAN_STATE_MAX];
    size_t size = PROCESS_CLOCK_STATE;
    if (stream == PROCESS_STREAM_CLOCK) {
        process_clock_save(&guest->clock, bytes);
    } else {
        struct process_counters counters;
        process_guest_counters(guest, &counters);
        size = process_plan_save(&counters, bytes);
    }
    enum godwit_err err = godwit_state_write(writer, bytes, size);
    return err ? guest_fail(error, err, "cannot save the guest's %s", process_streams[stream]) : GODWIT_OK;
}

static void process_discard(void *self)
{
    struct process_guest *guest = self;
    struct godwit_error ignored;
    process_workers_park(&guest->workers);
    process_witness(guest, WITNESS_STOP, &ignored); /* the counters are gone with the workers */
    process_workers_stop(&guest->workers);
    godwit_tracker_free(guest->tracker);
    guest->tracker = NULL;
    memory_free(&guest->view);
    memory_free(&guest->ram);
    guest->clock_loaded = guest->plan_loaded = false;
}

static enum godwit_err process_accept(void *self, const struct godwit_block *offered, unsigned count,
                                      struct godwit_block *mine, struct godwit_error *error)
{
    struct process_guest *guest = self;
    enum godwit_err err =
        incoming_accept(&guest->incoming, "process", offered, count, &guest->ram, &guest->view, error);
    if (!err)
        incoming_describe(&guest->incoming, &guest->ram, &mine[0]);
    return err;
}

static enum godwit_err process_load(void *self, const char *stream, const void *data, size_t size,
                                    struct godwit_error *error)
{
    struct process_guest *guest = self;
    enum godwit_err err;
    if (strcmp(stream, process_streams[PROCESS_STREAM_CLOCK]) == 0) {
        err = process_clock_load(&guest->clock, data, size, process_now(), error);
        guest->clock_loaded = guest->clock_loaded || !err;
        return err;
    }
    if (strcmp(stream, process_streams[PROCESS_STREAM_WORKERS]) == 0) {
        err = process_plan_load(&guest->plan, data, size, guest->ram.size / GODWIT_PAGE_SIZE, error);
        guest->plan_loaded = guest->plan_loaded || !err;
        return err;
    }
    return guest_fail(error, GODWIT_ERR_GUEST, "a process guest has no device \"%s\"", stream);
}

static const struct godwit_guest_ops process_source_ops = {
    .dirty_start = process_dirty_start,
    .dirty_sync = process_dirty_sync,
    .dirty_stop = process_dirty_stop,
    .next_data = process_next_data,
    .stop = process_stop,
    .resume = process_resume,
    .save_rest = process_save_rest,
};

static const struct godwit_guest_ops process_destination_ops = {
    .stop = process_stop,
    .resume = process_resume,
    .accept = process_accept,
    .load = process_load,
    .discard = process_discard,
};

void process_guest_config_init(struct process_guest_config *config)
{
    *config =
        (struct process_guest_config){.pattern = PATTERN_RANDOM, .backing = MEMORY_MEMFD, .threads = 2, .seed = 1};
}

void process_destination_config_init(struct process_destination_config *config)
{
    *config = (struct process_destination_config){0};
    incoming_config_init(&config->memory);
}

static enum godwit_err process_configure(struct process_guest *guest, const struct process_guest_config *config,
                                         uint64_t ram, struct godwit_error *error)
{
    uint64_t hot = config->hot_set ? config->hot_set : ram / 4, rate = config->dirty_rate / GODWIT_PAGE_SIZE;
    if (config->threads < 1 || config->threads > PROCESS_WORKERS_MAX)
        return guest_fail(error, GODWIT_ERR_INVALID, "a guest has 1 to %d threads, not %u", PROCESS_WORKERS_MAX,
                          config->threads);
    if (hot > ram)
        return guest_fail(error, GODWIT_ERR_INVALID,
                          "a hot set of %" PRIu64 " bytes is larger than the guest's %" PRIu64, hot, ram);
    if (rate > PROCESS_PACE_RATE_MAX)
        return guest_fail(error, GODWIT_ERR_INVALID, "a dirty rate of %" PRIu64 " bytes per second is too high",
                          config->dirty_rate);
    if (config->pattern == PATTERN_FILE)
        return guest_fail(error, GODWIT_ERR_INVALID, "content from a file is asked for by naming the file");
    guest->tracker_kind = config->tracker;
    guest->plan = (struct process_counters){
        .pages = ram / GODWIT_PAGE_SIZE,
        .hot_pages = hot / GODWIT_PAGE_SIZE,
        .rate = config->dirty_rate && !rate ? 1 : rate,
        .seed = config->seed,
        .pattern = config->memory_from ? PATTERN_FILE : config->pattern,
        .threads = config->threads,
    };
    return GODWIT_OK;
}

static enum godwit_err process_build(struct process_guest *guest, const struct process_guest_config *config,
                                     struct godwit_error *error)
{
    int fd = -1;
    uint64_t ram = config->ram, file = 0;
    enum godwit_err err = config->memory_from ? memory_file_open(config->memory_from, &fd, &file, error) : GODWIT_OK;
    if (!err && file > ram && ram)
        err = guest_fail(error, GODWIT_ERR_INVALID, "memory file %s has %" PRIu64 " bytes, the guest only %" PRIu64,
                         config->memory_from, file, ram);
    ram = ram ? ram : file;
    if (!err)
        err = process_configure(guest, config, ram, error);
    if (!err)
        err = memory_alloc(&guest->ram, config->backing, ram, config->prealloc, error);
    if (!err && file)
        err = memory_file_copy(config->memory_from, fd, 0, guest->ram.addr, file, error);
    if (!err && !file)
        pattern_fill(config->pattern, config->seed, guest->ram.addr, ram);
    if (fd >= 0)
        close(fd);
    return err;
}

static struct process_guest *process_allocate(const struct godwit_guest_ops *ops, struct godwit_error *error)
{
    /* Aligned for the workers' cache lines. */
    struct process_guest *guest = aligned_alloc(_Alignof(struct process_guest), sizeof *guest);
    if (!guest) {
        (void)guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for a guest");
        return NULL;
    }
    *guest = (struct process_guest){.ram = {.fd = -1}, .view = {.fd = -1}};
    guest->interface = (struct godwit_guest){.ops = ops,
                                             .self = guest,
                                             .blocks = &guest->block,
                                             .streams = process_streams,
                                             .stream_count = PROCESS_STREAMS};
    process_clock_init(&guest->clock);
    return guest;
}

enum godwit_err process_guest_new_source(struct process_guest **out, const struct process_guest_config *config,
                                         struct godwit_error *error)
{
    struct process_guest *guest = process_allocate(&process_source_ops, error);
    if (!guest)
        return GODWIT_ERR_NO_MEMORY;
    enum godwit_err err = process_build(guest, config, error);
    if (err) {
        process_guest_free(guest);
        return err;
    }
    guest->block = (struct godwit_block){.id = MEMORY_BLOCK_ID,
                                         .addr = guest->ram.addr,
                                         .size = guest->ram.size,
                                         .fd = guest->ram.fd,
                                         .page_size = guest->ram.page_size,
                                         .content = GODWIT_BLOCK_USED};
    guest->interface.block_count = 1;
    guest->witness = config->witness;
    *out = guest;
    return GODWIT_OK;
}

enum godwit_err process_guest_new_destination(struct process_guest **out,
                                              const struct process_destination_config *config,
                                              struct godwit_error *error)
{
    enum godwit_err err = incoming_config_check(&config->memory, error);
    if (err)
        return err;
    struct process_guest *guest = process_allocate(&process_destination_ops, error);
    if (!guest)
        return GODWIT_ERR_NO_MEMORY;
    guest->incoming = config->memory;
    guest->witness = config->witness;
    *out = guest;
    return GODWIT_OK;
}

enum godwit_err process_guest_start(struct process_guest *guest, struct godwit_error *error)
{
    if (process_workers_started(&guest->workers))
        return guest_fail(error, GODWIT_ERR_BUSY, "the guest runs already");
    return process_run(guest, guest->ram.addr, error);
}

void process_guest_free(struct process_guest *guest)
{
    if (!guest)
        return;
    process_discard(guest);
    free(guest);
}

const struct godwit_guest *process_guest_interface(const struct process_guest *guest)
{
    return &guest->interface;
}

void process_guest_counters(const struct process_guest *guest, struct process_counters *out)
{
    if (process_workers_started(&guest->workers))
        process_workers_counters(&guest->workers, out);
    else
        *out = guest->plan;
}

bool process_guest_loaded(const struct process_guest *guest, struct process_counters *out)
{
    if (guest->plan_loaded)
        *out = guest->plan;
    return guest->plan_loaded;
}

enum godwit_tracker_kind process_guest_tracker(const struct process_guest *guest)
{
    return guest->tracker ? godwit_tracker_kind(guest->tracker) : guest->tracker_kind;
}

struct process_view process_guest_image(const struct process_guest *guest)
{
    return (struct process_view){guest->ram.addr, guest->ram.size, guest->ram.fd};
}

void process_guest_gap(const struct process_guest *guest, struct process_gap *out)
{
    process_clock_gap(&guest->clock, out);
}
