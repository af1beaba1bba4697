/*
 * A channel inside TLS. Sending fills records of 16 KiB: long runs of the caller's memory are encrypted where they lie,
 * in one read, small pieces are gathered first, and eight records leave in one call of the wrapped channel. Receiving
 * reads ahead and has GnuTLS decrypt into the caller's memory.
 *
 * Keys are renewed by the sending thread of each direction, on its own (KeyUpdate without asking for the peer's), well
 * before the limit of the cipher.
 *
 * Failure modes: the end of the stream without TLS's closing notify is RESET, not PEER_CLOSED: somebody cut it. An alert
 * of the peer is NOT_ADMITTED or PROTOCOL and channel_detail() tells which. Records that are no TLS, or were changed, are
 * PROTOCOL. Accepted: a shutdown while a send is under way, or into a full socket, says no goodbye; the peer then reads a
 * cut, which is what happened to what was under way.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tcp/tls_private.h"
#include "transport/clock.h"
#include "transport/error.h"

/* The pause is for GnuTLS on the other side, which takes more than 8 renewals a second for an attack. */
enum { RENEW_PAUSE_MS = 150 };

/* Of the record at the front of `in`, once its header is there. One that is too long ends where what was read ends:
 * GnuTLS says what is wrong with it when it has seen the header. */
static size_t record_size(const struct tls_channel *channel)
{
    const uint8_t *record = channel->in + channel->in_at;
    size_t size = TLS_HEADER + ((size_t)record[3] << 8 | record[4]);
    return size <= TLS_RECORD_MAX ? size : channel->in_end - channel->in_at;
}

size_t tls_channel_lacks(const struct tls_channel *channel)
{
    size_t have = channel->in_end - channel->in_at;
    size_t whole = have < TLS_HEADER ? TLS_HEADER : record_size(channel);
    return whole > have ? whole - have : 0;
}

enum godwit_err tls_channel_fill_in(struct tls_channel *channel, size_t most, int timeout_ms)
{
    if (channel->in_at == channel->in_end) {
        channel->in_at = channel->in_end = 0;
    } else if (TLS_READ_AHEAD - channel->in_at < TLS_RECORD_MAX) {
        memmove(channel->in, channel->in + channel->in_at, channel->in_end - channel->in_at);
        channel->in_end -= channel->in_at;
        channel->in_at = 0;
    }
    size_t room = TLS_READ_AHEAD - channel->in_end, got = 0;
    enum godwit_err err = channel_recv_some(channel->base.wrapped, channel->in + channel->in_end,
                                            most < room ? most : room, timeout_ms, &got);
    channel->in_end += got;
    return err;
}

enum godwit_err tls_channel_flush_out(struct tls_channel *channel, int timeout_ms)
{
    if (!channel->out_size)
        return GODWIT_OK;
    enum godwit_err err = channel_send(channel->base.wrapped, channel->out, channel->out_size, NULL, 0, timeout_ms);
    channel->out_size = 0;
    return err;
}

/* ---- GnuTLS's I/O, under the lock ---- */

static ssize_t push(gnutls_transport_ptr_t opaque, const giovec_t *iov, int count)
{
    struct tls_channel *channel = opaque;
    size_t size = 0;
    for (int i = 0; i < count; i++) {
        if (channel->out_size + iov[i].iov_len > TLS_BATCH + TLS_RECORD_MAX) {
            gnutls_transport_set_errno(channel->session, ENOBUFS);
            return -1;
        }
        memcpy(channel->out + channel->out_size, iov[i].iov_base, iov[i].iov_len);
        channel->out_size += iov[i].iov_len;
        size += iov[i].iov_len;
    }
    return (ssize_t)size;
}

static ssize_t pull(gnutls_transport_ptr_t opaque, void *buffer, size_t size)
{
    struct tls_channel *channel = opaque;
    if (!channel->record_left && !tls_channel_lacks(channel)) /* whole records only: no call ends within one */
        channel->record_left = record_size(channel);
    if (size > channel->record_left)
        size = channel->record_left;
    if (!size) {
        gnutls_transport_set_errno(channel->session, EAGAIN);
        return -1;
    }
    memcpy(buffer, channel->in + channel->in_at, size);
    channel->in_at += size;
    channel->record_left -= size;
    return (ssize_t)size;
}

static int pull_timeout(gnutls_transport_ptr_t opaque, unsigned ms)
{
    (void)opaque, (void)ms;
    return 1; /* the deadlines are ours */
}

/* Says why, once, for whoever asks the channel. */
static enum godwit_err broken(struct tls_channel *channel, int rc)
{
    struct godwit_error error;
    enum godwit_err err = tls_words(channel->tls->side, false, rc, gnutls_alert_get(channel->session), &error);
    channel_set_detail(&channel->base, error.text);
    return err;
}

/* What a failure means once a part of the message has passed. */
static enum godwit_err after_part(enum godwit_err err, bool moved)
{
    if (moved && err == GODWIT_ERR_TIMEOUT)
        return GODWIT_ERR_STALLED;
    if (moved && err == GODWIT_ERR_PEER_CLOSED)
        return GODWIT_ERR_RESET;
    return err;
}

/* ---- sending ---- */

/* One record, or several for a peer that wants them shorter (RFC 8449: of 64 bytes at least). Under the lock. */
static enum godwit_err put_record(struct tls_channel *channel, const uint8_t *plain, size_t size)
{
    channel->sent_bytes += size;
    while (size) {
        ssize_t rc = gnutls_record_send(channel->session, plain, size);
        if (rc < 0)
            return broken(channel, (int)rc);
        channel->sent_records++;
        plain += rc;
        size -= (size_t)rc;
    }
    return GODWIT_OK;
}

uint64_t tls_channel_key_bytes(const struct tls_channel *channel)
{
    return channel->tls->renew_bytes ? channel->tls->renew_bytes : (uint64_t)TLS_KEY_RECORDS * TLS_PLAIN_MAX;
}

static bool renewal_due(const struct tls_channel *channel)
{
    bool worn = channel->sent_records >= TLS_KEY_RECORDS || channel->sent_bytes >= tls_channel_key_bytes(channel);
    return worn && clock_now_ms() - channel->renewed_ms >= RENEW_PAUSE_MS;
}

/* Under the lock. */
static enum godwit_err renew(struct tls_channel *channel)
{
    if (channel->fixed_keys || !renewal_due(channel))
        return GODWIT_OK;
    int rc = gnutls_session_key_update(channel->session, 0);
    if (rc < 0)
        return broken(channel, rc);
    channel->sent_bytes = channel->sent_records = 0;
    channel->renewed_ms = clock_now_ms();
    return GODWIT_OK;
}

/* A batch of records is full: sends it. */
static enum godwit_err make_room(struct tls_channel *channel, int timeout_ms)
{
    if (channel->out_size + TLS_HEADER + TLS_PLAIN_MAX + 256 <= TLS_BATCH)
        return GODWIT_OK;
    pthread_mutex_unlock(&channel->lock);
    enum godwit_err err = tls_channel_flush_out(channel, timeout_ms);
    pthread_mutex_lock(&channel->lock);
    channel->part_left |= !err;
    return err ? err : renew(channel);
}

static enum godwit_err put_plain(struct tls_channel *channel, int timeout_ms)
{
    enum godwit_err err = make_room(channel, timeout_ms);
    if (!err && channel->plain_size)
        err = put_record(channel, channel->plain, channel->plain_size);
    channel->plain_size = 0;
    return err;
}

/* Full records straight from where the bytes lie; what is shorter waits for what comes next. */
static enum godwit_err put_piece(struct tls_channel *channel, const uint8_t *at, size_t size, int timeout_ms)
{
    enum godwit_err err = GODWIT_OK;
    while (size && !err) {
        size_t step = TLS_PLAIN_MAX - channel->plain_size;
        if (step > size)
            step = size;
        if (step == TLS_PLAIN_MAX) {
            err = make_room(channel, timeout_ms);
            if (!err)
                err = put_record(channel, at, step);
        } else {
            memcpy(channel->plain + channel->plain_size, at, step);
            channel->plain_size += step;
            if (channel->plain_size == TLS_PLAIN_MAX)
                err = put_plain(channel, timeout_ms);
        }
        at += step;
        size -= step;
    }
    return err;
}

static enum godwit_err send_records(struct tls_channel *channel, const void *head, size_t head_size,
                                    const struct iovec *payload, unsigned count, int timeout_ms)
{
    if (channel->base.security.kernel)
        return channel_send(channel->base.wrapped, head, head_size, payload, count, timeout_ms);
    channel->part_left = false;
    pthread_mutex_lock(&channel->lock);
    enum godwit_err err = renew(channel);
    if (!err)
        err = put_piece(channel, head, head_size, timeout_ms);
    for (unsigned i = 0; i < count && !err; i++)
        err = put_piece(channel, payload[i].iov_base, payload[i].iov_len, timeout_ms);
    if (!err)
        err = put_plain(channel, timeout_ms);
    pthread_mutex_unlock(&channel->lock);
    return after_part(err ? err : tls_channel_flush_out(channel, timeout_ms), channel->part_left);
}

static enum godwit_err tls_send(struct channel *base, const void *head, size_t head_size, const struct iovec *payload,
                                unsigned count, int timeout_ms)
{
    struct tls_channel *channel = (struct tls_channel *)base;
    pthread_mutex_lock(&channel->sending);
    if (atomic_load_explicit(&channel->shut, memory_order_acquire))
        channel->broken = GODWIT_ERR_CLOSED;
    if (!channel->broken)
        channel->broken = send_records(channel, head, head_size, payload, count, timeout_ms);
    enum godwit_err err = channel->broken;
    pthread_mutex_unlock(&channel->sending);
    return err;
}

/* ---- receiving ---- */

enum godwit_err tls_cut_off(struct tls_channel *channel)
{
    channel_set_detail(&channel->base, "the connection was cut without TLS's closing notify: the peer died, or somebody "
                                       "between the two ended it");
    return GODWIT_ERR_RESET;
}

/* Decrypts at most size bytes of what was read: OK and *got 0 when it takes more of the stream. */
static enum godwit_err take(struct tls_channel *channel, void *buffer, size_t size, size_t *got)
{
    ssize_t rc;
    pthread_mutex_lock(&channel->lock);
    do /* records that are not for us, such as new keys, are taken on the way */
        rc = gnutls_record_recv(channel->session, buffer, size);
    while ((rc == GNUTLS_E_WARNING_ALERT_RECEIVED || rc == GNUTLS_E_AGAIN) && !tls_channel_lacks(channel));
    bool more = rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_WARNING_ALERT_RECEIVED;
    enum godwit_err err = rc < 0 && !more ? broken(channel, (int)rc) : GODWIT_OK;
    pthread_mutex_unlock(&channel->lock);
    *got = rc > 0 ? (size_t)rc : 0;
    return rc == 0 ? GODWIT_ERR_PEER_CLOSED : err; /* 0: the peer has said goodbye */
}

/* At least one byte of at most size. */
static enum godwit_err receive(struct tls_channel *channel, void *buffer, size_t size, int timeout_ms, size_t *got)
{
    for (*got = 0;;) {
        enum godwit_err err = take(channel, buffer, size, got);
        if (err || *got)
            return err;
        while (tls_channel_lacks(channel)) {
            err = tls_channel_fill_in(channel, TLS_READ_AHEAD, timeout_ms);
            if (err == GODWIT_ERR_PEER_CLOSED)
                return tls_cut_off(channel);
            if (err)
                return err;
        }
    }
}

static enum godwit_err hear(struct tls_channel *channel, enum godwit_err err)
{
    if (err && err != GODWIT_ERR_TIMEOUT)
        channel->deaf = err;
    return err;
}

static enum godwit_err deafness(const struct tls_channel *channel)
{
    return atomic_load_explicit(&channel->shut, memory_order_acquire) ? GODWIT_ERR_CLOSED : channel->deaf;
}

static enum godwit_err tls_recv(struct channel *base, struct iovec *iov, unsigned count, int timeout_ms)
{
    struct tls_channel *channel = (struct tls_channel *)base;
    bool moved = false;
    enum godwit_err err = deafness(channel);
    if (!err && base->security.kernel)
        return hear(channel, tls_kernel_recv(channel, iov, count, timeout_ms));
    for (unsigned i = 0; i < count && !err; i++)
        while (iov[i].iov_len && !err) {
            size_t got;
            err = receive(channel, iov[i].iov_base, iov[i].iov_len, timeout_ms, &got);
            iov[i].iov_base = (uint8_t *)iov[i].iov_base + got;
            iov[i].iov_len -= got;
            moved |= got > 0;
        }
    return hear(channel, after_part(err, moved));
}

static enum godwit_err tls_recv_some(struct channel *base, void *buffer, size_t size, int timeout_ms, size_t *got)
{
    struct tls_channel *channel = (struct tls_channel *)base;
    if (base->security.kernel)
        return channel_recv_one_byte(base, buffer, size, timeout_ms, got);
    enum godwit_err err = deafness(channel);
    return hear(channel, err ? err : receive(channel, buffer, size, timeout_ms, got));
}

/* ---- the rest ---- */

static enum godwit_err tls_accept_handshake(struct channel *base, int timeout_ms, struct godwit_error *error)
{
    return tls_handshake((struct tls_channel *)base, timeout_ms, NULL, error);
}

static void tls_shutdown(struct channel *base)
{
    struct tls_channel *channel = (struct tls_channel *)base;
    if (atomic_exchange_explicit(&channel->shut, true, memory_order_acq_rel))
        return;
    if (pthread_mutex_trylock(&channel->sending) == 0) {
        if (base->security.kernel && !channel->broken) {
            tls_kernel_bye(channel);
        } else if (base->security.version[0] && !channel->broken) {
            pthread_mutex_lock(&channel->lock);
            gnutls_bye(channel->session, GNUTLS_SHUT_WR);
            pthread_mutex_unlock(&channel->lock);
            tls_channel_flush_out(channel, 0);
        }
        pthread_mutex_unlock(&channel->sending);
    }
    channel_shutdown(base->wrapped);
}

static void tls_free_channel(struct channel *base)
{
    struct tls_channel *channel = (struct tls_channel *)base;
    gnutls_deinit(channel->session);
    channel_free(base->wrapped);
    pthread_mutex_destroy(&channel->lock);
    pthread_mutex_destroy(&channel->sending);
    free(channel->plain);
    free(channel->in);
    free(channel->out);
    free(channel);
}

static const struct channel_ops tls_channel_ops = {
    .name = "tls",
    .handshake = tls_accept_handshake,
    .send = tls_send,
    .recv = tls_recv,
    .recv_some = tls_recv_some,
    .put = channel_put_unsupported,
    .get = channel_get_unsupported,
    .flush = channel_flush_nothing,
    .shutdown = tls_shutdown,
    .free = tls_free_channel,
};

static enum godwit_err session_start(struct tls_channel *channel, struct godwit_error *error)
{
    /* No tickets: nothing is resumed, and they would be records that come at any time. No new keys by GnuTLS's own
     * counting: there are peers that cannot follow them. */
    unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | GNUTLS_NO_AUTO_REKEY | GNUTLS_NO_SIGNAL;
    flags |= channel->tls->side == TLS_SERVER ? GNUTLS_SERVER : GNUTLS_CLIENT;
    int rc = gnutls_init(&channel->session, flags);
    if (rc < 0)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "cannot start a TLS session: %s", gnutls_strerror(rc));
    enum godwit_err err = tls_credentials_prepare(channel->tls->credentials, channel->session, error);
    if (err) {
        gnutls_deinit(channel->session);
        return err;
    }
    gnutls_session_set_ptr(channel->session, channel);
    gnutls_transport_set_ptr(channel->session, channel);
    gnutls_transport_set_vec_push_function(channel->session, push);
    gnutls_transport_set_pull_function(channel->session, pull);
    gnutls_transport_set_pull_timeout_function(channel->session, pull_timeout);
    gnutls_handshake_set_timeout(channel->session, 0);
    return GODWIT_OK;
}

enum godwit_err tls_channel_new(const struct tls *tls, struct channel *inner, const char *host, struct channel **out,
                                struct godwit_error *error)
{
    struct tls_channel *channel = calloc(1, sizeof *channel);
    enum godwit_err err = channel ? GODWIT_OK : GODWIT_ERR_NO_MEMORY;
    if (channel) {
        channel->tls = tls;
        channel->in = malloc(TLS_READ_AHEAD);
        channel->out = malloc(TLS_BATCH + TLS_RECORD_MAX);
        channel->plain = malloc(TLS_PLAIN_MAX);
        err = channel->in && channel->out && channel->plain ? session_start(channel, error) : GODWIT_ERR_NO_MEMORY;
    }
    if (err) {
        if (channel) {
            free(channel->plain);
            free(channel->out);
            free(channel->in);
            free(channel);
        }
        return err == GODWIT_ERR_NO_MEMORY ? error_set(error, err, "no memory for a TLS channel") : err;
    }
    snprintf(channel->host, sizeof channel->host, "%s", host);
    pthread_mutex_init(&channel->sending, NULL);
    pthread_mutex_init(&channel->lock, NULL);
    channel->base.ops = &tls_channel_ops;
    channel->base.limits = *channel_limits(inner);
    channel->base.wrapped = inner;
    snprintf(channel->base.name, sizeof channel->base.name, "%s", channel_name(inner));
    *out = &channel->base;
    return GODWIT_OK;
}
