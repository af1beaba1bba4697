/*
 * Revoking: the list is read if there is one, gets one more serial number, and is signed again.
 *
 * The list is good for as long as its authority. Rejected: a shorter time, after which every verification would fail
 * until a new list had been taken to every host; lists of a few hosts are not fetched, they are carried.
 *
 * Failure modes: a list that is broken or that another authority signed, which is not made better by signing it.
 */
#include "tcp/pki_crl.h"

#include <string.h>
#include <time.h>

#include "transport/error.h"

enum { CRL_VERSION = 2, SERIAL_MAX = 64, KEY_ID_MAX = 64, NUMBER_MAX = 21 };

static enum godwit_err read_list(const struct pki_authority *authority, const char *directory, gnutls_x509_crl_t list,
                                 struct godwit_error *error)
{
    gnutls_datum_t pem = {authority->crl.data, (unsigned)authority->crl.size};
    unsigned status = 0;
    int rc = gnutls_x509_crl_import(list, &pem, GNUTLS_X509_FMT_PEM);
    if (rc < 0)
        return error_set(error, GODWIT_ERR_INVALID, "%s/%s is no list of revoked certificates in PEM form: %s",
                         directory, PKI_CA_CRL, gnutls_strerror(rc));
    rc = gnutls_x509_crl_verify(list, &authority->identity.certificate, 1, GNUTLS_VERIFY_DISABLE_TIME_CHECKS, &status);
    if (rc < 0 || status)
        return error_set(error, GODWIT_ERR_INVALID, "%s/%s is not signed by %s beside it", directory, PKI_CA_CRL,
                         PKI_CA_CERT);
    return GODWIT_OK;
}

/* Only the authority's own: a serial number says nothing without its issuer. */
static enum godwit_err read_revoked(const struct pki_authority *authority, const char *path, gnutls_x509_crt_t revoked,
                                    struct godwit_error *error)
{
    struct tls_file file;
    enum godwit_err err = tls_file_read(&file, NULL, path, TLS_FILE_PUBLIC, error);
    gnutls_datum_t pem = {file.data, (unsigned)file.size};
    unsigned status = 0;
    int rc = err ? 0 : gnutls_x509_crt_import(revoked, &pem, GNUTLS_X509_FMT_PEM);
    tls_file_release(&file);
    if (err)
        return err;
    if (rc < 0)
        return error_set(error, GODWIT_ERR_INVALID, "%s is no certificate in PEM form: %s", path, gnutls_strerror(rc));
    unsigned flags = GNUTLS_VERIFY_DISABLE_TIME_CHECKS | GNUTLS_VERIFY_DISABLE_CRL_CHECKS;
    rc = gnutls_x509_crt_verify(revoked, &authority->identity.certificate, 1, flags, &status);
    if (rc < 0 || status || gnutls_x509_crt_equals(revoked, authority->identity.certificate))
        return error_set(error, GODWIT_ERR_INVALID, "%s is no certificate that the authority signed for a host", path);
    return GODWIT_OK;
}

static bool has_serial(gnutls_x509_crl_t list, const unsigned char *serial, size_t size)
{
    int count = gnutls_x509_crl_get_crt_count(list);
    for (int i = 0; i < count; i++) {
        unsigned char entry[SERIAL_MAX];
        size_t entry_size = sizeof entry;
        time_t when;
        if (gnutls_x509_crl_get_crt_serial(list, i, entry, &entry_size, &when) >= 0 && entry_size == size &&
            memcmp(entry, serial, size) == 0)
            return true;
    }
    return false;
}

static int add_serial(gnutls_x509_crl_t list, gnutls_x509_crt_t revoked, int64_t now)
{
    unsigned char serial[SERIAL_MAX];
    size_t size = sizeof serial;
    int rc = gnutls_x509_crt_get_serial(revoked, serial, &size);
    if (rc < 0 || has_serial(list, serial, size))
        return rc;
    return gnutls_x509_crl_set_crt_serial(list, serial, size, (time_t)now);
}

/* One more than the number it has, or 1. RFC 5280, 5.2.3: 20 bytes at most, positive. */
static int set_number(gnutls_x509_crl_t list)
{
    unsigned char last[NUMBER_MAX], next[NUMBER_MAX + 1] = {0};
    size_t size = sizeof last, at = sizeof next;
    int rc = gnutls_x509_crl_get_number(list, last, &size, NULL);
    if (rc < 0 && rc != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
        return rc;
    if (rc >= 0)
        memcpy(next + sizeof next - size, last, size);
    while (++next[--at] == 0 && at > 0) /* carries */
        ;
    for (at = 0; at + 1 < sizeof next && !next[at] && next[at + 1] < 0x80; at++) /* GnuTLS writes them as they are */
        ;
    return gnutls_x509_crl_set_number(list, next + at, sizeof next - at);
}

static int set_authority(const struct pki_authority *authority, gnutls_x509_crl_t list)
{
    unsigned char id[KEY_ID_MAX];
    size_t size = sizeof id;
    int rc = gnutls_x509_crt_get_subject_key_id(authority->identity.certificate, id, &size, NULL);
    if (rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
        return 0;
    return rc < 0 ? rc : gnutls_x509_crl_set_authority_key_id(list, id, size);
}

static int extend(const struct pki_authority *authority, gnutls_x509_crt_t revoked, int64_t now, gnutls_x509_crl_t list)
{
    int rc = gnutls_x509_crl_set_version(list, CRL_VERSION);
    if (rc < 0 || (rc = add_serial(list, revoked, now)) < 0 || (rc = set_number(list)) < 0 ||
        (rc = gnutls_x509_crl_set_this_update(list, (time_t)(now - PKI_CLOCK_SKEW))) < 0 ||
        (rc = gnutls_x509_crl_set_next_update(list, (time_t)authority->until)) < 0 ||
        (rc = set_authority(authority, list)) < 0)
        return rc;
    gnutls_digest_algorithm_t digest;
    if ((rc = pki_identity_digest(&authority->identity, &digest)) < 0)
        return rc;
    return gnutls_x509_crl_sign2(list, authority->identity.certificate, authority->identity.key, digest, 0);
}

static enum godwit_err encode(gnutls_x509_crl_t list, struct pki_files *files, struct godwit_error *error)
{
    gnutls_datum_t pem = {0};
    int rc = gnutls_x509_crl_export2(list, GNUTLS_X509_FMT_PEM, &pem);
    if (rc < 0)
        return pki_gnutls_error(error, rc, "cannot encode a list of revoked certificates");
    enum godwit_err err = pki_files_stage(files, PKI_CA_CRL, PKI_PUBLIC, pem.data, pem.size, error);
    gnutls_free(pem.data);
    return err;
}

enum godwit_err pki_crl_stage(const struct pki_authority *authority, const char *certificate, int64_t now,
                              struct pki_files *files, struct godwit_error *error)
{
    gnutls_x509_crl_t list = NULL;
    gnutls_x509_crt_t revoked = NULL;
    enum godwit_err err = GODWIT_OK;
    int rc = gnutls_x509_crl_init(&list);
    if (rc >= 0)
        rc = gnutls_x509_crt_init(&revoked);
    if (rc >= 0)
        err = read_revoked(authority, certificate, revoked, error);
    if (rc >= 0 && !err && authority->crl.data)
        err = read_list(authority, files->directory, list, error);
    if (rc >= 0 && !err)
        rc = extend(authority, revoked, now, list);
    if (rc < 0)
        err = pki_gnutls_error(error, rc, "cannot make a list of revoked certificates");
    if (!err)
        err = encode(list, files, error);
    gnutls_x509_crt_deinit(revoked);
    if (list)
        gnutls_x509_crl_deinit(list);
    return err;
}
