/*
 * Reader loop: wait for a record until the next heartbeat is due or the peer counts as dead, whichever is first;
 * dispatch; send the heartbeat when it is due. A heartbeat is skipped while another thread is sending: those bytes are
 * as good.
 *
 * Failure modes: silence beyond peer_timeout_ms is PEER_DEAD; a RECORD_ERROR is PEER_FAILED with the peer's words; a
 * broken record is PROTOCOL. After a long pause of this process (a debugger, SIGSTOP) what has arrived meanwhile is
 * read before the peer is declared dead.
 *
 * Teardown: control_stop shuts the channel down, which ends every blocked call, then joins the reader; the caller must
 * have stopped its own senders before control_free. Records that were read ahead are dispatched until then. Nobody else
 * holds a pointer to the channel.
 */
#include "session/control.h"

#include <assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "transport/clock.h"
#include "transport/error.h"
#include "transport/wire.h"

enum { HEARTBEAT_SIZE = 16, ERROR_FIXED_SIZE = 4, TELL_WAIT_MS = 200 };

struct control {
    struct control_config config;
    pthread_t reader;
    atomic_bool stopping;
    _Atomic uint64_t peer_progress;

    /* reader thread only */
    struct record_reader in;
    uint8_t *body;
    uint32_t received;
    bool own_error; /* it ended because of what this side found wrong */

    /* under lock */
    pthread_mutex_t lock;
    uint32_t sent;
};

static enum godwit_err send_locked(struct control *control, uint16_t type, const struct iovec *body, unsigned count)
{
    enum godwit_err err =
        record_send(control->config.channel, type, control->sent, body, count, control->config.peer_timeout_ms);
    control->sent += err != GODWIT_ERR_TIMEOUT; /* after a timeout nothing of it has left */
    return err;
}

enum godwit_err control_send(struct control *control, uint16_t type, const struct iovec *body, unsigned count,
                             struct godwit_error *error)
{
    pthread_mutex_lock(&control->lock);
    enum godwit_err err = send_locked(control, type, body, count);
    pthread_mutex_unlock(&control->lock);
    if (err != GODWIT_OK)
        return error_set(error, err, "cannot send %s to %s: %s", record_name(type),
                         channel_name(control->config.channel), godwit_err_text(err));
    return GODWIT_OK;
}

static enum godwit_err send_error_locked(struct control *control, const struct godwit_error *why)
{
    uint8_t head[ERROR_FIXED_SIZE];
    char text[GODWIT_ERROR_TEXT];
    size_t size = strnlen(why->text, GODWIT_ERROR_TEXT - 1);
    struct wire_out out = wire_out(head, sizeof head);
    wire_put_u16(&out, (uint16_t)why->code);
    wire_put_u16(&out, (uint16_t)size);
    memcpy(text, why->text, size);
    struct iovec body[] = {{head, sizeof head}, {text, size}};
    return send_locked(control, RECORD_ERROR, body, 2);
}

void control_send_error(struct control *control, const struct godwit_error *why)
{
    pthread_mutex_lock(&control->lock);
    send_error_locked(control, why);
    pthread_mutex_unlock(&control->lock);
}

/* False while another thread is sending. */
static bool heartbeat_send(struct control *control)
{
    if (pthread_mutex_trylock(&control->lock) != 0)
        return false;
    uint8_t bytes[HEARTBEAT_SIZE];
    struct wire_out out = wire_out(bytes, sizeof bytes);
    wire_put_u64(&out, clock_now_ns());
    wire_put_u64(&out, control->config.progress(control->config.opaque));
    struct iovec body = {bytes, sizeof bytes};
    send_locked(control, RECORD_HEARTBEAT, &body, 1); /* a failure shows in the reader's next recv */
    pthread_mutex_unlock(&control->lock);
    return true;
}

static enum godwit_err take_heartbeat(struct control *control, const struct record_header *header,
                                      struct godwit_error *error)
{
    if (header->size != HEARTBEAT_SIZE)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed HEARTBEAT of %u bytes", header->size);
    struct wire_in in = wire_in(control->body, HEARTBEAT_SIZE);
    wire_get_u64(&in); /* the peer's clock: for people who read captures */
    atomic_store_explicit(&control->peer_progress, wire_get_u64(&in), memory_order_relaxed);
    return GODWIT_OK;
}

static enum godwit_err take_error(struct control *control, const struct record_header *header,
                                  struct godwit_error *error)
{
    struct wire_in in = wire_in(control->body, header->size);
    uint16_t code = wire_get_u16(&in);
    uint16_t size = wire_get_u16(&in);
    if (in.failed || size != wire_left(&in) || size >= GODWIT_ERROR_TEXT)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed ERROR of %u bytes", header->size);
    /* A cancel stays a cancel and a mismatch a mismatch on both sides; anything else is the peer's failure. */
    bool same = code == GODWIT_ERR_CANCELLED || code == GODWIT_ERR_MISMATCH;
    return error_set(error, same ? (enum godwit_err)code : GODWIT_ERR_PEER_FAILED, "the peer gave up: %.*s", (int)size,
                     (const char *)in.at);
}

static enum godwit_err dispatch(struct control *control, const struct record_header *header, struct godwit_error *error)
{
    switch (header->type) {
    case RECORD_HEARTBEAT:
        return take_heartbeat(control, header, error);
    case RECORD_ERROR:
        return take_error(control, header, error);
    default:
        return control->config.record(control->config.opaque, header, control->body, error);
    }
}

/* Is a sender held up beyond what its owner allows? */
static enum godwit_err check_senders(struct control *control, struct godwit_error *error)
{
    if (pthread_mutex_trylock(&control->lock) != 0)
        return control->config.check(control->config.opaque, error);
    pthread_mutex_unlock(&control->lock);
    return GODWIT_OK;
}

/* How long to wait for a record, from now until then: at least a millisecond, at most a tick. */
static int wait_ms(uint64_t until, uint64_t now)
{
    return until <= now ? 1 : until - now < CONTROL_TICK_MS ? (int)(until - now) : CONTROL_TICK_MS;
}

static enum godwit_err read_records(struct control *control, struct godwit_error *error)
{
    const struct control_config *config = &control->config;
    uint64_t now = clock_now_ms(), heard = now;
    uint64_t due = now; /* the first heartbeat goes out at once */
    for (;;) {
        if (now >= due && heartbeat_send(control))
            due = now + (uint64_t)config->heartbeat_ms;
        uint64_t dead = heard + (uint64_t)config->peer_timeout_ms;
        struct record_header header;
        enum godwit_err err = record_recv(&control->in, &header, control->body, control->received,
                                          wait_ms(dead < due ? dead : due, now), config->peer_timeout_ms, error);
        now = clock_now_ms();
        if (err == GODWIT_ERR_TIMEOUT) {
            err = check_senders(control, error);
            if (err != GODWIT_OK)
                return err;
            if (now >= dead)
                return error_set(error, GODWIT_ERR_PEER_DEAD, "%s has been silent for %d ms",
                                 channel_name(config->channel), config->peer_timeout_ms);
            continue;
        }
        control->own_error = err == GODWIT_ERR_PROTOCOL;
        if (err != GODWIT_OK)
            return err;
        control->received++;
        heard = now;
        err = dispatch(control, &header, error);
        control->own_error = err != GODWIT_OK && (header.type != RECORD_ERROR || err == GODWIT_ERR_PROTOCOL);
        if (err != GODWIT_OK)
            return err;
    }
}

/* Who is in the wrong is told, unless a sender is stuck: that one must not wait any longer. */
static void tell_peer(struct control *control, const struct godwit_error *error)
{
    /* Not pthread_mutex_clocklock(): ThreadSanitizer of GCC 12 does not know it, and reports the unlock. */
    uint64_t deadline = clock_now_ms() + TELL_WAIT_MS;
    while (pthread_mutex_trylock(&control->lock) != 0) {
        if (clock_left_ms(deadline) == 0)
            return;
        poll(NULL, 0, 1);
    }
    send_error_locked(control, error);
    pthread_mutex_unlock(&control->lock);
}

static void *reader_main(void *opaque)
{
    struct control *control = opaque;
    struct godwit_error error = {0};
    pthread_setname_np(pthread_self(), "mig_control");
    read_records(control, &error);
    if (control->own_error)
        tell_peer(control, &error);
    channel_shutdown(control->config.channel);
    if (atomic_load(&control->stopping))
        error_set(&error, GODWIT_ERR_CLOSED, "control connection closed by this side");
    control->config.ended(control->config.opaque, &error);
    return NULL;
}

enum godwit_err control_start(const struct control_config *config, struct control **out, struct godwit_error *error)
{
    struct control *control = calloc(1, sizeof *control);
    if (control == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for the control connection");
    control->body = malloc(RECORD_BODY_MAX);
    if (control->body == NULL)
        goto free_control;
    control->config = *config;
    control->in.channel = config->channel;
    pthread_mutex_init(&control->lock, NULL);
    if (pthread_create(&control->reader, NULL, reader_main, control) != 0)
        goto destroy_lock;
    *out = control;
    return GODWIT_OK;

destroy_lock:
    pthread_mutex_destroy(&control->lock);
    free(control->body);
free_control:
    free(control);
    return error_set(error, GODWIT_ERR_NO_MEMORY, "cannot start the control thread");
}

uint64_t control_peer_progress(const struct control *control)
{
    return atomic_load_explicit(&control->peer_progress, memory_order_relaxed);
}

void control_stop(struct control *control)
{
    if (atomic_exchange(&control->stopping, true))
        return;
    channel_shutdown(control->config.channel);
    pthread_join(control->reader, NULL);
}

void control_free(struct control *control)
{
    if (control == NULL)
        return;
    control_stop(control);
    channel_free(control->config.channel);
    pthread_mutex_destroy(&control->lock);
    free(control->body);
    free(control);
}
