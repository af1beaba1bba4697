/*
 * librdmacm opens each device once for the whole process, so its events are everybody's: of channels of any domain,
 * and of whoever else uses the library beside us. What an event points to is therefore looked up in a list of our own
 * before anything believes it; the list is the process's as the device is. Events of others are dropped, for nothing
 * hands them on.
 *
 * A channel leaves under the lock of the list, so one that was found lives until its event is noted.
 */
#include "rdma/async.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/queue.h>

#include "rdma/channel_private.h"
#include "rdma/hints.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, rdma_channel) channels = LIST_HEAD_INITIALIZER(channels);

void rdma_async_join(struct rdma_channel *channel, struct ibv_context *verbs)
{
    fcntl(verbs->async_fd, F_SETFL, fcntl(verbs->async_fd, F_GETFL) | O_NONBLOCK);
    pthread_mutex_lock(&lock);
    LIST_INSERT_HEAD(&channels, channel, async_link);
    channel->async_joined = true;
    pthread_mutex_unlock(&lock);
}

void rdma_async_leave(struct rdma_channel *channel)
{
    pthread_mutex_lock(&lock);
    if (channel->async_joined)
        LIST_REMOVE(channel, async_link);
    channel->async_joined = false;
    pthread_mutex_unlock(&lock);
}

/* Compared only: it may be anybody's. */
static const void *owner_of(const struct ibv_async_event *event)
{
    switch (event->event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
        return event->element.qp->qp_context;
    case IBV_EVENT_CQ_ERR:
        return event->element.cq->cq_context;
    default:
        return NULL;
    }
}

static void note(const struct ibv_async_event *event)
{
    const void *owner = owner_of(event);
    struct rdma_channel *channel;
    pthread_mutex_lock(&lock);
    LIST_FOREACH (channel, &channels, async_link)
        if (channel == owner)
            rdma_channel_async(channel, hint_async(event->event_type));
    pthread_mutex_unlock(&lock);
}

void rdma_async_drain(struct ibv_context *verbs)
{
    struct ibv_async_event event;
    while (ibv_get_async_event(verbs, &event) == 0) {
        note(&event);
        ibv_ack_async_event(&event);
    }
}
