/*
 * The life of a byte: send copies it into a frame of the send ring and posts a SEND; it lands in a receive that the
 * peer had posted, for which a credit was held (rdma/credits.h); recv copies it out and posts the receive again. The
 * life of a page: put notes the range, joins it with the one before where they adjoin, and posts it with others as one
 * chain of RDMA WRITEs, at the latest with the next frame; the device reads and writes guest memory by itself.
 *
 * Threads. One lock for the books of both directions; whoever waits gives it up. Completions of either queue are taken
 * by whoever comes first, and that one wakes the other. Waiting: poll for a few microseconds, then arm both queues,
 * poll once more (what came before the arming raises no event), then sleep on the completion channel, the connection
 * manager and the own eventfd. Sleeps end every TICK_MS at the latest, to look at the device's events.
 *
 * Failure modes: the first work request that fails for a reason of its own tells the reason, the flushed ones behind it
 * none. A peer that disconnects without an end of stream is RESET. A peer that is gone for good ends the retries of the
 * queue pair when there is traffic (below 4 s, see connect.c), and is the heartbeat's business when there is none. A
 * put that finds no room for PATIENCE_MS is STALLED: a device that neither completes nor fails.
 *
 * Accepted: the lock is held while a list is posted, which soft-RoCE does inside the system call, in milliseconds. A
 * data channel has one thread per side.
 */
#include "rdma/channel.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rdma/async.h"
#include "rdma/credits.h"
#include "rdma/frame.h"
#include "rdma/hints.h"
#include "rdma/queue.h"
#include "transport/clock.h"
#include "transport/error.h"

enum {
    MAX_IOV = 1024,
    MAX_PUT = 1 << 20, /* longer requests gain nothing, and delay what is posted behind them */
    INLINE_MAX = 64,
    RECEIVES = CREDITS_RING + CREDITS_SPARE,
    SENDS = 16,
    POLL_BATCH = 16,
    SPIN_NS = 10 * 1000,
    TICK_MS = 100,
    PATIENCE_MS = 10 * 1000, /* for calls that have no timeout of their own: progress-timeout's default */
    DRAIN_MS = 1000,         /* what free grants the last frames */
    RNR_TIMER = 12,          /* 0.64 ms; the default of the connection manager is 655 ms */
};

enum side { SENDING, RECEIVING, SIDES };

/* A put or get that waits to be posted. */
struct range {
    bool read;
    uint32_t lkey, rkey, size;
    uint64_t local, remote;
};

struct rdma_channel {
    struct channel base;

    /* constant after open */
    struct domain *domain; /* held */
    struct cm cm;
    struct ibv_context *verbs;
    struct ibv_comp_channel *completions;
    struct ibv_cq *send_cq, *recv_cq;
    struct ibv_qp_ex *qp;
    uint8_t *memory; /* the receives, then the sends: frames of FRAME_SIZE */
    struct ibv_mr *mr;
    int wake[SIDES]; /* eventfds, readable for good from shutdown on */

    atomic_bool shut;
    atomic_bool device_failed; /* see rdma_channel_async */

    pthread_mutex_t lock;
    /* under lock */
    enum godwit_err failure; /* the channel is broken */
    bool ended;              /* our end of stream is posted */
    bool peer_ended;
    bool peer_gone; /* disconnected: nothing is acknowledged any more */
    bool waiting[SIDES];
    uint64_t progress[SIDES]; /* grows with every completion that helps that side */
    struct queue queue;
    struct credits credits;
    struct range ranges[QUEUE_LIST];
    unsigned range_count;
    uint64_t range_bytes;
    struct {
        unsigned receive;
        uint32_t size; /* bytes of data */
    } filled[CREDITS_RING]; /* ring of frames to be read */
    unsigned filled_first, filled_count;
    uint32_t taken; /* bytes of the first that were read */
};

/* What a call waits for. */
struct need {
    unsigned requests; /* places in the send queue */
    uint64_t bytes;    /* of puts and gets among them */
    bool frame;        /* a credit and a buffer of the send ring */
    bool idle;         /* everything posted is complete */
    bool data;         /* something to read, or the end of the stream */
};

static uint8_t *receive_at(const struct rdma_channel *channel, unsigned index)
{
    return channel->memory + (size_t)index * FRAME_SIZE;
}

static uint8_t *send_at(const struct rdma_channel *channel, unsigned index)
{
    return receive_at(channel, RECEIVES + index);
}

static void kick(const struct rdma_channel *channel, enum side side)
{
    uint64_t one = 1;
    ssize_t n = write(channel->wake[side], &one, sizeof one);
    assert(n == sizeof one && "an eventfd that is drained takes a one");
    (void)n;
}

static void break_channel(struct rdma_channel *channel, enum godwit_err err, const char *detail)
{
    if (detail != NULL)
        channel_set_detail(&channel->base, detail);
    if (channel->failure == GODWIT_OK)
        channel->failure = err;
}

/* ---- posting ---- */

static bool post_receive(struct rdma_channel *channel, unsigned index)
{
    struct ibv_sge sge = {(uintptr_t)receive_at(channel, index), FRAME_SIZE, channel->mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = index, .sg_list = &sge, .num_sge = 1}, *bad;
    return ibv_post_recv(channel->cm.id->qp, &wr, &bad) == 0;
}

static void post_range(struct rdma_channel *channel, const struct range *range, bool last)
{
    struct ibv_qp_ex *qp = channel->qp;
    qp->wr_id = queue_post(&channel->queue, range->size, 0);
    qp->wr_flags = last ? IBV_SEND_SIGNALED : 0;
    if (range->read)
        ibv_wr_rdma_read(qp, range->rkey, range->remote);
    else
        ibv_wr_rdma_write(qp, range->rkey, range->remote);
    ibv_wr_set_sge(qp, range->lkey, range->local, range->size);
}

static enum godwit_err complete_posting(struct rdma_channel *channel)
{
    int rc = ibv_wr_complete(channel->qp);
    if (rc == 0)
        return GODWIT_OK;
    char detail[CHANNEL_DETAIL_MAX];
    snprintf(detail, sizeof detail, "the device took no more work: %s", strerror(rc));
    break_channel(channel, GODWIT_ERR_RESET, detail);
    return channel->failure;
}

/* All ranges as one chain, with the frame in the send buffer behind them if frame_size is not 0. Room was awaited. */
static enum godwit_err post_list(struct rdma_channel *channel, unsigned buffer, uint32_t frame_size)
{
    struct ibv_qp_ex *qp = channel->qp;
    ibv_wr_start(qp);
    for (unsigned i = 0; i < channel->range_count; i++)
        post_range(channel, &channel->ranges[i], frame_size == 0 && i + 1 == channel->range_count);
    if (frame_size > 0) {
        qp->wr_id = queue_post(&channel->queue, 0, 1);
        qp->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_send(qp);
        ibv_wr_set_sge(qp, channel->mr->lkey, (uintptr_t)send_at(channel, buffer), frame_size);
    }
    channel->range_count = 0;
    channel->range_bytes = 0;
    return complete_posting(channel);
}

/* A frame without data, out of the reserve. */
static void post_bare(struct rdma_channel *channel, bool end)
{
    uint8_t header[FRAME_HEADER];
    frame_encode(&(struct frame){.credits = channel->credits.returned, .end = end}, header);
    ibv_wr_start(channel->qp);
    channel->qp->wr_id = queue_post(&channel->queue, 0, 0);
    channel->qp->wr_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE;
    ibv_wr_send(channel->qp);
    ibv_wr_set_inline_data(channel->qp, header, sizeof header);
    channel->credits.announced = channel->credits.returned;
    complete_posting(channel);
}

static void return_credits(struct rdma_channel *channel)
{
    if (credits_due(&channel->credits) && channel->failure == GODWIT_OK && !channel->ended &&
        queue_has_reserve(&channel->queue))
        post_bare(channel, false);
}

/* ---- completions ---- */

static void take_sent(struct rdma_channel *channel, const struct ibv_wc *wc)
{
    char detail[CHANNEL_DETAIL_MAX];
    if (wc->status == IBV_WC_WR_FLUSH_ERR) {
        break_channel(channel, GODWIT_ERR_RESET, NULL);
    } else if (wc->status != IBV_WC_SUCCESS) {
        hint_completion(wc, "a request to the peer's device", detail, sizeof detail);
        break_channel(channel, GODWIT_ERR_RESET, detail);
    } else if (!queue_retire(&channel->queue, wc->wr_id)) {
        break_channel(channel, GODWIT_ERR_RESET, "the device completed a request that was not posted");
    }
    channel->progress[SENDING]++;
}

static void take_frame(struct rdma_channel *channel, unsigned index, uint32_t size)
{
    struct frame frame;
    if (!frame_decode(receive_at(channel, index), size, &frame) || !credits_take(&channel->credits, frame.credits) ||
        channel->peer_ended || (frame.size > 0 && channel->filled_count == CREDITS_RING)) {
        break_channel(channel, GODWIT_ERR_PROTOCOL, "the peer sent a malformed frame, or one it had no credit for");
        return;
    }
    channel->progress[SENDING]++;
    channel->peer_ended = frame.end;
    if (frame.size == 0) {
        if (!post_receive(channel, index))
            break_channel(channel, GODWIT_ERR_RESET, "the device took no receive");
        return;
    }
    unsigned at = (channel->filled_first + channel->filled_count++) % CREDITS_RING;
    channel->filled[at].receive = index;
    channel->filled[at].size = frame.size;
}

static void take_received(struct rdma_channel *channel, const struct ibv_wc *wc)
{
    char detail[CHANNEL_DETAIL_MAX];
    if (wc->status == IBV_WC_SUCCESS) {
        take_frame(channel, (unsigned)wc->wr_id, wc->byte_len);
    } else if (wc->status == IBV_WC_WR_FLUSH_ERR) {
        break_channel(channel, GODWIT_ERR_RESET, NULL);
    } else {
        hint_completion(wc, "receiving from the peer", detail, sizeof detail);
        break_channel(channel, GODWIT_ERR_RESET, detail);
    }
    channel->progress[RECEIVING]++;
}

/* Takes what one queue has; true: there was something. */
static bool take_all(struct rdma_channel *channel, struct ibv_cq *cq,
                     void (*take)(struct rdma_channel *channel, const struct ibv_wc *wc))
{
    struct ibv_wc wcs[POLL_BATCH];
    bool any = false;
    int n;
    while ((n = ibv_poll_cq(cq, POLL_BATCH, wcs)) > 0) {
        any = true;
        for (int i = 0; i < n; i++)
            take(channel, &wcs[i]);
    }
    if (n < 0)
        break_channel(channel, GODWIT_ERR_RESET, "the device's completion queue cannot be read");
    return any;
}

/* Takes what both queues have; true: there was something. The other side's waiter is woken for its share. */
static bool pump(struct rdma_channel *channel, enum side side)
{
    /* Sends first: a peer that answers and goes has its answer counted before the flushes. */
    bool any = take_all(channel, channel->send_cq, take_sent);
    any |= take_all(channel, channel->recv_cq, take_received);
    return_credits(channel);
    if (any && channel->waiting[!side])
        kick(channel, !side);
    return any;
}

static void take_cm_event(struct rdma_channel *channel, const struct rdma_cm_event *event)
{
    struct godwit_error error;
    switch (event->event) {
    case RDMA_CM_EVENT_ESTABLISHED: /* the listening side's, late */
    case RDMA_CM_EVENT_TIMEWAIT_EXIT:
    case RDMA_CM_EVENT_ADDR_CHANGE:
    case RDMA_CM_EVENT_UNREACHABLE: /* on an established connection only a hint: a neighbour's entry changed */
        return;
    case RDMA_CM_EVENT_DISCONNECTED:
        channel->peer_gone = true;
        pump(channel, RECEIVING); /* what came before it */
        if (!channel->peer_ended)
            break_channel(channel, GODWIT_ERR_RESET, "the peer's process ended, or its side of the connection broke");
        break;
    default:
        hint_cm_event(event, CM_ESTABLISHED, channel->base.name, &error);
        break_channel(channel, GODWIT_ERR_RESET, error.text);
    }
    channel->progress[SENDING]++;
    channel->progress[RECEIVING]++;
    for (enum side side = SENDING; side < SIDES; side++)
        if (channel->waiting[side])
            kick(channel, side);
}

static void take_events(struct rdma_channel *channel, enum side side)
{
    struct ibv_cq *cq;
    void *opaque;
    while (ibv_get_cq_event(channel->completions, &cq, &opaque) == 0)
        ibv_ack_cq_events(cq, 1);
    for (struct rdma_cm_event *event; (event = cm_next(channel->cm.events)) != NULL; rdma_ack_cm_event(event))
        take_cm_event(channel, event);
    uint64_t count;
    if (!atomic_load_explicit(&channel->shut, memory_order_relaxed)) {
        ssize_t n = read(channel->wake[side], &count, sizeof count);
        (void)n; /* nothing there is fine */
    }
    rdma_async_drain(channel->verbs);
    if (atomic_load_explicit(&channel->device_failed, memory_order_relaxed))
        break_channel(channel, GODWIT_ERR_RESET, NULL);
}

/* ---- waiting ---- */

static bool spin(struct rdma_channel *channel, enum side side)
{
    uint64_t until = clock_now_ns() + SPIN_NS;
    do
        if (pump(channel, side))
            return true;
    while (clock_now_ns() < until);
    return false;
}

static void sleep_once(struct rdma_channel *channel, enum side side, uint64_t deadline_ms)
{
    if (spin(channel, side))
        return;
    if (ibv_req_notify_cq(channel->send_cq, 0) != 0 || ibv_req_notify_cq(channel->recv_cq, 0) != 0)
        break_channel(channel, GODWIT_ERR_RESET, "the device's completion queue cannot be armed");
    if (pump(channel, side))
        return;
    struct pollfd pollfds[] = {{.fd = channel->completions->fd, .events = POLLIN},
                               {.fd = channel->cm.events->fd, .events = POLLIN},
                               {.fd = channel->wake[side], .events = POLLIN}};
    int left = clock_left_ms(deadline_ms);
    channel->waiting[side] = true;
    pthread_mutex_unlock(&channel->lock);
    poll(pollfds, 3, left < TICK_MS ? left : TICK_MS);
    pthread_mutex_lock(&channel->lock);
    channel->waiting[side] = false;
    take_events(channel, side);
}

static bool met(const struct rdma_channel *channel, const struct need *need)
{
    if (need->data)
        return channel->filled_count > 0;
    if (need->idle)
        return queue_idle(&channel->queue);
    const struct queue *queue = &channel->queue;
    return queue_has_room(queue, need->requests, need->bytes) &&
           (!need->frame || (credits_may_send(&channel->credits) &&
                             (uint32_t)(queue->posted_buffers - queue->retired_buffers) < SENDS));
}

/* Why this side cannot go on; OK: it can. */
static enum godwit_err state(const struct rdma_channel *channel, enum side side)
{
    if (atomic_load_explicit(&channel->shut, memory_order_relaxed))
        return GODWIT_ERR_CLOSED;
    if (side == RECEIVING && channel->peer_ended)
        return GODWIT_ERR_PEER_CLOSED;
    if (channel->failure != GODWIT_OK)
        return channel->failure;
    return channel->peer_ended ? GODWIT_ERR_RESET : GODWIT_OK;
}

static uint64_t deadline_after(int timeout_ms)
{
    return timeout_ms == CHANNEL_FOREVER ? UINT64_MAX : clock_now_ms() + (uint64_t)timeout_ms;
}

/* Waits under the lock; TIMEOUT when nothing moved for timeout_ms. Data that came before a failure is still read. */
static enum godwit_err await(struct rdma_channel *channel, enum side side, const struct need *need, int timeout_ms)
{
    uint64_t deadline = deadline_after(timeout_ms), seen = channel->progress[side];
    for (;;) {
        pump(channel, side);
        enum godwit_err err = state(channel, side);
        bool done = met(channel, need);
        if (err == GODWIT_ERR_CLOSED || (err != GODWIT_OK && !(done && need->data))) {
            if (err == GODWIT_ERR_RESET)
                take_events(channel, side); /* what was flushed has its reason there */
            return err;
        }
        if (done)
            return GODWIT_OK;
        if (channel->progress[side] != seen) {
            seen = channel->progress[side];
            deadline = deadline_after(timeout_ms);
        }
        if (clock_left_ms(deadline) == 0)
            return GODWIT_ERR_TIMEOUT;
        sleep_once(channel, side, deadline);
    }
}

/* ---- the operations ---- */

/* The frame that is being filled from head and payload. */
struct cursor {
    const struct iovec *iov;
    unsigned count;
    size_t at; /* in iov[0] */
};

static uint32_t copy_in(struct cursor *cursor, uint8_t *to, uint32_t room)
{
    uint32_t used = 0;
    while (cursor->count > 0 && used < room) {
        size_t left = cursor->iov->iov_len - cursor->at;
        size_t step = left < room - used ? left : room - used;
        if (step > 0)
            memcpy(to + used, (const uint8_t *)cursor->iov->iov_base + cursor->at, step);
        used += (uint32_t)step;
        cursor->at += step;
        if (cursor->at == cursor->iov->iov_len) {
            cursor->iov++;
            cursor->count--;
            cursor->at = 0;
        }
    }
    return used;
}

static enum godwit_err send_all(struct rdma_channel *channel, struct cursor *cursor, int timeout_ms, bool *moved)
{
    while (cursor->count > 0) {
        if (cursor->iov->iov_len == cursor->at) {
            cursor->iov++;
            cursor->count--;
            cursor->at = 0;
            continue;
        }
        struct need need = {.requests = channel->range_count + 1, .bytes = channel->range_bytes, .frame = true};
        enum godwit_err err = await(channel, SENDING, &need, timeout_ms);
        if (err != GODWIT_OK)
            return err;
        unsigned buffer = channel->queue.posted_buffers % SENDS;
        uint8_t *frame = send_at(channel, buffer);
        uint32_t size = copy_in(cursor, frame + FRAME_HEADER, FRAME_DATA);
        frame_encode(&(struct frame){.credits = channel->credits.returned, .size = size}, frame);
        channel->credits.announced = channel->credits.returned;
        channel->credits.sent++;
        err = post_list(channel, buffer, FRAME_HEADER + size);
        if (err != GODWIT_OK)
            return err;
        *moved = true;
    }
    return GODWIT_OK;
}

static enum godwit_err rdma_send(struct channel *base, const void *head, size_t head_size, const struct iovec *payload,
                                 unsigned count, int timeout_ms)
{
    struct rdma_channel *channel = (struct rdma_channel *)base;
    struct iovec first = {(void *)(uintptr_t)head, head_size}; /* only read */
    struct cursor cursors[] = {{&first, head_size > 0, 0}, {payload, count, 0}};
    bool moved = false;
    pthread_mutex_lock(&channel->lock);
    enum godwit_err err = state(channel, SENDING);
    /* A small payload shares its head's frame only when it is one: what is copied is the exception here. */
    for (unsigned i = 0; i < 2 && err == GODWIT_OK; i++)
        err = send_all(channel, &cursors[i], timeout_ms, &moved);
    if (err == GODWIT_ERR_TIMEOUT && moved)
        err = GODWIT_ERR_STALLED;
    if (err == GODWIT_ERR_STALLED)
        break_channel(channel, err, NULL);
    pthread_mutex_unlock(&channel->lock);
    return err;
}

/* Gives the buffer of the first filled frame back. */
static void release_frame(struct rdma_channel *channel)
{
    unsigned index = channel->filled[channel->filled_first].receive;
    channel->filled_first = (channel->filled_first + 1) % CREDITS_RING;
    channel->filled_count--;
    channel->taken = 0;
    if (channel->failure != GODWIT_OK)
        return;
    if (!post_receive(channel, index)) {
        break_channel(channel, GODWIT_ERR_RESET, "the device took no receive");
        return;
    }
    channel->credits.returned++;
    return_credits(channel);
}

static size_t copy_out(struct rdma_channel *channel, struct iovec *to)
{
    const uint8_t *data = receive_at(channel, channel->filled[channel->filled_first].receive) + FRAME_HEADER;
    uint32_t left = channel->filled[channel->filled_first].size - channel->taken;
    size_t step = left < to->iov_len ? left : to->iov_len;
    memcpy(to->iov_base, data + channel->taken, step);
    to->iov_base = (uint8_t *)to->iov_base + step;
    to->iov_len -= step;
    channel->taken += (uint32_t)step;
    if (step == left)
        release_frame(channel);
    return step;
}

static enum godwit_err rdma_recv(struct channel *base, struct iovec *iov, unsigned count, int timeout_ms)
{
    struct rdma_channel *channel = (struct rdma_channel *)base;
    const struct need need = {.data = true};
    bool moved = false;
    pthread_mutex_lock(&channel->lock);
    enum godwit_err err = atomic_load(&channel->shut) ? GODWIT_ERR_CLOSED : GODWIT_OK;
    while (count > 0 && err == GODWIT_OK) {
        if (iov->iov_len == 0) {
            iov++;
            count--;
            continue;
        }
        if (channel->filled_count == 0)
            err = await(channel, RECEIVING, &need, timeout_ms);
        if (err == GODWIT_OK)
            moved |= copy_out(channel, iov) > 0;
    }
    if (err == GODWIT_ERR_TIMEOUT && moved)
        err = GODWIT_ERR_STALLED;
    if (err == GODWIT_ERR_PEER_CLOSED && moved)
        err = GODWIT_ERR_RESET;
    if (err == GODWIT_ERR_STALLED)
        break_channel(channel, err, NULL);
    pthread_mutex_unlock(&channel->lock);
    return err;
}

static enum godwit_err post_ranges(struct rdma_channel *channel, int timeout_ms)
{
    if (channel->range_count == 0)
        return GODWIT_OK;
    struct need need = {.requests = channel->range_count, .bytes = channel->range_bytes};
    enum godwit_err err = await(channel, SENDING, &need, timeout_ms);
    if (err == GODWIT_ERR_TIMEOUT) {
        err = GODWIT_ERR_STALLED;
        break_channel(channel, err, "the device neither completes nor fails what it was given");
    }
    return err == GODWIT_OK ? post_list(channel, 0, 0) : err;
}

static bool adjoins(const struct range *last, const struct range *next)
{
    return last->read == next->read && last->lkey == next->lkey && last->rkey == next->rkey &&
           last->local + last->size == next->local && last->remote + last->size == next->remote &&
           last->size + next->size <= MAX_PUT;
}

static enum godwit_err queue_range(struct rdma_channel *channel, const struct range *range)
{
    pthread_mutex_lock(&channel->lock);
    enum godwit_err err = state(channel, SENDING);
    if (err == GODWIT_OK && (channel->range_count == QUEUE_LIST || channel->range_bytes >= QUEUE_LIST_BYTES))
        err = post_ranges(channel, PATIENCE_MS);
    if (err == GODWIT_OK) {
        struct range *last = channel->range_count > 0 ? &channel->ranges[channel->range_count - 1] : NULL;
        if (last != NULL && adjoins(last, range))
            last->size += range->size;
        else
            channel->ranges[channel->range_count++] = *range;
        channel->range_bytes += range->size;
    }
    pthread_mutex_unlock(&channel->lock);
    return err;
}

static struct range make_range(bool read, const struct mr *mr, uint64_t mr_offset, const struct remote *remote,
                               uint64_t remote_offset, uint64_t size)
{
    const struct rdma_mr *from = (const struct rdma_mr *)mr;
    const struct rdma_remote *to = (const struct rdma_remote *)remote;
    return (struct range){.read = read,
                          .lkey = from->mr->lkey,
                          .rkey = to->rkey,
                          .size = (uint32_t)size,
                          .local = from->iova + mr_offset,
                          .remote = to->iova + remote_offset};
}

static enum godwit_err rdma_put(struct channel *base, const struct mr *mr, uint64_t mr_offset,
                                const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    struct range range = make_range(false, mr, mr_offset, remote, remote_offset, size);
    return queue_range((struct rdma_channel *)base, &range);
}

static enum godwit_err rdma_get(struct channel *base, const struct mr *mr, uint64_t mr_offset,
                                const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    struct range range = make_range(true, mr, mr_offset, remote, remote_offset, size);
    return queue_range((struct rdma_channel *)base, &range);
}

static enum godwit_err rdma_flush(struct channel *base, int timeout_ms)
{
    struct rdma_channel *channel = (struct rdma_channel *)base;
    const struct need need = {.idle = true};
    pthread_mutex_lock(&channel->lock);
    enum godwit_err err = post_ranges(channel, timeout_ms);
    if (err == GODWIT_OK)
        err = await(channel, SENDING, &need, timeout_ms);
    if (err == GODWIT_ERR_TIMEOUT)
        err = GODWIT_ERR_STALLED;
    if (err == GODWIT_ERR_STALLED)
        break_channel(channel, err, "the device neither completes nor fails what it was given");
    pthread_mutex_unlock(&channel->lock);
    return err;
}

static void rdma_shutdown(struct channel *base)
{
    struct rdma_channel *channel = (struct rdma_channel *)base;
    if (atomic_exchange(&channel->shut, true))
        return;
    pthread_mutex_lock(&channel->lock);
    channel->range_count = 0; /* puts that no send followed never happen */
    channel->range_bytes = 0;
    if (channel->failure == GODWIT_OK && queue_has_reserve(&channel->queue))
        post_bare(channel, true);
    channel->ended = true;
    pthread_mutex_unlock(&channel->lock);
    kick(channel, SENDING);
    kick(channel, RECEIVING);
}

/*
 * In this order, because each step takes away what the one before it may still use: the last frames are given time; the
 * queue pair goes into its error state, which ends what the peer may do to this host's memory; it is destroyed, after
 * which the device writes no completion; then the queues, whose events are all acknowledged; their event channel; the
 * rings, which no request names any more; the identifier, whose events are acknowledged too; our hold on the domain,
 * whose memory and queue pairs these were.
 */
static void destroy(struct rdma_channel *channel)
{
    if (channel->qp != NULL)
        rdma_destroy_qp(channel->cm.id);
    if (channel->send_cq != NULL)
        ibv_destroy_cq(channel->send_cq);
    if (channel->recv_cq != NULL)
        ibv_destroy_cq(channel->recv_cq);
    if (channel->completions != NULL)
        ibv_destroy_comp_channel(channel->completions);
    if (channel->mr != NULL)
        ibv_dereg_mr(channel->mr);
    if (channel->memory != NULL)
        munmap(channel->memory, (size_t)(RECEIVES + SENDS) * FRAME_SIZE);
    cm_fini(&channel->cm);
    domain_free(channel->domain);
    for (enum side side = SENDING; side < SIDES; side++)
        if (channel->wake[side] >= 0)
            close(channel->wake[side]);
    pthread_mutex_destroy(&channel->lock);
    free(channel);
}

static void drain(struct rdma_channel *channel)
{
    uint64_t deadline = clock_now_ms() + DRAIN_MS;
    pthread_mutex_lock(&channel->lock);
    while (channel->failure == GODWIT_OK && !channel->peer_gone && !queue_idle(&channel->queue) &&
           clock_left_ms(deadline) > 0) {
        if (pump(channel, SENDING) || ibv_req_notify_cq(channel->send_cq, 0) != 0 || pump(channel, SENDING))
            continue;
        /* The eventfds are readable for good, and not slept on. */
        struct pollfd pollfds[] = {{.fd = channel->completions->fd, .events = POLLIN},
                                   {.fd = channel->cm.events->fd, .events = POLLIN}};
        poll(pollfds, 2, TICK_MS);
        take_events(channel, SENDING);
    }
    take_events(channel, SENDING);
    pthread_mutex_unlock(&channel->lock);
}

static void rdma_free(struct channel *base)
{
    struct rdma_channel *channel = (struct rdma_channel *)base;
    drain(channel);
    rdma_disconnect(channel->cm.id); /* fails where the connection is gone: that is as good */
    destroy(channel);
}

static const struct channel_ops rdma_channel_ops = {
    .name = "rdma",
    .send = rdma_send,
    .recv = rdma_recv,
    .put = rdma_put,
    .get = rdma_get,
    .flush = rdma_flush,
    .shutdown = rdma_shutdown,
    .free = rdma_free,
};

/* ---- opening ---- */

static enum godwit_err open_queues(struct rdma_channel *channel, struct rdma_domain *domain,
                                   struct godwit_error *error)
{
    channel->completions = ibv_create_comp_channel(channel->verbs);
    if (channel->completions == NULL)
        return hint_resource(errno, "make a completion channel", 0, error);
    int fd = channel->completions->fd;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    /* Every request, signalled or not, completes when the queue pair breaks: places for all of them. */
    channel->send_cq = ibv_create_cq(channel->verbs, QUEUE_DEPTH, channel, channel->completions, 0);
    channel->recv_cq =
        channel->send_cq != NULL ? ibv_create_cq(channel->verbs, RECEIVES, channel, channel->completions, 0) : NULL;
    if (channel->recv_cq == NULL)
        return hint_resource(errno, "make completion queues", 0, error);
    struct ibv_qp_init_attr_ex attributes = {
        .qp_context = channel,
        .send_cq = channel->send_cq,
        .recv_cq = channel->recv_cq,
        .cap = {.max_send_wr = QUEUE_DEPTH,
                .max_recv_wr = RECEIVES,
                .max_send_sge = 1,
                .max_recv_sge = 1,
                .max_inline_data = INLINE_MAX},
        .qp_type = IBV_QPT_RC,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .pd = domain->pd,
        .send_ops_flags = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_SEND,
    };
    if (rdma_create_qp_ex(channel->cm.id, &attributes) != 0)
        return hint_resource(errno, "make a queue pair", 0, error);
    channel->qp = ibv_qp_to_qp_ex(channel->cm.id->qp);
    return GODWIT_OK;
}

static enum godwit_err open_rings(struct rdma_channel *channel, struct rdma_domain *domain, struct godwit_error *error)
{
    size_t size = (size_t)(RECEIVES + SENDS) * FRAME_SIZE;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return error_set_sys(error, GODWIT_ERR_NO_MEMORY, errno, "no memory for the rings of a channel");
    channel->memory = memory;
    channel->mr = ibv_reg_mr(domain->pd, memory, size, IBV_ACCESS_LOCAL_WRITE);
    if (channel->mr == NULL)
        return hint_resource(errno, "register the rings of a channel", size, error);
    for (unsigned i = 0; i < RECEIVES; i++)
        if (!post_receive(channel, i))
            return hint_resource(errno, "post the receives of a channel", 0, error);
    return GODWIT_OK;
}

static enum godwit_err open_wakes(struct rdma_channel *channel, struct godwit_error *error)
{
    for (enum side side = SENDING; side < SIDES; side++)
        if ((channel->wake[side] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
            return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot make an eventfd");
    return GODWIT_OK;
}

enum godwit_err rdma_channel_open(struct cm *cm, struct rdma_domain *domain, const char *name,
                                  struct rdma_channel **out, struct godwit_error *error)
{
    struct rdma_channel *channel = calloc(1, sizeof *channel);
    if (channel == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a channel");
    channel->base.ops = &rdma_channel_ops;
    channel->base.limits =
        (struct channel_limits){.max_iov = MAX_IOV, .max_put = MAX_PUT, .put_align = 1, .one_sided = true};
    snprintf(channel->base.name, sizeof channel->base.name, "%s", name);
    snprintf(channel->base.device, sizeof channel->base.device, "%s", ibv_get_device_name(cm->id->verbs->device));
    channel->wake[SENDING] = channel->wake[RECEIVING] = -1;
    channel->verbs = cm->id->verbs;
    pthread_mutex_init(&channel->lock, NULL);
    channel->cm = *cm;
    channel->domain = &domain->base;
    domain_hold(channel->domain);

    rdma_async_prepare(channel->verbs);
    enum godwit_err err = open_wakes(channel, error);
    if (err == GODWIT_OK)
        err = open_queues(channel, domain, error);
    if (err == GODWIT_OK)
        err = open_rings(channel, domain, error);
    if (err != GODWIT_OK) {
        if (channel->qp != NULL)
            rdma_destroy_qp(channel->cm.id);
        channel->qp = NULL;
        channel->cm = (struct cm){0}; /* still the caller's */
        destroy(channel);
        return err;
    }
    channel->base.queue_pair = channel->cm.id->qp->qp_num;
    *cm = (struct cm){0};
    *out = channel;
    return GODWIT_OK;
}

void rdma_channel_abandon(struct rdma_channel *channel)
{
    destroy(channel);
}

void rdma_channel_connected(struct rdma_channel *channel)
{
    /* Credits keep the peer from ever needing it; should it, 0.64 ms instead of 655. Allowed in this state, and without
     * consequence where a device refuses. */
    struct ibv_qp_attr attributes = {.min_rnr_timer = RNR_TIMER};
    ibv_modify_qp(channel->cm.id->qp, &attributes, IBV_QP_MIN_RNR_TIMER);
}

struct cm *rdma_channel_cm(struct rdma_channel *channel)
{
    return &channel->cm;
}

struct channel *rdma_channel_base(struct rdma_channel *channel)
{
    return &channel->base;
}

void rdma_channel_async(struct rdma_channel *channel, const char *hint)
{
    if (hint != NULL)
        channel_set_detail(&channel->base, hint);
    atomic_store(&channel->device_failed, true);
}
