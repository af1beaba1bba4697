/*
 * Private to tcp/: which versions of TLS and which ciphers may be used. Ours: TLS 1.3, AEAD ciphers, forward secrecy.
 * Whoever gives a priority string of GnuTLS instead may have TLS 1.2 too, but no cipher other than AEAD: those read the
 * plaintext once, which is what lets memory be encrypted that a guest is changing.
 */
#ifndef TCP_TLS_PRIORITY_H
#define TCP_TLS_PRIORITY_H

#include <gnutls/gnutls.h>

#include <godwit/error.h>

enum tls_keys { TLS_KEYS_X509, TLS_KEYS_PSK };

/* text "" is ours. For pre-shared keys their key exchange is added where it lacks, as QEMU does. INVALID names what
 * cannot be parsed or must not be allowed. gnutls_priority_deinit() when done. */
enum godwit_err tls_priority_make(const char *text, enum tls_keys keys, gnutls_priority_t *out,
                                  struct godwit_error *error);

#endif
