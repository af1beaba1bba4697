/*
 * Which transports serve an address. A migration has two planes: the control connection, and the data channels. Most
 * schemes use one transport for both. rdma: has its control connection on TCP, where it can be protected and lives
 * while the data plane is in trouble, and its data channels on queue pairs, at the same host and port number.
 */
#ifndef ENGINE_TRANSPORTS_H
#define ENGINE_TRANSPORTS_H

#include <stdbool.h>

#include "engine/options.h"
#include "transport/channel.h"

struct tls;

struct transports {
    const struct transport *control, *data; /* the same one where there is one plane */
    struct address control_address, data_address;
    struct tls *tls; /* owned; NULL: nothing is encrypted */
};

/* UNSUPPORTED names the schemes there are. */
enum godwit_err transports_find(const struct address *address, struct transports *out, struct godwit_error *error);

/* These two for this address, whatever its scheme. */
void transports_use(const struct transport *control, const struct transport *data, const struct address *address,
                    struct transports *out);

/*
 * Puts TLS around what is a stream, as the tls-* options of this side say; without tls-creds there is nothing to do.
 * INVALID for credentials that cannot be used, and for a migration that tls-required forbids. From here on
 * transports_release is due, after the last channel and listener.
 */
enum godwit_err transports_protect(struct transports *transports, const struct godwit_options *options,
                                   enum godwit_option_side side, struct godwit_error *error);
void transports_release(struct transports *transports);

/* What an operator who asked for TLS should know does not have it; NULL: nothing. Static. */
const char *transports_unprotected(const struct transports *transports);

/* Do data channels come to a listener of their own? */
bool transports_split(const struct transports *transports);

/* Are the data channels queue pairs? Both sides have to agree on that before any is connected. */
bool transports_rdma(const struct transports *transports);

#endif
