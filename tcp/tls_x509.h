/* Private to tcp/: the certificates of one side, read from a directory and judged. */
#ifndef TCP_TLS_X509_H
#define TCP_TLS_X509_H

#include <gnutls/gnutls.h>

#include "tcp/tls.h"

/* Who decides whether an algorithm is strong enough: GnuTLS's default, at once, or the user's tls-priority, in the
 * handshake. */
enum tls_strength { TLS_STRENGTH_DEFAULT, TLS_STRENGTH_PRIORITY };

/* A client without client-cert.pem and client-key.pem is anonymous. gnutls_certificate_free_credentials() when done. */
enum godwit_err tls_x509_load(const char *directory, enum tls_side side, enum tls_strength strength,
                              gnutls_certificate_credentials_t *out, struct godwit_error *error);

#endif
