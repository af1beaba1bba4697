/* Both ends in one thread, in turn, without blocking. Who fails tells the other by an alert and an end of the stream, as
 * a channel does. The session pointer is the test's, the transport pointer too: credentials leave them alone. */
#include "tests/tcp/tls_meeting.h"

#include <assert.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/error.h"

enum { ROUNDS = 100 }; /* a handshake takes a handful */

struct end {
    const struct tls_credentials *credentials;
    const char *host;
    struct attendee *attendee;
    gnutls_session_t session;
    int fd;
    int rc;
    gnutls_alert_description_t alert; /* with a verdict */
};

static int judge(gnutls_session_t session)
{
    struct end *end = gnutls_session_get_ptr(session);
    end->attendee->judged = true;
    end->attendee->err = tls_credentials_verify(end->credentials, session, end->host, &end->alert, &end->attendee->error);
    return end->attendee->err == GODWIT_OK ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}

static void end_open(struct end *end, unsigned flags, int fd)
{
    int rc = gnutls_init(&end->session, flags | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
    assert(rc == GNUTLS_E_SUCCESS);
    struct godwit_error error;
    enum godwit_err err = tls_credentials_prepare(end->credentials, end->session, &error);
    if (err != GODWIT_OK)
        fprintf(stderr, "%s\n", error.text);
    assert(err == GODWIT_OK);
    end->fd = fd;
    end->rc = GNUTLS_E_AGAIN;
    gnutls_session_set_ptr(end->session, end);
    gnutls_session_set_verify_function(end->session, judge);
    gnutls_transport_set_int(end->session, fd);
}

static void end_step(struct end *end)
{
    if (end->rc == GNUTLS_E_SUCCESS || gnutls_error_is_fatal(end->rc))
        return;
    end->rc = gnutls_handshake(end->session);
    if (!gnutls_error_is_fatal(end->rc))
        return;
    if (end->attendee->err != GODWIT_OK)
        gnutls_alert_send(end->session, GNUTLS_AL_FATAL, end->alert);
    else
        gnutls_alert_send_appropriate(end->session, end->rc);
    shutdown(end->fd, SHUT_WR);
}

static void end_report(struct end *end)
{
    struct attendee *attendee = end->attendee;
    if (end->rc == GNUTLS_E_SUCCESS) {
        attendee->version = gnutls_protocol_get_name(gnutls_protocol_get_version(end->session));
        attendee->cipher = gnutls_cipher_get_name(gnutls_cipher_get(end->session));
    } else if (attendee->err == GODWIT_OK) {
        const char *alert = gnutls_alert_get_name(gnutls_alert_get(end->session));
        attendee->err = error_set(&attendee->error, GODWIT_ERR_PROTOCOL, "%s (%s)", gnutls_strerror(end->rc),
                                  end->rc == GNUTLS_E_FATAL_ALERT_RECEIVED ? alert : "no alert");
    }
}

static void end_close(struct end *end)
{
    gnutls_deinit(end->session);
    close(end->fd);
}

void tls_meet(const struct tls_credentials *client, const struct tls_credentials *server, const char *host,
              struct meeting *meeting)
{
    tls_meet_with(client, NULL, server, host, meeting);
}

void tls_meet_with(const struct tls_credentials *client, gnutls_certificate_credentials_t shown,
                   const struct tls_credentials *server, const char *host, struct meeting *meeting)
{
    int fds[2];
    int rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds);
    assert(rc == 0);
    (void)rc;
    *meeting = (struct meeting){0};
    struct end source = {.credentials = client, .host = host, .attendee = &meeting->client};
    struct end destination = {.credentials = server, .host = "", .attendee = &meeting->server};
    end_open(&source, GNUTLS_CLIENT, fds[0]);
    end_open(&destination, GNUTLS_SERVER, fds[1]);
    if (shown != NULL)
        gnutls_credentials_set(source.session, GNUTLS_CRD_CERTIFICATE, shown);
    for (unsigned i = 0; i < ROUNDS; i++) {
        end_step(&source);
        end_step(&destination);
    }
    end_report(&source);
    end_report(&destination);
    end_close(&source);
    end_close(&destination);
}

struct tls_config tls_config_of(const char *directory)
{
    return (struct tls_config){
        .creds = directory, .hostname = "", .authz = "", .priority = "", .username = "", .verify_peer = true};
}
