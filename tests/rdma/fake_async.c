/* Asynchronous events: none but those that a test raises. */
#include <stdlib.h>

#include "tests/rdma/fake_private.h"

static unsigned raise_one(struct fake_context *context, struct ibv_async_event event)
{
    struct fake_async *async = calloc(1, sizeof *async);
    if (!async)
        fake_die("no memory");
    async->event = event;
    STAILQ_INSERT_TAIL(&context->async, async, link);
    fake_fd_post(context->verbs.context.async_fd);
    return 1;
}

static bool is_of_cq(enum ibv_event_type type)
{
    return type == IBV_EVENT_CQ_ERR;
}

static bool is_of_qp(enum ibv_event_type type)
{
    switch (type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_COMM_EST:
    case IBV_EVENT_SQ_DRAINED:
    case IBV_EVENT_PATH_MIG:
    case IBV_EVENT_PATH_MIG_ERR:
    case IBV_EVENT_QP_LAST_WQE_REACHED: return true;
    default: return false;
    }
}

static bool is_deadly(enum ibv_event_type type)
{
    return type == IBV_EVENT_QP_FATAL || type == IBV_EVENT_QP_REQ_ERR || type == IBV_EVENT_QP_ACCESS_ERR ||
           type == IBV_EVENT_CQ_ERR || type == IBV_EVENT_DEVICE_FATAL;
}

/* only: NULL for all. */
static unsigned raise_at(enum ibv_event_type type, const void *only)
{
    unsigned raised = 0;
    struct fake_context *context;
    struct fake_qp *qp;
    struct fake_cq *cq;
    fake_enter();
    fake.removed = fake.removed || type == IBV_EVENT_DEVICE_FATAL;
    LIST_FOREACH(qp, &fake.qps, link)
    {
        struct ibv_async_event event = {.event_type = type, .element.qp = &qp->ex.qp_base};
        if (only && only != &qp->ex.qp_base)
            continue;
        if (is_of_qp(type))
            raised += raise_one(fake_context_of(qp->ex.qp_base.context), event);
        if (is_deadly(type))
            fake_qp_fail(qp);
    }
    LIST_FOREACH(cq, &fake.cqs, link)
    {
        struct ibv_async_event event = {.event_type = type, .element.cq = &cq->base};
        if (is_of_cq(type) && (!only || only == &cq->base))
            raised += raise_one(fake_context_of(cq->base.context), event);
    }
    LIST_FOREACH(context, &fake.contexts, link)
    {
        struct ibv_async_event event = {.event_type = type, .element.port_num = 1};
        if (!is_of_cq(type) && !is_of_qp(type))
            raised += raise_one(context, event);
    }
    fake_leave();
    return raised;
}

unsigned fake_raise_async(enum ibv_event_type type)
{
    return raise_at(type, NULL);
}

unsigned fake_raise_async_at(enum ibv_event_type type, const void *element)
{
    return raise_at(type, element);
}

/* Whose counter of unacknowledged events it is on. */
static unsigned *counter_of(struct fake_context *context, const struct ibv_async_event *event)
{
    if (is_of_qp(event->event_type))
        return &fake_qp_of(event->element.qp)->async_unacked;
    if (is_of_cq(event->event_type))
        return &FAKE_OF(event->element.cq, struct fake_cq, base)->async_unacked;
    return &context->async_unacked;
}

int ibv_get_async_event(struct ibv_context *base, struct ibv_async_event *event)
{
    struct fake_context *context = fake_context_of(base);
    for (;;) {
        if (fake_fd_take(base->async_fd))
            return -1;
        fake_enter();
        struct fake_async *async = STAILQ_FIRST(&context->async);
        if (async) {
            STAILQ_REMOVE_HEAD(&context->async, link);
            *event = async->event;
            ++*counter_of(context, event);
            fake.living.unacked++;
            free(async);
        }
        fake_leave();
        if (async)
            return 0;
    }
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
    struct fake_context *context;
    fake_enter();
    if (is_of_qp(event->event_type) || is_of_cq(event->event_type)) {
        --*counter_of(NULL, event);
    } else {
        /* The event does not say whose it is; the real one counts nothing here. */
        LIST_FOREACH(context, &fake.contexts, link)
        {
            if (context->async_unacked)
                break;
        }
        if (!context)
            fake_die("an asynchronous event is acknowledged that was not fetched");
        context->async_unacked--;
    }
    fake.living.unacked--;
    pthread_cond_broadcast(&fake.changed);
    fake_leave();
}

void fake_async_forget(struct fake_context *context, const void *element)
{
    struct fake_async *async, *next;
    for (async = STAILQ_FIRST(&context->async); async; async = next) {
        next = STAILQ_NEXT(async, link);
        enum ibv_event_type type = async->event.event_type;
        if ((is_of_qp(type) && async->event.element.qp == element) ||
            (is_of_cq(type) && async->event.element.cq == element)) {
            STAILQ_REMOVE(&context->async, async, fake_async, link);
            free(async);
        }
    }
}
