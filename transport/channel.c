/*
 * The checked way into every transport. Wrappers look at what is the same for all of them, once: arguments that only a
 * bug can produce are asserted, ranges that a caller computed are refused with a code, outputs are written only on
 * success, and a control call that fails has said why.
 */
#include "transport/channel_ops.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "transport/error.h"

static void assert_timeout(int timeout_ms)
{
    assert(timeout_ms >= CHANNEL_FOREVER && "a timeout is milliseconds or CHANNEL_FOREVER");
    (void)timeout_ms;
}

enum godwit_err channel_handshake(struct channel *channel, int timeout_ms, struct godwit_error *error)
{
    assert(channel && "handshake on no channel");
    assert_timeout(timeout_ms);
    enum godwit_err err = channel->ops->handshake(channel, timeout_ms, error);
    assert((!err || !error || (error->code == err && error->text[0])) && "a failure says why");
    return err;
}

enum godwit_err channel_send(struct channel *channel, const void *head, size_t head_size, const struct iovec *payload,
                             unsigned count, int timeout_ms)
{
    assert(channel && "send on no channel");
    assert((head || !head_size) && (payload || !count) && "send of memory that is not there");
    assert_timeout(timeout_ms);
    if (count > channel->limits.max_iov)
        return GODWIT_ERR_INVALID;
    return channel->ops->send(channel, head, head_size, payload, count, timeout_ms);
}

enum godwit_err channel_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    assert(channel && "recv on no channel");
    assert((iov || !count) && "recv into memory that is not there");
    assert_timeout(timeout_ms);
    if (count > channel->limits.max_iov)
        return GODWIT_ERR_INVALID;
    return channel->ops->recv(channel, iov, count, timeout_ms);
}

enum godwit_err channel_recv_exact(struct channel *channel, void *buffer, size_t size, int timeout_ms)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = size};
    return channel_recv(channel, &iov, 1, timeout_ms);
}

enum godwit_err channel_recv_some(struct channel *channel, void *buffer, size_t size, int timeout_ms, size_t *got)
{
    assert(channel && buffer && size && "recv of nothing");
    assert_timeout(timeout_ms);
    size_t had = 0;
    enum godwit_err err = channel->ops->recv_some(channel, buffer, size, timeout_ms, &had);
    assert((err || (had && had <= size)) && "success brings something");
    if (!err)
        *got = had;
    return err;
}

/* Sums that overflow are ranges that leave: offset + size is never computed. */
static bool range_fits(uint64_t offset, uint64_t size, uint64_t whole)
{
    return offset <= whole && size <= whole - offset;
}

static enum godwit_err check_one_sided(const struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                       const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    assert(channel && "put or get on no channel");
    if (!channel->limits.one_sided)
        return GODWIT_ERR_UNSUPPORTED;
    assert(mr && remote && "put or get without a registration and a remote");
    if (size > channel->limits.max_put)
        return GODWIT_ERR_TOO_BIG;
    if (!range_fits(mr_offset, size, mr->region.size) || !range_fits(remote_offset, size, remote->size))
        return GODWIT_ERR_INVALID;
    uint32_t align = channel->limits.put_align;
    if (align > 1 && (mr_offset % align || remote_offset % align || size % align))
        return GODWIT_ERR_INVALID;
    return GODWIT_OK;
}

enum godwit_err channel_put(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                            const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    enum godwit_err err = check_one_sided(channel, mr, mr_offset, remote, remote_offset, size);
    if (err || !size)
        return err;
    return channel->ops->put(channel, mr, mr_offset, remote, remote_offset, size);
}

enum godwit_err channel_get(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                            const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    enum godwit_err err = check_one_sided(channel, mr, mr_offset, remote, remote_offset, size);
    if (err || !size)
        return err;
    if (mr->access == REGION_LOCAL)
        return GODWIT_ERR_INVALID;
    return channel->ops->get(channel, mr, mr_offset, remote, remote_offset, size);
}

enum godwit_err channel_flush(struct channel *channel, int timeout_ms)
{
    assert(channel && "flush of no channel");
    assert_timeout(timeout_ms);
    return channel->ops->flush(channel, timeout_ms);
}

void channel_shutdown(struct channel *channel)
{
    assert(channel && "shutdown of no channel");
    channel->ops->shutdown(channel);
}

void channel_free(struct channel *channel)
{
    if (!channel)
        return;
    channel->ops->shutdown(channel);
    channel->ops->free(channel);
}

const struct channel_limits *channel_limits(const struct channel *channel)
{
    return &channel->limits;
}

const char *channel_name(const struct channel *channel)
{
    return channel->name;
}

static const struct channel *innermost(const struct channel *channel)
{
    while (channel->wrapped)
        channel = channel->wrapped;
    return channel;
}

const char *channel_local_host(const struct channel *channel)
{
    return innermost(channel)->local_host;
}

const char *channel_peer_host(const struct channel *channel)
{
    return innermost(channel)->peer_host;
}

const char *channel_device(const struct channel *channel)
{
    return innermost(channel)->device;
}

uint32_t channel_queue_pair(const struct channel *channel)
{
    return innermost(channel)->queue_pair;
}

const struct channel_security *channel_security(const struct channel *channel)
{
    while (channel->wrapped && !channel->security.version[0])
        channel = channel->wrapped;
    return &channel->security;
}

const char *channel_detail(const struct channel *channel)
{
    channel = innermost(channel);
    return atomic_load_explicit(&channel->detailed, memory_order_acquire) == 2 ? channel->detail : "";
}

void channel_set_detail(struct channel *channel, const char *text)
{
    int none = 0;
    while (channel->wrapped)
        channel = channel->wrapped;
    if (!atomic_compare_exchange_strong(&channel->detailed, &none, 1))
        return;
    snprintf(channel->detail, sizeof channel->detail, "%s", text);
    atomic_store_explicit(&channel->detailed, 2, memory_order_release);
}

/* What every control call owes its caller. */
static void assert_outcome(enum godwit_err err, const void *made, const struct godwit_error *error)
{
    assert((err || made) && "success makes something");
    assert((!err || !made) && "a failure makes nothing");
    assert((!err || !error || (error->code == err && error->text[0])) && "a failure says why");
    (void)err, (void)made, (void)error;
}

enum godwit_err listener_accept(struct listener *listener, int timeout_ms, struct channel **out,
                                struct godwit_error *error)
{
    assert(listener && out && "accept on no listener");
    assert_timeout(timeout_ms);
    struct channel *made = NULL;
    enum godwit_err err = listener->ops->accept(listener, timeout_ms, &made, error);
    assert_outcome(err, made, error);
    if (!err)
        *out = made;
    return err;
}

void listener_check_tickets(struct listener *listener, const struct ticket_check *check)
{
    assert(listener && check && check->check && "somebody has to look at the tickets");
    listener->tickets = *check;
}

const struct address *listener_address(const struct listener *listener)
{
    return &listener->address;
}

void listener_shutdown(struct listener *listener)
{
    assert(listener && "shutdown of no listener");
    listener->ops->shutdown(listener);
}

void listener_free(struct listener *listener)
{
    if (!listener)
        return;
    listener->ops->shutdown(listener);
    listener->ops->free(listener);
}

const char *transport_scheme(const struct transport *transport)
{
    return transport->ops->scheme;
}

static enum godwit_err check_scheme(const struct transport *transport, const struct address *address,
                                    struct godwit_error *error)
{
    assert(transport && address && "a transport and an address are needed");
    if (strcmp(transport->ops->scheme, address->scheme))
        return error_set(error, GODWIT_ERR_INVALID, "the %s transport cannot use an address of scheme \"%s\"",
                         transport->ops->scheme, address->scheme);
    return GODWIT_OK;
}

enum godwit_err transport_connect(const struct transport *transport, const struct address *address,
                                  const struct introduction *introduction, int timeout_ms, const atomic_bool *cancel,
                                  struct channel **out, struct godwit_error *error)
{
    assert(out && "connect needs somewhere to put the channel");
    assert_timeout(timeout_ms);
    enum godwit_err err = check_scheme(transport, address, error);
    if (err)
        return err;
    struct channel *made = NULL;
    err = transport->ops->connect(transport->context, address, introduction, timeout_ms, cancel, &made, error);
    assert_outcome(err, made, error);
    if (!err)
        *out = made;
    return err;
}

enum godwit_err transport_listen(const struct transport *transport, const struct address *address, unsigned backlog,
                                 struct listener **out, struct backlog_warning *warning, struct godwit_error *error)
{
    assert(out && "listen needs somewhere to put the listener");
    struct backlog_warning ignored;
    if (!warning)
        warning = &ignored;
    warning->text[0] = '\0';
    enum godwit_err err = check_scheme(transport, address, error);
    if (err)
        return err;
    struct listener *made = NULL;
    err = transport->ops->listen(transport->context, address, backlog, &made, warning, error);
    assert_outcome(err, made, error);
    if (!err)
        *out = made;
    return err;
}

enum godwit_err transport_domain(const struct transport *transport, const struct address *address, struct domain **out,
                                 struct godwit_error *error)
{
    assert(out && "domain needs somewhere to put the domain");
    enum godwit_err err = check_scheme(transport, address, error);
    if (err)
        return err;
    struct domain *made = NULL;
    err = transport->ops->domain(transport->context, address, &made, error);
    assert_outcome(err, made, error);
    if (!err)
        *out = made;
    return err;
}

enum godwit_err channel_handshake_nothing(struct channel *channel, int timeout_ms, struct godwit_error *error)
{
    (void)channel, (void)timeout_ms, (void)error;
    return GODWIT_OK;
}

enum godwit_err channel_handshake_wrapped(struct channel *channel, int timeout_ms, struct godwit_error *error)
{
    return channel_handshake(channel->wrapped, timeout_ms, error);
}

enum godwit_err channel_recv_one_byte(struct channel *channel, void *buffer, size_t size, int timeout_ms, size_t *got)
{
    (void)size;
    *got = 1;
    return channel_recv_exact(channel, buffer, 1, timeout_ms);
}

enum godwit_err channel_put_unsupported(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                        const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    (void)channel, (void)mr, (void)mr_offset, (void)remote, (void)remote_offset, (void)size;
    return GODWIT_ERR_UNSUPPORTED;
}

enum godwit_err channel_get_unsupported(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                        const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    (void)channel, (void)mr, (void)mr_offset, (void)remote, (void)remote_offset, (void)size;
    return GODWIT_ERR_UNSUPPORTED;
}

enum godwit_err channel_flush_nothing(struct channel *channel, int timeout_ms)
{
    (void)channel, (void)timeout_ms;
    return GODWIT_OK;
}

enum godwit_err transport_domain_unsupported(void *context, const struct address *address, struct domain **out,
                                             struct godwit_error *error)
{
    (void)context, (void)out;
    return error_set(error, GODWIT_ERR_UNSUPPORTED, "%s connections are streams: no memory can be registered with them",
                     address->scheme);
}
