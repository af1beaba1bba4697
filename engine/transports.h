/*
 * Which transports serve an address. A migration has two planes: the control connection, and the data channels. Most
 * schemes use one transport for both. rdma: has its control connection on TCP, where it can be protected and lives
 * while the data plane is in trouble, and its data channels on queue pairs, at the same host and port number.
 */
#ifndef ENGINE_TRANSPORTS_H
#define ENGINE_TRANSPORTS_H

#include <stdbool.h>

#include "transport/channel.h"

struct transports {
    const struct transport *control, *data; /* the same one where there is one plane */
    struct address control_address, data_address;
};

/* UNSUPPORTED names the schemes there are. */
enum godwit_err transports_find(const struct address *address, struct transports *out, struct godwit_error *error);

/* These two for this address, whatever its scheme. */
void transports_use(const struct transport *control, const struct transport *data, const struct address *address,
                    struct transports *out);

/* Do data channels come to a listener of their own? */
bool transports_split(const struct transports *transports);

/* Are the data channels queue pairs? Both sides have to agree on that before any is connected. */
bool transports_rdma(const struct transports *transports);

#endif
