/*
 * Private to tcp/: the credentials of one side. A directory, in the layout that QEMU and libvirt have on their hosts:
 *
 *   x509  ca-cert.pem, ca-crl.pem (optional), server-cert.pem + server-key.pem or client-cert.pem + client-key.pem
 *   PSK   keys.psk, lines of USER:HEX as psktool writes them
 *
 * A client without client-cert.pem and client-key.pem is anonymous. Files: tls_files.c reads and judges a file as such,
 * tls_x509.c certificates, tls_psk.c keys.psk, tls_priority.c versions and ciphers; tls_peer.c judges the peer,
 * tls_verdict.c has the words.
 *
 * Failure modes, each one error that names the file, the cause and the remedy: nothing usable in the directory, or both
 * kinds; a file that is missing, unreadable or no PEM, or that anybody may change; a key that others than its owner may
 * read; a key that does not belong to its certificate; a certificate that is expired, not valid yet, made for another purpose, not signed by the
 * authority, or revoked; a list of revoked certificates that is out of date or another authority's; a user that keys.psk
 * does not have; a tls-priority or tls-authz that cannot be used.
 */
#ifndef TCP_TLS_CREDENTIALS_H
#define TCP_TLS_CREDENTIALS_H

#include <gnutls/gnutls.h>

#include "tcp/tls.h"

struct tls_credentials;

enum godwit_err tls_credentials_load(const struct tls_config *config, enum tls_side side, struct tls_credentials **out,
                                     struct godwit_error *error);
void tls_credentials_free(struct tls_credentials *credentials); /* NULL allowed; after the last session that uses it */

/* Pre-shared keys rather than certificates? Then no name is verified and no distinguished name exists. */
bool tls_credentials_psk(const struct tls_credentials *credentials);

/* A new session: priority, credentials, whether a client certificate is asked for. Transport functions,
 * transport pointer and session pointer are the caller's; the pointer of the session database is taken. credentials
 * outlive the session. */
enum godwit_err tls_credentials_prepare(const struct tls_credentials *credentials, gnutls_session_t session,
                                        struct godwit_error *error);

/*
 * Is the peer who it should be? Called from the handshake when its certificates are there, so that a refusal reaches
 * the peer as an alert. Client: chain, dates, purpose, revocation, and name, which is tls-hostname or else host.
 * Server: chain, dates, purpose and revocation if the client showed a certificate (it must, with verify_peer), then
 * tls-authz, which a client without certificate does not pass. There has to be a name for a client to verify; that it
 * lacks is an error of connecting. Several threads at once. NOT_ADMITTED, in words that name the peer's certificate;
 * *alert is then what the peer is to be told.
 */
enum godwit_err tls_credentials_verify(const struct tls_credentials *credentials, gnutls_session_t session,
                                       const char *host, gnutls_alert_description_t *alert,
                                       struct godwit_error *error);

#endif
