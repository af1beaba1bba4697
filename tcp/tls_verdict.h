/*
 * Private to tcp/: what is wrong with a certificate, in words. GnuTLS judges, in bits; here each bit has a phrase that
 * goes after "the certificate ...".
 */
#ifndef TCP_TLS_VERDICT_H
#define TCP_TLS_VERDICT_H

#include <gnutls/x509.h>
#include <stdbool.h>

#include "tcp/tls.h"

enum {
    TLS_VERDICT_MAX = 256,
    TLS_NAME_MAX = 256, /* of a distinguished name in a message */
    TLS_TIME_MAX = 32,
};

/* The purpose (extended key usage) of side's certificates, as what gnutls_certificate_verify_peers() takes. */
gnutls_typed_vdata_st tls_purpose(enum tls_side side);

/* status: a set of enum gnutls_certificate_status_t about a chain whose first certificate is side's. */
void tls_verdict_words(unsigned status, enum tls_side side, const gnutls_x509_crt_t *chain, unsigned count,
                       char text[TLS_VERDICT_MAX]);

/* "2026-11-21 06:42:00 UTC" */
void tls_time_text(time_t when, char text[TLS_TIME_MAX]);

/* The subject as tls-authz compares it, gnutls_free() when done; NULL: it has none that is text, or no memory. */
char *tls_subject(gnutls_x509_crt_t certificate);

/* "host1, host2, 192.0.2.1": for whom the certificate is; "nobody" if it does not say. */
void tls_host_names(gnutls_x509_crt_t certificate, char text[TLS_NAME_MAX]);

#endif
