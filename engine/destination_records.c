/* What arrives at the destination: control records (control thread), markers and failures of channels (receivers). */
#include "engine/destination.h"
#include "transport/clock.h"
#include "transport/error.h"
#include "transport/wire.h"

static enum godwit_err take_offer(struct session *session, const uint8_t *body, uint32_t size,
                                  struct godwit_error *error)
{
    if (session->offered)
        return error_set(error, GODWIT_ERR_PROTOCOL, "a second OFFER");
    enum godwit_err err = offer_decode(body, size, &session->offer, error);
    session->offered = err == GODWIT_OK;
    return err;
}

static enum godwit_err take_commit(struct session *session, const uint8_t *body, uint32_t size,
                                   struct godwit_error *error)
{
    struct wire_in in = wire_in(body, size);
    uint32_t epoch = wire_get_u32(&in);
    uint32_t streams = wire_get_u32(&in);
    if (session->recv == NULL || session->committed || in.failed || wire_left(&in) != 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed, second or unexpected COMMIT");
    session->commit_epoch = epoch;
    session->commit_streams = streams;
    session->committed = true;
    return GODWIT_OK;
}

/* From here on the guest may run here, unless it was decided before that it never will. */
static enum godwit_err take_run(struct session *session, uint32_t size, struct godwit_error *error)
{
    if (!session->loaded || size != 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "RUN before LOADED");
    if (session->past->fate != FATE_UNDECIDED)
        return error_set(error, GODWIT_ERR_PROTOCOL, "RUN came too late");
    session->past->fate = FATE_RUN_TAKEN;
    return GODWIT_OK;
}

static enum godwit_err take_locked(struct session *session, const struct record_header *header, const uint8_t *body,
                                   struct godwit_error *error)
{
    switch (header->type) {
    case RECORD_OFFER:
        return take_offer(session, body, header->size, error);
    case RECORD_STATE:
        if (session->recv == NULL || session->committed)
            return error_set(error, GODWIT_ERR_PROTOCOL, "STATE outside of a migration");
        return state_set_add(&session->states, body, header->size, error);
    case RECORD_REGISTER:
        return session_take_register(session, body, header->size, error);
    case RECORD_COMMIT:
        return take_commit(session, body, header->size, error);
    case RECORD_RUN:
        return take_run(session, header->size, error);
    case RECORD_BYE:
        if (header->size != 0 || session->past == NULL || session->past->fate != FATE_RUNNING)
            return error_set(error, GODWIT_ERR_PROTOCOL, "malformed or unexpected BYE");
        session->bye = true;
        return GODWIT_OK;
    default:
        if (header->type >= RECORD_OPTIONAL)
            return GODWIT_OK;
        return error_set(error, GODWIT_ERR_PROTOCOL, "%s (type %u) from a source", record_name(header->type),
                         header->type);
    }
}

enum godwit_err records_take(void *opaque, const struct record_header *header, const uint8_t *body,
                             struct godwit_error *error)
{
    struct session *session = opaque;
    pthread_mutex_lock(&session->destination->lock);
    enum godwit_err err = take_locked(session, header, body, error);
    pthread_cond_broadcast(&session->destination->changed);
    pthread_mutex_unlock(&session->destination->lock);
    return err;
}

void records_ended(void *opaque, const struct godwit_error *error)
{
    session_fail(opaque, error);
}

void records_receiver_failed(void *opaque, const struct godwit_error *error)
{
    session_fail(opaque, error);
}

static uint64_t arrived_bytes(const struct session *session)
{
    uint64_t bytes = 0;
    struct godwit_channel_info info;
    for (unsigned i = 0; i < session->offer.channels; i++) {
        multifd_recv_info(session->recv, i, &info);
        bytes += info.bytes;
    }
    return bytes;
}

/* Acknowledges, in order, what all channels have marked. Under ack_lock, so that acknowledgements leave in order
 * too. */
static void acknowledge(struct session *session)
{
    uint32_t all = UINT32_MAX;
    for (unsigned i = 0; i < session->offer.channels; i++)
        all = session->marks[i] < all ? session->marks[i] : all;
    if (all <= session->acked)
        return;
    session->acked = all;
    uint8_t bytes[12];
    struct wire_out out = wire_out(bytes, sizeof bytes);
    wire_put_u32(&out, all);
    wire_put_u64(&out, arrived_bytes(session));
    struct iovec body = {bytes, sizeof bytes};
    control_send(session->control, RECORD_EPOCH_ACK, &body, 1, NULL); /* a failure ends the control connection too */
}

void records_marker(void *opaque, unsigned channel, uint32_t epoch)
{
    struct session *session = opaque;
    pthread_mutex_lock(&session->ack_lock);
    session->marks[channel] = epoch;
    acknowledge(session);
    pthread_mutex_unlock(&session->ack_lock);
}

enum godwit_err records_check(void *opaque, struct godwit_error *error)
{
    struct session *session = opaque;
    uint64_t limit = destination_option(session->destination, "progress-timeout");
    pthread_mutex_lock(&session->destination->lock);
    uint64_t since = session->closing_ms;
    pthread_mutex_unlock(&session->destination->lock);
    if (since != 0 && clock_now_ms() - since > limit) /* whoever joins the threads that send waits for this */
        return error_set(error, GODWIT_ERR_STALLED, "the source takes next to no records");
    return GODWIT_OK; /* not for a failure or a cancel: the source is about to be told of it by this connection */
}

uint64_t records_progress(void *opaque)
{
    struct session *session = opaque;
    pthread_mutex_lock(&session->destination->lock);
    uint64_t progress = session->recv != NULL ? multifd_recv_progress(session->recv) : 0;
    progress += session->registrar != NULL ? registrar_info(session->registrar).done : 0;
    pthread_mutex_unlock(&session->destination->lock);
    return progress;
}
