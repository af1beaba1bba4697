/* Private to tcp/: the names and addresses of a host that a certificate is made for. */
#ifndef TCP_PKI_NAMES_H
#define TCP_PKI_NAMES_H

#include <godwit/error.h>

enum { PKI_NAMES_MAX = 16, PKI_DNS_MAX = 253 };

struct pki_name {
    char text[PKI_DNS_MAX + 1];
    unsigned char ip[16];
    unsigned ip_size; /* bytes; 0: text is a DNS name */
};

struct pki_names {
    unsigned count; /* at least 1 */
    struct pki_name names[PKI_NAMES_MAX];
};

/* "NAME|IP[,NAME|IP...]". INVALID for what no peer could ever find in a certificate. */
enum godwit_err pki_names_parse(const char *list, struct pki_names *out, struct godwit_error *error);

/* What this host is called: its own name, and the long form if the resolver has one. INVALID when the name is one that
 * every host has. */
enum godwit_err pki_names_own(struct pki_names *out, struct godwit_error *error);

#endif
