/* Private to tcp/: keys and certificates in memory, made and signed. */
#ifndef TCP_PKI_CERTIFICATE_H
#define TCP_PKI_CERTIFICATE_H

#include <stdint.h>

#include <gnutls/x509.h>

#include "tcp/pki_files.h"
#include "tcp/pki_names.h"

enum { PKI_CLOCK_SKEW = 3600 }; /* seconds that a host's clock may be behind */

enum pki_purpose { PKI_AUTHORITY, PKI_SERVER, PKI_CLIENT };

struct pki_identity {
    gnutls_x509_crt_t certificate;
    gnutls_x509_privkey_t key;
};

struct pki_request {
    enum pki_purpose purpose;
    const char *name;              /* common name */
    const struct pki_names *names; /* server: who it is good for */
    int64_t from, until;           /* seconds since 1970 */
};

/* issuer NULL: signs itself. *out is freed by the caller, also after a failure. */
enum godwit_err pki_identity_make(const struct pki_request *request, const struct pki_identity *issuer,
                                  struct pki_identity *out, struct godwit_error *error);

/* What to sign with this key. Returns a code of GnuTLS. */
int pki_identity_digest(const struct pki_identity *identity, gnutls_digest_algorithm_t *out);

/* GnuTLS overwrites the key. One of zeros is allowed. */
void pki_identity_free(struct pki_identity *identity);

enum godwit_err pki_identity_stage_certificate(const struct pki_identity *identity, const char *name,
                                               struct pki_files *files, struct godwit_error *error);
enum godwit_err pki_identity_stage_key(const struct pki_identity *identity, const char *name, struct pki_files *files,
                                       struct godwit_error *error);

/* rc in words behind a text. */
enum godwit_err pki_gnutls_error(struct godwit_error *error, int rc, const char *what);

#endif
