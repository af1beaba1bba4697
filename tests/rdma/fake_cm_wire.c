/*
 * What travels between ids, and what fetching an event does. Messages have random delays, so ids overtake each other;
 * those of one id keep their order. A request to connect that finds the backlog full, or silence, is sent again and in
 * the end UNREACHABLE.
 *
 * REQ -> CONNECT_REQUEST at the listener; REP -> ESTABLISHED when its receiver fetches it, which also sends RTU ->
 * ESTABLISHED on the other side; REJ -> REJECTED; DREQ -> DISCONNECTED; DREP -> DISCONNECTED and later TIMEWAIT_EXIT.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/rdma/fake_private.h"
#include "transport/clock.h"

enum { REQ_EVENT_DATA = 56, REP_EVENT_DATA = 196, REJ_EVENT_DATA = 148 };
enum { REJ_INVALID_SERVICE_ID = 8 };

/* --- messages --- */

static void message_schedule(struct fake_id *id, const struct fake_message *message, uint64_t delay_ns)
{
    struct fake_message *copy = malloc(sizeof *copy);
    if (!copy)
        fake_die("no memory");
    *copy = *message;
    copy->due = clock_now_ns() + delay_ns;
    if (copy->due <= id->last_due)
        copy->due = id->last_due + 1;
    id->last_due = copy->due;
    LIST_INSERT_HEAD(&fake.messages, copy, link);
    fake_wire_wake();
}

void fake_message_send(struct fake_id *id, const struct fake_message *message)
{
    message_schedule(id, message, fake_random(fake.setup.cm_delay_us + 1) * 1000);
}

void fake_message_to_peer(struct fake_id *id, enum fake_message_type type, int status)
{
    struct fake_message message = {.type = type, .from = id->number, .to = id->peer, .status = status};
    fake_message_send(id, &message);
}

void fake_message_event(struct fake_id *id, enum rdma_cm_event_type event, int status)
{
    struct fake_message message = {.type = FAKE_EVENT, .to = id->number, .event = event, .status = status};
    fake_message_send(id, &message);
}

/* Those to the id, and requests of it; what it said to others still arrives. */
void fake_messages_drop(const struct fake_id *id)
{
    struct fake_message *message, *next;
    for (message = LIST_FIRST(&fake.messages); message; message = next) {
        next = LIST_NEXT(message, link);
        if (!id || message->to == id->number || (message->type == FAKE_REQ && message->from == id->number)) {
            LIST_REMOVE(message, link);
            free(message);
        }
    }
}

/* --- events --- */

void fake_id_raise(struct fake_id *id, struct fake_id *acked_by, int type, int status, const void *data, size_t size)
{
    struct fake_cm_event *event = calloc(1, sizeof *event);
    if (!event)
        fake_die("no memory");
    event->id = id;
    event->acked_by = acked_by;
    event->base.event = (enum rdma_cm_event_type)type;
    event->base.status = status;
    if (size)
        memcpy(event->data, data, size);
    struct fake_event_channel *channel = FAKE_OF(acked_by->base.channel, struct fake_event_channel, base);
    STAILQ_INSERT_TAIL(&channel->events, event, link);
    fake_fd_post(channel->base.fd);
}

static void raise_simple(struct fake_id *id, int type, int status)
{
    fake_id_raise(id, id, type, status, NULL, 0);
}

/* --- deliveries --- */

static struct fake_id *listener_for(const struct fake_id *active)
{
    const struct sockaddr *dst = &active->base.route.addr.dst_addr;
    struct fake_id *id;
    LIST_FOREACH(id, &fake.ids, link)
    {
        const struct sockaddr *at = &id->base.route.addr.src_addr;
        bool family = at->sa_family == dst->sa_family || (at->sa_family == AF_INET6 && !id->afonly);
        if (id->state == FAKE_ID_LISTENING && id->base.ps == active->base.ps && family &&
            fake_address_port(at) == fake_address_port(dst) && (fake_address_any(at) || fake_address_same(at, dst)))
            return id;
    }
    return NULL;
}

static void request_again(struct fake_id *active)
{
    if (active->requests++ >= fake.setup.cm_resends) {
        active->state = FAKE_ID_OVER;
        raise_simple(active, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT);
        return;
    }
    struct fake_message message = {.type = FAKE_REQ, .from = active->number};
    message_schedule(active, &message, (uint64_t)fake.setup.cm_resend_ms * 1000000u);
}

/* The device that the request arrives at is the one with its destination address. */
static struct fake_device *arrival(const struct fake_id *listener, const struct fake_id *active)
{
    return listener->device ? listener->device : active->device;
}

static void deliver_request(struct fake_id *active)
{
    struct fake_id *listener = listener_for(active);
    if (fake.cm_silent || (listener && listener->waiting >= listener->backlog)) {
        request_again(active);
        return;
    }
    if (!listener) {
        active->state = FAKE_ID_OVER;
        uint8_t nothing[REJ_EVENT_DATA] = {0};
        fake_id_raise(active, active, RDMA_CM_EVENT_REJECTED, REJ_INVALID_SERVICE_ID, nothing, sizeof nothing);
        return;
    }
    struct fake_id *id = fake_id_new(listener->base.ps, listener->base.context);
    if (!id)
        fake_die("no memory");
    id->passive = true;
    id->state = FAKE_ID_REQ_RECEIVED;
    id->listener = listener->number;
    id->device = arrival(listener, active);
    id->peer = active->number;
    id->far = active->param;
    id->far_qp = active->param.qp_num;
    id->base.route.addr.src_storage = active->base.route.addr.dst_storage;
    id->base.route.addr.dst_storage = active->base.route.addr.src_storage;
    active->peer = id->number;
    listener->waiting++;
    fake_id_raise(id, listener, RDMA_CM_EVENT_CONNECT_REQUEST, 0, active->data, REQ_EVENT_DATA);
}

static void deliver_reply(struct fake_id *id, const struct fake_id *from)
{
    if (id->state != FAKE_ID_REQ_SENT || !from)
        return;
    id->state = FAKE_ID_REP_RECEIVED;
    id->far = from->param;
    id->far_qp = from->param.qp_num;
    fake_id_raise(id, id, RDMA_CM_EVENT_CONNECT_RESPONSE, 0, from->data, REP_EVENT_DATA);
}

static void deliver_reject(struct fake_id *id, const struct fake_message *message)
{
    /* Once a side is connected a late rejection is nothing to it. */
    if (id->state < FAKE_ID_REQ_SENT || id->state > FAKE_ID_REP_RECEIVED)
        return;
    id->state = FAKE_ID_OVER;
    /* Of a request that was not accepted yet the kernel says nothing: accepting will fail. */
    if (!id->passive || id->accepted)
        fake_id_raise(id, id, RDMA_CM_EVENT_REJECTED, message->status, message->data, REJ_EVENT_DATA);
}

static void deliver_disconnect(struct fake_id *id)
{
    switch (id->state) {
    case FAKE_ID_REP_SENT: /* the RTU was lost with it */
    case FAKE_ID_CONNECTED:
        id->state = FAKE_ID_DREQ_RECEIVED;
        raise_simple(id, RDMA_CM_EVENT_DISCONNECTED, 0);
        break;
    case FAKE_ID_DREQ_SENT: /* both at once */
        id->state = FAKE_ID_OVER;
        raise_simple(id, RDMA_CM_EVENT_DISCONNECTED, 0);
        break;
    default: break;
    }
}

static void deliver_event(struct fake_id *id, const struct fake_message *message)
{
    switch (message->event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED: id->state = FAKE_ID_ADDR_RESOLVED; break;
    case RDMA_CM_EVENT_ROUTE_RESOLVED: id->state = FAKE_ID_ROUTE_RESOLVED; break;
    default: id->state = FAKE_ID_OVER;
    }
    fake_id_raise(id, id, message->event, message->status, message->data, message->size ? REJ_EVENT_DATA : 0);
}

static void deliver(const struct fake_message *message)
{
    struct fake_id *from = fake_id_by_number(message->from), *to = fake_id_by_number(message->to);
    if (message->type == FAKE_REQ) {
        if (from && from->state == FAKE_ID_REQ_SENT)
            deliver_request(from);
        return;
    }
    if (!to || to->destroying || (fake.cm_silent && message->type != FAKE_EVENT))
        return;
    switch (message->type) {
    case FAKE_EVENT: deliver_event(to, message); break;
    case FAKE_REP: deliver_reply(to, from); break;
    case FAKE_REJ: deliver_reject(to, message); break;
    case FAKE_RTU:
        if (to->state == FAKE_ID_REP_SENT) {
            to->state = FAKE_ID_CONNECTED;
            raise_simple(to, RDMA_CM_EVENT_ESTABLISHED, 0);
        }
        break;
    case FAKE_DREQ: deliver_disconnect(to); break;
    default: /* FAKE_DREP */
        if (to->state == FAKE_ID_DREQ_SENT) {
            to->state = FAKE_ID_OVER;
            raise_simple(to, RDMA_CM_EVENT_DISCONNECTED, 0);
        }
    }
}

bool fake_message_step(uint64_t now, uint64_t *next)
{
    struct fake_message *message, *first = NULL;
    LIST_FOREACH(message, &fake.messages, link)
    {
        if (!first || message->due < first->due)
            first = message;
    }
    if (first && first->due > now && first->due < *next)
        *next = first->due;
    if (!first || first->due > now)
        return false;
    LIST_REMOVE(first, link);
    deliver(first);
    free(first);
    return true;
}

/* --- fetching --- */

/* Both transitions of a queue pair that the library makes for its caller. */
void fake_id_ready(struct fake_id *id)
{
    struct fake_qp *qp = fake_qp_of(id->base.qp);
    qp->peer = id->far_qp;
    qp->rnr_retry = id->far.rnr_retry_count;
    qp->access = IBV_ACCESS_REMOTE_WRITE | (id->param.responder_resources ? IBV_ACCESS_REMOTE_READ : 0);
    qp->read_depth = id->param.initiator_depth;
    qp->ex.qp_base.state = IBV_QPS_RTS;
    fake_wire_wake();
}

static void fetch_response(struct fake_cm_event *event)
{
    struct fake_id *id = event->id;
    if (!id->base.qp || id->base.qp->state != IBV_QPS_INIT || fake_call(FAKE_CALL_MODIFY_QP)) {
        id->state = FAKE_ID_OVER;
        event->base.event = RDMA_CM_EVENT_CONNECT_ERROR;
        event->base.status = -1;
        return;
    }
    fake_id_ready(id);
    id->state = FAKE_ID_CONNECTED;
    event->base.event = RDMA_CM_EVENT_ESTABLISHED;
    fake_message_to_peer(id, FAKE_RTU, 0);
}

/* Only now the caller gets an id for the request; it inherits the listener's channel and context. */
static void fetch_request(struct fake_cm_event *event)
{
    struct fake_id *id = event->id, *listener = event->acked_by;
    listener->waiting--;
    id->fetched = true;
    id->base.channel = listener->base.channel;
    FAKE_OF(id->base.channel, struct fake_event_channel, base)->ids++;
    fake.living.ids++;
    if (fake_id_attach(id))
        fake_die("no memory");
    event->base.listen_id = &listener->base;
    event->base.param.conn = id->far;
    /* What is the one side's to give is the other's to use. */
    event->base.param.conn.responder_resources = id->far.initiator_depth;
    event->base.param.conn.initiator_depth = id->far.responder_resources;
}

static void fetch(struct fake_cm_event *event)
{
    struct fake_id *id = event->id;
    size_t size = 0;
    switch ((int)event->base.event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        if (fake_id_attach(id))
            fake_die("no memory");
        if (fake_address_any(&id->base.route.addr.src_addr)) {
            __be16 port = rdma_get_src_port(&id->base);
            id->base.route.addr.src_storage = id->base.route.addr.dst_storage;
            if (id->base.route.addr.src_addr.sa_family == AF_INET6)
                id->base.route.addr.src_sin6.sin6_port = port;
            else
                id->base.route.addr.src_sin.sin_port = port;
        }
        break;
    case RDMA_CM_EVENT_CONNECT_REQUEST:
        fetch_request(event);
        size = REQ_EVENT_DATA;
        break;
    case RDMA_CM_EVENT_CONNECT_RESPONSE:
        event->base.param.conn = id->far;
        fetch_response(event);
        size = REP_EVENT_DATA;
        break;
    case RDMA_CM_EVENT_REJECTED:
        if (id->base.qp)
            fake_qp_fail(fake_qp_of(id->base.qp));
        size = REJ_EVENT_DATA;
        break;
    case RDMA_CM_EVENT_DISCONNECTED:
        if (id->state == FAKE_ID_OVER)
            fake_message_event(id, RDMA_CM_EVENT_TIMEWAIT_EXIT, 0);
        break;
    default: break;
    }
    event->base.id = &id->base;
    event->base.param.conn.private_data = size ? event->data : NULL;
    event->base.param.conn.private_data_len = (uint8_t)size;
}

int rdma_get_cm_event(struct rdma_event_channel *base, struct rdma_cm_event **out)
{
    struct fake_event_channel *channel = FAKE_OF(base, struct fake_event_channel, base);
    for (;;) {
        fake_enter();
        int err = fake_call(FAKE_CALL_GET_EVENT);
        fake_leave();
        if (err) {
            errno = err;
            return -1;
        }
        if (fake_fd_take(base->fd))
            return -1;
        fake_enter();
        struct fake_cm_event *event = STAILQ_FIRST(&channel->events);
        if (event) {
            STAILQ_REMOVE_HEAD(&channel->events, link);
            fetch(event);
            event->acked_by->unacked++;
            fake.living.unacked++;
            *out = &event->base;
        }
        fake_leave();
        if (event)
            return 0;
    }
}

int rdma_ack_cm_event(struct rdma_cm_event *base)
{
    struct fake_cm_event *event = FAKE_OF(base, struct fake_cm_event, base);
    fake_enter();
    event->acked_by->unacked--;
    fake.living.unacked--;
    pthread_cond_broadcast(&fake.changed);
    fake_leave();
    memset(event->data, 0xa5, sizeof event->data); /* private data is gone with the acknowledgement */
    free(event);
    return 0;
}

const char *rdma_event_str(enum rdma_cm_event_type event)
{
    static const char *const names[] = {
        "RDMA_CM_EVENT_ADDR_RESOLVED",  "RDMA_CM_EVENT_ADDR_ERROR",      "RDMA_CM_EVENT_ROUTE_RESOLVED",
        "RDMA_CM_EVENT_ROUTE_ERROR",    "RDMA_CM_EVENT_CONNECT_REQUEST", "RDMA_CM_EVENT_CONNECT_RESPONSE",
        "RDMA_CM_EVENT_CONNECT_ERROR",  "RDMA_CM_EVENT_UNREACHABLE",     "RDMA_CM_EVENT_REJECTED",
        "RDMA_CM_EVENT_ESTABLISHED",    "RDMA_CM_EVENT_DISCONNECTED",    "RDMA_CM_EVENT_DEVICE_REMOVAL",
        "RDMA_CM_EVENT_MULTICAST_JOIN", "RDMA_CM_EVENT_MULTICAST_ERROR", "RDMA_CM_EVENT_ADDR_CHANGE",
        "RDMA_CM_EVENT_TIMEWAIT_EXIT"};
    return (unsigned)event < sizeof names / sizeof *names ? names[event] : "UNKNOWN EVENT";
}

/* --- on demand --- */

static bool has_role(const struct fake_id *id, enum fake_role role)
{
    if (!id->fetched)
        return false;
    if (role == FAKE_LISTENER)
        return id->state == FAKE_ID_LISTENING;
    if (role == FAKE_PASSIVE)
        return id->accepted;
    return id->state >= FAKE_ID_ADDR_QUERY && !id->passive;
}

unsigned fake_raise_cm(enum fake_role role, enum rdma_cm_event_type event, int status)
{
    unsigned raised = 0;
    struct fake_id *id;
    fake_enter();
    LIST_FOREACH(id, &fake.ids, link)
    {
        if (!has_role(id, role))
            continue;
        if (event == RDMA_CM_EVENT_DEVICE_REMOVAL) {
            id->state = FAKE_ID_OVER;
            if (id->base.qp)
                fake_qp_fail(fake_qp_of(id->base.qp));
        }
        if (event == RDMA_CM_EVENT_DISCONNECTED)
            id->state = FAKE_ID_DREQ_RECEIVED;
        uint8_t nothing[REJ_EVENT_DATA] = {0};
        fake_id_raise(id, id, event, status, nothing, sizeof nothing);
        raised++;
    }
    fake_leave();
    return raised;
}
