/*
 * The stop phase: stop the guest, save its state, send what is left, have everything acknowledged, send the state,
 * COMMIT, wait for LOADED, give up external resources, RUN, wait for RUNNING.
 *
 * The point of no return is one flag, run_written, set under the lock before the first byte of RUN can leave: whoever
 * looks at it afterwards, a cancel, a timeout, a broken channel, knows that this side may no longer start the guest by
 * itself. From then on only the destination's own word does (docs/protocol.md §8): RUNNING, or the answer to
 * OUTCOME_ASK.
 */
#include <string.h>

#include "engine/source.h"
#include "transport/clock.h"
#include "transport/error.h"
#include "transport/wire.h"

static void set_flag(struct godwit_source *source, bool *flag, bool value)
{
    pthread_mutex_lock(&source->lock);
    *flag = value;
    pthread_mutex_unlock(&source->lock);
}

static enum godwit_err send_chunk(struct godwit_source *source, struct state_head *head, const uint8_t *data,
                                  size_t size, struct godwit_error *error)
{
    uint8_t bytes[STATE_HEAD_MAX];
    struct iovec body[] = {
        {bytes, state_head_encode(head, bytes)},
        {(void *)(uintptr_t)data, size},
    };
    enum godwit_err err = control_send(source->control, RECORD_STATE, body, size > 0 ? 2 : 1, error);
    head->offset += size;
    return err == GODWIT_OK ? source_check(source, error) : err;
}

enum godwit_err source_begin_state(struct godwit_source *source, unsigned index, struct godwit_error *error)
{
    struct state_head head = {.offset = 0};
    strcpy(head.name, source->guest.streams[index]); /* its length was checked by guest_resolve() */
    return send_chunk(source, &head, NULL, 0, error);
}

enum godwit_err source_send_state(struct godwit_source *source, unsigned index, bool last, struct godwit_error *error)
{
    struct source_state_stream *stream = &source->streams[index];
    struct state_head head = {.offset = stream->data.before};
    strcpy(head.name, source->guest.streams[index]);
    enum godwit_err err = GODWIT_OK;
    size_t at = 0;
    while (err == GODWIT_OK && stream->data.size - at > STATE_CHUNK) {
        err = send_chunk(source, &head, stream->data.bytes + at, STATE_CHUNK, error);
        at += STATE_CHUNK;
    }
    head.last = last;
    if (err == GODWIT_OK && (last || stream->data.size > at))
        err = send_chunk(source, &head, stream->data.bytes + at, stream->data.size - at, error);
    pthread_mutex_lock(&source->lock);
    source->info.state_bytes += head.offset - stream->data.before;
    pthread_mutex_unlock(&source->lock);
    stream->data.before = head.offset;
    stream->data.size = 0;
    return err;
}

static enum godwit_err stop_guest(struct godwit_source *source, struct godwit_error *error)
{
    pthread_mutex_lock(&source->lock);
    source->stop_ms = clock_now_ms();
    source->stopped = true; /* also if it fails half-way: it is resumed then */
    source->info.ram.precopy_bytes = multifd_send_bytes(source->send);
    pthread_mutex_unlock(&source->lock);
    source_set_status(source, GODWIT_STATUS_DEVICE);
    if (source->placement != NULL) /* from here on a copy takes less time than a registration */
        placement_hurry(source->placement);
    enum godwit_err err =
        guest_checked(source->guest.ops.stop(source->guest.self, error), error, "cannot stop the guest");
    if (err != GODWIT_OK)
        return err;
    migration_rate_set(source->rate, 0);
    for (unsigned i = 0; i < source->guest.stream_count; i++) {
        err = guest_checked(source->guest.ops.save_rest(source->guest.self, i, &source->streams[i].data, error), error,
                            "cannot save device state %s", source->guest.streams[i]);
        if (err != GODWIT_OK)
            return err;
    }
    return GODWIT_OK;
}

static enum godwit_err send_states(struct godwit_source *source, struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i < source->guest.stream_count && err == GODWIT_OK; i++)
        err = source_send_state(source, i, true, error);
    return err;
}

static enum godwit_err commit(struct godwit_source *source, struct godwit_error *error)
{
    uint8_t bytes[8];
    struct wire_out out = wire_out(bytes, sizeof bytes);
    pthread_mutex_lock(&source->lock);
    wire_put_u32(&out, source->ledger.closed);
    wire_put_u32(&out, source->guest.stream_count);
    source->committed = true;
    pthread_mutex_unlock(&source->lock);
    struct iovec body = {bytes, sizeof bytes};
    enum godwit_err err = control_send(source->control, RECORD_COMMIT, &body, 1, error);
    bool loaded = false;
    while (err == GODWIT_OK && !loaded) {
        pthread_mutex_lock(&source->lock);
        if (!source->loaded)
            source_wait_tick(source);
        loaded = source->loaded;
        pthread_mutex_unlock(&source->lock);
        err = source_check(source, error);
    }
    return err;
}

/* Passes the point of no return, unless there is a reason not to. */
static enum godwit_err write_run(struct godwit_source *source, struct godwit_error *error)
{
    set_flag(source, &source->released, true); /* also if it fails half-way: it is reclaimed then */
    enum godwit_err err = guest_checked(source->guest.ops.release(source->guest.self, error), error,
                                        "cannot give up the guest's external resources");
    if (err != GODWIT_OK)
        return err;
    pthread_mutex_lock(&source->lock);
    err = source_check_locked(source, error);
    source->run_written = err == GODWIT_OK;
    pthread_mutex_unlock(&source->lock);
    return err == GODWIT_OK ? control_send(source->control, RECORD_RUN, NULL, 0, error) : err;
}

/* For as long as the destination shows that it lives: resuming a guest may take its time. */
static enum godwit_err wait_running(struct godwit_source *source, struct godwit_error *error)
{
    for (;;) {
        pthread_mutex_lock(&source->lock);
        if (!source->running)
            source_wait_tick(source);
        bool running = source->running;
        pthread_mutex_unlock(&source->lock);
        if (running)
            return GODWIT_OK;
        enum godwit_err err = source_check(source, error);
        if (err != GODWIT_OK)
            return err;
    }
}

enum godwit_err source_switch(struct godwit_source *source, struct godwit_error *error)
{
    enum godwit_err err = stop_guest(source, error);
    if (err == GODWIT_OK)
        err = source_finish_ram(source, error);
    if (err == GODWIT_OK)
        err = send_states(source, error);
    if (err == GODWIT_OK)
        err = commit(source, error);
    if (err == GODWIT_OK)
        err = write_run(source, error);
    if (err == GODWIT_OK)
        err = wait_running(source, error);
    if (err != GODWIT_OK)
        return err;
    pthread_mutex_lock(&source->lock);
    source->info.downtime_ms = clock_now_ms() - source->stop_ms;
    pthread_mutex_unlock(&source->lock);
    control_send(source->control, RECORD_BYE, NULL, 0, NULL); /* a courtesy: the destination may forget the session */
    return GODWIT_OK;
}

/* ---- after RUN without RUNNING ---- */

static enum godwit_outcome exchange_outcome(struct channel *channel, int timeout_ms, struct godwit_error *error)
{
    uint8_t body[1];
    struct record_header header;
    enum godwit_err err = record_send(channel, RECORD_OUTCOME_ASK, 0, NULL, 0, timeout_ms);
    if (err != GODWIT_OK) {
        error_set(error, err, "cannot ask for the outcome: %s", godwit_err_text(err));
        return GODWIT_OUTCOME_UNKNOWN;
    }
    uint8_t bytes[RECORD_HEADER_SIZE];
    err = channel_recv_exact(channel, bytes, sizeof bytes, timeout_ms);
    if (err == GODWIT_OK)
        err = record_header_decode(bytes, &header, error);
    if (err == GODWIT_OK && (header.type != RECORD_OUTCOME || header.size != sizeof body))
        err = GODWIT_ERR_PROTOCOL;
    if (err == GODWIT_OK)
        err = channel_recv_exact(channel, body, header.size, timeout_ms);
    if (err == GODWIT_OK)
        err = record_check(bytes, &header, body, 0, error);
    if (err != GODWIT_OK || body[0] > GODWIT_OUTCOME_NEVER) {
        error_set(error, err, "no answer to the question for the outcome: %s", godwit_err_text(err));
        return GODWIT_OUTCOME_UNKNOWN;
    }
    return (enum godwit_outcome)body[0];
}

enum godwit_outcome source_ask_outcome(struct godwit_source *source, int timeout_ms, struct godwit_error *error)
{
    struct hello hello = {.version = PROTOCOL_VERSION,
                          .oldest = PROTOCOL_OLDEST,
                          .role = HELLO_CONTROL,
                          .epoch = source->outcome_token.epoch};
    memcpy(hello.session, source->session, sizeof hello.session);
    memcpy(hello.token, source->outcome_token.bytes, sizeof hello.token);
    struct channel *channel;
    enum godwit_outcome outcome = GODWIT_OUTCOME_UNKNOWN;
    if (source_connect(source, &hello, NULL, timeout_ms, &source->cancel, &channel, error) == GODWIT_OK)
        outcome = exchange_outcome(channel, timeout_ms, error);
    channel_free(channel);
    return outcome;
}

enum godwit_err source_revive(struct godwit_source *source, struct godwit_error *error)
{
    const struct guest *guest = &source->given;
    enum godwit_err err = GODWIT_OK;
    if (source->released)
        err = guest_checked(guest->ops.reclaim(guest->self, error), error,
                            "the guest is stopped here: cannot take its external resources back");
    if (err != GODWIT_OK)
        goto stopped;
    set_flag(source, &source->released, false);
    if (source->stopped)
        err = guest_checked(guest->ops.resume(guest->self, error), error,
                            "the guest is stopped here: cannot resume it");
    if (err != GODWIT_OK)
        goto stopped;
    set_flag(source, &source->stopped, false);
    return GODWIT_OK;

stopped:
    error->code = GODWIT_ERR_NOT_RESUMED;
    return error->code;
}
