/* What is given to the device: receives, chains of puts and frames, credits. Everything under the channel's lock. */
#include <stdio.h>
#include <string.h>

#include "rdma/channel_private.h"

void rdma_break(struct rdma_channel *channel, enum godwit_err err, const char *detail)
{
    if (detail != NULL)
        channel_set_detail(&channel->base, detail);
    if (channel->failure == GODWIT_OK)
        channel->failure = err;
    rdma_kick_waiting(channel, -1);
}

int rdma_post_receive(struct rdma_channel *channel, unsigned index)
{
    struct ibv_sge sge = {(uintptr_t)receive_at(channel, index), FRAME_SIZE, channel->mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = index, .sg_list = &sge, .num_sge = 1}, *bad;
    return ibv_post_recv(channel->cm.id->qp, &wr, &bad);
}

static void post_range(struct rdma_channel *channel, const struct range *range)
{
    struct ibv_qp_ex *qp = channel->qp;
    if (range->read)
        ibv_wr_rdma_read(qp, range->rkey, range->remote);
    else
        ibv_wr_rdma_write(qp, range->rkey, range->remote);
    ibv_wr_set_sge(qp, range->lkey, range->local, range->size);
}

/* All that wait, signal: the last one is, be it due or not. */
static void post_ranges(struct rdma_channel *channel, bool signal)
{
    struct queue *queue = &channel->queue;
    for (unsigned i = 0; i < channel->range_count; i++) {
        channel->qp->wr_id = queue_post(queue, channel->ranges[i].size, 0);
        bool signalled = i + 1 == channel->range_count && (signal || queue_owes_signal(queue));
        channel->qp->wr_flags = signalled ? IBV_SEND_SIGNALED : 0;
        if (signalled)
            queue_signal(queue);
        post_range(channel, &channel->ranges[i]);
    }
    channel->range_count = 0;
    channel->range_bytes = 0;
}

static enum godwit_err complete_posting(struct rdma_channel *channel)
{
    int rc = ibv_wr_complete(channel->qp);
    if (rc == 0)
        return GODWIT_OK;
    char detail[CHANNEL_DETAIL_MAX];
    snprintf(detail, sizeof detail, "the device took no more work: %s", strerror(rc));
    rdma_break(channel, GODWIT_ERR_RESET, detail);
    return channel->failure;
}

enum godwit_err rdma_post_list(struct rdma_channel *channel, bool signal)
{
    ibv_wr_start(channel->qp);
    post_ranges(channel, signal);
    return complete_posting(channel);
}

enum godwit_err rdma_post_frame(struct rdma_channel *channel, unsigned buffer, uint32_t size)
{
    struct ibv_qp_ex *qp = channel->qp;
    ibv_wr_start(qp);
    post_ranges(channel, false);
    qp->wr_id = queue_post(&channel->queue, 0, 1);
    queue_signal(&channel->queue);
    qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_send(qp);
    ibv_wr_set_sge(qp, channel->mr->lkey, (uintptr_t)send_at(channel, buffer), size);
    return complete_posting(channel);
}

void rdma_post_bare(struct rdma_channel *channel, bool end)
{
    uint8_t header[FRAME_HEADER];
    frame_encode(&(struct frame){.credits = channel->credits.returned, .end = end}, header);
    ibv_wr_start(channel->qp);
    channel->qp->wr_id = queue_post(&channel->queue, 0, 0);
    queue_signal(&channel->queue);
    channel->qp->wr_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE;
    ibv_wr_send(channel->qp);
    ibv_wr_set_inline_data(channel->qp, header, sizeof header);
    channel->credits.announced = channel->credits.returned;
    complete_posting(channel);
}

void rdma_return_credits(struct rdma_channel *channel)
{
    if (credits_due(&channel->credits) && channel->failure == GODWIT_OK && !channel->ended &&
        queue_has_reserve(&channel->queue))
        rdma_post_bare(channel, false);
}
