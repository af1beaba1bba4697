/* Private to tcp/: the list of an authority's certificates that are good no longer, ca-crl.pem. */
#ifndef TCP_PKI_CRL_H
#define TCP_PKI_CRL_H

#include "tcp/pki_authority.h"

/* Adds a certificate of the authority's, from this file, to its list, and stages the list. INVALID: file or list are
 * broken or of another authority. */
enum godwit_err pki_crl_stage(const struct pki_authority *authority, const char *certificate, int64_t now,
                              struct pki_files *files, struct godwit_error *error);

#endif
