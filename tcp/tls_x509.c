/*
 * ca-cert.pem, ca-crl.pem, and the certificate and key of one side. Each certificate is judged for itself first, which
 * gives the better words, and then the whole chain the way the peer will judge it: so nobody finds out from the peer
 * what could have been known here.
 *
 * Failure modes: see tls_credentials.h. What GnuTLS refuses beyond that comes with GnuTLS's words.
 */
#include "tcp/tls_x509.h"

#include <gnutls/x509.h>
#include <string.h>
#include <time.h>

#include "tcp/tls_files.h"
#include "tcp/tls_verdict.h"
#include "transport/error.h"

/* The names that QEMU gives the files. */
#define CA_CERT "ca-cert.pem"
#define CA_CRL  "ca-crl.pem"

static const struct side_files {
    const char *cert;
    const char *key;
    const char *who;
} side_files[] = {
    [TLS_CLIENT] = {"client-cert.pem", "client-key.pem", "client"},
    [TLS_SERVER] = {"server-cert.pem", "server-key.pem", "server"},
};

/* All of one file. */
struct certificates {
    struct tls_file file;
    gnutls_x509_crt_t *list;
    unsigned count;
};

struct revocations {
    struct tls_file file;
    gnutls_x509_crl_t *list;
    unsigned count;
};

static enum godwit_err refused_by_gnutls(int rc, const char *path, const char *what, struct godwit_error *error)
{
    return error_set(error, rc == GNUTLS_E_MEMORY_ERROR ? GODWIT_ERR_NO_MEMORY : GODWIT_ERR_INVALID, "%.256s %s: %s",
                     path, what, gnutls_strerror(rc));
}

static gnutls_datum_t content(const struct tls_file *file)
{
    return (gnutls_datum_t){.data = file->data, .size = (unsigned)file->size};
}

/* flags: of gnutls_x509_crt_list_import2(). Sorting makes a chain that begins with the first certificate, and drops what
 * is not of it. */
static enum godwit_err certificates_read(struct certificates *certificates, const char *directory, const char *name,
                                         unsigned flags, struct godwit_error *error)
{
    enum godwit_err err = tls_file_read(&certificates->file, directory, name, TLS_FILE_PUBLIC, error);
    if (err != GODWIT_OK)
        return err;
    gnutls_datum_t pem = content(&certificates->file);
    int rc = gnutls_x509_crt_list_import2(&certificates->list, &certificates->count, &pem, GNUTLS_X509_FMT_PEM, flags);
    if (rc < 0)
        return refused_by_gnutls(rc, certificates->file.path, "holds no certificate in PEM form", error);
    return GODWIT_OK;
}

static void certificates_release(struct certificates *certificates)
{
    for (unsigned i = 0; i < certificates->count; i++)
        gnutls_x509_crt_deinit(certificates->list[i]);
    gnutls_free(certificates->list);
    tls_file_release(&certificates->file);
}

static void revocations_release(struct revocations *revocations)
{
    for (unsigned i = 0; i < revocations->count; i++)
        gnutls_x509_crl_deinit(revocations->list[i]);
    gnutls_free(revocations->list);
    tls_file_release(&revocations->file);
}

/* Dates that can be told of the certificate alone, before any other reason hides them. */
static enum godwit_err judge_dates(gnutls_x509_crt_t certificate, const char *path, struct godwit_error *error)
{
    char date[TLS_TIME_MAX];
    time_t now = time(NULL), begin = gnutls_x509_crt_get_activation_time(certificate);
    time_t end = gnutls_x509_crt_get_expiration_time(certificate);
    if (end < now) {
        tls_time_text(end, date);
        return error_set(error, GODWIT_ERR_INVALID, "the certificate in %.256s expired on %s: have a new one made",
                         path, date);
    }
    if (begin > now) {
        tls_time_text(begin, date);
        return error_set(error, GODWIT_ERR_INVALID,
                         "the certificate in %.256s is not valid before %s: set this host's clock, or wait", path,
                         date);
    }
    return GODWIT_OK;
}

/* A certificate without key usage may be used for everything. */
static bool may_be_used(gnutls_x509_crt_t certificate, unsigned usage)
{
    unsigned usages, critical;
    return gnutls_x509_crt_get_key_usage(certificate, &usages, &critical) < 0 || usages & usage;
}

static bool is_authority(gnutls_x509_crt_t certificate)
{
    unsigned critical;
    return gnutls_x509_crt_get_ca_status(certificate, &critical) > 0;
}

static enum godwit_err judge_authority(gnutls_x509_crt_t certificate, const char *path, struct godwit_error *error)
{
    if (!is_authority(certificate))
        return error_set(error, GODWIT_ERR_INVALID,
                         "the certificate in %.256s is not an authority's (basic constraints): put the one there that "
                         "signed the others",
                         path);
    if (!may_be_used(certificate, GNUTLS_KEY_KEY_CERT_SIGN))
        return error_set(error, GODWIT_ERR_INVALID,
                         "the certificate in %.256s may not sign certificates (key usage): have it made anew", path);
    return judge_dates(certificate, path, error);
}

static enum godwit_err load_authorities(gnutls_certificate_credentials_t credentials,
                                        const struct certificates *authorities, struct godwit_error *error)
{
    const char *path = authorities->file.path;
    for (unsigned i = 0; i < authorities->count; i++) {
        enum godwit_err err = judge_authority(authorities->list[i], path, error);
        if (err != GODWIT_OK)
            return err;
    }
    int rc = gnutls_certificate_set_x509_trust(credentials, authorities->list, (int)authorities->count);
    return rc < 0 ? refused_by_gnutls(rc, path, "cannot be used", error) : GODWIT_OK;
}

static enum godwit_err judge_revocation(gnutls_x509_crl_t list, const char *path,
                                        const struct certificates *authorities, struct godwit_error *error)
{
    char date[TLS_TIME_MAX];
    unsigned status = 0;
    /* That they are authorities is known. Whether their key usage names such lists is not asked: with the settings that
     * QEMU's documentation has for certtool it does not. */
    int rc = gnutls_x509_crl_verify(list, authorities->list, authorities->count, GNUTLS_VERIFY_DISABLE_CA_SIGN,
                                    &status);
    if (rc < 0)
        return refused_by_gnutls(rc, path, "cannot be checked", error);
    if (status & GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED) {
        tls_time_text(gnutls_x509_crl_get_next_update(list), date);
        return error_set(error, GODWIT_ERR_INVALID, "%.256s is out of date, its successor was due on %s: get that",
                         path, date);
    }
    if (status & GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE) {
        tls_time_text(gnutls_x509_crl_get_this_update(list), date);
        return error_set(error, GODWIT_ERR_INVALID, "%.256s is of %s, in the future: set this host's clock, or wait",
                         path, date);
    }
    if (status & GNUTLS_CERT_INSECURE_ALGORITHM)
        return error_set(error, GODWIT_ERR_INVALID, "%.256s has a signature that is too weak: have it made anew", path);
    if (status != 0)
        return error_set(error, GODWIT_ERR_INVALID,
                         "%.256s is not signed by an authority of %s: get the list of that authority", path, CA_CERT);
    return GODWIT_OK;
}

static enum godwit_err load_revocations(gnutls_certificate_credentials_t credentials, const char *directory,
                                        const struct certificates *authorities, struct revocations *revocations,
                                        struct godwit_error *error)
{
    enum godwit_err err = tls_file_read(&revocations->file, directory, CA_CRL, TLS_FILE_PUBLIC, error);
    if (err != GODWIT_OK)
        return err;
    const char *path = revocations->file.path;
    gnutls_datum_t pem = content(&revocations->file);
    int rc = gnutls_x509_crl_list_import2(&revocations->list, &revocations->count, &pem, GNUTLS_X509_FMT_PEM, 0);
    if (rc < 0)
        return refused_by_gnutls(rc, path, "holds no list of revoked certificates in PEM form", error);
    for (unsigned i = 0; i < revocations->count; i++) {
        err = judge_revocation(revocations->list[i], path, authorities, error);
        if (err != GODWIT_OK)
            return err;
    }
    rc = gnutls_certificate_set_x509_crl(credentials, revocations->list, (int)revocations->count);
    return rc < 0 ? refused_by_gnutls(rc, path, "cannot be used", error) : GODWIT_OK;
}

static enum godwit_err load_trust(gnutls_certificate_credentials_t credentials, const char *directory,
                                  struct godwit_error *error)
{
    struct certificates authorities = {0};
    struct revocations revocations = {0};
    bool revoking = false;
    enum godwit_err err = certificates_read(&authorities, directory, CA_CERT, 0, error);
    if (err == GODWIT_OK)
        err = load_authorities(credentials, &authorities, error);
    if (err == GODWIT_OK)
        err = tls_file_exists(directory, CA_CRL, &revoking, error);
    if (err == GODWIT_OK && revoking)
        err = load_revocations(credentials, directory, &authorities, &revocations, error);
    revocations_release(&revocations);
    certificates_release(&authorities);
    return err;
}

/* As the peer will: against the authorities and the list of what is revoked. */
static enum godwit_err judge_chain(gnutls_certificate_credentials_t credentials, const struct certificates *own,
                                   enum tls_side side, enum tls_strength strength, struct godwit_error *error)
{
    gnutls_x509_trust_list_t trust = NULL;
    gnutls_certificate_get_trust_list(credentials, &trust);
    gnutls_typed_vdata_st purpose = tls_purpose(side);
    unsigned status = 0, flags = strength == TLS_STRENGTH_DEFAULT ? GNUTLS_PROFILE_TO_VFLAGS(GNUTLS_PROFILE_LOW) : 0;
    int rc = gnutls_x509_trust_list_verify_crt2(trust, own->list, own->count, &purpose, 1, flags, &status, NULL);
    if (rc < 0)
        return refused_by_gnutls(rc, own->file.path, "cannot be checked", error);
    if (strength == TLS_STRENGTH_PRIORITY &&
        !(status & ~(unsigned)(GNUTLS_CERT_INVALID | GNUTLS_CERT_INSECURE_ALGORITHM)))
        return GODWIT_OK;
    if (status == 0)
        return GODWIT_OK;
    char words[TLS_VERDICT_MAX];
    tls_verdict_words(status, side, own->list, own->count, words);
    return error_set(error, GODWIT_ERR_INVALID, "the certificate in %.200s %s: have a new one made", own->file.path,
                     words);
}

static enum godwit_err judge_own(gnutls_certificate_credentials_t credentials, const struct certificates *own,
                                 enum tls_side side, enum tls_strength strength, struct godwit_error *error)
{
    const char *path = own->file.path;
    enum godwit_err err = judge_dates(own->list[0], path, error);
    if (err != GODWIT_OK)
        return err;
    if (is_authority(own->list[0]))
        return error_set(error, GODWIT_ERR_INVALID,
                         "the certificate in %.256s is an authority's (basic constraints), expected a %s's: have one "
                         "made and signed by the authority",
                         path, side_files[side].who);
    if (!may_be_used(own->list[0], GNUTLS_KEY_DIGITAL_SIGNATURE))
        return error_set(error, GODWIT_ERR_INVALID,
                         "the certificate in %.256s may not sign a handshake (key usage): have one made with "
                         "digitalSignature",
                         path);
    return judge_chain(credentials, own, side, strength, error);
}

static bool is_encrypted(const struct tls_file *file)
{
    return memmem(file->data, file->size, "ENCRYPTED", strlen("ENCRYPTED")) != NULL;
}

static enum godwit_err read_key(struct tls_file *file, const char *directory, const char *name,
                                gnutls_x509_privkey_t key, struct godwit_error *error)
{
    enum godwit_err err = tls_file_read(file, directory, name, TLS_FILE_SECRET, error);
    if (err != GODWIT_OK)
        return err;
    gnutls_datum_t pem = content(file);
    int rc = gnutls_x509_privkey_import2(key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    if (rc < 0 && is_encrypted(file))
        return error_set(error, GODWIT_ERR_INVALID,
                         "the key in %.160s is encrypted, and there is no way to give the password: decrypt it, for "
                         "example with openssl pkey -in %.160s -out NEW",
                         file->path, file->path);
    return rc < 0 ? refused_by_gnutls(rc, file->path, "holds no private key in PEM form", error) : GODWIT_OK;
}

static enum godwit_err load_key(gnutls_certificate_credentials_t credentials, const char *directory, enum tls_side side,
                                const struct certificates *own, struct godwit_error *error)
{
    struct tls_file file = {0};
    gnutls_x509_privkey_t key;
    int rc = gnutls_x509_privkey_init(&key);
    if (rc < 0)
        return refused_by_gnutls(rc, side_files[side].key, "cannot be read", error);
    enum godwit_err err = read_key(&file, directory, side_files[side].key, key, error);
    if (err == GODWIT_OK)
        rc = gnutls_certificate_set_x509_key(credentials, own->list, (int)own->count, key);
    if (rc == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
        err = error_set(
            error, GODWIT_ERR_INVALID,
            "the key in %.160s does not belong to the first certificate in %.160s: both have to be of one request",
            file.path, own->file.path);
    else if (rc < 0)
        err = refused_by_gnutls(rc, file.path, "cannot be used", error);
    gnutls_x509_privkey_deinit(key);
    tls_file_release(&file);
    return err;
}

static enum godwit_err load_own(gnutls_certificate_credentials_t credentials, const char *directory, enum tls_side side,
                                enum tls_strength strength, struct godwit_error *error)
{
    struct certificates own = {0};
    enum godwit_err err = certificates_read(&own, directory, side_files[side].cert, GNUTLS_X509_CRT_LIST_SORT, error);
    if (err == GODWIT_OK)
        err = load_key(credentials, directory, side, &own, error);
    if (err == GODWIT_OK)
        err = judge_own(credentials, &own, side, strength, error);
    certificates_release(&own);
    return err;
}

/* A client that has neither file is anonymous; one file without the other is an error like any file that is missing. */
static enum godwit_err is_anonymous(const char *directory, enum tls_side side, bool *out, struct godwit_error *error)
{
    bool cert = true, key = true;
    if (side == TLS_SERVER) {
        *out = false;
        return GODWIT_OK;
    }
    enum godwit_err err = tls_file_exists(directory, side_files[side].cert, &cert, error);
    if (err == GODWIT_OK)
        err = tls_file_exists(directory, side_files[side].key, &key, error);
    *out = !cert && !key;
    return err;
}

enum godwit_err tls_x509_load(const char *directory, enum tls_side side, enum tls_strength strength,
                              gnutls_certificate_credentials_t *out, struct godwit_error *error)
{
    bool anonymous = false;
    gnutls_certificate_credentials_t credentials;
    int rc = gnutls_certificate_allocate_credentials(&credentials);
    if (rc < 0)
        return refused_by_gnutls(rc, directory, "cannot be loaded", error);
    enum godwit_err err = load_trust(credentials, directory, error);
    if (err == GODWIT_OK)
        err = is_anonymous(directory, side, &anonymous, error);
    if (err == GODWIT_OK && !anonymous)
        err = load_own(credentials, directory, side, strength, error);
    if (err != GODWIT_OK) {
        gnutls_certificate_free_credentials(credentials);
        return err;
    }
    *out = credentials;
    return GODWIT_OK;
}
