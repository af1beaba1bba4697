/* What comes back from the device, and the waiting for it: see the top of channel.c for who takes what. */
#include <assert.h>
#include <poll.h>
#include <unistd.h>

#include "rdma/async.h"
#include "rdma/channel_private.h"
#include "rdma/hints.h"
#include "transport/clock.h"

void rdma_kick(const struct rdma_channel *channel, enum side side)
{
    uint64_t one = 1;
    ssize_t n = write(channel->wake[side], &one, sizeof one);
    assert(n == sizeof one && "an eventfd that is drained takes a one");
    (void)n;
}

void rdma_kick_waiting(const struct rdma_channel *channel, int except)
{
    for (enum side side = SENDING; side < SIDES; side++)
        if (channel->waiting[side] && channel->wake[side] != except)
            rdma_kick(channel, side);
}

/* ---- completions ---- */

static void take_sent(struct rdma_channel *channel, const struct ibv_wc *wc)
{
    char detail[CHANNEL_DETAIL_MAX];
    if (wc->status == IBV_WC_WR_FLUSH_ERR) {
        rdma_break(channel, GODWIT_ERR_RESET, NULL);
    } else if (wc->status != IBV_WC_SUCCESS) {
        hint_completion(wc, "a request to the peer's device", detail, sizeof detail);
        rdma_break(channel, GODWIT_ERR_RESET, detail);
    } else if (!queue_retire(&channel->queue, wc->wr_id)) {
        rdma_break(channel, GODWIT_ERR_RESET, "the device completed a request that was not posted");
    }
    channel->progress[SENDING]++;
}

static void take_frame(struct rdma_channel *channel, unsigned index, uint32_t size)
{
    struct frame frame;
    if (!frame_decode(receive_at(channel, index), size, &frame) ||
        !credits_take(&channel->credits, frame.credits, frame.size > 0 || frame.end) || channel->peer_ended ||
        (frame.size > 0 && channel->filled_count == CREDITS_RING)) {
        rdma_break(channel, GODWIT_ERR_PROTOCOL, "the peer sent a malformed frame, or one it had no credit for");
        return;
    }
    channel->progress[SENDING]++;
    channel->peer_ended = frame.end;
    if (frame.size == 0) {
        if (rdma_post_receive(channel, index) != 0)
            rdma_break(channel, GODWIT_ERR_RESET, "the device took no receive");
        return;
    }
    unsigned at = (channel->filled_first + channel->filled_count++) % CREDITS_RING;
    channel->filled[at].receive = index;
    channel->filled[at].size = frame.size;
}

static void take_received(struct rdma_channel *channel, const struct ibv_wc *wc)
{
    char detail[CHANNEL_DETAIL_MAX];
    if (wc->status == IBV_WC_SUCCESS && wc->opcode != IBV_WC_RECV) {
        rdma_break(channel, GODWIT_ERR_PROTOCOL, "the peer used a receive for something else than a frame");
    } else if (wc->status == IBV_WC_SUCCESS) {
        take_frame(channel, (unsigned)wc->wr_id, wc->byte_len);
    } else if (wc->status == IBV_WC_WR_FLUSH_ERR) {
        rdma_break(channel, GODWIT_ERR_RESET, NULL);
    } else {
        hint_completion(wc, "receiving from the peer", detail, sizeof detail);
        rdma_break(channel, GODWIT_ERR_RESET, detail);
    }
    channel->progress[RECEIVING]++;
}

/* Takes what one queue has; true: there was something. */
static bool take_all(struct rdma_channel *channel, struct ibv_cq *cq,
                     void (*take)(struct rdma_channel *channel, const struct ibv_wc *wc))
{
    struct ibv_wc wcs[POLL_BATCH];
    bool any = false;
    int n = 1;
    /* Not for ever: the lock is held, and a peer that fills the queue as fast as it is emptied must not keep it. */
    for (unsigned batch = 0; batch < POLL_BATCHES && (n = ibv_poll_cq(cq, POLL_BATCH, wcs)) > 0; batch++) {
        any = true;
        for (int i = 0; i < n; i++)
            take(channel, &wcs[i]);
    }
    if (n < 0)
        rdma_break(channel, GODWIT_ERR_RESET, "the device's completion queue cannot be read");
    return any;
}

bool rdma_pump(struct rdma_channel *channel, enum side side)
{
    /* Sends first: a peer that answers and goes has its answer counted before the flushes. */
    bool any = take_all(channel, channel->send_cq, take_sent);
    any |= take_all(channel, channel->recv_cq, take_received);
    rdma_return_credits(channel);
    if (any && channel->waiting[!side])
        rdma_kick(channel, !side);
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
        rdma_pump(channel, RECEIVING); /* what came before it */
        if (!channel->peer_ended)
            rdma_break(channel, GODWIT_ERR_RESET, "the peer's process ended, or its side of the connection broke");
        break;
    default:
        hint_cm_event(event, CM_ESTABLISHED, channel->base.name, &error);
        rdma_break(channel, GODWIT_ERR_RESET, error.text);
    }
    channel->progress[SENDING]++;
    channel->progress[RECEIVING]++;
    rdma_kick_waiting(channel, -1);
}

void rdma_take_events(struct rdma_channel *channel, int wake, int wait_ms)
{
    enum { COMPLETIONS, CM, DEVICE, WAKE };
    struct pollfd ready[] = {[COMPLETIONS] = {.fd = channel->completions->fd, .events = POLLIN},
                             [CM] = {.fd = channel->cm.events->fd, .events = POLLIN},
                             [DEVICE] = {.fd = channel->verbs->async_fd, .events = POLLIN},
                             [WAKE] = {.fd = wake, .events = POLLIN}};
    pthread_mutex_unlock(&channel->lock);
    poll(ready, 4, wait_ms);
    pthread_mutex_lock(&channel->lock);

    struct ibv_cq *cq;
    void *opaque;
    if (ready[COMPLETIONS].revents != 0 && ibv_get_cq_event(channel->completions, &cq, &opaque) == 0) {
        ibv_ack_cq_events(cq, 1);
        /* It may have been the other's: a provider need not heed a second arming before the first one's event is
         * read. */
        rdma_kick_waiting(channel, wake);
    }
    if (ready[CM].revents != 0)
        for (struct rdma_cm_event *event; (event = cm_next(channel->cm.events)) != NULL; rdma_ack_cm_event(event))
            take_cm_event(channel, event);
    uint64_t count;
    if (ready[WAKE].revents != 0 && !atomic_load_explicit(&channel->shut, memory_order_relaxed)) {
        ssize_t n = read(wake, &count, sizeof count);
        (void)n; /* nothing there is fine */
    }
    if (ready[DEVICE].revents != 0)
        rdma_async_drain(channel->verbs);
    if (atomic_load_explicit(&channel->device_failed, memory_order_relaxed))
        rdma_break(channel, GODWIT_ERR_RESET, NULL);
}

/* ---- waiting ---- */

static bool spin(struct rdma_channel *channel, enum side side)
{
    uint64_t until = clock_now_ns() + SPIN_NS;
    do
        if (rdma_pump(channel, side))
            return true;
    while (clock_now_ns() < until);
    return false;
}

/* Only the queue that can help: each arming is a system call. A frame waits for credits, too, and credits that are to
 * go back may wait for room. */
static bool arm(struct rdma_channel *channel, const struct need *need)
{
    bool sent = !need->data || credits_due(&channel->credits), received = need->data || need->frame;
    return (!sent || ibv_req_notify_cq(channel->send_cq, 0) == 0) &&
           (!received || ibv_req_notify_cq(channel->recv_cq, 0) == 0);
}

static void sleep_once(struct rdma_channel *channel, enum side side, const struct need *need, int most_ms)
{
    if (spin(channel, side))
        return;
    if (!arm(channel, need))
        rdma_break(channel, GODWIT_ERR_RESET, "the device's completion queue cannot be armed");
    if (rdma_pump(channel, side) || channel->failure != GODWIT_OK)
        return;
    channel->waiting[side] = true;
    rdma_take_events(channel, channel->wake[side], most_ms);
    channel->waiting[side] = false;
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

enum godwit_err rdma_side_state(const struct rdma_channel *channel, enum side side)
{
    if (atomic_load_explicit(&channel->shut, memory_order_relaxed))
        return GODWIT_ERR_CLOSED;
    if (side == RECEIVING && channel->peer_ended)
        return GODWIT_ERR_PEER_CLOSED;
    if (channel->failure != GODWIT_OK)
        return channel->failure;
    return channel->peer_ended ? GODWIT_ERR_RESET : GODWIT_OK;
}

enum godwit_err rdma_await(struct rdma_channel *channel, enum side side, const struct need *need, int timeout_ms)
{
    uint64_t since = 0, seen = channel->progress[side]; /* since: when something last moved; not known while it is 0 */
    for (;;) {
        rdma_pump(channel, side);
        enum godwit_err err = rdma_side_state(channel, side);
        bool done = met(channel, need);
        if (err == GODWIT_ERR_CLOSED || (err != GODWIT_OK && !(done && need->data))) {
            if (err == GODWIT_ERR_RESET) { /* what was flushed has its reason elsewhere */
                rdma_take_events(channel, -1, 0);
                rdma_pump(channel, side); /* or it came to one queue before the flushes came to the other */
            }
            return err;
        }
        if (done)
            return GODWIT_OK;
        uint64_t now = clock_now_ms(); /* not before there is something to wait for */
        if (since == 0 || channel->progress[side] != seen)
            since = now;
        seen = channel->progress[side];
        if (timeout_ms != CHANNEL_FOREVER && now - since >= (uint64_t)timeout_ms)
            return GODWIT_ERR_TIMEOUT;
        sleep_once(channel, side, need, timeout_ms == CHANNEL_FOREVER ? -1 : (int)(since + (uint64_t)timeout_ms - now));
    }
}
