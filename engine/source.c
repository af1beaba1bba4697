/*
 * The source: public calls, and the walk through a migration as a whole.
 *
 * Happy path: setup, live passes, stop phase, completed. Failure modes: before RUN any error revives the guest here,
 * tells the destination why, and fails (or cancels) the migration; after RUN the destination is asked, and while nobody
 * answers the guest stays stopped and the status stays device.
 *
 * Teardown: senders first (they read guest memory and use registrations), then the control connection (its thread
 * reports into this struct), then who registers memory, then registrations and bitmaps. Afterwards no thread holds a
 * pointer to the source.
 */
#include "engine/source.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "engine/reason.h"
#include "transport/clock.h"
#include "transport/error.h"

/* ---- shared with the other files ---- */

void source_emit(struct godwit_source *source, enum godwit_event_kind kind, uint64_t value, const char *text)
{
    struct godwit_event event = {.kind = kind, .value = value, .text = text};
    if (source->on_event != NULL)
        source->on_event(source->opaque, &event);
}

void source_set_status(struct godwit_source *source, enum godwit_status status)
{
    pthread_mutex_lock(&source->lock);
    bool changed = source->status != status;
    source->status = status;
    pthread_mutex_unlock(&source->lock);
    if (changed)
        source_emit(source, GODWIT_EVENT_MIGRATION, status, NULL);
}

uint64_t source_option(struct godwit_source *source, const char *name)
{
    pthread_mutex_lock(&source->lock);
    uint64_t value = godwit_options_get(source->options, name);
    pthread_mutex_unlock(&source->lock);
    return value;
}

void source_fail(struct godwit_source *source, const struct godwit_error *error)
{
    pthread_mutex_lock(&source->lock);
    if (reason_is_better(error->code, source->failure.code))
        source->failure = *error;
    pthread_cond_broadcast(&source->changed);
    pthread_mutex_unlock(&source->lock);
}

void source_wait_tick(struct godwit_source *source)
{
    struct timespec until = clock_timespec(clock_now_ns() + SOURCE_TICK_MS * UINT64_C(1000000));
    pthread_cond_clockwait(&source->changed, &source->lock, CLOCK_MONOTONIC, &until);
}

/* Data that should move and does not. Waiting for the rate limit, or for nothing, is no halt; nor is a destination
 * that says it gets things done, such as clearing memory that was used before. */
static bool stalled(struct godwit_source *source, uint64_t now_ms)
{
    if (source->send == NULL)
        return false;
    uint64_t registered = source->registrar != NULL ? registrar_info(source->registrar).done : 0;
    pthread_mutex_lock(&source->lock);
    uint64_t moved = multifd_send_bytes(source->send) + source->ledger.arrived + source->ledger.acked +
                     control_peer_progress(source->control) + registered;
    bool idle = ledger_unacked_pages(&source->ledger) == 0 && source->ledger.acked == source->ledger.open;
    uint64_t limit = godwit_options_get(source->options, "progress-timeout");
    pthread_mutex_unlock(&source->lock);
    if (moved != source->moved_bytes || idle || migration_rate_exceeded(source->rate, clock_now_ns())) {
        source->moved_bytes = moved;
        source->moved_ms = now_ms;
    }
    return now_ms - source->moved_ms > limit;
}

/* mbps and pages-per-second, by windows of a second. */
static void measure_window(struct godwit_source *source, uint64_t now_ms)
{
    uint64_t elapsed = now_ms - source->window_ms;
    if (source->send == NULL || elapsed < 1000)
        return;
    struct godwit_channel_info channel;
    uint64_t bytes = 0, pages = 0;
    for (unsigned i = 0; i < multifd_send_channels(source->send); i++) {
        multifd_send_info(source->send, i, &channel);
        bytes += channel.bytes;
        pages += channel.normal + channel.duplicate;
    }
    pthread_mutex_lock(&source->lock);
    source->info.ram.mbps = (double)(bytes - source->window_bytes) * 8 / 1000 / (double)elapsed;
    source->info.ram.pages_per_second = (pages - source->window_pages) * 1000 / elapsed;
    pthread_mutex_unlock(&source->lock);
    source->window_bytes = bytes;
    source->window_pages = pages;
    source->window_ms = now_ms;
}

enum godwit_err source_check_locked(struct godwit_source *source, struct godwit_error *error)
{
    uint64_t limit = godwit_options_get(source->options, "switchover-timeout");
    if (!source->run_written && atomic_load(&source->cancel))
        return error_set(error, GODWIT_ERR_CANCELLED, "cancelled");
    if (source->failure.code != GODWIT_OK) {
        *error = source->failure;
        return source->failure.code;
    }
    if (!source->run_written && source->stopped && limit > 0 && clock_now_ms() - source->stop_ms > limit)
        return error_set(error, GODWIT_ERR_SWITCHOVER_TIMEOUT,
                         "the stop phase took longer than switchover-timeout (%llu ms)", (unsigned long long)limit);
    return GODWIT_OK;
}

enum godwit_err source_check(struct godwit_source *source, struct godwit_error *error)
{
    uint64_t now = clock_now_ms();
    measure_window(source, now);
    pthread_mutex_lock(&source->lock);
    enum godwit_err err = source_check_locked(source, error);
    pthread_mutex_unlock(&source->lock);
    if (err == GODWIT_OK && stalled(source, now))
        err = error_set(error, GODWIT_ERR_STALLED, "no data has reached the destination for progress-timeout (%llu ms)",
                        (unsigned long long)source_option(source, "progress-timeout"));
    return err;
}

/* ---- the walk ---- */

static void reset_run(struct godwit_source *source)
{
    pthread_mutex_lock(&source->lock);
    memset(&source->failure, 0, sizeof source->failure);
    memset(&source->info, 0, sizeof source->info);
    source->accepted = source->committed = source->loaded = source->run_written = source->running = false;
    source->info.ram.page_size = GODWIT_PAGE_SIZE;
    source->info.expected_downtime_ms = godwit_options_get(source->options,
                                                           "downtime-limit"); /* until there is a sync */
    ledger_init(&source->ledger);
    pthread_mutex_unlock(&source->lock);
    source->tracking = false;
    source->offer.channels = 0;
    source->start_ms = source->moved_ms = source->window_ms = clock_now_ms();
    source->moved_bytes = source->window_bytes = source->window_pages = source->sync_ns = 0;
}

static enum godwit_err prepare(struct godwit_source *source, struct godwit_error *error)
{
    source->guest = source->given;
    enum sabotage_kind kind = (enum sabotage_kind)source_option(source, "x-fault");
    enum godwit_err err = sabotage_new(kind, &source->guest, &source->sabotage, error);
    if (err != GODWIT_OK)
        return err;
    source->streams = calloc(source->guest.stream_count + 1, sizeof *source->streams);
    struct migration_rate *rate = migration_rate_new();
    pthread_mutex_lock(&source->lock);
    source->rate = rate;
    if (rate != NULL)
        migration_rate_set(rate, godwit_options_get(source->options, "max-bandwidth"));
    pthread_mutex_unlock(&source->lock);
    if (source->streams == NULL || rate == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to start a migration");
    return GODWIT_OK;
}

static enum godwit_err walk(struct godwit_source *source, struct godwit_error *error)
{
    source_set_status(source, GODWIT_STATUS_SETUP);
    enum godwit_err err = prepare(source, error);
    if (err == GODWIT_OK)
        err = source_setup(source, error);
    if (err != GODWIT_OK)
        return err;
    pthread_mutex_lock(&source->lock);
    source->info.setup_time_ms = clock_now_ms() - source->start_ms;
    pthread_mutex_unlock(&source->lock);
    source_set_status(source, GODWIT_STATUS_ACTIVE);
    err = source_iterate(source, error);
    return err == GODWIT_OK ? source_switch(source, error) : err;
}

/* Sums what the channels carried into info, and what is registered. Under the lock. */
static void sum_channels(struct godwit_source *source, struct godwit_info *info)
{
    if (source->registrar != NULL)
        info->pinned_bytes = registrar_info(source->registrar).bytes;
    if (source->send == NULL)
        return;
    struct godwit_ram_info *ram = &info->ram;
    info->channel_count = multifd_send_channels(source->send);
    ram->multifd_bytes = ram->duplicate = ram->normal = 0;
    for (unsigned i = 0; i < info->channel_count; i++) {
        struct godwit_channel_info *channel = &info->channels[i];
        multifd_send_info(source->send, i, channel);
        ram->multifd_bytes += channel->bytes;
        ram->duplicate += channel->duplicate;
        ram->normal += channel->normal;
    }
    ram->normal_bytes = ram->normal << PAGE_SHIFT;
    ram->transferred = ram->multifd_bytes + info->state_bytes;
    if (source->status == GODWIT_STATUS_DEVICE || source->status == GODWIT_STATUS_COMPLETED)
        ram->downtime_bytes = ram->multifd_bytes - ram->precopy_bytes;
    else
        ram->precopy_bytes = ram->multifd_bytes;
}

static void note_end(struct godwit_source *source)
{
    pthread_mutex_lock(&source->lock);
    sum_channels(source, &source->info);
    source->info.total_time_ms = clock_now_ms() - source->start_ms;
    uint64_t moving = source->info.total_time_ms - source->info.setup_time_ms;
    if (source->running && moving > 0)
        source->info.ram.mbps = (double)source->info.ram.transferred * 8 / 1000 / (double)moving;
    pthread_mutex_unlock(&source->lock);
}

static void cleanup(struct godwit_source *source)
{
    pthread_mutex_lock(&source->lock);
    struct multifd_send *send = source->send;
    struct migration_rate *rate = source->rate;
    struct dirty *dirty = source->dirty;
    struct ram *ram = source->ram;
    struct domain *domain = source->domain;
    struct registrar *registrar = source->registrar;
    source->send = NULL;
    source->registrar = NULL;
    source->rate = NULL;
    source->dirty = NULL;
    pthread_mutex_unlock(&source->lock);
    multifd_send_free(send);
    while (source->channel_count > 0)
        channel_free(source->channels[--source->channel_count]);
    control_free(source->control);
    source->control = NULL;
    if (source->tracking)
        source->guest.ops.dirty_stop(source->guest.self);
    source->tracking = false;
    dirty_free(dirty);
    registrar_free(registrar);
    placement_free(source->placement);
    ram_free(ram);
    domain_free(domain);
    source->ram = NULL;
    source->domain = NULL;
    source->placement = NULL;
    migration_rate_free(rate);
    for (unsigned i = 0; source->streams != NULL && i < source->guest.stream_count; i++)
        state_writer_clear(&source->streams[i].data);
    free(source->streams);
    source->streams = NULL;
    sabotage_free(source->sabotage);
    source->sabotage = NULL;
}

static void publish_end(struct godwit_source *source, enum godwit_status status, const struct godwit_error *error)
{
    pthread_mutex_lock(&source->lock);
    if (error != NULL)
        source->info.error = *error;
    if (status == GODWIT_STATUS_COMPLETED)
        source->info.error = (struct godwit_error){0};
    pthread_mutex_unlock(&source->lock);
    source_set_status(source, status);
}

/* The other connection may be about to say why: give it a moment. */
static void await_reason(struct godwit_source *source, struct godwit_error *error)
{
    uint64_t deadline = clock_now_ms() + REASON_WAIT_MS;
    pthread_mutex_lock(&source->lock);
    while (reason_is_lost_channel(error->code) && source->control != NULL && clock_left_ms(deadline) > 0) {
        source_wait_tick(source);
        if (reason_is_better(source->failure.code, error->code))
            *error = source->failure;
    }
    pthread_mutex_unlock(&source->lock);
}

/* The guest runs on here; what is told to the user is why, and if even that failed, that too. */
static enum godwit_err give_up(struct godwit_source *source, struct godwit_error *error)
{
    struct godwit_error worse = {0};
    enum godwit_err revived = source_revive(source, &worse);
    await_reason(source, error);
    bool cancelled = error->code == GODWIT_ERR_CANCELLED;
    if (cancelled)
        source_set_status(source, GODWIT_STATUS_CANCELLING);
    if (source->control != NULL)
        control_send_error(source->control, error);
    if (revived != GODWIT_OK)
        *error = worse;
    note_end(source);
    cleanup(source);
    publish_end(source, cancelled ? GODWIT_STATUS_CANCELLED : GODWIT_STATUS_FAILED, error);
    return error->code;
}

/* Asks once, and acts on the answer. */
static enum godwit_outcome ask(struct godwit_source *source, int timeout_ms, struct godwit_error *error)
{
    enum godwit_outcome outcome =
        source->running ? GODWIT_OUTCOME_RUNNING : source_ask_outcome(source, timeout_ms, error);
    pthread_mutex_lock(&source->lock);
    source->outcome = outcome;
    source->running = outcome == GODWIT_OUTCOME_RUNNING;
    if (source->running && source->info.downtime_ms == 0)
        source->info.downtime_ms = clock_now_ms() - source->stop_ms;
    if (outcome == GODWIT_OUTCOME_NEVER)
        source->run_written = false;
    pthread_mutex_unlock(&source->lock);
    return outcome;
}

/* RUN may have arrived: ask until somebody knows, for twice the time in which a peer shows that it lives. */
static enum godwit_err find_out(struct godwit_source *source, struct godwit_error *error)
{
    await_reason(source, error);
    note_end(source);
    cleanup(source);
    atomic_store(&source->cancel, false); /* a cancel came too late for the migration and must not stop the question */
    uint64_t deadline = clock_now_ms() + 2 * source_option(source, "peer-timeout");
    struct godwit_error why = *error;
    enum godwit_outcome outcome = GODWIT_OUTCOME_UNKNOWN;
    while (outcome == GODWIT_OUTCOME_UNKNOWN && clock_left_ms(deadline) > 0) {
        outcome = ask(source, clock_left_ms(deadline), &why);
        if (outcome == GODWIT_OUTCOME_UNKNOWN)
            poll(NULL, 0, SOURCE_TICK_MS);
    }
    if (outcome == GODWIT_OUTCOME_RUNNING) {
        publish_end(source, GODWIT_STATUS_COMPLETED, NULL);
        return GODWIT_OK;
    }
    if (outcome == GODWIT_OUTCOME_NEVER) {
        source_revive(source, error); /* on failure the error says so */
        publish_end(source, GODWIT_STATUS_FAILED, error);
        return error->code;
    }
    error_set(error, GODWIT_ERR_OUTCOME_UNKNOWN,
              "the destination was told to run the guest and does not answer (%s); the guest stays stopped here",
              why.text);
    publish_end(source, GODWIT_STATUS_DEVICE, error);
    return error->code;
}

/* One migrate at a time; none once the guest has gone, or while it is stopped here. */
static enum godwit_err claim(struct godwit_source *source, struct godwit_error *error)
{
    pthread_mutex_lock(&source->lock);
    enum godwit_err err = GODWIT_OK;
    if (source->migrating || source->status == GODWIT_STATUS_COMPLETED)
        err = error_set(error, GODWIT_ERR_BUSY, "this source is migrating, or has migrated, its guest already");
    else if (source->stopped || source->released)
        err = error_set(error, GODWIT_ERR_BUSY, "the guest is stopped by the migration before: resume it first");
    source->migrating = source->migrating || err == GODWIT_OK;
    pthread_mutex_unlock(&source->lock);
    return err;
}

static enum godwit_err migrate(struct godwit_source *source, const char *uri, struct godwit_error *error)
{
    reset_run(source);
    enum godwit_err err = source_address(source, uri, error);
    if (err == GODWIT_OK)
        err = walk(source, error);
    if (err != GODWIT_OK)
        return source->run_written ? find_out(source, error) : give_up(source, error);
    note_end(source);
    cleanup(source);
    publish_end(source, GODWIT_STATUS_COMPLETED, NULL);
    return GODWIT_OK;
}

enum godwit_err godwit_source_migrate(struct godwit_source *source, const char *uri, struct godwit_error *error)
{
    struct godwit_error local = {0};
    enum godwit_err err = claim(source, &local);
    if (err == GODWIT_OK) {
        err = migrate(source, uri, &local);
        atomic_store(&source->cancel, false); /* obeyed or too late; another migration may be tried */
        pthread_mutex_lock(&source->lock);
        source->migrating = false;
        pthread_mutex_unlock(&source->lock);
    }
    if (err != GODWIT_OK && error != NULL)
        *error = local;
    return err;
}

/* ---- the other public calls ---- */

enum godwit_err godwit_source_new(const struct godwit_guest *guest, const struct godwit_options *options,
                                  godwit_event_fn *on_event, void *opaque, struct godwit_source **out,
                                  struct godwit_error *error)
{
    struct godwit_source *source = calloc(1, sizeof *source);
    if (source == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a source");
    source->on_event = on_event;
    source->opaque = opaque;
    pthread_mutex_init(&source->lock, NULL);
    pthread_cond_init(&source->changed, NULL);
    source->options = options_copy(options);
    enum godwit_err err = source->options != NULL ? guest_resolve(guest, &source->given, error)
                                                  : error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a source");
    if (err == GODWIT_OK && source->given.block_count == 0)
        err = error_set(error, GODWIT_ERR_INVALID, "a guest without memory cannot be migrated");
    if (err != GODWIT_OK) {
        godwit_source_free(source);
        return err;
    }
    source->guest = source->given;
    *out = source;
    return GODWIT_OK;
}

void godwit_source_cancel(struct godwit_source *source)
{
    atomic_store(&source->cancel, true);
}

enum godwit_err godwit_source_set(struct godwit_source *source, const char *name, const char *value,
                                  struct godwit_error *error)
{
    const struct godwit_option *option = options_find(name);
    pthread_mutex_lock(&source->lock);
    bool running = source->rate != NULL;
    enum godwit_err err;
    if (running && option != NULL && option->when != GODWIT_SET_LIVE)
        err = error_set(error, GODWIT_ERR_BUSY, "%s cannot be changed while a migration runs", name);
    else
        err = godwit_options_set(source->options, name, value, error);
    if (err == GODWIT_OK && running && source->status != GODWIT_STATUS_DEVICE && strcmp(name, "max-bandwidth") == 0)
        migration_rate_set(source->rate, godwit_options_get(source->options, name));
    pthread_mutex_unlock(&source->lock);
    return err;
}

void godwit_source_mark(struct godwit_source *source, unsigned block, uint64_t first_page, uint64_t pages)
{
    pthread_mutex_lock(&source->lock);
    if (source->dirty != NULL)
        dirty_mark(source->dirty, block, first_page, pages);
    pthread_mutex_unlock(&source->lock);
}

void godwit_source_query(struct godwit_source *source, struct godwit_info *info)
{
    pthread_mutex_lock(&source->lock);
    *info = source->info;
    info->status = source->status;
    info->outcome = source->running ? GODWIT_OUTCOME_RUNNING : source->outcome;
    sum_channels(source, info);
    if (source->send != NULL)
        info->total_time_ms = clock_now_ms() - source->start_ms;
    pthread_mutex_unlock(&source->lock);
}

enum godwit_outcome godwit_source_outcome(struct godwit_source *source, int timeout_ms, struct godwit_error *error)
{
    struct godwit_error local = {0};
    pthread_mutex_lock(&source->lock);
    bool unknown = !source->migrating && source->run_written && !source->running;
    enum godwit_outcome outcome = source->running ? GODWIT_OUTCOME_RUNNING : source->outcome;
    pthread_mutex_unlock(&source->lock);
    if (!unknown)
        return outcome;
    outcome = ask(source, timeout_ms, &local);
    if (outcome == GODWIT_OUTCOME_RUNNING)
        publish_end(source, GODWIT_STATUS_COMPLETED, NULL);
    if (outcome == GODWIT_OUTCOME_NEVER) {
        enum godwit_err err = source_revive(source, &local);
        publish_end(source, GODWIT_STATUS_FAILED, err == GODWIT_OK ? NULL : &local);
    }
    if (error != NULL)
        *error = local;
    return outcome;
}

enum godwit_err godwit_source_resume(struct godwit_source *source, struct godwit_error *error)
{
    struct godwit_error local = {0};
    pthread_mutex_lock(&source->lock);
    bool may = !source->migrating && !source->running && (source->stopped || source->released);
    pthread_mutex_unlock(&source->lock);
    enum godwit_err err = may ? source_revive(source, &local)
                              : error_set(&local, GODWIT_ERR_INVALID,
                                          "there is no guest here that a migration left stopped");
    if (err == GODWIT_OK) {
        pthread_mutex_lock(&source->lock);
        source->run_written = false;
        pthread_mutex_unlock(&source->lock);
        publish_end(source, GODWIT_STATUS_FAILED, NULL);
    }
    if (err != GODWIT_OK && error != NULL)
        *error = local;
    return err;
}

void godwit_source_free(struct godwit_source *source)
{
    if (source == NULL)
        return;
    transports_release(&source->transports);
    godwit_options_free(source->options);
    pthread_cond_destroy(&source->changed);
    pthread_mutex_destroy(&source->lock);
    free(source);
}

void source_use_transport(struct godwit_source *source, const struct transport *control, const struct transport *data)
{
    source->control_override = control;
    source->data_override = data;
}
