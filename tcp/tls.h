/*
 * TLS around any stream channel: a transport that wraps the channels of another, as the fault net does. Credentials are
 * loaded and judged once, before anybody connects; each channel then has a TLS session of its own, and everything that
 * is said on it, from the hello on, is inside. GnuTLS does the cryptography.
 *
 * Files: tls_credentials.c what a directory holds and whether it can be used, tls_authz.c who may come in, tls_channel.c
 * the channel, tls_handshake.c how it comes to be, tls_kernel.c handing the keys to the kernel, tls_transport.c the
 * transport. Names and meaning of the settings are QEMU's (tls-creds-x509, tls-creds-psk, and the migration parameters).
 */
#ifndef TCP_TLS_H
#define TCP_TLS_H

#include "transport/channel.h"

enum tls_side { TLS_CLIENT, TLS_SERVER }; /* the source connects: client; the destination listens: server */

/* What the tls-* options say. Text is never NULL; "" means not given. */
struct tls_config {
    const char *creds;    /* directory of PEM files, or of keys.psk */
    const char *hostname; /* client: the name the server's certificate must bear instead of the address's host */
    const char *authz;    /* server: distinguished names that may come in; "" everybody with a valid certificate */
    const char *priority; /* GnuTLS priority string; "" ours */
    const char *username; /* client, pre-shared keys: which line of keys.psk */
    bool verify_peer;     /* server: a client has to show a valid certificate */
    bool kernel;          /* leave records to the kernel where GnuTLS and kernel can */
    uint64_t renew_bytes; /* a direction's keys are renewed after so many bytes; 0: by the cipher's limit */
};

struct tls;

/*
 * Reads and judges the credentials: everything that can be wrong without a peer is wrong here, in one error that names
 * the file and the cause. Copies what it needs of config; inner is what is wrapped and outlives it. The result is
 * immutable and may be used by any number of threads.
 */
enum godwit_err tls_load(const struct tls_config *config, enum tls_side side, const struct transport *inner,
                         struct tls **out, struct godwit_error *error);
/* NULL allowed. After the last listener and channel made with it. */
void tls_free(struct tls *tls);

/* Client: is the server's certificate checked for a name? Not with pre-shared keys. */
bool tls_verifies_name(const struct tls *tls);

/* inner's channels under TLS: same scheme, same addresses; streams, whatever inner has. Lives as long as tls. */
const struct transport *tls_transport(const struct tls *tls);

#endif
