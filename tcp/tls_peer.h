/* Private to tcp/: is the peer who it should be, by the certificate that it shows in the handshake? */
#ifndef TCP_TLS_PEER_H
#define TCP_TLS_PEER_H

#include <gnutls/gnutls.h>

#include "tcp/tls.h"
#include "tcp/tls_authz.h"

struct tls_peer_rules {
    enum tls_side peer;
    const char *hostname;          /* a server's: the name it has to bear, "": that of the address */
    bool certificate_required;     /* of a client; a server always shows one */
    const struct tls_authz *authz; /* a client's */
};

/* As tls_credentials_verify(). */
enum godwit_err tls_peer_verify(const struct tls_peer_rules *rules, gnutls_session_t session, const char *host,
                                gnutls_alert_description_t *alert, struct godwit_error *error);

#endif
