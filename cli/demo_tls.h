/* Throw-away credentials for godwit demo --tls: made for the run, in a folder of its own, removed with it. */
#ifndef CLI_DEMO_TLS_H
#define CLI_DEMO_TLS_H

#include <godwit/godwit.h>

enum demo_tls { DEMO_TLS_NONE, DEMO_TLS_X509, DEMO_TLS_PSK };

/* Makes them in folder/tls and has both sides' options use them, under the name localhost. */
enum godwit_err demo_tls_make(enum demo_tls kind, const char *folder, struct godwit_options *options,
                              struct godwit_error *error);
/* What demo_tls_make left there, if anything. */
void demo_tls_remove(const char *folder);

#endif
