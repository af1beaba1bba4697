/*
 * Certificates for tests, made at run time by GnuTLS: keys are ECDSA P-256, which take no time. Nothing here is expected
 * to fail; if something does, the program ends with the reason. Plain C: stress programs use it too.
 */
#ifndef TESTS_LIB_PKI_H
#define TESTS_LIB_PKI_H

#include <gnutls/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

enum { PKI_HOUR = 3600, PKI_PATH_MAX = 256 };

/* What zero means stands beside each. */
struct pki_options {
    const char *subject;              /* the special first, "CN=a,O=b", which tls-authz turns around; "CN=test" */
    const char *names;                /* hosts, "localhost,127.0.0.1"; none */
    const char *purpose;              /* object identifier of an extended key usage; any purpose */
    unsigned usage;                   /* GNUTLS_KEY_...; any usage */
    long begin, end;                  /* seconds from now; an hour ago, in an hour */
    bool authority;                   /* may sign others */
    bool no_constraints;              /* says nothing about being an authority */
    gnutls_digest_algorithm_t digest; /* of the signature; SHA-256 */
    unsigned rsa_bits;                /* an RSA key of so many; ECDSA */
};

struct pki_pair {
    gnutls_x509_crt_t certificate;
    gnutls_x509_privkey_t key;
};

/* signer NULL: by itself. */
struct pki_pair pki_make(const struct pki_pair *signer, const struct pki_options *options);
void pki_free(struct pki_pair *identity);

/* A new empty directory, and its end with all files in it. */
void pki_directory_new(char path[PKI_PATH_MAX]);
void pki_directory_remove(const char *path);

void pki_write(const char *directory, const char *name, const void *data, size_t size, mode_t mode);
void pki_write_text(const char *directory, const char *name, const char *text, mode_t mode);
void pki_unlink(const char *directory, const char *name);
/* Certificates one after the other, the list ends with NULL. */
void pki_write_certificates(const char *directory, const char *name, const struct pki_pair *const *identities);
void pki_write_certificate(const char *directory, const char *name, const struct pki_pair *identity);
/* password NULL: not encrypted. */
void pki_write_key(const char *directory, const char *name, const struct pki_pair *identity, mode_t mode,
                   const char *password);
/* What signer revokes: one certificate, or none (NULL). begin, end: seconds from now. */
void pki_write_revocations(const char *directory, const struct pki_pair *signer, const struct pki_pair *revoked,
                           long begin, long end);

/*
 * The usual: an authority, a server for localhost, 127.0.0.1 and ::1, a client "CN=source,O=Example", and one directory
 * with all their files.
 */
struct pki {
    char directory[PKI_PATH_MAX];
    struct pki_pair authority, server, client;
};

void pki_new(struct pki *pki);
void pki_end(struct pki *pki);

#endif
