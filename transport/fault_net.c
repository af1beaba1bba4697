/*
 * A transport whose channels are wrapped in faults. Connecting, listening and accepting are the inner transport's; only
 * what they make is exchanged. Should there be no memory for a wrapper, the channel is closed: the peer sees it go.
 */
#include <stdlib.h>

#include "transport/channel_ops.h"
#include "transport/error.h"
#include "transport/fault.h"

struct fault_net {
    struct transport transport;
    struct transport_ops ops;
    const struct transport *inner;
    struct fault_plan plan;
    uint64_t only;
    atomic_uint_fast64_t made;
};

struct fault_listener {
    struct listener base;
    struct listener *inner;
    struct fault_net *net;
};

static enum godwit_err wrap(struct fault_net *net, struct channel *inner, struct channel **out,
                            struct godwit_error *error)
{
    struct fault_plan none = fault_plan_none();
    uint64_t number = atomic_fetch_add_explicit(&net->made, 1, memory_order_relaxed);
    bool chosen = net->only == FAULT_NEVER || net->only == number;
    *out = fault_channel_wrap(inner, chosen ? &net->plan : &none);
    if (*out)
        return GODWIT_OK;
    channel_free(inner);
    return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a channel");
}

static enum godwit_err fault_connect(void *context, const struct address *address,
                                     const struct introduction *introduction, int timeout_ms,
                                     const atomic_bool *cancel, struct channel **out, struct godwit_error *error)
{
    struct fault_net *net = context;
    struct channel *inner = NULL;
    enum godwit_err err = transport_connect(net->inner, address, introduction, timeout_ms, cancel, &inner, error);
    return err ? err : wrap(net, inner, out, error);
}

static enum godwit_err fault_accept(struct listener *base, int timeout_ms, struct channel **out,
                                    struct godwit_error *error)
{
    struct fault_listener *listener = (struct fault_listener *)base;
    struct channel *inner = NULL;
    listener->inner->tickets = base->tickets;
    enum godwit_err err = listener_accept(listener->inner, timeout_ms, &inner, error);
    return err ? err : wrap(listener->net, inner, out, error);
}

static void fault_listener_shutdown(struct listener *base)
{
    listener_shutdown(((struct fault_listener *)base)->inner);
}

static void fault_listener_free(struct listener *base)
{
    listener_free(((struct fault_listener *)base)->inner);
    free(base);
}

static const struct listener_ops fault_listener_ops = {
    .accept = fault_accept,
    .shutdown = fault_listener_shutdown,
    .free = fault_listener_free,
};

static enum godwit_err fault_listen(void *context, const struct address *address, unsigned backlog,
                                    struct listener **out, struct backlog_warning *warning, struct godwit_error *error)
{
    struct fault_net *net = context;
    struct fault_listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a listener");
    enum godwit_err err = transport_listen(net->inner, address, backlog, &listener->inner, warning, error);
    if (err) {
        free(listener);
        return err;
    }
    listener->base = (struct listener){.ops = &fault_listener_ops, .address = *listener_address(listener->inner)};
    listener->net = net;
    *out = &listener->base;
    return GODWIT_OK;
}

static enum godwit_err fault_domain(void *context, const struct address *address, struct domain **out,
                                    struct godwit_error *error)
{
    return transport_domain(((struct fault_net *)context)->inner, address, out, error);
}

struct fault_net *fault_net_new(const struct transport *inner, const struct fault_plan *plan, uint64_t only)
{
    struct fault_net *net = calloc(1, sizeof *net);
    if (!net)
        return NULL;
    /* The one table that is not const: it has the scheme of what it wraps. */
    net->ops = (struct transport_ops){
        .scheme = inner->ops->scheme,
        .connect = fault_connect,
        .listen = fault_listen,
        .domain = fault_domain,
    };
    net->transport = (struct transport){&net->ops, net};
    net->inner = inner;
    net->plan = *plan;
    net->only = only;
    atomic_init(&net->made, 0);
    return net;
}

const struct transport *fault_net_transport(const struct fault_net *net)
{
    return &net->transport;
}

void fault_net_free(struct fault_net *net)
{
    free(net);
}
