/* A TLS handshake between two credentials, over a pair of sockets and without channels. */
#ifndef TESTS_TCP_TLS_MEETING_H
#define TESTS_TCP_TLS_MEETING_H

#include "tcp/tls_credentials.h"

/* How it went for one side. */
struct attendee {
    enum godwit_err err; /* the verdict; PROTOCOL where GnuTLS ended the handshake without one */
    struct godwit_error error;
    bool judged;                  /* was there a peer to judge? */
    const char *version, *cipher; /* of a handshake that succeeded */
};

struct meeting {
    struct attendee client, server;
};

/* host: what the client connects to. */
void tls_meet(const struct tls_credentials *client, const struct tls_credentials *server, const char *host,
              struct meeting *meeting);

/* The same, and a client that shows other certificates than its credentials would have let it. */
void tls_meet_with(const struct tls_credentials *client, gnutls_certificate_credentials_t shown,
                   const struct tls_credentials *server, const char *host, struct meeting *meeting);

/* A configuration with nothing but a directory, and verify_peer on. */
struct tls_config tls_config_of(const char *directory);

#endif
