/*
 * The calls that connect: binding, listening, resolving, connecting, accepting, rejecting, disconnecting. Each checks
 * the state of its id and sends a message; what becomes of it is fake_cm_wire.c's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "tests/rdma/fake_private.h"

enum { REQ_DATA_MAX = 56, REP_DATA_MAX = 196, REJ_DATA_MAX = 148, BACKLOG_MAX = 1024 };

/* --- addresses --- */

static socklen_t address_size(const struct sockaddr *address)
{
    return address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
}

static __be16 *port_of(struct sockaddr *address)
{
    return address->sa_family == AF_INET6 ? &((struct sockaddr_in6 *)address)->sin6_port
                                          : &((struct sockaddr_in *)address)->sin_port;
}

__be16 fake_address_port(const struct sockaddr *address)
{
    return *port_of((struct sockaddr *)(uintptr_t)address);
}

bool fake_address_any(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET6)
        return IN6_IS_ADDR_UNSPECIFIED(&((const struct sockaddr_in6 *)address)->sin6_addr);
    return ((const struct sockaddr_in *)address)->sin_addr.s_addr == INADDR_ANY;
}

bool fake_address_same(const struct sockaddr *a, const struct sockaddr *b)
{
    if (a->sa_family != b->sa_family)
        return false;
    if (a->sa_family == AF_INET6)
        return !memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr, &((const struct sockaddr_in6 *)b)->sin6_addr,
                       sizeof(struct in6_addr));
    return ((const struct sockaddr_in *)a)->sin_addr.s_addr == ((const struct sockaddr_in *)b)->sin_addr.s_addr;
}

static bool is_text(const struct sockaddr *address, const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    return (inet_pton(AF_INET, text, &v4.sin_addr) == 1 && fake_address_same(address, (struct sockaddr *)&v4)) ||
           (inet_pton(AF_INET6, text, &v6.sin6_addr) == 1 && fake_address_same(address, (struct sockaddr *)&v6));
}

static struct fake_device *device_with(const struct sockaddr *address)
{
    for (unsigned i = 0; i < FAKE_MAX_DEVICES; i++) {
        const struct fake_device_setup *setup = fake.devices[i].setup;
        for (unsigned j = 0; setup && j < FAKE_MAX_ADDRESSES && setup->addresses[j]; j++) {
            if (is_text(address, setup->addresses[j]))
                return &fake.devices[i];
        }
    }
    return NULL;
}

/* --- binding and listening --- */

static bool overlap(const struct fake_id *a, const struct sockaddr *b, bool b_afonly)
{
    const struct sockaddr *address = &a->base.route.addr.src_addr;
    if (address->sa_family == b->sa_family)
        return fake_address_any(address) || fake_address_any(b) || fake_address_same(address, b);
    /* A wildcard of IPv6 takes IPv4 too. */
    return (address->sa_family == AF_INET6 && !a->afonly && fake_address_any(address)) ||
           (b->sa_family == AF_INET6 && !b_afonly && fake_address_any(b));
}

static bool port_is_taken(const struct fake_id *id, const struct sockaddr *address)
{
    struct fake_id *other;
    LIST_FOREACH(other, &fake.ids, link)
    {
        if (other != id && other->bound && other->base.ps == id->base.ps && !(other->reuse && id->reuse) &&
            fake_address_port(&other->base.route.addr.src_addr) == fake_address_port(address) &&
            overlap(other, address, id->afonly))
            return true;
    }
    return false;
}

static int bind_to(struct fake_id *id, const struct sockaddr *address)
{
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6)
        return EAFNOSUPPORT;
    struct fake_device *device = fake_address_any(address) ? NULL : device_with(address);
    if (!device && !fake_address_any(address))
        return EADDRNOTAVAIL;
    struct sockaddr_storage storage = {0};
    struct sockaddr *wanted = (struct sockaddr *)&storage;
    memcpy(wanted, address, address_size(address));
    while (!*port_of(wanted)) {
        *port_of(wanted) = htons(fake.next_port++);
        if (port_is_taken(id, wanted))
            *port_of(wanted) = 0;
    }
    if (port_is_taken(id, wanted))
        return EADDRINUSE;
    id->base.route.addr.src_storage = storage;
    id->device = device;
    id->bound = true;
    return 0;
}

int rdma_bind_addr(struct rdma_cm_id *base, struct sockaddr *address)
{
    struct fake_id *id = fake_id_of(base);
    fake_enter();
    int err = fake_call(FAKE_CALL_BIND_ADDR);
    if (!err)
        err = id->state != FAKE_ID_IDLE ? EINVAL : bind_to(id, address);
    if (!err && id->device)
        err = fake_id_attach(id);
    if (!err)
        id->state = FAKE_ID_BOUND;
    fake_leave();
    return fake_cm_result(err);
}

int rdma_listen(struct rdma_cm_id *base, int backlog)
{
    struct fake_id *id = fake_id_of(base);
    struct sockaddr_in any = {.sin_family = AF_INET};
    fake_enter();
    int err = fake_call(FAKE_CALL_LISTEN);
    if (!err && id->state == FAKE_ID_IDLE)
        err = bind_to(id, (struct sockaddr *)&any);
    else if (!err && id->state != FAKE_ID_BOUND)
        err = EINVAL;
    if (!err) {
        id->state = FAKE_ID_LISTENING;
        id->backlog = backlog <= 0 || backlog > BACKLOG_MAX ? BACKLOG_MAX : (unsigned)backlog;
    }
    fake_leave();
    return fake_cm_result(err);
}

/* --- the steps of the connecting side --- */

/* The event that a fault puts in the place of the regular one: true. */
static bool answered_otherwise(struct fake_id *id, enum fake_step step)
{
    struct fake_step_rule *rule = &fake.step_rules[step];
    if (!rule->set)
        return false;
    rule->set = false;
    if (rule->event == FAKE_NO_EVENT)
        return true;
    struct fake_message message = {.type = FAKE_EVENT,
                                   .to = id->number,
                                   .event = rule->event,
                                   .status = rule->status,
                                   .size = (uint8_t)rule->size};
    memcpy(message.data, rule->data, rule->size);
    fake_message_send(id, &message);
    return true;
}

/* To any address of its own device, or of another: two devices of the fake are as good as two hosts. */
static int resolve(struct fake_id *id, struct sockaddr *src, const struct sockaddr *dst)
{
    struct fake_device *far = device_with(dst);
    int err = 0;
    if (id->state == FAKE_ID_IDLE && src)
        err = bind_to(id, src);
    else if (id->state == FAKE_ID_IDLE && far)
        err = bind_to(id, (const struct sockaddr *)&(struct sockaddr_storage){.ss_family = dst->sa_family});
    else if (id->state != FAKE_ID_IDLE && id->state != FAKE_ID_BOUND)
        err = EINVAL;
    if (err)
        return err;
    memcpy(&id->base.route.addr.dst_storage, dst, address_size(dst));
    id->state = FAKE_ID_ADDR_QUERY;
    if (!id->device)
        id->device = far;
    if (answered_otherwise(id, FAKE_STEP_ADDR))
        return 0;
    if (!id->device || !far)
        fake_message_event(id, RDMA_CM_EVENT_ADDR_ERROR, -ENODEV);
    else
        fake_message_event(id, RDMA_CM_EVENT_ADDR_RESOLVED, 0);
    return 0;
}

int rdma_resolve_addr(struct rdma_cm_id *base, struct sockaddr *src, struct sockaddr *dst, int timeout_ms)
{
    (void)timeout_ms; /* neighbours answer at once, or as the test says */
    fake_enter();
    int err = fake_call(FAKE_CALL_RESOLVE_ADDR);
    if (!err)
        err = resolve(fake_id_of(base), src, dst);
    fake_leave();
    return fake_cm_result(err);
}

int rdma_resolve_route(struct rdma_cm_id *base, int timeout_ms)
{
    struct fake_id *id = fake_id_of(base);
    fake_enter();
    int err = fake_call(FAKE_CALL_RESOLVE_ROUTE);
    if (!err && (!timeout_ms || id->state != FAKE_ID_ADDR_RESOLVED))
        err = EINVAL;
    if (!err) {
        id->state = FAKE_ID_ROUTE_QUERY;
        if (!answered_otherwise(id, FAKE_STEP_ROUTE))
            fake_message_event(id, RDMA_CM_EVENT_ROUTE_RESOLVED, 0);
    }
    fake_leave();
    return fake_cm_result(err);
}

/* As the library does it: 0xff stands for the device's limit, no parameters for 7 retries of each kind. */
static int take_parameters(struct fake_id *id, const struct rdma_conn_param *param, unsigned most)
{
    uint8_t limit = (uint8_t)fake.setup.limits.max_rd_atomic;
    struct rdma_conn_param all = {
        .responder_resources = limit, .initiator_depth = limit, .retry_count = 7, .rnr_retry_count = 7};
    if (param) {
        if ((param->responder_resources != RDMA_MAX_RESP_RES && param->responder_resources > limit) ||
            (param->initiator_depth != RDMA_MAX_INIT_DEPTH && param->initiator_depth > limit))
            return EINVAL;
        all = *param;
        if (param->responder_resources == RDMA_MAX_RESP_RES)
            all.responder_resources = limit;
        if (param->initiator_depth == RDMA_MAX_INIT_DEPTH)
            all.initiator_depth = limit;
        all.retry_count &= 7;
        all.rnr_retry_count &= 7;
    }
    if (!all.private_data)
        all.private_data_len = 0;
    if (all.private_data_len > most)
        return EINVAL;
    memset(id->data, 0, sizeof id->data);
    if (all.private_data_len)
        memcpy(id->data, all.private_data, all.private_data_len);
    id->param = all;
    id->param.private_data = NULL;
    if (id->base.qp)
        id->param.qp_num = id->base.qp->qp_num;
    return 0;
}

int rdma_connect(struct rdma_cm_id *base, struct rdma_conn_param *param)
{
    struct fake_id *id = fake_id_of(base);
    fake_enter();
    int err = fake_call(FAKE_CALL_CONNECT);
    if (!err && (id->state != FAKE_ID_ROUTE_RESOLVED || !base->qp))
        err = EINVAL;
    if (!err)
        err = take_parameters(id, param, REQ_DATA_MAX);
    if (!err) {
        id->state = FAKE_ID_REQ_SENT;
        if (!answered_otherwise(id, FAKE_STEP_CONNECT)) {
            struct fake_message message = {.type = FAKE_REQ, .from = id->number};
            fake_message_send(id, &message);
        }
    }
    fake_leave();
    return fake_cm_result(err);
}

/* --- the steps of the accepting side --- */

int rdma_accept(struct rdma_cm_id *base, struct rdma_conn_param *param)
{
    struct fake_id *id = fake_id_of(base);
    fake_enter();
    int err = fake_call(FAKE_CALL_ACCEPT);
    if (!err && (id->state != FAKE_ID_REQ_RECEIVED || !base->qp || base->qp->state != IBV_QPS_INIT))
        err = EINVAL;
    if (!err)
        err = take_parameters(id, param, REP_DATA_MAX);
    if (!err) {
        fake_id_ready(id);
        id->accepted = true;
        id->state = FAKE_ID_REP_SENT;
        if (!answered_otherwise(id, FAKE_STEP_ACCEPT)) {
            struct fake_message message = {.type = FAKE_REP, .from = id->number, .to = id->peer};
            fake_message_send(id, &message);
        }
    }
    fake_leave();
    return fake_cm_result(err);
}

int rdma_reject(struct rdma_cm_id *base, const void *data, uint8_t size)
{
    struct fake_id *id = fake_id_of(base);
    fake_enter();
    if (data && size > REJ_DATA_MAX)
        fake_die("%u bytes of private data for rdma_reject, which does not look", size);
    int err = fake_call(FAKE_CALL_REJECT);
    if (!err && id->state != FAKE_ID_REQ_RECEIVED)
        err = EINVAL;
    if (!err) {
        struct fake_message message = {
            .type = FAKE_REJ, .from = id->number, .to = id->peer, .status = FAKE_REJ_CONSUMER_DEFINED};
        if (data && size)
            memcpy(message.data, data, size);
        fake_message_send(id, &message);
        id->state = FAKE_ID_OVER;
    }
    fake_leave();
    return fake_cm_result(err);
}

/* --- both sides --- */

int rdma_disconnect(struct rdma_cm_id *base)
{
    struct fake_id *id = fake_id_of(base);
    fake_enter();
    int err = fake_call(FAKE_CALL_DISCONNECT);
    if (!err && id->state < FAKE_ID_REQ_SENT)
        err = EINVAL;
    if (!err && base->qp)
        fake_qp_fail(fake_qp_of(base->qp));
    if (!err && id->state == FAKE_ID_CONNECTED) {
        fake_message_to_peer(id, FAKE_DREQ, 0);
        id->state = FAKE_ID_DREQ_SENT;
    } else if (!err && id->state == FAKE_ID_DREQ_RECEIVED) {
        fake_message_to_peer(id, FAKE_DREP, 0);
        id->state = FAKE_ID_OVER;
        fake_message_event(id, RDMA_CM_EVENT_TIMEWAIT_EXIT, 0);
    }
    fake_leave();
    return fake_cm_result(err);
}
