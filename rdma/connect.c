/*
 * Connecting: resolve the address, resolve the route, make the queue pair, connect; each step is an event that is
 * waited for with what is left of the caller's time, and cancelled by destroying the identifier, which takes a request
 * back that is under way. While nothing listens, and where the peer's kernel remembers an older connection of ours,
 * everything is repeated, every 50 to 200 ms.
 *
 * Failure modes: see hints.c; what is not worth a second try fails at once. A listener whose backlog is full drops
 * requests in silence; the connection manager asks again after some seconds: hence a generous backlog on the other
 * side.
 */
#include "rdma/connect.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "rdma/hints.h"
#include "transport/clock.h"
#include "transport/error.h"

enum { SLICE_MS = 50, RETRY_FIRST_MS = 50, RETRY_MAX_MS = 200, STEP_MS = 5000 };

struct attempt {
    const struct address *address;
    char text[ADDRESS_TEXT_MAX];
    struct rdma_domain *domain;
    const uint8_t *ticket;
    uint64_t deadline_ms;
    const atomic_bool *cancel;
};

void rdma_set_ack_timeout(struct rdma_cm_id *id)
{
    uint8_t code = CONNECT_ACK_TIMEOUT;
    /* Unknown to old kernels: then the default holds, and death is noticed later. */
    rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &code, sizeof code);
}

struct rdma_conn_param rdma_connection_parameters(struct ibv_context *verbs, const void *private_data, uint8_t size)
{
    struct ibv_device_attr attributes;
    int reads = CONNECT_READS;
    if (ibv_query_device(verbs, &attributes) == 0) {
        reads = attributes.max_qp_rd_atom < reads ? attributes.max_qp_rd_atom : reads;
        reads = attributes.max_qp_init_rd_atom < reads ? attributes.max_qp_init_rd_atom : reads;
    }
    return (struct rdma_conn_param){
        .private_data = private_data,
        .private_data_len = size,
        .responder_resources = (uint8_t)reads,
        .initiator_depth = (uint8_t)reads,
        .retry_count = CONNECT_RETRIES,
        .rnr_retry_count = CONNECT_RNR_RETRIES,
    };
}

void rdma_peer_name(struct rdma_cm_id *id, char name[CHANNEL_NAME_MAX])
{
    char host[NI_MAXHOST], port[NI_MAXSERV];
    const struct sockaddr *peer = rdma_get_peer_addr(id);
    socklen_t size = peer->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (getnameinfo(peer, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(name, CHANNEL_NAME_MAX, "rdma unknown peer");
    else
        snprintf(name, CHANNEL_NAME_MAX, strchr(host, ':') ? "rdma [%.255s]:%s" : "rdma %.255s:%s", host, port);
}

static enum godwit_err lost_patience(const struct attempt *attempt, enum godwit_err err, const char *step,
                                     struct godwit_error *error)
{
    if (err == GODWIT_ERR_CANCELLED)
        return error_set(error, err, "connecting to %s was cancelled", attempt->text);
    if (err == GODWIT_ERR_TIMEOUT)
        return error_set(error, GODWIT_ERR_UNREACHABLE,
                         "cannot connect to %s in time: no answer while %s: is the host up, and UDP port 4791 open "
                         "both ways?",
                         attempt->text, step);
    return error_set(error, err, "cannot connect to %s while %s", attempt->text, step);
}

/* Waits for the event that ends a step. */
static enum godwit_err await_step(const struct attempt *attempt, struct cm *cm, enum cm_step step, const char *doing,
                                  struct godwit_error *error)
{
    static const enum rdma_cm_event_type due[] = {
        [CM_RESOLVE_ADDRESS] = RDMA_CM_EVENT_ADDR_RESOLVED,
        [CM_RESOLVE_ROUTE] = RDMA_CM_EVENT_ROUTE_RESOLVED,
        [CM_CONNECT] = RDMA_CM_EVENT_ESTABLISHED,
    };
    struct rdma_cm_event *event;
    enum godwit_err err = cm_wait(cm->events, attempt->deadline_ms, attempt->cancel, -1, &event);
    if (err != GODWIT_OK)
        return lost_patience(attempt, err, doing, error);
    if (event->event != due[step])
        err = hint_cm_event(event, step, attempt->text, error);
    rdma_ack_cm_event(event);
    return err;
}

/* What the library answers at once, before any event. */
static enum godwit_err refused_at_once(const struct attempt *attempt, const char *doing, struct godwit_error *error)
{
    int cause = errno;
    if (cause == ENODEV)
        return error_set(error, GODWIT_ERR_UNREACHABLE,
                         "cannot connect to %s: the interface that leads there has no RDMA device (see godwit devices)",
                         attempt->text);
    return error_set_sys(error, GODWIT_ERR_UNREACHABLE, cause, "cannot connect to %s while %s", attempt->text, doing);
}

static enum godwit_err find_way(const struct attempt *attempt, struct cm *cm, struct godwit_error *error)
{
    struct sockaddr_storage to;
    enum godwit_err err = rdma_resolve(attempt->address, &to, error);
    if (err != GODWIT_OK)
        return err;
    rdma_set_ack_timeout(cm->id);
    int left = clock_left_ms(attempt->deadline_ms);
    int step = left < STEP_MS ? left : STEP_MS;
    if (rdma_resolve_addr(cm->id, NULL, (struct sockaddr *)&to, step > 0 ? step : 1) != 0)
        return refused_at_once(attempt, "resolving the address", error);
    err = await_step(attempt, cm, CM_RESOLVE_ADDRESS, "resolving the address", error);
    if (err != GODWIT_OK)
        return err;
    if (cm->id->verbs != attempt->domain->verbs)
        return error_set(error, GODWIT_ERR_UNREACHABLE,
                         "the way to %s leads through another RDMA device than before: memory is registered with %s",
                         attempt->text, ibv_get_device_name(attempt->domain->verbs->device));
    if (rdma_resolve_route(cm->id, step > 0 ? step : 1) != 0)
        return refused_at_once(attempt, "resolving the route", error);
    return await_step(attempt, cm, CM_RESOLVE_ROUTE, "resolving the route", error);
}

static enum godwit_err shake_hands(const struct attempt *attempt, struct rdma_channel *channel,
                                   struct godwit_error *error)
{
    struct cm *cm = rdma_channel_cm(channel);
    uint8_t request[CM_REQUEST_SIZE];
    cm_request_encode(attempt->ticket, request);
    struct rdma_conn_param parameters = rdma_connection_parameters(cm->id->verbs, request, sizeof request);
    if (rdma_connect(cm->id, &parameters) != 0)
        return refused_at_once(attempt, "connecting", error);
    enum godwit_err err = await_step(attempt, cm, CM_CONNECT, "connecting", error);
    if (err == GODWIT_OK)
        rdma_channel_connected(channel);
    return err;
}

static enum godwit_err connect_once(const struct attempt *attempt, struct channel **out, struct godwit_error *error)
{
    struct cm cm;
    struct rdma_channel *channel;
    char name[CHANNEL_NAME_MAX];
    enum godwit_err err = cm_init(&cm, error);
    if (err != GODWIT_OK)
        return err;
    err = find_way(attempt, &cm, error);
    if (err == GODWIT_OK) {
        rdma_peer_name(cm.id, name);
        err = rdma_channel_open(&cm, attempt->domain, name, &channel, error);
    }
    if (err != GODWIT_OK) {
        cm_fini(&cm);
        return err;
    }
    err = shake_hands(attempt, channel, error);
    if (err != GODWIT_OK) {
        rdma_channel_abandon(channel);
        return err;
    }
    *out = rdma_channel_base(channel);
    return GODWIT_OK;
}

/* Sleeps before the next attempt; false: time is up, or it was cancelled. */
static bool pause_before_retry(const struct attempt *attempt, int pause_ms)
{
    uint64_t until = clock_now_ms() + (uint64_t)pause_ms;
    while (clock_left_ms(attempt->deadline_ms) > 0) {
        if (attempt->cancel != NULL && atomic_load_explicit(attempt->cancel, memory_order_relaxed))
            return true; /* the next attempt says so */
        int left = clock_left_ms(until);
        if (left == 0)
            return true;
        poll(NULL, 0, left < SLICE_MS ? left : SLICE_MS);
    }
    return false;
}

static bool is_worth_another(enum godwit_err err)
{
    return err == GODWIT_ERR_REFUSED || err == GODWIT_ERR_BUSY;
}

static enum godwit_err give_up(const struct godwit_error *why, struct godwit_error *error)
{
    return error_set(error, why->code == GODWIT_ERR_BUSY ? GODWIT_ERR_UNREACHABLE : why->code, "%s", why->text);
}

enum godwit_err rdma_connect_channel(void *context, const struct address *address,
                                     const struct introduction *introduction, int timeout_ms,
                                     const atomic_bool *cancel, struct channel **out, struct godwit_error *error)
{
    (void)context;
    struct attempt attempt = {
        .address = address,
        .deadline_ms = timeout_ms == CHANNEL_FOREVER ? UINT64_MAX : clock_now_ms() + (uint64_t)timeout_ms,
        .cancel = cancel,
    };
    address_format(address, attempt.text);
    if (introduction == NULL || introduction->domain == NULL)
        return error_set(error, GODWIT_ERR_INVALID, "connecting to %s needs a domain", attempt.text);
    if (address->host[0] == '\0' || address->port == 0)
        return error_set(error, GODWIT_ERR_INVALID, "no %s to connect to in %s: expected rdma:HOST:PORT",
                         address->host[0] != '\0' ? "port" : "host", attempt.text);
    attempt.domain = (struct rdma_domain *)introduction->domain;
    attempt.ticket = introduction->ticket;

    struct godwit_error why, before = {0};
    for (int pause_ms = RETRY_FIRST_MS;; pause_ms = pause_ms * 2 < RETRY_MAX_MS ? pause_ms * 2 : RETRY_MAX_MS) {
        if (connect_once(&attempt, out, &why) == GODWIT_OK)
            return GODWIT_OK;
        /* An attempt that the deadline cut short knows less than the one before it. */
        if (why.code == GODWIT_ERR_UNREACHABLE && before.code != GODWIT_OK && clock_left_ms(attempt.deadline_ms) == 0)
            return give_up(&before, error);
        if (!is_worth_another(why.code) || !pause_before_retry(&attempt, pause_ms))
            return give_up(&why, error);
        before = why;
    }
}
