/*
 * TLS around another transport: connecting includes the handshake, with what is left of the time; a listener gives out
 * channels whose handshake is still to be done, by the thread that greets whoever came (channel_handshake), so that
 * nobody who dawdles holds up the next.
 */
#include <stdlib.h>
#include <string.h>

#include "tcp/tls_private.h"
#include "transport/clock.h"
#include "transport/error.h"

struct tls_listener {
    struct listener base;
    struct listener *inner;
    const struct tls *tls;
};

static enum godwit_err tls_connect(void *context, const struct address *address,
                                   const struct introduction *introduction, int timeout_ms, const atomic_bool *cancel,
                                   struct channel **out, struct godwit_error *error)
{
    const struct tls *tls = context;
    uint64_t deadline = timeout_ms == CHANNEL_FOREVER ? UINT64_MAX : clock_now_ms() + (uint64_t)timeout_ms;
    struct channel *inner, *channel = NULL;
    enum godwit_err err = transport_connect(tls->inner, address, introduction, timeout_ms, cancel, &inner, error);
    if (err)
        return err;
    err = tls_channel_new(tls, inner, address->host, &channel, error);
    if (err) {
        channel_free(inner);
        return err;
    }
    err = tls_handshake((struct tls_channel *)channel, clock_left_ms(deadline), cancel, error);
    if (err) {
        error_prefix(error, "%s", channel_name(channel));
        channel_free(channel);
        if (err == GODWIT_ERR_TIMEOUT && error)
            error->code = GODWIT_ERR_UNREACHABLE;
        return err == GODWIT_ERR_TIMEOUT ? GODWIT_ERR_UNREACHABLE : err;
    }
    *out = channel;
    return GODWIT_OK;
}

static enum godwit_err tls_listener_accept(struct listener *base, int timeout_ms, struct channel **out,
                                           struct godwit_error *error)
{
    struct tls_listener *listener = (struct tls_listener *)base;
    struct channel *inner;
    enum godwit_err err = listener_accept(listener->inner, timeout_ms, &inner, error);
    if (err)
        return err;
    err = tls_channel_new(listener->tls, inner, "", out, error);
    if (err)
        channel_free(inner);
    return err;
}

static void tls_listener_shutdown(struct listener *base)
{
    listener_shutdown(((struct tls_listener *)base)->inner);
}

static void tls_listener_free(struct listener *base)
{
    listener_free(((struct tls_listener *)base)->inner);
    free(base);
}

static const struct listener_ops tls_listener_ops = {
    .accept = tls_listener_accept,
    .shutdown = tls_listener_shutdown,
    .free = tls_listener_free,
};

static enum godwit_err tls_listen(void *context, const struct address *address, unsigned backlog,
                                  struct listener **out, struct backlog_warning *warning, struct godwit_error *error)
{
    const struct tls *tls = context;
    struct tls_listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a listener");
    enum godwit_err err = transport_listen(tls->inner, address, backlog, &listener->inner, warning, error);
    if (err) {
        free(listener);
        return err;
    }
    listener->base.ops = &tls_listener_ops;
    listener->base.address = *listener_address(listener->inner);
    listener->tls = tls;
    *out = &listener->base;
    return GODWIT_OK;
}

enum godwit_err tls_load(const struct tls_config *config, enum tls_side side, const struct transport *inner,
                         struct tls **out, struct godwit_error *error)
{
    struct tls *tls = calloc(1, sizeof *tls);
    if (!tls)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for TLS credentials");
    *tls = (struct tls){
        .ops = {.scheme = transport_scheme(inner), .connect = tls_connect, .listen = tls_listen,
                .domain = transport_domain_unsupported},
        .inner = inner,
        .side = side,
        .kernel = config->kernel && !strcmp(transport_scheme(inner), "tcp") && tls_kernel_configured(),
        .renew_bytes = config->renew_bytes,
    };
    tls->transport = (struct transport){.ops = &tls->ops, .context = tls};
    enum godwit_err err = tls_credentials_load(config, side, &tls->credentials, error);
    if (err)
        free(tls);
    else
        *out = tls;
    return err;
}

void tls_free(struct tls *tls)
{
    if (!tls)
        return;
    tls_credentials_free(tls->credentials);
    free(tls);
}

const struct transport *tls_transport(const struct tls *tls)
{
    return &tls->transport;
}

bool tls_verifies_name(const struct tls *tls)
{
    return !tls_credentials_psk(tls->credentials);
}
