/* Private to tcp/: who signs. Made for the purpose, or read from the directory where it was made. */
#ifndef TCP_PKI_AUTHORITY_H
#define TCP_PKI_AUTHORITY_H

#include <godwit/pki.h>

#include "tcp/pki_certificate.h"
#include "tcp/tls_files.h"

#define PKI_CA_CERT "ca-cert.pem"
#define PKI_CA_KEY  "ca-key.pem"
#define PKI_CA_CRL  "ca-crl.pem"

struct pki_authority {
    struct pki_identity identity;
    bool made;
    char name[GODWIT_PKI_NAME_TEXT];
    int64_t from, until; /* what it signs is valid within */
    struct tls_file pem; /* read: ca-cert.pem as it stands, for it may be a bundle; without data: made */
    struct tls_file crl; /* read: its list of revoked certificates; without data: none */
};

/* Freed by the caller, also after a failure. */
enum godwit_err pki_authority_make(int64_t now, unsigned days, struct pki_authority *out, struct godwit_error *error);
enum godwit_err pki_authority_load(const char *directory, int64_t now, struct pki_authority *out,
                                   struct godwit_error *error);
void pki_authority_free(struct pki_authority *authority);

/* What belongs on every host: the list if there is one, and last ca-cert.pem. */
enum godwit_err pki_authority_stage(const struct pki_authority *authority, struct pki_files *files,
                                    struct godwit_error *error);

#endif
