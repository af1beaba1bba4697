/*
 * Channels and listeners wrap those of the loop. Registrations remember a size, keys carry it; nothing here ever
 * touches the memory that is registered, so it may be address space without memory.
 */
#include "perf/sink_transport.h"

#include <stdlib.h>
#include <string.h>

#include "transport/channel_ops.h"
#include "transport/error.h"

struct sink_channel {
    struct channel base;
    struct channel *loop;
};

struct sink_listener {
    struct listener base;
    struct listener *loop;
};

static struct channel *loop_of(struct channel *channel)
{
    return ((struct sink_channel *)channel)->loop;
}

static enum godwit_err sink_send(struct channel *channel, const void *head, size_t head_size,
                                 const struct iovec *payload, unsigned count, int timeout_ms)
{
    return channel_send(loop_of(channel), head, head_size, payload, count, timeout_ms);
}

static enum godwit_err sink_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    return channel_recv(loop_of(channel), iov, count, timeout_ms);
}

static enum godwit_err sink_put(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    return GODWIT_OK;
}

static enum godwit_err sink_flush(struct channel *channel, int timeout_ms)
{
    return channel_flush(loop_of(channel), timeout_ms);
}

static void sink_shutdown(struct channel *channel)
{
    channel_shutdown(loop_of(channel));
}

static void sink_free(struct channel *channel)
{
    channel_free(loop_of(channel));
    free(channel);
}

static const struct channel_ops sink_channel_ops = {
    .name = "sink",
    .handshake = channel_handshake_nothing,
    .send = sink_send,
    .recv = sink_recv,
    .recv_some = channel_recv_one_byte,
    .put = sink_put,
    .get = channel_get_unsupported,
    .flush = sink_flush,
    .shutdown = sink_shutdown,
    .free = sink_free,
};

/* Takes loop, on failure too. */
static enum godwit_err wrap(struct channel *loop, struct channel **out, struct godwit_error *error)
{
    struct sink_channel *channel = calloc(1, sizeof *channel);
    if (channel == NULL) {
        channel_free(loop);
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a channel");
    }
    channel->base.ops = &sink_channel_ops;
    channel->base.limits = *channel_limits(loop);
    channel->base.wrapped = loop;
    channel->base.limits.max_put = UINT64_MAX;
    memcpy(channel->base.name, loop->name, sizeof channel->base.name);
    channel->loop = loop;
    *out = &channel->base;
    return GODWIT_OK;
}

static enum godwit_err sink_accept(struct listener *listener, int timeout_ms, struct channel **out,
                                   struct godwit_error *error)
{
    struct channel *loop;
    enum godwit_err err = listener_accept(((struct sink_listener *)listener)->loop, timeout_ms, &loop, error);
    return err == GODWIT_OK ? wrap(loop, out, error) : err;
}

static void sink_listener_shutdown(struct listener *listener)
{
    listener_shutdown(((struct sink_listener *)listener)->loop);
}

static void sink_listener_free(struct listener *listener)
{
    listener_free(((struct sink_listener *)listener)->loop);
    free(listener);
}

static const struct listener_ops sink_listener_ops = {
    .accept = sink_accept,
    .shutdown = sink_listener_shutdown,
    .free = sink_listener_free,
};

static enum godwit_err sink_reg(struct domain *domain, const struct region *region, enum region_access access,
                                struct mr **out, struct godwit_error *error)
{
    struct mr *mr = calloc(1, sizeof *mr);
    if (mr == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a registration");
    *mr = (struct mr){.domain = domain, .region = *region, .access = access};
    *out = mr;
    return GODWIT_OK;
}

static void sink_export(const struct mr *mr, struct region_key *key)
{
    key->size = sizeof mr->region.size;
    memcpy(key->bytes, &mr->region.size, sizeof mr->region.size);
}

static enum godwit_err sink_import(struct domain *domain, const struct region_key *key, struct remote **out,
                                   struct godwit_error *error)
{
    struct remote *remote = calloc(1, sizeof *remote);
    if (remote == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a key");
    remote->domain = domain;
    memcpy(&remote->size, key->bytes, sizeof remote->size);
    *out = remote;
    return GODWIT_OK;
}

static void sink_mr_free(struct mr *mr)
{
    free(mr);
}

static void sink_remote_free(struct remote *remote)
{
    free(remote);
}

static void sink_domain_free(struct domain *domain)
{
    free(domain);
}

static const struct domain_ops sink_domain_ops = {
    .reg = sink_reg,
    .import = sink_import,
    .export = sink_export,
    .mr_free = sink_mr_free,
    .remote_free = sink_remote_free,
    .free = sink_domain_free,
};

static enum godwit_err sink_connect(void *context, const struct address *address,
                                    const struct introduction *introduction, int timeout_ms,
                                    const atomic_bool *cancel, struct channel **out, struct godwit_error *error)
{
    const struct sink_net *net = context;
    struct channel *loop;
    enum godwit_err err = transport_connect(net->loop, address, introduction, timeout_ms, cancel, &loop, error);
    return err == GODWIT_OK ? wrap(loop, out, error) : err;
}

static enum godwit_err sink_listen(void *context, const struct address *address, unsigned backlog,
                                   struct listener **out, struct backlog_warning *warning, struct godwit_error *error)
{
    const struct sink_net *net = context;
    struct sink_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a listener");
    enum godwit_err err = transport_listen(net->loop, address, backlog, &listener->loop, warning, error);
    if (err != GODWIT_OK) {
        free(listener);
        return err;
    }
    listener->base = (struct listener){.ops = &sink_listener_ops, .address = *listener_address(listener->loop)};
    *out = &listener->base;
    return GODWIT_OK;
}

static enum godwit_err sink_domain(void *context, const struct address *address, struct domain **out,
                                   struct godwit_error *error)
{
    struct domain *domain = calloc(1, sizeof *domain);
    if (domain == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a domain");
    domain->ops = &sink_domain_ops;
    *out = domain;
    return GODWIT_OK;
}

static const struct transport_ops sink_ops = {
    .scheme = "loop",
    .connect = sink_connect,
    .listen = sink_listen,
    .domain = sink_domain,
};

void sink_net_init(struct sink_net *net, const struct transport *loop)
{
    net->loop = loop;
    net->transport = (struct transport){.ops = &sink_ops, .context = net};
}
