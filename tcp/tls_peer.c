/*
 * The judgement about the peer. GnuTLS verifies the chain: signatures, dates, purpose, and revocation by the lists that
 * the credentials were loaded with. The name of the destination and the right of the source to come in are compared
 * here. What the peer showed is imported once more for that, since GnuTLS gives it out as bytes.
 *
 * Failure modes: no certificate where one is needed, one that GnuTLS refuses, another host's, nobody's whom tls-authz
 * knows. Each names the peer's certificate.
 */
#include "tcp/tls_peer.h"

#include <assert.h>
#include <gnutls/x509.h>
#include <string.h>

#include "tcp/tls_verdict.h"
#include "transport/error.h"

static const char *who(const struct tls_peer_rules *rules)
{
    return rules->peer == TLS_SERVER ? "the destination" : "the source";
}

/* The chain that the peer showed, imported: its first certificate is the peer's own. */
struct shown {
    gnutls_x509_crt_t list[16]; /* GnuTLS verifies no longer chain */
    unsigned count;
};

static void shown_release(struct shown *shown)
{
    for (unsigned i = 0; i < shown->count; i++)
        gnutls_x509_crt_deinit(shown->list[i]);
    shown->count = 0;
}

static int shown_import(struct shown *shown, gnutls_session_t session)
{
    unsigned count = 0;
    const gnutls_datum_t *raw = gnutls_certificate_get_peers(session, &count);
    int rc = GNUTLS_E_SUCCESS;
    for (unsigned i = 0; i < count && i < sizeof shown->list / sizeof shown->list[0] && rc >= 0; i++) {
        rc = gnutls_x509_crt_init(&shown->list[i]);
        if (rc < 0)
            break;
        shown->count++;
        rc = gnutls_x509_crt_import(shown->list[i], &raw[i], GNUTLS_X509_FMT_DER);
    }
    return rc;
}

static gnutls_alert_description_t alert_of(unsigned status)
{
    return status & GNUTLS_CERT_REVOKED          ? GNUTLS_A_CERTIFICATE_REVOKED
           : status & GNUTLS_CERT_SIGNER_NOT_FOUND ? GNUTLS_A_UNKNOWN_CA
           : status & GNUTLS_CERT_EXPIRED          ? GNUTLS_A_CERTIFICATE_EXPIRED
                                                   : GNUTLS_A_BAD_CERTIFICATE;
}

static enum godwit_err verify_chain(const struct tls_peer_rules *rules, gnutls_session_t session,
                                    const struct shown *shown, const char *subject, gnutls_alert_description_t *alert,
                                    struct godwit_error *error)
{
    gnutls_typed_vdata_st purpose = tls_purpose(rules->peer);
    unsigned status = 0;
    int rc = gnutls_certificate_verify_peers(session, &purpose, 1, &status);
    if (rc < 0)
        return error_set(error, GODWIT_ERR_NOT_ADMITTED, "%s's certificate \"%s\" cannot be verified: %s", who(rules),
                         subject, gnutls_strerror(rc));
    if (status == 0)
        return GODWIT_OK;
    *alert = alert_of(status);
    char words[TLS_VERDICT_MAX];
    tls_verdict_words(status, rules->peer, shown->list, shown->count, words);
    return error_set(error, GODWIT_ERR_NOT_ADMITTED, "%s's certificate \"%.200s\" %s", who(rules), subject, words);
}

/* The zone of a link-local address ("fe80::1%eth0") says how to get there, not who is there. */
static size_t without_zone(const char *host)
{
    return strchr(host, ':') != NULL ? strcspn(host, "%") : strlen(host);
}

static enum godwit_err verify_host(const struct tls_peer_rules *rules, gnutls_x509_crt_t certificate, const char *host,
                                   struct godwit_error *error)
{
    char name[256], names[TLS_NAME_MAX];
    host = *rules->hostname != 0 ? rules->hostname : host;
    assert(*host != 0 && "connecting without a name to verify is refused before it begins");
    size_t size = without_zone(host);
    if (size < sizeof name) {
        memcpy(name, host, size);
        name[size] = 0;
        if (gnutls_x509_crt_check_hostname2(certificate, name, 0))
            return GODWIT_OK;
    }
    tls_host_names(certificate, names);
    return error_set(
        error, GODWIT_ERR_NOT_ADMITTED,
        "the destination's certificate is for %.200s, not for %.100s: set tls-hostname to a name that it is "
        "for, or connect by one",
        names, host);
}

static enum godwit_err verify_admission(const struct tls_peer_rules *rules, const char *subject,
                                        gnutls_alert_description_t *alert, struct godwit_error *error)
{
    if (tls_authz_allows(rules->authz, subject))
        return GODWIT_OK;
    *alert = GNUTLS_A_ACCESS_DENIED;
    return error_set(error, GODWIT_ERR_NOT_ADMITTED, "the source's certificate \"%s\" is not in tls-authz", subject);
}

static enum godwit_err verify_shown(const struct tls_peer_rules *rules, gnutls_session_t session,
                                    const struct shown *shown, const char *host, gnutls_alert_description_t *alert,
                                    struct godwit_error *error)
{
    char *subject = tls_subject(shown->list[0]);
    if (subject == NULL)
        return error_set(error, GODWIT_ERR_NOT_ADMITTED, "%s's certificate has a subject that cannot be read",
                         who(rules));
    enum godwit_err err = verify_chain(rules, session, shown, subject, alert, error);
    if (err == GODWIT_OK)
        err = rules->peer == TLS_SERVER ? verify_host(rules, shown->list[0], host, error)
                                        : verify_admission(rules, subject, alert, error);
    gnutls_free(subject);
    return err;
}

static enum godwit_err verify_anonymous(const struct tls_peer_rules *rules, gnutls_alert_description_t *alert,
                                        struct godwit_error *error)
{
    static const char remedy[] = "give it client-cert.pem and client-key.pem";
    *alert = GNUTLS_A_CERTIFICATE_REQUIRED;
    if (rules->peer == TLS_SERVER)
        return error_set(error, GODWIT_ERR_NOT_ADMITTED, "the destination shows no certificate");
    if (rules->certificate_required)
        return error_set(error, GODWIT_ERR_NOT_ADMITTED,
                         "the source shows no certificate, and tls-verify-peer is on: %s", remedy);
    if (rules->authz != NULL)
        return error_set(error, GODWIT_ERR_NOT_ADMITTED,
                         "the source shows no certificate, and so no name that tls-authz could allow: %s", remedy);
    return GODWIT_OK;
}

enum godwit_err tls_peer_verify(const struct tls_peer_rules *rules, gnutls_session_t session, const char *host,
                                gnutls_alert_description_t *alert, struct godwit_error *error)
{
    struct shown shown = {0};
    enum godwit_err err;
    *alert = GNUTLS_A_BAD_CERTIFICATE;
    int rc = shown_import(&shown, session);
    if (rc < 0)
        err = error_set(error, GODWIT_ERR_NOT_ADMITTED, "%s's certificate cannot be read: %s", who(rules),
                        gnutls_strerror(rc));
    else if (shown.count == 0)
        err = verify_anonymous(rules, alert, error);
    else
        err = verify_shown(rules, session, &shown, host, alert, error);
    shown_release(&shown);
    return err;
}
