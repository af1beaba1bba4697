/*
 * Event channels and ids of the connection manager, and what an id has: a queue pair, options, ports. The calls that
 * connect are fake_connect.c's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/rdma/fake_private.h"

enum { REJ_TIMEOUT = 4 };

/* --- event channels --- */

struct rdma_event_channel *rdma_create_event_channel(void)
{
    struct fake_event_channel *channel = calloc(1, sizeof *channel);
    fake_enter();
    errno = fake_call(FAKE_CALL_CREATE_EVENT_CHANNEL);
    int fd = errno || !channel ? -1 : fake_fd_new();
    if (fd >= 0) {
        channel->base.fd = fd;
        STAILQ_INIT(&channel->events);
        fake.living.event_channels++;
    }
    fake_leave();
    if (fd >= 0)
        return &channel->base;
    free(channel);
    return NULL;
}

void rdma_destroy_event_channel(struct rdma_event_channel *base)
{
    struct fake_event_channel *channel = FAKE_OF(base, struct fake_event_channel, base);
    fake_enter();
    if (channel->ids)
        fake_die("an event channel is destroyed under %u ids", channel->ids);
    close(base->fd);
    fake.living.event_channels--;
    fake_leave();
    free(channel);
}

/* --- ids --- */

struct fake_id *fake_id_of(struct rdma_cm_id *id)
{
    return FAKE_OF(id, struct fake_id, base);
}

int fake_cm_result(int err)
{
    if (err)
        errno = err;
    return err ? -1 : 0;
}

struct fake_id *fake_id_new(enum rdma_port_space ps, void *context)
{
    struct fake_id *id = calloc(1, sizeof *id);
    if (!id)
        return NULL;
    id->base.ps = ps;
    id->base.context = context;
    id->base.qp_type = IBV_QPT_RC;
    id->number = fake.next_id++;
    LIST_INSERT_HEAD(&fake.ids, id, link);
    return id;
}

struct fake_id *fake_id_by_number(uint32_t number)
{
    struct fake_id *id;
    LIST_FOREACH(id, &fake.ids, link)
    {
        if (number && id->number == number)
            return id;
    }
    return NULL;
}

int fake_id_attach(struct fake_id *id)
{
    if (id->base.verbs)
        return 0;
    struct fake_context *context = fake_cm_context(id->device);
    if (!context)
        return ENOMEM;
    if (!id->device->cm_ids && !(id->device->cm_pd = fake_pd_new(&context->verbs.context, true)))
        return ENOMEM;
    id->device->cm_ids++;
    id->base.verbs = &context->verbs.context;
    id->base.pd = id->device->cm_pd;
    id->base.port_num = 1;
    return 0;
}

static void id_detach(struct fake_id *id)
{
    if (!id->base.verbs || --id->device->cm_ids)
        return;
    if (fake_pd_free(id->device->cm_pd))
        fake_die("the last id of a device goes, and its default protection domain is in use");
    id->device->cm_pd = NULL;
}

void fake_id_forget(struct fake_id *id)
{
    fake_messages_drop(id);
    LIST_REMOVE(id, link);
    id_detach(id);
    free(id);
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **out, void *context, enum rdma_port_space ps)
{
    if (!channel)
        fake_die("the fake has no synchronous ids");
    fake_enter();
    int err = fake_call(FAKE_CALL_CREATE_ID);
    struct fake_id *id = err ? NULL : fake_id_new(ps, context);
    if (!err && !id)
        err = ENOMEM;
    if (!err) {
        id->fetched = true;
        id->base.channel = channel;
        FAKE_OF(channel, struct fake_event_channel, base)->ids++;
        fake.living.ids++;
        *out = &id->base;
    }
    fake_leave();
    return fake_cm_result(err);
}

/* What the peer hears when an id ends. */
static void say_goodbye(struct fake_id *id)
{
    switch (id->state) {
    case FAKE_ID_REQ_SENT: fake_message_to_peer(id, FAKE_REJ, REJ_TIMEOUT); break;
    case FAKE_ID_REQ_RECEIVED:
    case FAKE_ID_REP_SENT:
    case FAKE_ID_REP_RECEIVED: fake_message_to_peer(id, FAKE_REJ, FAKE_REJ_CONSUMER_DEFINED); break;
    case FAKE_ID_CONNECTED: fake_message_to_peer(id, FAKE_DREQ, 0); break;
    case FAKE_ID_DREQ_RECEIVED: fake_message_to_peer(id, FAKE_DREP, 0); break;
    default: break;
    }
    id->state = FAKE_ID_OVER;
}

/* Requests that nobody fetched go with the listener. */
static void refuse_waiting(const struct fake_id *listener)
{
    struct fake_id *id, *next;
    for (id = LIST_FIRST(&fake.ids); id; id = next) {
        next = LIST_NEXT(id, link);
        if (!id->fetched && id->listener == listener->number) {
            say_goodbye(id);
            fake_id_forget(id);
        }
    }
}

static void drop_events(struct fake_id *id)
{
    struct fake_event_channel *channel = FAKE_OF(id->base.channel, struct fake_event_channel, base);
    struct fake_cm_event *event, *next;
    for (event = STAILQ_FIRST(&channel->events); event; event = next) {
        next = STAILQ_NEXT(event, link);
        if (event->id == id || event->acked_by == id) {
            STAILQ_REMOVE(&channel->events, event, fake_cm_event, link);
            free(event);
        }
    }
}

int rdma_destroy_id(struct rdma_cm_id *base)
{
    struct fake_id *id = fake_id_of(base);
    fake_enter();
    if (base->qp)
        fake_die("an id is destroyed before its queue pair");
    id->destroying = true;
    say_goodbye(id);
    drop_events(id);
    refuse_waiting(id);
    fake_await_acks(&id->unacked, "an id");
    FAKE_OF(base->channel, struct fake_event_channel, base)->ids--;
    fake.living.ids--;
    fake_id_forget(id);
    fake_leave();
    return 0;
}

/* --- what an id has --- */

int rdma_create_qp_ex(struct rdma_cm_id *base, struct ibv_qp_init_attr_ex *attr)
{
    fake_enter();
    int err = base->qp || !base->verbs ? EINVAL : 0;
    if (!err && (!(attr->comp_mask & IBV_QP_INIT_ATTR_PD) || !attr->pd)) {
        attr->comp_mask |= IBV_QP_INIT_ATTR_PD;
        attr->pd = base->pd;
    }
    if (!err && attr->pd->context != base->verbs)
        err = EINVAL;
    struct fake_qp *qp = err ? NULL : fake_qp_new(fake_context_of(base->verbs), attr);
    if (!err && !qp)
        err = errno;
    if (!err) {
        qp->ex.qp_base.state = IBV_QPS_INIT;
        base->qp = &qp->ex.qp_base;
        base->pd = attr->pd;
    }
    fake_leave();
    return fake_cm_result(err);
}

int rdma_create_qp(struct rdma_cm_id *base, struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
    struct ibv_qp_init_attr_ex ex = {.qp_context = attr->qp_context,
                                     .send_cq = attr->send_cq,
                                     .recv_cq = attr->recv_cq,
                                     .srq = attr->srq,
                                     .cap = attr->cap,
                                     .qp_type = attr->qp_type,
                                     .sq_sig_all = attr->sq_sig_all,
                                     .comp_mask = IBV_QP_INIT_ATTR_PD,
                                     .pd = pd};
    return rdma_create_qp_ex(base, &ex);
}

void rdma_destroy_qp(struct rdma_cm_id *base)
{
    fake_enter();
    fake_qp_free(fake_qp_of(base->qp));
    base->qp = NULL;
    fake_leave();
}

int rdma_migrate_id(struct rdma_cm_id *base, struct rdma_event_channel *to)
{
    struct fake_id *id = fake_id_of(base);
    fake_enter();
    int err = fake_call(FAKE_CALL_MIGRATE);
    if (!err) {
        struct fake_event_channel *from = FAKE_OF(base->channel, struct fake_event_channel, base);
        struct fake_event_channel *channel = FAKE_OF(to, struct fake_event_channel, base);
        struct fake_cm_event *event, *next;
        for (event = STAILQ_FIRST(&from->events); event; event = next) {
            next = STAILQ_NEXT(event, link);
            if (event->acked_by == id) {
                STAILQ_REMOVE(&from->events, event, fake_cm_event, link);
                STAILQ_INSERT_TAIL(&channel->events, event, link);
                fake_fd_post(to->fd);
            }
        }
        from->ids--;
        channel->ids++;
        base->channel = to;
        fake_await_acks(&id->unacked, "(migrating) an id");
    }
    fake_leave();
    return fake_cm_result(err);
}

int rdma_set_option(struct rdma_cm_id *base, int level, int name, void *value, size_t size)
{
    struct fake_id *id = fake_id_of(base);
    fake_enter();
    int err = fake_call(FAKE_CALL_SET_OPTION);
    size_t wanted = name == RDMA_OPTION_ID_TOS || name == RDMA_OPTION_ID_ACK_TIMEOUT ? sizeof(uint8_t) : sizeof(int);
    if (!err && (level != RDMA_OPTION_ID || name < RDMA_OPTION_ID_TOS || name > RDMA_OPTION_ID_ACK_TIMEOUT))
        err = ENOSYS;
    if (!err && size != wanted)
        err = EINVAL;
    if (!err && name == RDMA_OPTION_ID_REUSEADDR)
        id->reuse = *(const int *)value;
    if (!err && name == RDMA_OPTION_ID_AFONLY)
        id->afonly = *(const int *)value;
    if (!err && name == RDMA_OPTION_ID_ACK_TIMEOUT && !*(const uint8_t *)value)
        fake_die("an ACK timeout of 0: lost packets would be waited for without end");
    fake_leave();
    return fake_cm_result(err);
}

__be16 rdma_get_src_port(struct rdma_cm_id *id)
{
    return fake_address_port(&id->route.addr.src_addr);
}

__be16 rdma_get_dst_port(struct rdma_cm_id *id)
{
    return fake_address_port(&id->route.addr.dst_addr);
}
