/*
 * Completion queues and the channels that announce them. Polling an entry is what frees slots and makes bytes visible;
 * until then nothing is promised, so until then the fake does nothing.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/rdma/fake_private.h"

enum { RUBBISH = 0xa5 };

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
    struct fake_channel *channel = calloc(1, sizeof *channel);
    fake_enter();
    errno = fake_call(FAKE_CALL_CREATE_COMP_CHANNEL);
    int fd = errno || !channel ? -1 : fake_fd_new();
    if (fd >= 0) {
        channel->base = (struct ibv_comp_channel){.context = context, .fd = fd};
        STAILQ_INIT(&channel->events);
        fake_context_of(context)->objects++;
        fake.living.comp_channels++;
    }
    fake_leave();
    if (fd >= 0)
        return &channel->base;
    free(channel);
    return NULL;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *base)
{
    struct fake_channel *channel = FAKE_OF(base, struct fake_channel, base);
    fake_enter();
    int err = base->refcnt ? EBUSY : 0;
    if (!err) {
        close(base->fd);
        fake_context_of(base->context)->objects--;
        fake.living.comp_channels--;
        free(channel);
    }
    fake_leave();
    return err;
}

static struct ibv_cq *cq_new(struct ibv_context *context, int cqe, void *cq_context, struct ibv_comp_channel *channel)
{
    struct fake_cq *cq = calloc(1, sizeof *cq);
    if (!cq)
        return NULL;
    cq->base = (struct ibv_cq){.context = context, .channel = channel, .cq_context = cq_context, .cqe = cqe};
    pthread_mutex_init(&cq->base.mutex, NULL);
    pthread_cond_init(&cq->base.cond, NULL);
    STAILQ_INIT(&cq->cqes);
    LIST_INSERT_HEAD(&fake.cqs, cq, link);
    fake_context_of(context)->objects++;
    fake.living.cqs++;
    if (channel)
        channel->refcnt++;
    return &cq->base;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int cqe, void *cq_context, struct ibv_comp_channel *channel,
                             int comp_vector)
{
    fake_enter();
    errno = fake_call(FAKE_CALL_CREATE_CQ);
    if (!errno &&
        (cqe < 1 || cqe > fake.setup.limits.max_cqe || comp_vector < 0 || comp_vector >= context->num_comp_vectors))
        errno = EINVAL;
    struct ibv_cq *cq = errno ? NULL : cq_new(context, cqe, cq_context, channel);
    fake_leave();
    return cq;
}

/* Announcements that nobody fetched go with their queue; the channel may stay readable in vain. */
static void drop_events(struct fake_cq *cq)
{
    if (!cq->base.channel)
        return;
    struct fake_channel *channel = FAKE_OF(cq->base.channel, struct fake_channel, base);
    struct fake_comp_event *event, *next;
    for (event = STAILQ_FIRST(&channel->events); event; event = next) {
        next = STAILQ_NEXT(event, link);
        if (event->cq == cq) {
            STAILQ_REMOVE(&channel->events, event, fake_comp_event, link);
            free(event);
        }
    }
    cq->base.channel->refcnt--;
}

static void cqe_free(struct fake_cqe *cqe)
{
    fake_place_drop(&cqe->placements);
    free(cqe);
}

int ibv_destroy_cq(struct ibv_cq *base)
{
    struct fake_cq *cq = FAKE_OF(base, struct fake_cq, base);
    fake_enter();
    if (cq->users) {
        fake_leave();
        return EBUSY;
    }
    drop_events(cq);
    fake_async_forget(fake_context_of(base->context), base);
    fake_await_acks(&cq->comp_unacked, "a completion queue");
    fake_await_acks(&cq->async_unacked, "a completion queue");
    struct fake_cqe *cqe;
    while ((cqe = STAILQ_FIRST(&cq->cqes))) {
        STAILQ_REMOVE_HEAD(&cq->cqes, link);
        cqe_free(cqe);
    }
    LIST_REMOVE(cq, link);
    fake_context_of(base->context)->objects--;
    fake.living.cqs--;
    fake_leave();
    pthread_cond_destroy(&base->cond);
    pthread_mutex_destroy(&base->mutex);
    free(cq);
    return 0;
}

struct fake_cqe *fake_cqe_new(struct fake_qp *qp, uint64_t wr_id, enum ibv_wc_status status)
{
    struct fake_cqe *cqe = calloc(1, sizeof *cqe);
    if (!cqe)
        fake_die("no memory");
    memset(&cqe->wc, status == IBV_WC_SUCCESS ? 0 : RUBBISH, sizeof cqe->wc);
    cqe->wc.wr_id = wr_id;
    cqe->wc.status = status;
    cqe->wc.vendor_err = (uint32_t)status;
    cqe->wc.qp_num = qp->ex.qp_base.qp_num;
    cqe->qp = qp;
    STAILQ_INIT(&cqe->placements);
    return cqe;
}

static void announce(struct fake_cq *cq)
{
    struct fake_channel *channel = FAKE_OF(cq->base.channel, struct fake_channel, base);
    struct fake_comp_event *event = calloc(1, sizeof *event);
    if (!event)
        fake_die("no memory");
    event->cq = cq;
    cq->armed = FAKE_ARMED_NOT;
    STAILQ_INSERT_TAIL(&channel->events, event, link);
    fake_fd_post(channel->base.fd);
}

void fake_cq_push(struct ibv_cq *base, struct fake_cqe *cqe)
{
    struct fake_cq *cq = FAKE_OF(base, struct fake_cq, base);
    if (cq->count == base->cqe)
        fake_die("a completion queue of %d entries overflows", base->cqe);
    STAILQ_INSERT_TAIL(&cq->cqes, cqe, link);
    cq->count++;
    bool solicited = cqe->solicited || cqe->wc.status != IBV_WC_SUCCESS;
    if (base->channel && (cq->armed == FAKE_ARMED_NEXT || (cq->armed == FAKE_ARMED_SOLICITED && solicited)))
        announce(cq);
}

/* What the caller learns from an entry holds from now on. */
static void deliver(struct fake_cqe *cqe)
{
    fake_place(&cqe->placements, NULL);
    if (cqe->qp) {
        cqe->qp->sq_used -= cqe->send_slots;
        cqe->qp->rq_used -= cqe->recv_slots;
    }
}

int fake_poll_cq(struct ibv_cq *base, int count, struct ibv_wc *wc)
{
    struct fake_cq *cq = FAKE_OF(base, struct fake_cq, base);
    fake_enter();
    int polled = fake_call(FAKE_CALL_POLL_CQ) ? -1 : 0;
    struct fake_cqe *cqe;
    while (polled >= 0 && polled < count && (cqe = STAILQ_FIRST(&cq->cqes))) {
        STAILQ_REMOVE_HEAD(&cq->cqes, link);
        cq->count--;
        deliver(cqe);
        wc[polled++] = cqe->wc;
        cqe_free(cqe);
    }
    while (fake.babbling && polled >= 0 && polled < count)
        wc[polled++] = (struct ibv_wc){.wr_id = UINT64_MAX, .status = IBV_WC_SUCCESS, .opcode = IBV_WC_SEND};
    fake_leave();
    return polled;
}

void fake_babble(bool babbling)
{
    fake_enter();
    fake.babbling = babbling;
    fake_leave();
}

int fake_req_notify_cq(struct ibv_cq *base, int solicited_only)
{
    struct fake_cq *cq = FAKE_OF(base, struct fake_cq, base);
    fake_enter();
    int err = fake_call(FAKE_CALL_REQ_NOTIFY);
    if (!err && cq->armed != FAKE_ARMED_NEXT)
        cq->armed = solicited_only ? FAKE_ARMED_SOLICITED : FAKE_ARMED_NEXT;
    fake_leave();
    return err;
}

int ibv_get_cq_event(struct ibv_comp_channel *base, struct ibv_cq **cq, void **cq_context)
{
    struct fake_channel *channel = FAKE_OF(base, struct fake_channel, base);
    for (;;) {
        if (fake_fd_take(base->fd))
            return -1;
        fake_enter();
        struct fake_comp_event *event = STAILQ_FIRST(&channel->events);
        if (event) {
            STAILQ_REMOVE_HEAD(&channel->events, link);
            event->cq->comp_unacked++;
            fake.living.unacked++;
            *cq = &event->cq->base;
            *cq_context = event->cq->base.cq_context;
            free(event);
        }
        fake_leave();
        if (event)
            return 0;
    }
}

void ibv_ack_cq_events(struct ibv_cq *base, unsigned count)
{
    struct fake_cq *cq = FAKE_OF(base, struct fake_cq, base);
    fake_enter();
    if (count > cq->comp_unacked)
        fake_die("%u completion events acknowledged, %u were fetched", count, cq->comp_unacked);
    cq->comp_unacked -= count;
    fake.living.unacked -= count;
    pthread_cond_broadcast(&fake.changed);
    fake_leave();
}

void fake_cqs_forget(const struct fake_qp *qp)
{
    struct fake_cq *cq;
    struct fake_cqe *cqe;
    LIST_FOREACH(cq, &fake.cqs, link)
    {
        STAILQ_FOREACH(cqe, &cq->cqes, link)
        {
            if (cqe->qp == qp) {
                fake_place(&cqe->placements, NULL);
                cqe->qp = NULL;
            }
        }
    }
}

void fake_cqs_place(const struct fake_mr *mr)
{
    struct fake_cq *cq;
    struct fake_cqe *cqe;
    LIST_FOREACH(cq, &fake.cqs, link)
    {
        STAILQ_FOREACH(cqe, &cq->cqes, link)
        fake_place(&cqe->placements, mr);
    }
}
