/* Making a channel, and unmaking it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rdma/async.h"
#include "rdma/channel_private.h"
#include "rdma/hints.h"
#include "transport/error.h"

/*
 * In this order, because each step takes away what the one before it may still use: the last frames are given time; no
 * event of the device finds the channel any more; the queue pair, whose rights of the peer shutdown has taken, goes
 * into its error state, and is destroyed, after which the device touches no memory and writes no completion; then the
 * queues, whose events are all acknowledged; their event channel; the rings, which no request names any more; the
 * identifier, whose events are acknowledged too; our hold on the domain, whose memory and queue pairs these were.
 */
void rdma_channel_destroy(struct rdma_channel *channel)
{
    rdma_async_leave(channel);
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
    int cause = 0;
    for (unsigned i = 0; i < RECEIVES && cause == 0; i++)
        cause = rdma_post_receive(channel, i);
    return cause == 0 ? GODWIT_OK : hint_resource(cause, "post the receives of a channel", 0, error);
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

    enum godwit_err err = open_wakes(channel, error);
    if (err == GODWIT_OK)
        rdma_async_join(channel, channel->verbs); /* who may wake it from now on */
    if (err == GODWIT_OK)
        err = open_queues(channel, domain, error);
    if (err == GODWIT_OK)
        err = open_rings(channel, domain, error);
    if (err != GODWIT_OK) {
        if (channel->qp != NULL)
            rdma_destroy_qp(channel->cm.id);
        channel->qp = NULL;
        channel->cm = (struct cm){0}; /* still the caller's */
        rdma_channel_destroy(channel);
        return err;
    }
    channel->base.queue_pair = channel->cm.id->qp->qp_num;
    *cm = (struct cm){0};
    *out = channel;
    return GODWIT_OK;
}

void rdma_channel_abandon(struct rdma_channel *channel)
{
    rdma_channel_destroy(channel);
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
    rdma_kick(channel, SENDING);
    rdma_kick(channel, RECEIVING);
}
