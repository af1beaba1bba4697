/*
 * What GnuTLS and the peer's alerts say, in words that an operator can act on. The certificates of the peer have words
 * of their own (tls_verdict.c); here stands what the two sides could not agree on, and what a refusal by the other
 * side means for this one.
 */
#include "tcp/tls_private.h"
#include "transport/error.h"

static const char *peer(enum tls_side side)
{
    return side == TLS_CLIENT ? "the destination" : "the source";
}

/* What to do about a refusal, from where the refused side stands. */
static const char *alert_remedy(enum tls_side side, bool by_key, gnutls_alert_description_t alert)
{
    switch (alert) {
    case GNUTLS_A_CERTIFICATE_REQUIRED:
        return "it wants a client certificate: put client-cert.pem and client-key.pem into tls-creds";
    case GNUTLS_A_ACCESS_DENIED:
        return "its tls-authz does not list this side's certificate";
    case GNUTLS_A_BAD_CERTIFICATE:
    case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
    case GNUTLS_A_CERTIFICATE_UNKNOWN:
    case GNUTLS_A_UNKNOWN_CA:
        return side == TLS_CLIENT ? "it does not accept this side's client-cert.pem: see its warning for why"
                                  : "it does not accept this side's server-cert.pem: see its error for why";
    case GNUTLS_A_CERTIFICATE_EXPIRED:
        return "it says that this side's certificate is expired";
    case GNUTLS_A_CERTIFICATE_REVOKED:
        return "it says that this side's certificate was revoked";
    case GNUTLS_A_UNKNOWN_PSK_IDENTITY:
        return "its keys.psk does not have our tls-username";
    case GNUTLS_A_PROTOCOL_VERSION:
    case GNUTLS_A_INSUFFICIENT_SECURITY:
    case GNUTLS_A_HANDSHAKE_FAILURE:
        return "no version, cipher or kind of credentials is common to both: compare tls-creds and tls-priority";
    case GNUTLS_A_ILLEGAL_PARAMETER:
    case GNUTLS_A_DECRYPT_ERROR:
    case GNUTLS_A_BAD_RECORD_MAC:
        return by_key ? "the keys of the two sides differ: compare keys.psk" : "what arrived there was not what was sent";
    default:
        return "its own message says why";
    }
}

static bool is_refusal(gnutls_alert_description_t alert)
{
    return alert != GNUTLS_A_BAD_RECORD_MAC && alert != GNUTLS_A_UNEXPECTED_MESSAGE && alert != GNUTLS_A_DECODE_ERROR &&
           alert != GNUTLS_A_RECORD_OVERFLOW && alert != GNUTLS_A_INTERNAL_ERROR;
}

static enum godwit_err alert_words(enum tls_side side, bool by_key, gnutls_alert_description_t alert,
                                   struct godwit_error *error)
{
    const char *name = gnutls_alert_get_name(alert);
    return error_set(error, is_refusal(alert) ? GODWIT_ERR_NOT_ADMITTED : GODWIT_ERR_PROTOCOL,
                     "%s ended TLS with the alert \"%s\": %s", peer(side), name ? name : "of an unknown kind",
                     alert_remedy(side, by_key, alert));
}

enum godwit_err tls_words(enum tls_side side, bool by_key, int rc, gnutls_alert_description_t alert,
                          struct godwit_error *error)
{
    switch (rc) {
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
        return alert_words(side, by_key, alert, error);
    case GNUTLS_E_MEMORY_ERROR:
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for TLS");
    case GNUTLS_E_NO_CIPHER_SUITES:
    case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
    case GNUTLS_E_NO_COMMON_KEY_SHARE:
    case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
        return error_set(error, GODWIT_ERR_NOT_ADMITTED,
                         "no TLS version, cipher or kind of credentials is common to this side and %s: compare "
                         "tls-creds and tls-priority (%s)",
                         peer(side), gnutls_strerror(rc));
    case GNUTLS_E_NO_APPLICATION_PROTOCOL:
        return error_set(error, GODWIT_ERR_NOT_ADMITTED, "%s speaks TLS, and something else than godwit inside",
                         peer(side));
    case GNUTLS_E_NO_CERTIFICATE_FOUND:
    case GNUTLS_E_CERTIFICATE_REQUIRED:
        return error_set(error, GODWIT_ERR_NOT_ADMITTED,
                         "%s showed no certificate: it needs client-cert.pem and client-key.pem in its tls-creds, or "
                         "tls-verify-peer off here",
                         peer(side));
    case GNUTLS_E_DECRYPTION_FAILED:
    case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER:
        return error_set(error, GODWIT_ERR_PROTOCOL,
                         by_key ? "what %s sent does not fit its key: compare keys.psk (%s)"
                             : "what arrived is not what %s sent: the connection was tampered with, or damaged (%s)",
                         peer(side), gnutls_strerror(rc));
    case GNUTLS_E_TOO_MANY_HANDSHAKE_PACKETS:
        return error_set(error, GODWIT_ERR_PROTOCOL, "%s changes its keys without end", peer(side));
    default:
        return error_set(error, GODWIT_ERR_PROTOCOL, "TLS with %s failed: %s", peer(side), gnutls_strerror(rc));
    }
}
