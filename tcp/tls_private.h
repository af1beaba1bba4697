/* Private to tcp/: what a TLS channel is made of, and the files that know it. */
#ifndef TCP_TLS_PRIVATE_H
#define TCP_TLS_PRIVATE_H

#include <gnutls/gnutls.h>
#include <pthread.h>

#include "tcp/tls.h"
#include "tcp/tls_credentials.h"
#include "transport/channel_ops.h"

enum {
    TLS_HEADER = 5,            /* type, version, length of a record */
    TLS_PLAIN_MAX = 16384,     /* plaintext of a record (RFC 8446 §5.1) */
    TLS_RECORD_MAX = TLS_HEADER + TLS_PLAIN_MAX + 2048, /* as it travels; TLS 1.2 allows the most, §6.2.3 */
    TLS_BATCH = 8 * (TLS_HEADER + TLS_PLAIN_MAX + 256), /* records that leave in one call */
    TLS_READ_AHEAD = 8 * TLS_RECORD_MAX,
    TLS_KEY_RECORDS = 1 << 23, /* by one key, in good time: AES-GCM may protect 2^24.5 full ones (RFC 8446 §5.5) */
};

struct tls {
    struct transport transport; /* its context is this struct */
    struct transport_ops ops;   /* not a const table: it has the scheme of what it wraps */
    const struct transport *inner;
    enum tls_side side;
    bool kernel; /* wanted, turned on in GnuTLS's configuration, and for sockets that can */
    uint64_t renew_bytes;
    struct tls_credentials *credentials;
};

/*
 * GnuTLS is an engine without I/O here: its push function adds to out, its pull function takes from in, both in memory,
 * so that no call into the session ever blocks and all of them can be under one lock. A session is not safe for two
 * threads where keys change (3.7 derives both directions' new keys in one buffer); under the lock it need not be, and a
 * direction that waits for its peer never holds the lock.
 */
struct tls_channel {
    struct channel base; /* base.wrapped is owned */
    const struct tls *tls;
    char host[ADDRESS_HOST_MAX + 1]; /* client: whose name the certificate must bear, unless tls-hostname says it */

    atomic_bool shut;
    pthread_mutex_t sending; /* held by the sending thread; shutdown tries it, to know whether it may say goodbye */

    pthread_mutex_t lock; /* of all below but plain; calls into the session */
    gnutls_session_t session;
    uint8_t *out; /* TLS_BATCH and a record: ciphertext to be sent; emptied by the sending thread alone */
    size_t out_size;
    uint8_t *in; /* TLS_READ_AHEAD: ciphertext received, filled by the receiving thread alone */
    size_t in_at, in_end;
    size_t record_left; /* of the record that GnuTLS is reading */

    /* sending thread */
    uint8_t *plain; /* TLS_PLAIN_MAX: small pieces on their way into one record */
    size_t plain_size;
    bool part_left; /* of the message that is being sent */
    uint64_t sent_bytes, sent_records; /* by these keys */
    uint64_t renewed_ms;
    enum godwit_err broken; /* what every later send says */

    /* receiving thread */
    enum godwit_err deaf; /* what every later recv says */

    bool fixed_keys; /* constant after the handshake: a side cannot change keys, the channel has a lifetime instead */

    struct godwit_error verdict; /* handshake: why the peer's certificate was not good enough */
    gnutls_alert_description_t verdict_alert;
    bool judged;
};

/* ---- tls_channel.c ---- */

/* Takes inner on success. */
enum godwit_err tls_channel_new(const struct tls *tls, struct channel *inner, const char *host, struct channel **out,
                                struct godwit_error *error);
/* Sends what GnuTLS has given out. Sending thread, or the handshake. */
enum godwit_err tls_channel_flush_out(struct tls_channel *channel, int timeout_ms);
/* Reads ahead, at most `most` bytes: at least one comes, or an error. Receiving thread, or the handshake. */
enum godwit_err tls_channel_fill_in(struct tls_channel *channel, size_t most, int timeout_ms);
/* Bytes that the record at the front of `in` still lacks; 0: it is whole. */
size_t tls_channel_lacks(const struct tls_channel *channel);

/* How many bytes one direction's keys are good for. */
uint64_t tls_channel_key_bytes(const struct tls_channel *channel);
/* The stream ended without the peer's goodbye. */
enum godwit_err tls_cut_off(struct tls_channel *channel);

/* ---- tls_handshake.c ---- */

/* All of it within timeout_ms; CANCELLED soon after *cancel (may be NULL) reads true. */
enum godwit_err tls_handshake(struct tls_channel *channel, int timeout_ms, const atomic_bool *cancel,
                              struct godwit_error *error);

/* ---- tls_words.c ---- */

/* What GnuTLS said, as ours, in words. by_key: in a handshake with pre-shared keys. alert: of a
 * GNUTLS_E_FATAL_ALERT_RECEIVED. */
enum godwit_err tls_words(enum tls_side side, bool by_key, int rc, gnutls_alert_description_t alert,
                          struct godwit_error *error);

/* ---- tls_kernel.c ---- */

/* Has the administrator turned kernel TLS on in GnuTLS's configuration? */
bool tls_kernel_configured(void);
/* Right after the handshake: hands the keys to the kernel, where it takes them; base.security.kernel says whether. */
enum godwit_err tls_kernel_take(struct tls_channel *channel, struct godwit_error *error);
/* As the ops, for a channel whose keys the kernel has; what is sent goes straight to the wrapped channel. */
enum godwit_err tls_kernel_recv(struct tls_channel *channel, struct iovec *iov, unsigned count, int timeout_ms);
void tls_kernel_bye(struct tls_channel *channel);

#endif
