/*
 * The authority.
 *
 * One that is read may have been made by certtool or openssl, so everything that would only be noticed by a peer is
 * looked at: that certificate and key belong together, that it may sign, that it is valid now. The first certificate of
 * ca-cert.pem is the one that signs.
 */
#include "tcp/pki_authority.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include <gnutls/crypto.h>

#include "transport/error.h"

enum { DAY = 24 * 3600, KEY_ID_MAX = 64 };

enum godwit_err pki_authority_make(int64_t now, unsigned days, struct pki_authority *out, struct godwit_error *error)
{
    *out = (struct pki_authority){.made = true, .from = now - PKI_CLOCK_SKEW, .until = now + (int64_t)days * DAY};
    unsigned char tag[4]; /* so that people can tell one from another */
    int rc = gnutls_rnd(GNUTLS_RND_NONCE, tag, sizeof tag);
    if (rc < 0)
        return pki_gnutls_error(error, rc, "no random numbers");
    snprintf(out->name, sizeof out->name, "godwit authority %02x%02x%02x%02x", tag[0], tag[1], tag[2], tag[3]);
    struct pki_request request = {.purpose = PKI_AUTHORITY, .name = out->name, .from = out->from, .until = out->until};
    return pki_identity_make(&request, NULL, &out->identity, error);
}

static enum godwit_err read_certificate(const char *directory, struct pki_authority *out, struct godwit_error *error)
{
    enum godwit_err err = tls_file_read(&out->pem, directory, PKI_CA_CERT, TLS_FILE_PUBLIC, error);
    if (err)
        return err;
    gnutls_datum_t pem = {out->pem.data, (unsigned)out->pem.size};
    int rc = gnutls_x509_crt_init(&out->identity.certificate);
    if (rc < 0)
        return pki_gnutls_error(error, rc, "cannot read a certificate");
    rc = gnutls_x509_crt_import(out->identity.certificate, &pem, GNUTLS_X509_FMT_PEM);
    if (rc < 0)
        return error_set(error, GODWIT_ERR_INVALID, "%s/%s is no certificate in PEM form: %s", directory, PKI_CA_CERT,
                         gnutls_strerror(rc));
    size_t size = sizeof out->name;
    if (gnutls_x509_crt_get_dn_by_oid(out->identity.certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, out->name, &size))
        out->name[0] = '\0';
    out->from = gnutls_x509_crt_get_activation_time(out->identity.certificate);
    out->until = gnutls_x509_crt_get_expiration_time(out->identity.certificate);
    return GODWIT_OK;
}

static enum godwit_err read_key(const char *directory, struct pki_authority *out, struct godwit_error *error)
{
    struct tls_file file;
    enum godwit_err err = tls_file_read(&file, directory, PKI_CA_KEY, TLS_FILE_SECRET, error);
    gnutls_datum_t pem = {file.data, (unsigned)file.size};
    int rc = gnutls_x509_privkey_init(&out->identity.key);
    if (!err && rc < 0)
        err = pki_gnutls_error(error, rc, "cannot read a key");
    else if (!err && (rc = gnutls_x509_privkey_import2(out->identity.key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0)) < 0)
        err = error_set(error, GODWIT_ERR_INVALID, "%s/%s is no key in PEM form without a password: %s", directory,
                        PKI_CA_KEY, gnutls_strerror(rc));
    tls_file_release(&file);
    return err;
}

static bool belong_together(const struct pki_identity *identity)
{
    unsigned char public[KEY_ID_MAX], private[KEY_ID_MAX];
    size_t public_size = sizeof public, private_size = sizeof private;
    unsigned flags = GNUTLS_KEYID_USE_SHA256;
    return gnutls_x509_crt_get_key_id(identity->certificate, flags, public, &public_size) >= 0 &&
           gnutls_x509_privkey_get_key_id(identity->key, flags, private, &private_size) >= 0 &&
           public_size == private_size && memcmp(public, private, public_size) == 0;
}

static bool may_sign(gnutls_x509_crt_t certificate)
{
    unsigned usage = 0;
    if (gnutls_x509_crt_get_ca_status(certificate, NULL) <= 0)
        return false;
    int rc = gnutls_x509_crt_get_key_usage(certificate, &usage, NULL);
    return rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE || (rc >= 0 && usage & GNUTLS_KEY_KEY_CERT_SIGN);
}

static void date_text(int64_t seconds, char text[32])
{
    time_t time = (time_t)seconds;
    struct tm tm = {0};
    gmtime_r(&time, &tm);
    strftime(text, 32, "%Y-%m-%d %H:%M UTC", &tm);
}

static enum godwit_err judge(const char *directory, const struct pki_authority *authority, int64_t now,
                             struct godwit_error *error)
{
    char date[32];
    if (!belong_together(&authority->identity))
        return error_set(error, GODWIT_ERR_INVALID, "%s/%s is not the key of %s beside it", directory, PKI_CA_KEY,
                         PKI_CA_CERT);
    if (!may_sign(authority->identity.certificate))
        return error_set(error, GODWIT_ERR_INVALID, "%s/%s is not the certificate of an authority: it may not sign",
                         directory, PKI_CA_CERT);
    if (now < authority->from) {
        date_text(authority->from, date);
        return error_set(error, GODWIT_ERR_INVALID, "%s/%s is not valid before %s: is this host's clock right?",
                         directory, PKI_CA_CERT, date);
    }
    if (now >= authority->until) {
        date_text(authority->until, date);
        return error_set(error, GODWIT_ERR_INVALID, "%s/%s expired on %s: make a new authority", directory, PKI_CA_CERT,
                         date);
    }
    return GODWIT_OK;
}

enum godwit_err pki_authority_load(const char *directory, int64_t now, struct pki_authority *out,
                                   struct godwit_error *error)
{
    *out = (struct pki_authority){0};
    enum godwit_err err = read_certificate(directory, out, error);
    if (!err)
        err = read_key(directory, out, error);
    if (!err && pki_files_exist(directory, PKI_CA_CRL))
        err = tls_file_read(&out->crl, directory, PKI_CA_CRL, TLS_FILE_PUBLIC, error);
    return err ? err : judge(directory, out, now, error);
}

void pki_authority_free(struct pki_authority *authority)
{
    pki_identity_free(&authority->identity);
    tls_file_release(&authority->pem);
    tls_file_release(&authority->crl);
    *authority = (struct pki_authority){0};
}

enum godwit_err pki_authority_stage(const struct pki_authority *authority, struct pki_files *files,
                                    struct godwit_error *error)
{
    if (authority->made)
        return pki_identity_stage_certificate(&authority->identity, PKI_CA_CERT, files, error);
    enum godwit_err err = GODWIT_OK;
    if (authority->crl.data)
        err = pki_files_stage(files, PKI_CA_CRL, PKI_PUBLIC, authority->crl.data, authority->crl.size, error);
    return err ? err : pki_files_stage(files, PKI_CA_CERT, PKI_PUBLIC, authority->pem.data, authority->pem.size, error);
}
