/*
 * Passes over the dirty bitmap. One pass: open an epoch, walk every block, hand runs of dirty pages to the senders in
 * batches, close the epoch so that every channel carries its marker; a long pass closes and opens epochs on its way.
 * While the acknowledgement is awaited the next dirty log is read already; pages that are still on their way are left
 * for later.
 *
 * Before the first pass all that is not data is announced as zero extents: every page is announced once.
 */
#include "engine/source.h"
#include "transport/clock.h"
#include "transport/error.h"

enum { PASS_PACE_MS = 10 /* a pass with next to nothing to send does not run more often than this */ };

/* Waits until the ledger allows what `ready` asks for. */
static enum godwit_err wait_ledger(struct godwit_source *source, bool (*ready)(const struct ledger *),
                                   struct godwit_error *error)
{
    for (;;) {
        pthread_mutex_lock(&source->lock);
        bool done = ready(&source->ledger);
        if (!done)
            source_wait_tick(source);
        done = ready(&source->ledger);
        pthread_mutex_unlock(&source->lock);
        enum godwit_err err = source_check(source, error);
        if (done || err != GODWIT_OK)
            return err;
    }
}

static bool all_acked(const struct ledger *ledger)
{
    return ledger->acked == ledger->closed;
}

static enum godwit_err open_epoch(struct godwit_source *source, struct godwit_error *error)
{
    enum godwit_err err = wait_ledger(source, ledger_may_open, error);
    if (err != GODWIT_OK)
        return err;
    dirty_reset_sent(source->dirty, source->ledger.open + 1);
    pthread_mutex_lock(&source->lock);
    ledger_open(&source->ledger, clock_now_ns());
    pthread_mutex_unlock(&source->lock);
    return GODWIT_OK;
}

static void close_epoch(struct godwit_source *source)
{
    pthread_mutex_lock(&source->lock);
    ledger_close(&source->ledger); /* before the marker can be answered */
    uint32_t epoch = source->ledger.open;
    pthread_mutex_unlock(&source->lock);
    multifd_send_mark(source->send, epoch);
}

static enum godwit_err next_batch(struct godwit_source *source, struct batch **out, struct godwit_error *error)
{
    for (;;) {
        enum godwit_err err = source_check(source, error);
        if (err != GODWIT_OK)
            return err;
        *out = multifd_send_batch(source->send, source->ledger.open, SOURCE_TICK_MS);
        if (*out != NULL)
            return GODWIT_OK;
    }
}

/* Hands a batch over and keeps the books. */
static void submit(struct godwit_source *source, struct batch *batch)
{
    unsigned pages = batch->normal_pages;
    multifd_send_submit(source->send, batch);
    pthread_mutex_lock(&source->lock);
    source->ledger.pages[source->ledger.open % 2] += pages;
    source->info.ram.remaining = source->dirty->pages << PAGE_SHIFT;
    pthread_mutex_unlock(&source->lock);
}

static enum godwit_err announce_holes(struct godwit_source *source, struct godwit_error *error)
{
    struct batch *batch = NULL;
    enum godwit_err err = next_batch(source, &batch, error);
    for (unsigned i = 0; i < source->ram->count && err == GODWIT_OK; i++) {
        for (uint64_t from = 0;;) {
            struct run run = dirty_next_hole(source->dirty, i, from, source->ledger.open);
            if (run.pages == 0)
                break;
            if (batch_room(batch) == 0) {
                submit(source, batch);
                err = next_batch(source, &batch, error);
                if (err != GODWIT_OK)
                    return err;
            }
            batch_add(batch, i, run.first, (uint32_t)run.pages, EXTENT_ZERO);
            from = run.first + run.pages;
        }
    }
    if (err == GODWIT_OK)
        submit(source, batch);
    return err;
}

/* What is about to be read may be written again. */
static enum godwit_err clear_log(struct godwit_source *source, const struct batch *batch, struct godwit_error *error)
{
    const struct guest *guest = &source->guest;
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; guest->ops.dirty_clear != NULL && i < batch->count && err == GODWIT_OK; i++) {
        const struct extent *extent = &batch->extents[i];
        err = guest_checked(guest->ops.dirty_clear(guest->self, extent->block, extent->first, extent->pages, error),
                            error, "cannot clear the dirty log");
    }
    return err;
}

/* Fills the batch with what is dirty; an empty batch means that the walk is over. */
static enum godwit_err fill(struct godwit_source *source, struct batch *batch, struct dirty_cursor *cursor,
                            struct godwit_error *error)
{
    unsigned most = migration_rate_batch_pages(source->rate, BATCH_PAGES);
    pthread_mutex_lock(&source->lock);
    bool hold = source->ledger.acked + 1 < source->ledger.open;
    pthread_mutex_unlock(&source->lock);
    dirty_take(source->dirty, cursor, hold, most, batch);
    return clear_log(source, batch, error);
}

/* Everything dirty that may go, once. */
static enum godwit_err send_dirty(struct godwit_source *source, struct godwit_error *error)
{
    struct dirty_cursor cursor = {0};
    for (;;) {
        struct batch *batch;
        enum godwit_err err = next_batch(source, &batch, error);
        if (err == GODWIT_OK)
            err = fill(source, batch, &cursor, error);
        if (err != GODWIT_OK)
            return err;
        bool over = batch->count == 0;
        submit(source, batch);
        if (over)
            return GODWIT_OK;
        if (!ledger_due(&source->ledger, clock_now_ns()))
            continue;
        close_epoch(source);
        err = open_epoch(source, error);
        if (err != GODWIT_OK)
            return err;
    }
}

static enum godwit_err send_pass(struct godwit_source *source, bool first, struct godwit_error *error)
{
    enum godwit_err err = open_epoch(source, error);
    if (err == GODWIT_OK && first)
        err = announce_holes(source, error);
    if (err == GODWIT_OK)
        err = send_dirty(source, error);
    if (err == GODWIT_OK)
        close_epoch(source);
    return err;
}

static enum godwit_err sync_dirty(struct godwit_source *source, struct godwit_error *error)
{
    uint64_t found, start = clock_now_ns();
    enum godwit_err err = dirty_sync(source->dirty, &source->guest, &found, error);
    if (err != GODWIT_OK)
        return err;
    uint64_t now = clock_now_ns(), since = now - source->synced_ns;
    source->sync_ns = now - start;
    source->synced_ns = now;
    pthread_mutex_lock(&source->lock);
    source->info.ram.dirty_sync_count++;
    source->info.ram.remaining = source->dirty->pages << PAGE_SHIFT;
    source->info.ram.dirty_pages_rate = (uint64_t)((double)found * 1e9 / (double)(since > 0 ? since : 1));
    uint64_t pass = source->info.ram.dirty_sync_count;
    pthread_mutex_unlock(&source->lock);
    source_emit(source, GODWIT_EVENT_MIGRATION_PASS, pass, NULL);
    return GODWIT_OK;
}

/* Every stream begins with an empty record, so that the destination knows their order before any of them grows. */
static enum godwit_err announce_states(struct godwit_source *source, struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i < source->guest.stream_count && err == GODWIT_OK; i++)
        err = source_begin_state(source, i, error);
    return err;
}

/* Device state that need not wait for the end. */
static enum godwit_err save_some(struct godwit_source *source, struct godwit_error *error)
{
    for (unsigned i = 0; i < source->guest.stream_count; i++) {
        uint64_t pending = source->guest.ops.state_pending(source->guest.self, i);
        if (pending == 0)
            continue;
        uint64_t budget = pending < STATE_CHUNK ? pending : STATE_CHUNK;
        enum godwit_err err = guest_checked(
            source->guest.ops.save_some(source->guest.self, i, budget, &source->streams[i].data, error), error,
            "cannot save device state %s", source->guest.streams[i]);
        if (err == GODWIT_OK)
            err = source_send_state(source, i, false, error);
        if (err != GODWIT_OK)
            return err;
    }
    return GODWIT_OK;
}

static uint64_t pending_state(struct godwit_source *source)
{
    uint64_t pending = 0;
    for (unsigned i = 0; i < source->guest.stream_count; i++)
        pending += source->guest.ops.state_pending(source->guest.self, i);
    return pending;
}

static enum switchover_decision decide(struct godwit_source *source)
{
    uint64_t state = pending_state(source);
    pthread_mutex_lock(&source->lock);
    struct switchover_inputs inputs = {
        .remaining = source->dirty->pages << PAGE_SHIFT,
        .unacked = ledger_unacked_pages(&source->ledger) << PAGE_SHIFT,
        .state = state,
        .bandwidth = source->ledger.bandwidth,
        .avail_bandwidth = godwit_options_get(source->options, "avail-switchover-bandwidth"),
        .sync_ns = source->sync_ns,
        .downtime_limit_ms = godwit_options_get(source->options, "downtime-limit"),
    };
    uint64_t expected = switchover_expected_ms(&inputs);
    source->info.expected_downtime_ms = expected == UINT64_MAX ? inputs.downtime_limit_ms : expected;
    pthread_mutex_unlock(&source->lock);
    return switchover_decide(&inputs);
}

/* After a pass: *over says whether the guest may be stopped now; else another pass is due. */
static enum godwit_err after_pass(struct godwit_source *source, bool *over, struct godwit_error *error)
{
    for (;;) {
        enum godwit_err err = sync_dirty(source, error);
        source_register_found(source);
        if (err == GODWIT_OK)
            err = source_announce_slices(source, error);
        if (err != GODWIT_OK)
            return err;
        enum switchover_decision decision = decide(source);
        bool ready = source->guest.ops.switchover_ready(source->guest.self);
        *over = decision == SWITCHOVER_NOW && ready;
        if (*over || decision == SWITCHOVER_NOT_YET)
            return GODWIT_OK;
        if (decision == SWITCHOVER_DRAIN) {
            err = wait_ledger(source, all_acked, error);
        } else { /* all but the guest is ready: look again shortly */
            pthread_mutex_lock(&source->lock);
            source_wait_tick(source);
            pthread_mutex_unlock(&source->lock);
            err = source_check(source, error);
            if (source->dirty->pages > 0)
                return err;
        }
        if (err != GODWIT_OK)
            return err;
    }
}

/* Passes that have next to nothing to send would only burn the processor on dirty log syncs. */
static void pace(struct godwit_source *source, uint64_t started_ms)
{
    int left = clock_left_ms(started_ms + PASS_PACE_MS);
    if (left == 0)
        return;
    struct timespec until = clock_timespec(clock_now_ns() + (uint64_t)left * 1000000u);
    pthread_mutex_lock(&source->lock);
    while (clock_left_ms(started_ms + PASS_PACE_MS) > 0 && source->failure.code == GODWIT_OK)
        pthread_cond_clockwait(&source->changed, &source->lock, CLOCK_MONOTONIC, &until);
    pthread_mutex_unlock(&source->lock);
}

enum godwit_err source_iterate(struct godwit_source *source, struct godwit_error *error)
{
    source->synced_ns = clock_now_ns();
    bool over = false;
    enum godwit_err err = announce_states(source, error);
    for (bool first = true; !over; first = false) {
        uint64_t started = clock_now_ms();
        if (err == GODWIT_OK)
            err = send_pass(source, first, error);
        if (err == GODWIT_OK)
            err = save_some(source, error);
        if (err == GODWIT_OK)
            err = after_pass(source, &over, error);
        if (err != GODWIT_OK)
            return err;
        if (!over)
            pace(source, started);
    }
    return GODWIT_OK;
}

enum godwit_err source_finish_ram(struct godwit_source *source, struct godwit_error *error)
{
    enum godwit_err err = sync_dirty(source, error);
    do {
        if (err == GODWIT_OK)
            err = send_pass(source, false, error);
        if (err == GODWIT_OK)
            err = wait_ledger(source, all_acked, error);
        /* what was on its way the first time has arrived now */
    } while (err == GODWIT_OK && source->dirty->pages > 0);
    return err;
}
