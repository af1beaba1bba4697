/* The only file that names the transports. */
#include "engine/transports.h"

#include <string.h>

#include "rdma/rdma.h"
#include "tcp/tcp.h"
#include "transport/error.h"

static const struct {
    const char *scheme;
    const struct transport *control, *data;
} table[] = {
    {"tcp", &tcp_transport, &tcp_transport},
    {"unix", &unix_transport, &unix_transport},
    {"rdma", &tcp_transport, &rdma_transport},
};

static struct address address_for(const struct transport *transport, const struct address *address)
{
    struct address own = *address;
    strcpy(own.scheme, transport_scheme(transport));
    return own;
}

void transports_use(const struct transport *control, const struct transport *data, const struct address *address,
                    struct transports *out)
{
    *out = (struct transports){
        .control = control,
        .data = data,
        .control_address = address_for(control, address),
        .data_address = address_for(data, address),
    };
}

enum godwit_err transports_find(const struct address *address, struct transports *out, struct godwit_error *error)
{
    for (unsigned i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].scheme, address->scheme) == 0) {
            transports_use(table[i].control, table[i].data, address, out);
            return GODWIT_OK;
        }
    return error_set(error, GODWIT_ERR_UNSUPPORTED, "this build has no transport called %s; there are tcp:HOST:PORT, "
                     "unix:PATH and rdma:HOST:PORT",
                     address->scheme);
}

bool transports_split(const struct transports *transports)
{
    return transports->control != transports->data;
}

bool transports_rdma(const struct transports *transports)
{
    return strcmp(transport_scheme(transports->data), "rdma") == 0;
}
