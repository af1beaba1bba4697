/* The ticket and the answer to it are the first bytes on the loop: 48 one way; a length and that many bytes of the
 * reason for a refusal the other way. */
#include "tests/lib/pretend_rdma.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/error.h"

enum { KNOCK_MS = 5000 };

struct pretend_channel {
    struct channel base;
    struct channel *loop;
    struct domain *domain; /* held; NULL on the connecting side, whose owner holds it */
    const char *detail;
};

struct pretend_listener {
    struct listener base;
    struct listener *loop;
    struct pretend_rdma *rdma;
};

static struct channel *loop_of(struct channel *channel)
{
    return ((struct pretend_channel *)channel)->loop;
}

static enum godwit_err pretend_send(struct channel *channel, const void *head, size_t head_size,
                                    const struct iovec *payload, unsigned count, int timeout_ms)
{
    struct pretend_channel *self = (struct pretend_channel *)channel;
    if (self->detail != NULL && head_size != 96) { /* all but the hello */
        channel_set_detail(channel, self->detail);
        return GODWIT_ERR_RESET;
    }
    return channel_send(self->loop, head, head_size, payload, count, timeout_ms);
}

static enum godwit_err pretend_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    return channel_recv(loop_of(channel), iov, count, timeout_ms);
}

static enum godwit_err pretend_put(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                   const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    return channel_put(loop_of(channel), mr, mr_offset, remote, remote_offset, size);
}

static enum godwit_err pretend_flush(struct channel *channel, int timeout_ms)
{
    return channel_flush(loop_of(channel), timeout_ms);
}

static void pretend_shutdown(struct channel *channel)
{
    channel_shutdown(loop_of(channel));
}

static void pretend_free(struct channel *channel)
{
    struct pretend_channel *self = (struct pretend_channel *)channel;
    channel_free(self->loop);
    domain_free(self->domain);
    free(self);
}

static const struct channel_ops pretend_channel_ops = {
    .name = "pretend",
    .handshake = channel_handshake_nothing,
    .send = pretend_send,
    .recv = pretend_recv,
    .recv_some = channel_recv_one_byte,
    .put = pretend_put,
    .get = channel_get_unsupported,
    .flush = pretend_flush,
    .shutdown = pretend_shutdown,
    .free = pretend_free,
};

/* Takes loop and domain. */
static struct channel *wrap(struct channel *loop, struct domain *domain, unsigned number)
{
    struct pretend_channel *channel = calloc(1, sizeof *channel);
    if (channel == NULL)
        abort();
    channel->base.ops = &pretend_channel_ops;
    channel->base.limits = *channel_limits(loop);
    snprintf(channel->base.name, sizeof channel->base.name, "rdma %s", PRETEND_DEVICE);
    snprintf(channel->base.device, sizeof channel->base.device, "%s", PRETEND_DEVICE);
    channel->base.queue_pair = number;
    channel->loop = loop;
    channel->domain = domain;
    return &channel->base;
}

static struct address loop_address(const struct address *address)
{
    struct address loop = {.scheme = "loop"};
    snprintf(loop.path, sizeof loop.path, "%u", address->port);
    return loop;
}

static enum godwit_err pretend_connect(void *context, const struct address *address,
                                       const struct introduction *introduction, int timeout_ms,
                                       const atomic_bool *cancel, struct channel **out, struct godwit_error *error)
{
    struct pretend_rdma *rdma = context;
    struct address at = loop_address(address);
    struct channel *loop;
    uint8_t ticket[TICKET_SIZE], size;
    char reason[256] = "";
    if (introduction == NULL || introduction->domain == NULL)
        return error_set(error, GODWIT_ERR_INVALID, "rdma: connections need an introduction");
    unsigned number = atomic_fetch_add(&rdma->tried, 1);
    if (number == 0)
        snprintf(rdma->sought, sizeof rdma->sought, "%s", address->host);
    if (rdma->wait_turn != NULL)
        rdma->wait_turn(rdma->opaque, number);
    enum godwit_err err = transport_connect(loop_net_transport(rdma->loop), &at, NULL, timeout_ms, cancel, &loop,
                                            error);
    if (err != GODWIT_OK)
        return err;
    memcpy(ticket, introduction->ticket, sizeof ticket);
    if (rdma->forge != NULL)
        rdma->forge(rdma->opaque, number, ticket);
    err = channel_send(loop, ticket, sizeof ticket, NULL, 0, KNOCK_MS);
    if (err == GODWIT_OK)
        err = channel_recv_exact(loop, &size, 1, KNOCK_MS);
    if (err == GODWIT_OK && size > 0)
        err = channel_recv_exact(loop, reason, size, KNOCK_MS);
    if (err != GODWIT_OK || size > 0) {
        channel_free(loop);
        return error_set(error, err != GODWIT_OK ? err : GODWIT_ERR_NOT_ADMITTED, "rdma: refused: %s", reason);
    }
    *out = wrap(loop, NULL, 100 + number);
    ((struct pretend_channel *)*out)->detail = rdma->detail;
    return GODWIT_OK;
}

static enum godwit_err answer(struct channel *loop, const char *reason)
{
    uint8_t size = (uint8_t)strnlen(reason, TICKET_TEXT_MAX);
    struct iovec text = {(void *)(uintptr_t)reason, size};
    enum godwit_err err = channel_send(loop, &size, 1, &text, size > 0, KNOCK_MS);
    return err == GODWIT_OK ? channel_flush(loop, KNOCK_MS) : err;
}

/* NULL: whoever it was is gone, or was refused. */
static struct channel *look_at_ticket(struct pretend_listener *self, struct channel *loop)
{
    const struct ticket_check *tickets = &self->base.tickets;
    struct domain *domain = NULL;
    struct godwit_error error = {0};
    uint8_t ticket[TICKET_SIZE];
    if (channel_recv_exact(loop, ticket, sizeof ticket, KNOCK_MS) != GODWIT_OK) {
        channel_free(loop);
        return NULL;
    }
    if (tickets->check == NULL)
        error_set(&error, GODWIT_ERR_NOT_ADMITTED, "nobody looks at tickets here");
    else
        tickets->check(tickets->opaque, ticket, &domain, &error);
    if (answer(loop, error.text) == GODWIT_OK && domain != NULL)
        return wrap(loop, domain, 200 + atomic_fetch_add(&self->rdma->made, 1));
    atomic_fetch_add(&self->rdma->refused, 1);
    domain_free(domain);
    channel_free(loop);
    return NULL;
}

static enum godwit_err pretend_accept(struct listener *listener, int timeout_ms, struct channel **out,
                                      struct godwit_error *error)
{
    struct pretend_listener *self = (struct pretend_listener *)listener;
    for (*out = NULL; *out == NULL;) {
        struct channel *loop;
        enum godwit_err err = listener_accept(self->loop, timeout_ms, &loop, error);
        if (err != GODWIT_OK)
            return err;
        *out = look_at_ticket(self, loop);
    }
    return GODWIT_OK;
}

static void pretend_listener_shutdown(struct listener *listener)
{
    listener_shutdown(((struct pretend_listener *)listener)->loop);
}

static void pretend_listener_free(struct listener *listener)
{
    listener_free(((struct pretend_listener *)listener)->loop);
    free(listener);
}

static const struct listener_ops pretend_listener_ops = {
    .accept = pretend_accept,
    .shutdown = pretend_listener_shutdown,
    .free = pretend_listener_free,
};

static enum godwit_err pretend_listen(void *context, const struct address *address, unsigned backlog,
                                      struct listener **out, struct backlog_warning *warning,
                                      struct godwit_error *error)
{
    struct pretend_rdma *rdma = context;
    struct address at = loop_address(address);
    struct listener *loop;
    enum godwit_err err = transport_listen(loop_net_transport(rdma->loop), &at, backlog, &loop, warning, error);
    if (err != GODWIT_OK)
        return err;
    struct pretend_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL)
        abort();
    listener->base = (struct listener){.ops = &pretend_listener_ops, .address = *address};
    listener->loop = loop;
    listener->rdma = rdma;
    *out = &listener->base;
    return GODWIT_OK;
}

static enum godwit_err pretend_domain(void *context, const struct address *address, struct domain **out,
                                      struct godwit_error *error)
{
    struct pretend_rdma *rdma = context;
    struct address at = loop_address(address);
    return transport_domain(loop_net_transport(rdma->loop), &at, out, error);
}

static const struct transport_ops pretend_ops = {
    .scheme = "rdma",
    .connect = pretend_connect,
    .listen = pretend_listen,
    .domain = pretend_domain,
};

void pretend_rdma_init(struct pretend_rdma *rdma, uint64_t seed)
{
    memset(rdma, 0, sizeof *rdma);
    rdma->transport = (struct transport){.ops = &pretend_ops, .context = rdma};
    rdma->loop = loop_net_new(seed);
}

void pretend_rdma_fini(struct pretend_rdma *rdma)
{
    loop_net_free(rdma->loop);
}
