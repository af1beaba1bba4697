/*
 * Private to tcp/: who may come in. A list of patterns for distinguished names in the form that QEMU compares: the parts
 * in the order in which the certificate has them, which is mostly from the general to the special, "C=GB,O=Example,CN=host1"
 * (RFC 4514, and so certtool and openssl -nameopt, turn them around). Wildcards are * (anything, commas too) and ? (one
 * byte); letters are compared as they are. One pattern that matches is enough.
 *
 *   tls-authz = PATTERN[;PATTERN...]   the patterns
 *   tls-authz = file:PATH              a file with a pattern on each line; empty lines and lines that begin with # apart
 */
#ifndef TCP_TLS_AUTHZ_H
#define TCP_TLS_AUTHZ_H

#include "transport/channel.h"

struct tls_authz;

/* text "" gives NULL: everybody. INVALID for a file that cannot be read, or a list without a pattern: it would let
 * nobody in. */
enum godwit_err tls_authz_load(const char *text, struct tls_authz **out, struct godwit_error *error);
void tls_authz_free(struct tls_authz *authz); /* NULL allowed */

/* authz NULL: yes. */
bool tls_authz_allows(const struct tls_authz *authz, const char *distinguished_name);

#endif
