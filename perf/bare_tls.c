/*
 * The yardstick under TLS: how fast can GnuTLS copy cold memory from one process to another over N connections?
 *
 *     bare_tls DIR PRIORITY FILE STREAMS prealloc|fresh [INTO]     DIR: certificates in QEMU's layout
 *
 * The work is told in yardstick.h. Each connection is a session in the form that GnuTLS's manual has: its own functions
 * on a blocking socket, gnutls_record_send of the largest record straight out of the memory, gnutls_record_recv straight
 * into it. Both sides show certificates and verify them.
 */
#include "perf/yardstick.h"

#include <err.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <unistd.h>

#define HOST "127.0.0.1"

enum { RECORD = 16 << 10 }; /* the largest: RFC 8446, 5.1 */

struct tls {
    gnutls_certificate_credentials_t credentials[2]; /* by enum yardstick_side */
    gnutls_priority_t priority;
};

static void need(int result, const char *what)
{
    if (result < 0)
        errx(1, "%s: %s", what, gnutls_strerror(result));
}

static gnutls_certificate_credentials_t load(const char *dir, const char *who)
{
    gnutls_certificate_credentials_t credentials;
    char authority[4096], certificate[4096], key[4096];
    snprintf(authority, sizeof authority, "%s/ca-cert.pem", dir);
    snprintf(certificate, sizeof certificate, "%s/%s-cert.pem", dir, who);
    snprintf(key, sizeof key, "%s/%s-key.pem", dir, who);
    need(gnutls_certificate_allocate_credentials(&credentials), "credentials");
    need(gnutls_certificate_set_x509_trust_file(credentials, authority, GNUTLS_X509_FMT_PEM), authority);
    need(gnutls_certificate_set_x509_key_file(credentials, certificate, key, GNUTLS_X509_FMT_PEM), certificate);
    return credentials;
}

static void *tls_open(void *context, int fd, enum yardstick_side side)
{
    const struct tls *tls = context;
    gnutls_session_t session;
    bool source = side == YARDSTICK_SOURCE;
    need(gnutls_init(&session, (source ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_NO_SIGNAL), "a session");
    need(gnutls_priority_set(session, tls->priority), "priority");
    need(gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, tls->credentials[side]), "credentials");
    if (!source)
        gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
    gnutls_session_set_verify_cert(session, source ? HOST : NULL, 0);
    gnutls_transport_set_int(session, fd);

    int result;
    do {
        result = gnutls_handshake(session);
    } while (result < 0 && !gnutls_error_is_fatal(result));
    need(result, source ? "handshake of the source" : "handshake of the destination");
    return session;
}

static void tls_send(void *stream, struct iovec *iov, int count)
{
    for (int i = 0; i < count; i++) {
        const char *at = iov[i].iov_base, *end = at + iov[i].iov_len;
        while (at < end) {
            ssize_t n = gnutls_record_send(stream, at, end - at < RECORD ? (size_t)(end - at) : RECORD);
            if (n < 0)
                need((int)n, "gnutls_record_send");
            at += n;
        }
    }
}

static void tls_finish(void *stream)
{
    need(gnutls_bye(stream, GNUTLS_SHUT_WR), "gnutls_bye");
}

static bool tls_receive(void *stream, void *into, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = gnutls_record_recv(stream, (char *)into + done, size - done);
        if (n == 0 && done == 0)
            return false;
        if (n == 0)
            errx(1, "the peer finished after %zu of %zu bytes", done, size);
        if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED) /* a session ticket: no data */
            continue;
        if (n < 0)
            need((int)n, "gnutls_record_recv");
        done += (size_t)n;
    }
    return true;
}

static void tls_close(void *stream)
{
    close(gnutls_transport_get_int(stream));
    gnutls_deinit(stream);
}

static const struct yardstick_ops tls_ops = {
    .open = tls_open,
    .send = tls_send,
    .finish = tls_finish,
    .receive = tls_receive,
    .close = tls_close,
};

int main(int argc, char *argv[])
{
    const char *usage = "bare_tls DIR PRIORITY FILE STREAMS prealloc|fresh [INTO]";
    if (argc < 3)
        errx(2, "usage: %s", usage);
    struct yardstick yardstick = yardstick_parse(argv + 3, usage);
    struct tls tls;
    tls.credentials[YARDSTICK_SOURCE] = load(argv[1], "client");
    tls.credentials[YARDSTICK_DESTINATION] = load(argv[1], "server");
    need(gnutls_priority_init(&tls.priority, argv[2], NULL), argv[2]);
    yardstick.ops = &tls_ops;
    yardstick.context = &tls;
    yardstick_run(&yardstick);
    gnutls_priority_deinit(tls.priority);
    gnutls_certificate_free_credentials(tls.credentials[YARDSTICK_SOURCE]);
    gnutls_certificate_free_credentials(tls.credentials[YARDSTICK_DESTINATION]);
    return 0;
}
