/*
 * The life of a byte: send copies it into a frame of the send ring and posts a SEND; it lands in a receive that the
 * peer had posted, for which a credit was held (rdma/credits.h); recv copies it out and posts the receive again. The
 * life of a page: put notes the range, joins it with the one before where they adjoin, and posts it with others as one
 * chain of RDMA WRITEs, at the latest with the next frame; the device reads and writes guest memory by itself.
 *
 * Threads. One lock for the books of both directions; whoever waits gives it up. Ranges that are not posted yet are the
 * sending thread's, and need none. Completions of either queue are taken
 * by whoever comes first, and that one wakes the other. Waiting: poll for a few microseconds, then arm the queue whose
 * completions can help, poll once more (what came before the arming raises no event), then sleep on the completion
 * channel, the connection manager, the device's events and the own eventfd; only what is readable is read.
 *
 * Failure modes: the first work request that fails for a reason of its own tells the reason, the flushed ones behind it
 * none. A peer that disconnects without an end of stream is RESET. A peer that is gone for good ends the retries of the
 * queue pair when there is traffic (below 4 s, see connect.c), and is the heartbeat's business when there is none. A
 * put that finds no room for PATIENCE_MS is STALLED: a device that neither completes nor fails.
 *
 * Accepted: the lock is held while a list is posted, which soft-RoCE does inside the system call, in milliseconds, and
 * while at most a frame is copied from or to the caller's memory, page faults included: shutdown waits for either, and
 * for the device to take the peer's rights, which is microseconds unless the device is sick. A data channel has one
 * thread per side.
 */
#include <string.h>

#include "rdma/channel_private.h"
#include "transport/clock.h"

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
        enum godwit_err err = rdma_await(channel, SENDING, &need, timeout_ms);
        if (err != GODWIT_OK)
            return err;
        unsigned buffer = channel->queue.posted_buffers % SENDS;
        uint8_t *frame = send_at(channel, buffer);
        uint32_t size = copy_in(cursor, frame + FRAME_HEADER, FRAME_DATA);
        frame_encode(&(struct frame){.credits = channel->credits.returned, .size = size}, frame);
        channel->credits.announced = channel->credits.returned;
        channel->credits.sent++;
        err = rdma_post_frame(channel, buffer, FRAME_HEADER + size);
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
    enum godwit_err err = rdma_side_state(channel, SENDING);
    /* A small payload shares its head's frame only when it is one: what is copied is the exception here. */
    for (unsigned i = 0; i < 2 && err == GODWIT_OK; i++)
        err = send_all(channel, &cursors[i], timeout_ms, &moved);
    if (err == GODWIT_ERR_TIMEOUT && moved)
        err = GODWIT_ERR_STALLED;
    if (err == GODWIT_ERR_STALLED)
        rdma_break(channel, err, NULL);
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
    if (rdma_post_receive(channel, index) != 0) {
        rdma_break(channel, GODWIT_ERR_RESET, "the device took no receive");
        return;
    }
    channel->credits.returned++;
    rdma_return_credits(channel);
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
            err = rdma_await(channel, RECEIVING, &need, timeout_ms);
        if (err == GODWIT_OK)
            moved |= copy_out(channel, iov) > 0;
    }
    if (err == GODWIT_ERR_TIMEOUT && moved)
        err = GODWIT_ERR_STALLED;
    if (err == GODWIT_ERR_PEER_CLOSED && moved)
        err = GODWIT_ERR_RESET;
    if (err == GODWIT_ERR_STALLED)
        rdma_break(channel, err, NULL);
    pthread_mutex_unlock(&channel->lock);
    return err;
}

/* last: nothing need follow. */
static enum godwit_err post_ranges(struct rdma_channel *channel, bool last, int timeout_ms)
{
    if (channel->range_count == 0)
        return GODWIT_OK;
    struct need need = {.requests = channel->range_count, .bytes = channel->range_bytes};
    enum godwit_err err = rdma_await(channel, SENDING, &need, timeout_ms);
    if (err == GODWIT_ERR_TIMEOUT) {
        err = GODWIT_ERR_STALLED;
        rdma_break(channel, err, "the device neither completes nor fails what it was given");
    }
    return err == GODWIT_OK ? rdma_post_list(channel, last) : err;
}

static bool adjoins(const struct range *last, const struct range *next)
{
    return last->read == next->read && last->lkey == next->lkey && last->rkey == next->rkey &&
           last->local + last->size == next->local && last->remote + last->size == next->remote &&
           last->size + next->size <= MAX_PUT;
}

static enum godwit_err make_room(struct rdma_channel *channel)
{
    if (channel->range_count < QUEUE_LIST && channel->range_bytes < QUEUE_LIST_BYTES)
        return GODWIT_OK;
    pthread_mutex_lock(&channel->lock);
    enum godwit_err err = rdma_side_state(channel, SENDING);
    if (err == GODWIT_OK)
        err = post_ranges(channel, false, PATIENCE_MS);
    pthread_mutex_unlock(&channel->lock);
    return err;
}

/* Most ranges are only noted, and take no lock. */
static enum godwit_err queue_range(struct rdma_channel *channel, const struct range *range)
{
    if (atomic_load_explicit(&channel->shut, memory_order_relaxed))
        return GODWIT_ERR_CLOSED;
    enum godwit_err err = atomic_load_explicit(&channel->failure, memory_order_relaxed);
    if (err == GODWIT_OK)
        err = make_room(channel);
    if (err != GODWIT_OK)
        return err;
    struct range *last = channel->range_count > 0 ? &channel->ranges[channel->range_count - 1] : NULL;
    if (last != NULL && adjoins(last, range))
        last->size += range->size;
    else
        channel->ranges[channel->range_count++] = *range;
    channel->range_bytes += range->size;
    return GODWIT_OK;
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
    enum godwit_err err = post_ranges(channel, true, timeout_ms);
    if (err == GODWIT_OK)
        err = rdma_await(channel, SENDING, &need, timeout_ms);
    if (err == GODWIT_ERR_TIMEOUT)
        err = GODWIT_ERR_STALLED;
    if (err == GODWIT_ERR_STALLED)
        rdma_break(channel, err, "the device neither completes nor fails what it was given");
    pthread_mutex_unlock(&channel->lock);
    return err;
}

/* The queue pair lives until free, and may still have our end of stream to send; the peer's rights end here. Where they
 * cannot be changed it is in a state in which they mean nothing, or is put into one. */
static void end_access(struct rdma_channel *channel)
{
    struct ibv_qp_attr none = {.qp_access_flags = 0}, error = {.qp_state = IBV_QPS_ERR};
    if (ibv_modify_qp(channel->cm.id->qp, &none, IBV_QP_ACCESS_FLAGS) != 0)
        ibv_modify_qp(channel->cm.id->qp, &error, IBV_QP_STATE);
}

static void rdma_shutdown(struct channel *base)
{
    struct rdma_channel *channel = (struct rdma_channel *)base;
    atomic_store(&channel->shut, true); /* puts that no send followed never happen: nothing is posted any more */
    pthread_mutex_lock(&channel->lock);
    if (!channel->ended) {
        channel->ended = true;
        if (channel->failure == GODWIT_OK && queue_has_reserve(&channel->queue))
            rdma_post_bare(channel, true);
        end_access(channel);
    }
    pthread_mutex_unlock(&channel->lock);
    rdma_kick(channel, SENDING);
    rdma_kick(channel, RECEIVING);
}

static void drain(struct rdma_channel *channel)
{
    uint64_t deadline = clock_now_ms() + DRAIN_MS;
    pthread_mutex_lock(&channel->lock);
    while (channel->failure == GODWIT_OK && !channel->peer_gone && !queue_idle(&channel->queue) &&
           clock_left_ms(deadline) > 0) {
        if (rdma_pump(channel, SENDING) || ibv_req_notify_cq(channel->send_cq, 0) != 0 || rdma_pump(channel, SENDING))
            continue;
        rdma_take_events(channel, -1, TICK_MS); /* the eventfds are readable for good */
    }
    rdma_take_events(channel, -1, 0);
    pthread_mutex_unlock(&channel->lock);
}

static void rdma_free(struct channel *base)
{
    struct rdma_channel *channel = (struct rdma_channel *)base;
    drain(channel);
    rdma_disconnect(channel->cm.id); /* fails where the connection is gone: that is as good */
    rdma_channel_destroy(channel);
}

const struct channel_ops rdma_channel_ops = {
    .name = "rdma",
    .handshake = channel_handshake_nothing,
    .send = rdma_send,
    .recv = rdma_recv,
    .recv_some = channel_recv_one_byte,
    .put = rdma_put,
    .get = rdma_get,
    .flush = rdma_flush,
    .shutdown = rdma_shutdown,
    .free = rdma_free,
};
