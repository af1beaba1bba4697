/*
 * How a TLS channel comes to be: GnuTLS says what is to be sent, and what it waits for is read record by record, never
 * beyond (what follows the handshake may be the kernel's). Certificates are judged within the handshake, so that the
 * other side learns by an alert that, and roughly why, it is refused.
 *
 * Failure modes: the time is up (TIMEOUT), cancel, a peer that speaks no TLS, hangs up or refuses, and one that is
 * refused here: each in words that name the remedy.
 */
#include <string.h>

#include "tcp/tls_private.h"
#include "transport/clock.h"
#include "transport/error.h"

enum { CANCEL_LOOK_MS = 50 };

/* Types of records, RFC 8446 §5.1. */
enum { CHANGE_CIPHER_SPEC = 20, APPLICATION_DATA = 23 }; /* alerts and handshakes between them */

struct handshake {
    struct tls_channel *channel;
    uint64_t deadline_ms;
    int timeout_ms;
    const atomic_bool *cancel;
};

static int judge(gnutls_session_t session)
{
    struct tls_channel *channel = gnutls_session_get_ptr(session);
    channel->judged = true;
    return tls_credentials_verify(channel->tls->credentials, session, channel->host, &channel->verdict_alert,
                                  &channel->verdict)
               ? GNUTLS_E_CERTIFICATE_ERROR
               : GNUTLS_E_SUCCESS;
}

static const char *other_side(const struct handshake *handshake)
{
    return handshake->channel->tls->side == TLS_CLIENT ? "the destination" : "the source";
}

static enum godwit_err timed_out(const struct handshake *handshake, struct godwit_error *error)
{
    return error_set(error, GODWIT_ERR_TIMEOUT, "%s did not complete the TLS handshake within %d ms",
                     other_side(handshake), handshake->timeout_ms);
}

static enum godwit_err hung_up(const struct handshake *handshake, enum godwit_err err, struct godwit_error *error)
{
    if (err == GODWIT_ERR_CLOSED)
        return error_set(error, err, "the TLS handshake was ended from this side");
    if (err != GODWIT_ERR_PEER_CLOSED && err != GODWIT_ERR_RESET)
        return error_set(error, err, "the TLS handshake failed: %s", godwit_err_text(err));
    return error_set(error, err,
                     "%s hung up during the TLS handshake: does it have no tls-creds, or not the certificates of this "
                     "side's authority?",
                     other_side(handshake));
}

/* Is what has come the beginning of a TLS record? Everything else is somebody who speaks another language. */
static bool speaks_tls(const struct tls_channel *channel)
{
    const uint8_t *record = channel->in + channel->in_at;
    size_t have = channel->in_end - channel->in_at;
    bool type = have < 1 || (record[0] >= CHANGE_CIPHER_SPEC && record[0] <= APPLICATION_DATA);
    return type && (have < 2 || record[1] == 3 /* of every version */);
}

/* Until the record at the front is whole. */
static enum godwit_err read_record(const struct handshake *handshake, struct godwit_error *error)
{
    struct tls_channel *channel = handshake->channel;
    for (size_t lacks; (lacks = tls_channel_lacks(channel)) > 0;) {
        int left = clock_left_ms(handshake->deadline_ms);
        if (handshake->cancel && atomic_load_explicit(handshake->cancel, memory_order_relaxed))
            return error_set(error, GODWIT_ERR_CANCELLED, "the TLS handshake was cancelled");
        if (!left)
            return timed_out(handshake, error);
        enum godwit_err err = tls_channel_fill_in(channel, lacks, left < CANCEL_LOOK_MS ? left : CANCEL_LOOK_MS);
        if (err && err != GODWIT_ERR_TIMEOUT)
            return hung_up(handshake, err, error);
        if (!speaks_tls(channel)) {
            gnutls_alert_send(channel->session, GNUTLS_AL_FATAL, GNUTLS_A_UNEXPECTED_MESSAGE);
            tls_channel_flush_out(channel, 0);
            return error_set(error, GODWIT_ERR_PROTOCOL, "%s does not speak TLS: set tls-creds on both sides or on neither",
                             other_side(handshake));
        }
    }
    return GODWIT_OK;
}

static enum godwit_err write_records(const struct handshake *handshake, struct godwit_error *error)
{
    int left = clock_left_ms(handshake->deadline_ms);
    enum godwit_err err = tls_channel_flush_out(handshake->channel, left ? left : 1);
    if (err == GODWIT_ERR_TIMEOUT || err == GODWIT_ERR_STALLED)
        return timed_out(handshake, error);
    return err ? hung_up(handshake, err, error) : GODWIT_OK;
}

/* GnuTLS gave up: tells the peer, as far as an alert can, and the caller. */
static enum godwit_err give_up(const struct handshake *handshake, int rc, struct godwit_error *error)
{
    struct tls_channel *channel = handshake->channel;
    if (channel->verdict.code)
        gnutls_alert_send(channel->session, GNUTLS_AL_FATAL, channel->verdict_alert);
    else
        gnutls_alert_send_appropriate(channel->session, rc);
    tls_channel_flush_out(channel, 0);
    if (channel->verdict.code) {
        if (error)
            *error = channel->verdict;
        return channel->verdict.code;
    }
    return tls_words(channel->tls->side, tls_credentials_psk(channel->tls->credentials), rc,
                     gnutls_alert_get(channel->session), error);
}

static enum godwit_err converse(const struct handshake *handshake, struct godwit_error *error)
{
    struct tls_channel *channel = handshake->channel;
    for (;;) {
        int rc = gnutls_handshake(channel->session);
        if (rc < 0 && gnutls_error_is_fatal(rc))
            return give_up(handshake, rc, error);
        enum godwit_err err = write_records(handshake, error);
        if (err || rc == 0)
            return err;
        if (rc == GNUTLS_E_AGAIN) {
            err = read_record(handshake, error);
            if (err)
                return err;
        }
    }
}

/* A client without a certificate, or one with a key, was not judged on the way. */
static enum godwit_err judge_the_rest(const struct handshake *handshake, struct godwit_error *error)
{
    struct tls_channel *channel = handshake->channel;
    if (channel->judged || judge(channel->session) == GNUTLS_E_SUCCESS)
        return GODWIT_OK;
    return give_up(handshake, GNUTLS_E_CERTIFICATE_ERROR, error);
}

/*
 * ALPN, RFC 7301: says that this is godwit, so that a certificate's holder cannot be made to speak another protocol to
 * us, and whether keys may change: a side that leaves its records to the kernel cannot follow new ones, and offers that
 * alone.
 */
static const char renewed[] = "godwit/1", fixed[] = "godwit/1 fixed-keys";

static enum godwit_err offer_protocols(struct tls_channel *channel, struct godwit_error *error)
{
    const gnutls_datum_t both[] = {{(unsigned char *)(uintptr_t)renewed, sizeof renewed - 1},
                                   {(unsigned char *)(uintptr_t)fixed, sizeof fixed - 1}};
    bool kernel = channel->tls->kernel;
    int rc = gnutls_alpn_set_protocols(channel->session, kernel ? both + 1 : both, kernel ? 1 : 2,
                                       GNUTLS_ALPN_MANDATORY);
    return rc < 0 ? error_set(error, GODWIT_ERR_NO_MEMORY, "cannot start a TLS handshake: %s", gnutls_strerror(rc))
                  : GODWIT_OK;
}

/* GnuTLS takes a protocol that it was told is mandatory as such only from a peer that names any. */
static enum godwit_err choose_protocol(const struct handshake *handshake, struct godwit_error *error)
{
    struct tls_channel *channel = handshake->channel;
    gnutls_datum_t chosen;
    if (gnutls_alpn_get_selected_protocol(channel->session, &chosen) < 0)
        return give_up(handshake, GNUTLS_E_NO_APPLICATION_PROTOCOL, error);
    channel->fixed_keys = chosen.size == sizeof fixed - 1 ||
                          gnutls_protocol_get_version(channel->session) != GNUTLS_TLS1_3;
    if (channel->fixed_keys)
        channel->base.limits.lifetime = tls_channel_key_bytes(channel);
    return GODWIT_OK;
}

static void note_security(struct tls_channel *channel)
{
    struct channel_security *security = &channel->base.security;
    const char *version = gnutls_protocol_get_name(gnutls_protocol_get_version(channel->session));
    const char *cipher = gnutls_cipher_get_name(gnutls_cipher_get(channel->session));
    strncpy(security->cipher, cipher ? cipher : "", sizeof security->cipher - 1);
    strncpy(security->version, version ? version : "TLS", sizeof security->version - 1);
    channel->renewed_ms = clock_now_ms();
}

enum godwit_err tls_handshake(struct tls_channel *channel, int timeout_ms, const atomic_bool *cancel,
                              struct godwit_error *error)
{
    struct handshake handshake = {channel, UINT64_MAX, timeout_ms, cancel};
    if (timeout_ms != CHANNEL_FOREVER)
        handshake.deadline_ms = clock_now_ms() + (uint64_t)timeout_ms;
    pthread_mutex_lock(&channel->sending);
    gnutls_session_set_verify_function(channel->session, judge);
    enum godwit_err err = offer_protocols(channel, error);
    if (!err)
        err = converse(&handshake, error);
    if (!err)
        err = judge_the_rest(&handshake, error);
    if (!err)
        err = choose_protocol(&handshake, error);
    if (!err) {
        note_security(channel);
        err = tls_kernel_take(channel, error);
    }
    channel->broken = channel->deaf = err;
    pthread_mutex_unlock(&channel->sending);
    return err;
}
