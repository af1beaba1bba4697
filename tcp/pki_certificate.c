/*
 * Certificates by RFC 5280, and why they are as they are:
 *
 * ECDSA on P-256, signed with SHA-256: the one kind that GnuTLS, OpenSSL, QEMU and libvirt have all had for ten years,
 * with a handshake that costs a tenth of RSA's; with 16 channels there are 17 handshakes. Rejected: Ed25519, which
 * policies such as FIPS mode forbid; RSA 3072.
 *
 * Key usage is digitalSignature alone and not marked critical: older QEMU, and libvirt, refuse a critical one without
 * keyEncipherment, which RFC 8813 forbids for such keys. RFC 5280 has critical as SHOULD.
 *
 * Serial numbers are 126 random bits: no book has to be kept, and none can be guessed. Key identifiers are SHA-256:
 * policies that forbid SHA-1 need no exception.
 *
 * Failure modes: memory, and what a policy of the system forbids.
 */
#include "tcp/pki_certificate.h"

#include <string.h>
#include <time.h>

#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <gnutls/x509-ext.h>

#include "transport/error.h"

enum { SERIAL_BYTES = 16, KEY_ID_MAX = 64, VERSION = 3 };

enum godwit_err pki_gnutls_error(struct godwit_error *error, int rc, const char *what)
{
    enum godwit_err code = rc == GNUTLS_E_MEMORY_ERROR ? GODWIT_ERR_NO_MEMORY : GODWIT_ERR_SYSTEM;
    return error_set(error, code, "%s: %s", what, gnutls_strerror(rc));
}

static int set_serial(gnutls_x509_crt_t certificate)
{
    unsigned char serial[SERIAL_BYTES];
    int rc = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof serial);
    if (rc < 0)
        return rc;
    serial[0] = (unsigned char)((serial[0] & 0x3f) | 0x40); /* positive, and never shorter */
    return gnutls_x509_crt_set_serial(certificate, serial, sizeof serial);
}

static int set_key_ids(gnutls_x509_crt_t certificate, gnutls_x509_crt_t issuer)
{
    unsigned char id[KEY_ID_MAX];
    size_t size = sizeof id;
    int rc = gnutls_x509_crt_get_key_id(certificate, GNUTLS_KEYID_USE_SHA256, id, &size);
    if (rc < 0 || (rc = gnutls_x509_crt_set_subject_key_id(certificate, id, size)) < 0)
        return rc;
    size = sizeof id;
    rc = gnutls_x509_crt_get_subject_key_id(issuer, id, &size, NULL);
    if (rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) /* an authority of somebody else: the issuer's name has to do */
        return 0;
    return rc < 0 ? rc : gnutls_x509_crt_set_authority_key_id(certificate, id, size);
}

static int set_basics(const struct pki_request *request, gnutls_x509_privkey_t key, gnutls_x509_crt_t certificate)
{
    int rc = gnutls_x509_crt_set_version(certificate, VERSION);
    if (rc < 0 || (rc = set_serial(certificate)) < 0 ||
        (rc = gnutls_x509_crt_set_activation_time(certificate, (time_t)request->from)) < 0 ||
        (rc = gnutls_x509_crt_set_expiration_time(certificate, (time_t)request->until)) < 0)
        return rc;
    rc = gnutls_x509_crt_set_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, request->name,
                                       (unsigned)strlen(request->name));
    return rc < 0 ? rc : gnutls_x509_crt_set_key(certificate, key);
}

static int set_authority(gnutls_x509_crt_t certificate)
{
    int rc = gnutls_x509_crt_set_basic_constraints(certificate, 1, 0);
    return rc < 0 ? rc : gnutls_x509_crt_set_key_usage(certificate, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
}

static int set_leaf(gnutls_x509_crt_t certificate, const char *purpose)
{
    gnutls_datum_t usage = {0};
    int rc = gnutls_x509_crt_set_basic_constraints(certificate, 0, -1);
    if (rc < 0 || (rc = gnutls_x509_crt_set_key_purpose_oid(certificate, purpose, 0)) < 0 ||
        (rc = gnutls_x509_ext_export_key_usage(GNUTLS_KEY_DIGITAL_SIGNATURE, &usage)) < 0)
        return rc;
    rc = gnutls_x509_crt_set_extension_by_oid(certificate, GNUTLS_X509EXT_OID_KEY_USAGE, usage.data, usage.size, 0);
    gnutls_free(usage.data);
    return rc;
}

static int set_names(gnutls_x509_crt_t certificate, const struct pki_names *names)
{
    int rc = 0;
    for (unsigned i = 0; i < names->count && rc >= 0; i++) {
        const struct pki_name *name = &names->names[i];
        if (name->ip_size)
            rc = gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_IPADDRESS, name->ip, name->ip_size,
                                                      GNUTLS_FSAN_APPEND);
        else
            rc = gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, name->text,
                                                      (unsigned)strlen(name->text), GNUTLS_FSAN_APPEND);
    }
    return rc;
}

static int set_purpose(const struct pki_request *request, gnutls_x509_crt_t certificate)
{
    if (request->purpose == PKI_AUTHORITY)
        return set_authority(certificate);
    if (request->purpose == PKI_CLIENT)
        return set_leaf(certificate, GNUTLS_KP_TLS_WWW_CLIENT);
    int rc = set_leaf(certificate, GNUTLS_KP_TLS_WWW_SERVER);
    return rc < 0 ? rc : set_names(certificate, request->names);
}

/* SHA-256 with keys of ours, another digest with some that others made. */
int pki_identity_digest(const struct pki_identity *identity, gnutls_digest_algorithm_t *out)
{
    gnutls_pubkey_t public = NULL;
    int rc = gnutls_pubkey_init(&public);
    if (rc < 0)
        return rc;
    if ((rc = gnutls_pubkey_import_x509(public, identity->certificate, 0)) >= 0)
        rc = gnutls_pubkey_get_preferred_hash_algorithm(public, out, NULL);
    gnutls_pubkey_deinit(public);
    return rc;
}

static int sign(gnutls_x509_crt_t certificate, const struct pki_identity *issuer)
{
    gnutls_digest_algorithm_t digest;
    int rc = pki_identity_digest(issuer, &digest);
    return rc < 0 ? rc : gnutls_x509_crt_sign2(certificate, issuer->certificate, issuer->key, digest, 0);
}

static int make(const struct pki_request *request, const struct pki_identity *issuer, struct pki_identity *out)
{
    int rc = gnutls_x509_privkey_init(&out->key);
    if (rc < 0 || (rc = gnutls_x509_crt_init(&out->certificate)) < 0)
        return rc;
    rc = gnutls_x509_privkey_generate(out->key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
    if (rc < 0 || (rc = set_basics(request, out->key, out->certificate)) < 0 ||
        (rc = set_purpose(request, out->certificate)) < 0 ||
        (rc = set_key_ids(out->certificate, issuer->certificate)) < 0)
        return rc;
    return sign(out->certificate, issuer);
}

enum godwit_err pki_identity_make(const struct pki_request *request, const struct pki_identity *issuer,
                                  struct pki_identity *out, struct godwit_error *error)
{
    *out = (struct pki_identity){0};
    int rc = make(request, issuer ? issuer : out, out);
    return rc < 0 ? pki_gnutls_error(error, rc, "cannot make a certificate") : GODWIT_OK;
}

void pki_identity_free(struct pki_identity *identity)
{
    gnutls_x509_crt_deinit(identity->certificate);
    gnutls_x509_privkey_deinit(identity->key);
    *identity = (struct pki_identity){0};
}

enum godwit_err pki_identity_stage_certificate(const struct pki_identity *identity, const char *name,
                                               struct pki_files *files, struct godwit_error *error)
{
    gnutls_datum_t pem = {0};
    int rc = gnutls_x509_crt_export2(identity->certificate, GNUTLS_X509_FMT_PEM, &pem);
    if (rc < 0)
        return pki_gnutls_error(error, rc, "cannot encode a certificate");
    enum godwit_err err = pki_files_stage(files, name, PKI_PUBLIC, pem.data, pem.size, error);
    gnutls_free(pem.data);
    return err;
}

enum godwit_err pki_identity_stage_key(const struct pki_identity *identity, const char *name, struct pki_files *files,
                                       struct godwit_error *error)
{
    gnutls_datum_t pem = {0};
    int rc = gnutls_x509_privkey_export2_pkcs8(identity->key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &pem);
    if (rc < 0)
        return pki_gnutls_error(error, rc, "cannot encode a key");
    enum godwit_err err = pki_files_stage(files, name, PKI_SECRET, pem.data, pem.size, error);
    gnutls_memset(pem.data, 0, pem.size);
    gnutls_free(pem.data);
    return err;
}
