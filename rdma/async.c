/*
 * The object of an event cannot be freed under us: destroying it waits until its events are acknowledged. So a channel
 * that is found through its queue pair lives until the acknowledgement.
 */
#include "rdma/async.h"

#include <fcntl.h>

#include "rdma/channel.h"
#include "rdma/hints.h"

void rdma_async_prepare(struct ibv_context *verbs)
{
    fcntl(verbs->async_fd, F_SETFL, fcntl(verbs->async_fd, F_GETFL) | O_NONBLOCK);
}

static struct rdma_channel *channel_of(const struct ibv_async_event *event)
{
    switch (event->event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
        return event->element.qp->qp_context;
    case IBV_EVENT_CQ_ERR:
        return event->element.cq->cq_context;
    default: /* a device that fails or is removed is told to each identifier by the connection manager */
        return NULL;
    }
}

void rdma_async_drain(struct ibv_context *verbs)
{
    struct ibv_async_event event;
    while (ibv_get_async_event(verbs, &event) == 0) {
        struct rdma_channel *channel = channel_of(&event);
        if (channel != NULL)
            rdma_channel_async(channel, hint_async(event.event_type));
        ibv_ack_async_event(&event);
    }
}
