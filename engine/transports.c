/* The only file that names the transports. */
#include "engine/transports.h"

#include <string.h>

#include "rdma/rdma.h"
#include "tcp/tcp.h"
#include "tcp/tls.h"
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

static enum godwit_err check_required(const struct transports *transports, const struct godwit_options *options,
                                      struct godwit_error *error)
{
    if (!godwit_options_get(options, "tls-required"))
        return GODWIT_OK;
    if (godwit_options_get_text(options, "tls-creds")[0] == 0)
        return error_set(error, GODWIT_ERR_INVALID,
                         "tls-required is on and nothing would be encrypted: set tls-creds");
    if (transports_split(transports))
        return error_set(error, GODWIT_ERR_INVALID,
                         "tls-required is on and pages over %s: are not encrypted: use tcp:HOST:PORT or unix:PATH",
                         transport_scheme(transports->data));
    return GODWIT_OK;
}

enum godwit_err transports_protect(struct transports *transports, const struct godwit_options *options,
                                   enum godwit_option_side side, struct godwit_error *error)
{
    const struct tls_config config = {
        .creds = godwit_options_get_text(options, "tls-creds"),
        .hostname = godwit_options_get_text(options, "tls-hostname"),
        .authz = godwit_options_get_text(options, "tls-authz"),
        .priority = godwit_options_get_text(options, "tls-priority"),
        .username = godwit_options_get_text(options, "tls-username"),
        .verify_peer = godwit_options_get(options, "tls-verify-peer") != 0,
        .kernel = godwit_options_get(options, "tls-kernel") != 0,
        .renew_bytes = godwit_options_get(options, "x-tls-renew"),
    };
    bool connects = side == GODWIT_SIDE_SOURCE;
    enum godwit_err err = check_required(transports, options, error);
    if (err != GODWIT_OK || config.creds[0] == 0)
        return err;
    err = tls_load(&config, connects ? TLS_CLIENT : TLS_SERVER, transports->control, &transports->tls, error);
    if (err != GODWIT_OK)
        return err;
    if (connects && tls_verifies_name(transports->tls) && config.hostname[0] == 0 &&
        transports->control_address.host[0] == 0)
        return error_set(error, GODWIT_ERR_INVALID,
                         "%s: has no host name that the destination's certificate could bear: set tls-hostname",
                         transport_scheme(transports->control));
    if (!transports_split(transports))
        transports->data = tls_transport(transports->tls);
    transports->control = tls_transport(transports->tls);
    return GODWIT_OK;
}

void transports_release(struct transports *transports)
{
    tls_free(transports->tls);
    transports->tls = NULL;
}

const char *transports_unprotected(const struct transports *transports)
{
    return transports->tls != NULL && transports_split(transports)
               ? "TLS protects the control connection alone: pages over RDMA are not encrypted (tls-required on refuses "
                 "that, tcp: encrypts them)"
               : NULL;
}

bool transports_split(const struct transports *transports)
{
    return transports->control != transports->data;
}

bool transports_rdma(const struct transports *transports)
{
    return strcmp(transport_scheme(transports->data), "rdma") == 0;
}
