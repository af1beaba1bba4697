/*
 * Listening. A request is looked at before anything exists on this side: the ticket in its private data is shown to the
 * listener's owner, who names the domain or refuses, and a refusal travels back in words. Then the queue pair is made
 * with its receives posted, and the request accepted: the peer may send before it knows. That it is established comes
 * later, as an event of the channel's own.
 *
 * Failure modes: an address in use is BUSY; what is wrong with one request is answered or dropped, and the listener
 * goes on. The kernel drops requests beyond the backlog in silence, so it is twice what was asked for.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "rdma/connect.h"
#include "rdma/hints.h"
#include "transport/clock.h"
#include "transport/error.h"

struct rdma_listener {
    struct listener base;
    struct cm cm;
    int wake; /* eventfd, readable from shutdown on */
};

static void refuse(struct rdma_cm_id *id, const struct godwit_error *why)
{
    uint8_t bytes[CM_REFUSAL_SIZE];
    struct cm_refusal refusal = {.code = why->code};
    snprintf(refusal.text, sizeof refusal.text, "%s", why->text);
    cm_refusal_encode(&refusal, bytes);
    rdma_reject(id, bytes, sizeof bytes); /* lost: the peer's own deadline ends its wait */
}

/* *out is held, to be let go with domain_free. */
static enum godwit_err ask_owner(const struct rdma_listener *listener, const struct rdma_cm_id *id,
                                 const uint8_t ticket[TICKET_SIZE], struct rdma_domain **out,
                                 struct godwit_error *error)
{
    const struct ticket_check *tickets = &listener->base.tickets;
    if (tickets->check == NULL)
        return error_set(error, GODWIT_ERR_NOT_ADMITTED, "nobody is expected here");
    struct domain *domain;
    enum godwit_err err = tickets->check(tickets->opaque, ticket, &domain, error);
    if (err != GODWIT_OK)
        return err;
    const struct ibv_context *own = ((struct rdma_domain *)domain)->verbs;
    if (id->verbs != own) {
        err = error_set(error, GODWIT_ERR_NOT_ADMITTED, "arrived at device %s, the control connection at %s",
                        ibv_get_device_name(id->verbs->device), ibv_get_device_name(own->device));
        domain_free(domain);
        return err;
    }
    *out = (struct rdma_domain *)domain;
    return GODWIT_OK;
}

static enum godwit_err accept_request(struct cm *cm, struct rdma_domain *domain, struct channel **out,
                                      struct godwit_error *error)
{
    char name[CHANNEL_NAME_MAX];
    struct rdma_channel *channel;
    rdma_peer_name(cm->id, name);
    rdma_set_ack_timeout(cm->id);
    struct rdma_conn_param parameters = rdma_connection_parameters(cm->id->verbs, NULL, 0);
    enum godwit_err err = rdma_channel_open(cm, domain, name, &channel, error);
    if (err != GODWIT_OK)
        return err;
    if (rdma_accept(rdma_channel_cm(channel)->id, &parameters) != 0) {
        err = error_set_sys(error, GODWIT_ERR_RESET, errno, "cannot accept a connection");
        rdma_channel_abandon(channel);
        return err;
    }
    rdma_channel_connected(channel);
    *out = rdma_channel_base(channel);
    return GODWIT_OK;
}

/* Takes the identifier over in any case. Failures concern this request alone. */
static struct channel *take_request(struct rdma_listener *listener, struct rdma_cm_id *id,
                                    const uint8_t ticket[TICKET_SIZE])
{
    struct godwit_error error = {0};
    struct rdma_domain *domain = NULL;
    struct channel *channel = NULL;
    struct cm cm;
    enum godwit_err err = ask_owner(listener, id, ticket, &domain, &error);
    if (err == GODWIT_OK)
        err = cm_adopt(&cm, id, &error);
    if (err == GODWIT_OK) {
        err = accept_request(&cm, domain, &channel, &error);
        if (err != GODWIT_OK && cm.id != NULL) {
            refuse(cm.id, &error);
            cm_fini(&cm);
        }
    } else {
        refuse(id, &error);
        rdma_destroy_id(id);
    }
    domain_free((struct domain *)domain); /* a channel holds it too */
    return channel;
}

/* One event of the listener: a channel, or NULL. */
static struct channel *take_event(struct rdma_listener *listener, struct rdma_cm_event *event)
{
    struct rdma_cm_id *id = event->id;
    uint8_t ticket[TICKET_SIZE];
    bool request = event->event == RDMA_CM_EVENT_CONNECT_REQUEST;
    const struct rdma_conn_param *parameters = &event->param.conn;
    bool known = request && cm_request_decode(parameters->private_data, parameters->private_data_len, ticket);
    rdma_ack_cm_event(event); /* private data is gone with it */
    if (known)
        return take_request(listener, id, ticket);
    if (request) { /* a stranger, who would not understand our words either */
        rdma_reject(id, NULL, 0);
        rdma_destroy_id(id);
    }
    return NULL;
}

static enum godwit_err rdma_listener_accept(struct listener *base, int timeout_ms, struct channel **out,
                                            struct godwit_error *error)
{
    struct rdma_listener *listener = (struct rdma_listener *)base;
    char text[ADDRESS_TEXT_MAX];
    address_format(&base->address, text);
    uint64_t deadline = timeout_ms == CHANNEL_FOREVER ? UINT64_MAX : clock_now_ms() + (uint64_t)timeout_ms;
    for (;;) {
        struct rdma_cm_event *event;
        enum godwit_err err = cm_wait(listener->cm.events, deadline, NULL, listener->wake, &event);
        if (err == GODWIT_ERR_CLOSED)
            return error_set(error, err, "%s: no longer listening", text);
        if (err == GODWIT_ERR_TIMEOUT)
            return error_set(error, err, "%s: nobody connected within %d ms", text, timeout_ms);
        if (err != GODWIT_OK)
            return error_set(error, err, "%s: cannot wait for connections", text);
        struct channel *channel = take_event(listener, event);
        if (channel != NULL) {
            *out = channel;
            return GODWIT_OK;
        }
        if (clock_left_ms(deadline) == 0) /* also when strangers knock without end */
            return error_set(error, GODWIT_ERR_TIMEOUT, "%s: nobody was let in within %d ms", text, timeout_ms);
    }
}

static void rdma_listener_shutdown(struct listener *base)
{
    uint64_t one = 1;
    ssize_t n = write(((struct rdma_listener *)base)->wake, &one, sizeof one);
    (void)n; /* full: then it is readable already */
}

static void rdma_listener_free(struct listener *base)
{
    struct rdma_listener *listener = (struct rdma_listener *)base;
    /* Requests that nobody took yet are refused by the kernel when their identifier goes. */
    for (struct rdma_cm_event *event; listener->cm.events != NULL && (event = cm_next(listener->cm.events)) != NULL;) {
        struct rdma_cm_id *id = event->event == RDMA_CM_EVENT_CONNECT_REQUEST ? event->id : NULL;
        rdma_ack_cm_event(event);
        if (id != NULL)
            rdma_destroy_id(id);
    }
    cm_fini(&listener->cm);
    if (listener->wake >= 0)
        close(listener->wake);
    free(listener);
}

static const struct listener_ops rdma_listener_ops = {
    .accept = rdma_listener_accept,
    .shutdown = rdma_listener_shutdown,
    .free = rdma_listener_free,
};

/* Twice what is wanted, as the kernel will have it. */
static int clamp_backlog(unsigned wanted, struct backlog_warning *warning)
{
    unsigned most = 1024;
    FILE *file = fopen("/proc/sys/net/rdma_ucm/max_backlog", "re");
    if (file != NULL) {
        if (fscanf(file, "%u", &most) != 1)
            most = 1024;
        fclose(file);
    }
    unsigned twice = wanted < 1 ? 2 : 2 * wanted;
    if (twice <= most)
        return (int)twice;
    snprintf(warning->text, sizeof warning->text,
             "net.rdma_ucm.max_backlog is %u: the RDMA listener's backlog is %u instead of the %u wanted, connections "
             "that arrive together may be delayed by seconds; raise it with sysctl net.rdma_ucm.max_backlog=%u",
             most, most, twice, twice);
    return (int)most;
}

/* Without a host: every address of every device, of IPv6 and, as the kernel has it, of IPv4 too. */
static enum godwit_err where_to_listen(const struct address *address, struct sockaddr_storage *at,
                                       struct godwit_error *error)
{
    if (address->host[0] != '\0')
        return rdma_resolve(address, at, error);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(address->port), .sin6_addr = in6addr_any};
    memset(at, 0, sizeof *at);
    memcpy(at, &any, sizeof any);
    return GODWIT_OK;
}

static enum godwit_err start_listening(struct rdma_listener *listener, int backlog, struct godwit_error *error)
{
    char text[ADDRESS_TEXT_MAX];
    address_format(&listener->base.address, text);
    struct sockaddr_storage at;
    enum godwit_err err = where_to_listen(&listener->base.address, &at, error);
    if (err == GODWIT_OK)
        err = cm_init(&listener->cm, error);
    if (err != GODWIT_OK)
        return err;
    if (rdma_bind_addr(listener->cm.id, (struct sockaddr *)&at) == 0 && rdma_listen(listener->cm.id, backlog) == 0) {
        listener->base.address.port = ntohs(rdma_get_src_port(listener->cm.id));
        return GODWIT_OK;
    }
    switch (errno) {
    case EADDRINUSE:
        return error_set_sys(error, GODWIT_ERR_BUSY, errno, "%s: cannot listen for RDMA", text);
    case ENODEV:
    case EADDRNOTAVAIL:
        return error_set_sys(error, GODWIT_ERR_INVALID, errno,
                             "%s: no RDMA device of this host has this address (see godwit devices)", text);
    default:
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "%s: cannot listen for RDMA", text);
    }
}

enum godwit_err rdma_listen_channels(void *context, const struct address *address, unsigned backlog,
                                     struct listener **out, struct backlog_warning *warning,
                                     struct godwit_error *error)
{
    (void)context;
    struct rdma_listener *listener = calloc(1, sizeof *listener);
    if (listener == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a listener");
    listener->base = (struct listener){.ops = &rdma_listener_ops, .address = *address};
    listener->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum godwit_err err = listener->wake >= 0
                              ? start_listening(listener, clamp_backlog(backlog, warning), error)
                              : error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot make an eventfd");
    if (err != GODWIT_OK) {
        rdma_listener_free(&listener->base);
        return err;
    }
    *out = &listener->base;
    return GODWIT_OK;
}
