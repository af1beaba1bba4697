/* Words for certificates. Nothing here fails: what does not fit is cut at the end, what cannot be read is left out. */
#include "tcp/tls_verdict.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

gnutls_typed_vdata_st tls_purpose(enum tls_side side)
{
    static const char client[] = GNUTLS_KP_TLS_WWW_CLIENT, server[] = GNUTLS_KP_TLS_WWW_SERVER;
    const char *purpose = side == TLS_CLIENT ? client : server;
    return (gnutls_typed_vdata_st){.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)(uintptr_t)purpose};
}

void tls_time_text(time_t when, char text[TLS_TIME_MAX])
{
    struct tm parts;
    if (gmtime_r(&when, &parts) == NULL || strftime(text, TLS_TIME_MAX, "%Y-%m-%d %H:%M:%S UTC", &parts) == 0)
        snprintf(text, TLS_TIME_MAX, "an unknown date");
}

static void append(char *text, size_t room, const char *separator, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void append(char *text, size_t room, const char *separator, const char *format, ...)
{
    size_t used = strlen(text);
    used += (size_t)snprintf(text + used, room - used, "%s", used > 0 ? separator : "");
    if (used >= room)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + used, room - used, format, arguments);
    va_end(arguments);
}

/* In the order of what an operator wants to know first. */
static const struct {
    unsigned bit;
    const char *words;
} phrases[] = {
    {GNUTLS_CERT_REVOKED, "is revoked by ca-crl.pem"},
    {GNUTLS_CERT_SIGNATURE_FAILURE, "has a signature that is wrong: it was changed, or signed by another authority"},
    {GNUTLS_CERT_SIGNER_NOT_FOUND, "is not signed by an authority of ca-cert.pem"},
    {GNUTLS_CERT_SIGNER_NOT_CA, "is signed by a certificate that is no authority's"},
    {GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE, "is not one that its authority may sign"},
    {GNUTLS_CERT_INSECURE_ALGORITHM, "or its authority's uses a key or a signature that is too weak"},
    {GNUTLS_CERT_UNKNOWN_CRIT_EXTENSIONS, "has a critical extension that GnuTLS does not know"},
    {GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED, "is judged by a list of revoked certificates that is out of date"},
    {GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE, "is judged by a list of revoked certificates from the future"},
    {GNUTLS_CERT_UNEXPECTED_OWNER, "is for another host"},
    {GNUTLS_CERT_MISMATCH, "is not the one expected"},
    {GNUTLS_CERT_MISSING_OCSP_STATUS, "comes without the OCSP status that it demands"},
    {GNUTLS_CERT_INVALID_OCSP_STATUS, "comes with an OCSP status that is not valid"},
};

static void append_expiry(const gnutls_x509_crt_t *chain, unsigned count, char *text)
{
    char date[TLS_TIME_MAX];
    time_t now = time(NULL);
    for (unsigned i = 0; i < count; i++) {
        time_t end = gnutls_x509_crt_get_expiration_time(chain[i]);
        if (end >= now)
            continue;
        tls_time_text(end, date);
        append(text, TLS_VERDICT_MAX, ", and ", "expired on %s%s", date, i ? " (a certificate above it did)" : "");
        return;
    }
    append(text, TLS_VERDICT_MAX, ", and ", "is signed by an authority whose own certificate has expired");
}

static void append_activation(const gnutls_x509_crt_t *chain, unsigned count, char *text)
{
    char date[TLS_TIME_MAX];
    time_t now = time(NULL);
    for (unsigned i = 0; i < count; i++) {
        time_t begin = gnutls_x509_crt_get_activation_time(chain[i]);
        if (begin <= now)
            continue;
        tls_time_text(begin, date);
        append(text, TLS_VERDICT_MAX, ", and ", "is not valid before %s%s (is the clock right?)", date,
               i ? " (a certificate above it is not)" : "");
        return;
    }
    append(text, TLS_VERDICT_MAX, ", and ", "is signed by an authority whose own certificate is not valid yet");
}

void tls_verdict_words(unsigned status, enum tls_side side, const gnutls_x509_crt_t *chain, unsigned count,
                       char text[TLS_VERDICT_MAX])
{
    text[0] = 0;
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++) {
        if (status & phrases[i].bit)
            append(text, TLS_VERDICT_MAX, ", and ", "%s", phrases[i].words);
    }
    if (status & GNUTLS_CERT_EXPIRED)
        append_expiry(chain, count, text);
    if (status & GNUTLS_CERT_NOT_ACTIVATED)
        append_activation(chain, count, text);
    if (status & GNUTLS_CERT_PURPOSE_MISMATCH)
        append(text, TLS_VERDICT_MAX, ", and ", "was not made for a TLS %s (extended key usage)",
               side == TLS_CLIENT ? "client" : "server");
    if (text[0] == 0)
        append(text, TLS_VERDICT_MAX, "", "is not valid");
}

char *tls_subject(gnutls_x509_crt_t certificate)
{
    gnutls_datum_t name = {0};
    if (gnutls_x509_crt_get_dn2(certificate, &name) != GNUTLS_E_SUCCESS)
        return NULL;
    if (memchr(name.data, 0, name.size) == NULL)
        return (char *)name.data;
    gnutls_free(name.data);
    return NULL;
}

static void append_name(const unsigned char *name, size_t size, int kind, char *text)
{
    char address[INET6_ADDRSTRLEN];
    if (kind == GNUTLS_SAN_DNSNAME)
        append(text, TLS_NAME_MAX, ", ", "%.*s", (int)size, name);
    else if (kind == GNUTLS_SAN_IPADDRESS && (size == 4 || size == 16) &&
             inet_ntop(size == 4 ? AF_INET : AF_INET6, name, address, sizeof address) != NULL)
        append(text, TLS_NAME_MAX, ", ", "%s", address);
}

void tls_host_names(gnutls_x509_crt_t certificate, char text[TLS_NAME_MAX])
{
    text[0] = 0;
    for (unsigned i = 0;; i++) {
        unsigned char name[256];
        size_t size = sizeof name;
        int kind = gnutls_x509_crt_get_subject_alt_name(certificate, i, name, &size, NULL);
        if (kind < 0 && kind != GNUTLS_E_SHORT_MEMORY_BUFFER)
            break;
        append_name(name, size, kind, text);
    }
    /* Where no name stands beside the subject, the common name counts, as it does to GnuTLS. */
    char common[TLS_NAME_MAX];
    size_t size = sizeof common;
    if (text[0] == 0 &&
        gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, common, &size) == 0)
        append(text, TLS_NAME_MAX, "", "%.*s", (int)size, common);
    if (text[0] == 0)
        append(text, TLS_NAME_MAX, "", "nobody");
}
