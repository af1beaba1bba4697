/*
 * Queue pairs as far as their owner sees them: making, posting in both styles, states, destruction. What becomes of
 * what was posted is fake_wire.c's.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/rdma/fake_private.h"

struct fake_qp *fake_qp_of(struct ibv_qp *qp)
{
    return FAKE_OF(qp, struct fake_qp, ex.qp_base);
}

static struct fake_qp *fake_qp_of_ex(struct ibv_qp_ex *ex)
{
    return FAKE_OF(ex, struct fake_qp, ex);
}

struct fake_qp *fake_qp_by_number(uint32_t number)
{
    struct fake_qp *qp;
    LIST_FOREACH(qp, &fake.qps, link)
    {
        if (qp->ex.qp_base.qp_num == number)
            return qp;
    }
    return NULL;
}

/* --- work requests --- */

static enum fake_wr_kind kind_of(enum ibv_wr_opcode opcode)
{
    switch (opcode) {
    case IBV_WR_SEND:
    case IBV_WR_SEND_WITH_IMM: return FAKE_WR_SEND;
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM: return FAKE_WR_WRITE;
    case IBV_WR_RDMA_READ: return FAKE_WR_READ;
    default: return FAKE_WR_ANY;
    }
}

static struct fake_wr *wr_new(enum fake_wr_kind kind, enum ibv_wr_opcode opcode, uint64_t wr_id, unsigned flags)
{
    struct fake_wr *wr = calloc(1, sizeof *wr);
    if (!wr)
        fake_die("no memory");
    wr->kind = kind;
    wr->opcode = opcode;
    wr->wr_id = wr_id;
    wr->flags = flags;
    return wr;
}

void fake_wr_free(struct fake_wr *wr)
{
    for (unsigned i = 0; i < wr->sge_count; i++) {
        if (wr->mrs[i])
            wr->mrs[i]->queued--;
    }
    free(wr->inline_data);
    free(wr);
}

static void wrs_free(struct fake_wrs *wrs)
{
    struct fake_wr *wr;
    while ((wr = STAILQ_FIRST(wrs))) {
        STAILQ_REMOVE_HEAD(wrs, link);
        fake_wr_free(wr);
    }
}

/* An errno. The memory is named from now on, and looked at when the request is executed. */
static int wr_set_sges(struct fake_wr *wr, const struct ibv_sge *sges, size_t count, uint32_t most)
{
    if (count > most)
        return EINVAL;
    for (size_t i = 0; i < count; i++) {
        wr->sges[i] = sges[i];
        wr->mrs[i] = fake_mr_by_lkey(sges[i].lkey);
        if (wr->mrs[i])
            wr->mrs[i]->queued++;
        wr->size += sges[i].length;
    }
    wr->sge_count = (unsigned)count;
    return 0;
}

/* An errno. Appends; the bytes are copied now. */
static int wr_add_inline(struct fake_wr *wr, const void *bytes, size_t size, uint32_t most)
{
    if (wr->size + size > most || wr->kind == FAKE_WR_READ)
        return EINVAL;
    uint8_t *data = realloc(wr->inline_data, wr->size + size + 1);
    if (!data)
        fake_die("no memory");
    if (size)
        memcpy(data + wr->size, bytes, size);
    wr->inline_data = data;
    wr->size += size;
    return 0;
}

/* --- posting with ibv_wr_*: everything between start and complete is queued at complete, or not at all --- */

static void wr_start(struct ibv_qp_ex *ex)
{
    struct fake_qp *qp = fake_qp_of_ex(ex);
    fake_enter();
    if (qp->building && pthread_equal(qp->builder, pthread_self()))
        fake_die("ibv_wr_start twice without ibv_wr_complete");
    while (qp->building)
        pthread_cond_wait(&fake.changed, &fake.lock);
    qp->building = true;
    qp->builder = pthread_self();
    qp->build_error = 0;
    qp->built_count = 0;
    qp->last_built = NULL;
    fake_leave();
}

static void expect_builder(const struct fake_qp *qp)
{
    if (!qp->building || !pthread_equal(qp->builder, pthread_self()))
        fake_die("a work request outside ibv_wr_start and ibv_wr_complete of its thread");
}

static void build(struct ibv_qp_ex *ex, enum ibv_wr_opcode opcode, uint64_t need, uint32_t rkey, uint64_t remote,
                  __be32 imm)
{
    struct fake_qp *qp = fake_qp_of_ex(ex);
    fake_enter();
    expect_builder(qp);
    if (!(qp->send_ops & need))
        fake_die("an operation that send_ops_flags does not name: a null pointer elsewhere");
    struct fake_wr *wr = wr_new(kind_of(opcode), opcode, ex->wr_id, ex->wr_flags);
    wr->rkey = rkey;
    wr->remote = remote;
    wr->imm = imm;
    STAILQ_INSERT_TAIL(&qp->built, wr, link);
    qp->last_built = wr;
    qp->built_count++;
    fake_leave();
}

static void wr_send(struct ibv_qp_ex *ex)
{
    build(ex, IBV_WR_SEND, IBV_QP_EX_WITH_SEND, 0, 0, 0);
}

static void wr_send_imm(struct ibv_qp_ex *ex, __be32 imm)
{
    build(ex, IBV_WR_SEND_WITH_IMM, IBV_QP_EX_WITH_SEND_WITH_IMM, 0, 0, imm);
}

static void wr_rdma_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote)
{
    build(ex, IBV_WR_RDMA_WRITE, IBV_QP_EX_WITH_RDMA_WRITE, rkey, remote, 0);
}

static void wr_rdma_write_imm(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote, __be32 imm)
{
    build(ex, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM, rkey, remote, imm);
}

static void wr_rdma_read(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t remote)
{
    build(ex, IBV_WR_RDMA_READ, IBV_QP_EX_WITH_RDMA_READ, rkey, remote, 0);
}

/* The request that a setter is for; setters take the first error, complete() reports it. */
static struct fake_wr *last_built(struct fake_qp *qp)
{
    expect_builder(qp);
    struct fake_wr *wr = qp->last_built;
    if (!wr || wr->sge_count || wr->inline_data)
        fake_die("data for no work request, or twice for one");
    return wr;
}

static void set_error(struct fake_qp *qp, int err)
{
    if (!qp->build_error)
        qp->build_error = err;
}

static void wr_set_sge_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_sge *sges)
{
    struct fake_qp *qp = fake_qp_of_ex(ex);
    fake_enter();
    set_error(qp, wr_set_sges(last_built(qp), sges, count, qp->cap.max_send_sge));
    fake_leave();
}

static void wr_set_sge(struct ibv_qp_ex *ex, uint32_t lkey, uint64_t addr, uint32_t length)
{
    struct ibv_sge sge = {.addr = addr, .length = length, .lkey = lkey};
    wr_set_sge_list(ex, 1, &sge);
}

static void wr_set_inline_data_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_data_buf *buffers)
{
    struct fake_qp *qp = fake_qp_of_ex(ex);
    fake_enter();
    struct fake_wr *wr = last_built(qp);
    for (size_t i = 0; i < count; i++)
        set_error(qp, wr_add_inline(wr, buffers[i].addr, buffers[i].length, qp->cap.max_inline_data));
    fake_leave();
}

static void wr_set_inline_data(struct ibv_qp_ex *ex, void *addr, size_t length)
{
    struct ibv_data_buf buffer = {.addr = addr, .length = length};
    wr_set_inline_data_list(ex, 1, &buffer);
}

static void build_end(struct fake_qp *qp)
{
    wrs_free(&qp->built);
    qp->building = false;
    pthread_cond_broadcast(&fake.changed);
}

/* What stands in the way of posting so many; an errno. */
static int may_send(const struct fake_qp *qp, unsigned count)
{
    enum ibv_qp_state state = qp->ex.qp_base.state;
    if (state != IBV_QPS_RTS && state != IBV_QPS_ERR)
        return EINVAL;
    return qp->sq_used + count > qp->cap.max_send_wr ? ENOMEM : 0;
}

static int wr_complete(struct ibv_qp_ex *ex)
{
    struct fake_qp *qp = fake_qp_of_ex(ex);
    fake_enter();
    expect_builder(qp);
    int err = fake_call(FAKE_CALL_POST_SEND);
    if (!err)
        err = qp->build_error;
    if (!err)
        err = may_send(qp, qp->built_count);
    if (!err) {
        qp->sq_used += qp->built_count;
        STAILQ_CONCAT(&qp->sq, &qp->built);
        fake_wire_wake();
    }
    build_end(qp);
    fake_leave();
    return err;
}

static void wr_abort(struct ibv_qp_ex *ex)
{
    struct fake_qp *qp = fake_qp_of_ex(ex);
    fake_enter();
    expect_builder(qp);
    build_end(qp);
    fake_leave();
}

/* --- posting lists --- */

static int wr_set_data(struct fake_wr *wr, const struct ibv_send_wr *from, const struct ibv_qp_cap *cap)
{
    size_t count = from->num_sge < 0 ? SIZE_MAX : (size_t)from->num_sge;
    if (!(from->send_flags & IBV_SEND_INLINE))
        return wr_set_sges(wr, from->sg_list, count, cap->max_send_sge);
    int err = count > cap->max_send_sge ? EINVAL : 0;
    for (size_t i = 0; i < count && !err; i++) {
        const struct ibv_sge *sge = &from->sg_list[i];
        err = wr_add_inline(wr, (const void *)(uintptr_t)sge->addr, sge->length, cap->max_inline_data);
    }
    return err;
}

static int send_one(struct fake_qp *qp, const struct ibv_send_wr *from)
{
    int err = fake_call(FAKE_CALL_POST_SEND);
    if (!err)
        err = may_send(qp, 1);
    enum fake_wr_kind kind = kind_of(from->opcode);
    if (!err && kind == FAKE_WR_ANY)
        err = EINVAL;
    if (err)
        return err;
    struct fake_wr *wr = wr_new(kind, from->opcode, from->wr_id, from->send_flags);
    wr->rkey = from->wr.rdma.rkey;
    wr->remote = from->wr.rdma.remote_addr;
    wr->imm = from->imm_data;
    err = wr_set_data(wr, from, &qp->cap);
    if (err) {
        fake_wr_free(wr);
        return err;
    }
    qp->sq_used++;
    STAILQ_INSERT_TAIL(&qp->sq, wr, link);
    return 0;
}

int fake_post_send(struct ibv_qp *base, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    int err = 0;
    fake_enter();
    for (; wr && !err; wr = err ? wr : wr->next)
        err = send_one(fake_qp_of(base), wr);
    if (err)
        *bad = wr;
    fake_wire_wake();
    fake_leave();
    return err;
}

static int recv_one(struct fake_qp *qp, const struct ibv_recv_wr *from)
{
    int err = fake_call(FAKE_CALL_POST_RECV);
    if (!err && qp->ex.qp_base.state == IBV_QPS_RESET)
        err = EINVAL;
    if (!err && qp->rq_used == qp->cap.max_recv_wr)
        err = ENOMEM;
    if (err)
        return err;
    struct fake_wr *wr = wr_new(FAKE_WR_RECV, 0, from->wr_id, 0);
    err = wr_set_sges(wr, from->sg_list, from->num_sge < 0 ? SIZE_MAX : (size_t)from->num_sge, qp->cap.max_recv_sge);
    if (err) {
        fake_wr_free(wr);
        return err;
    }
    qp->rq_used++;
    STAILQ_INSERT_TAIL(&qp->rq, wr, link);
    return 0;
}

int fake_post_recv(struct ibv_qp *base, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
    int err = 0;
    fake_enter();
    for (; wr && !err; wr = err ? wr : wr->next)
        err = recv_one(fake_qp_of(base), wr);
    if (err)
        *bad = wr;
    fake_wire_wake();
    fake_leave();
    return err;
}

/* --- life --- */

static int check_attr(const struct ibv_qp_init_attr_ex *attr)
{
    const struct fake_limits *limits = &fake.setup.limits;
    const struct ibv_qp_cap *cap = &attr->cap;
    if (!attr->pd || !attr->send_cq || !attr->recv_cq || attr->qp_type != IBV_QPT_RC || attr->srq)
        return EINVAL;
    if (cap->max_send_wr > (unsigned)limits->max_qp_wr || cap->max_recv_wr > (unsigned)limits->max_qp_wr ||
        cap->max_send_sge > (unsigned)limits->max_sge || cap->max_recv_sge > (unsigned)limits->max_sge ||
        cap->max_inline_data > limits->max_inline)
        return EINVAL;
    return 0;
}

static void set_operations(struct ibv_qp_ex *ex)
{
    ex->wr_start = wr_start;
    ex->wr_complete = wr_complete;
    ex->wr_abort = wr_abort;
    ex->wr_send = wr_send;
    ex->wr_send_imm = wr_send_imm;
    ex->wr_rdma_write = wr_rdma_write;
    ex->wr_rdma_write_imm = wr_rdma_write_imm;
    ex->wr_rdma_read = wr_rdma_read;
    ex->wr_set_sge = wr_set_sge;
    ex->wr_set_sge_list = wr_set_sge_list;
    ex->wr_set_inline_data = wr_set_inline_data;
    ex->wr_set_inline_data_list = wr_set_inline_data_list;
}

struct fake_qp *fake_qp_new(struct fake_context *context, struct ibv_qp_init_attr_ex *attr)
{
    errno = fake_call(FAKE_CALL_CREATE_QP);
    if (!errno)
        errno = check_attr(attr);
    struct fake_qp *qp = errno ? NULL : calloc(1, sizeof *qp);
    if (!qp)
        return NULL;
    struct ibv_qp *base = &qp->ex.qp_base;
    *base = (struct ibv_qp){.context = &context->verbs.context,
                            .qp_context = attr->qp_context,
                            .pd = attr->pd,
                            .send_cq = attr->send_cq,
                            .recv_cq = attr->recv_cq,
                            .qp_type = attr->qp_type,
                            .state = IBV_QPS_RESET,
                            .qp_num = fake.next_qp++};
    pthread_mutex_init(&base->mutex, NULL);
    pthread_cond_init(&base->cond, NULL);
    qp->cap = attr->cap;
    qp->sig_all = attr->sq_sig_all;
    qp->send_ops = attr->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS ? attr->send_ops_flags : 0;
    set_operations(&qp->ex);
    STAILQ_INIT(&qp->built);
    STAILQ_INIT(&qp->sq);
    STAILQ_INIT(&qp->rq);
    STAILQ_INIT(&qp->withheld);
    STAILQ_INIT(&qp->reads);
    FAKE_OF(attr->pd, struct fake_pd, base)->users++;
    FAKE_OF(attr->send_cq, struct fake_cq, base)->users++;
    FAKE_OF(attr->recv_cq, struct fake_cq, base)->users++;
    LIST_INSERT_HEAD(&fake.qps, qp, link);
    fake.living.qps++;
    return qp;
}

void fake_qp_free(struct fake_qp *qp)
{
    struct ibv_qp *base = &qp->ex.qp_base;
    if (qp->building)
        fake_die("a queue pair is destroyed between ibv_wr_start and ibv_wr_complete");
    fake_async_forget(fake_context_of(base->context), base);
    fake_await_acks(&qp->async_unacked, "a queue pair");
    fake_place(&qp->withheld, NULL);
    fake_place_drop(&qp->reads);
    fake_cqs_forget(qp);
    wrs_free(&qp->sq);
    wrs_free(&qp->rq);
    FAKE_OF(base->pd, struct fake_pd, base)->users--;
    FAKE_OF(base->send_cq, struct fake_cq, base)->users--;
    FAKE_OF(base->recv_cq, struct fake_cq, base)->users--;
    LIST_REMOVE(qp, link);
    fake.living.qps--;
    pthread_cond_destroy(&base->cond);
    pthread_mutex_destroy(&base->mutex);
    free(qp);
}

int ibv_destroy_qp(struct ibv_qp *qp)
{
    fake_enter();
    fake_qp_free(fake_qp_of(qp));
    fake_leave();
    return 0;
}

struct ibv_qp_ex *ibv_qp_to_qp_ex(struct ibv_qp *base)
{
    struct fake_qp *qp = fake_qp_of(base);
    return qp->send_ops ? &qp->ex : NULL;
}

void fake_qp_fail(struct fake_qp *qp)
{
    if (qp->ex.qp_base.state == IBV_QPS_ERR)
        return;
    qp->ex.qp_base.state = IBV_QPS_ERR;
    fake_place(&qp->withheld, NULL);
    fake_wire_wake();
}

/* The states are the connection manager's; what is left is the way into error, and what may change while connected. */
static int modify(struct fake_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
    if (mask & IBV_QP_STATE && attr->qp_state == IBV_QPS_ERR) {
        fake_qp_fail(qp);
        return 0;
    }
    if (mask & IBV_QP_STATE && attr->qp_state != IBV_QPS_RTS)
        return EINVAL;
    if (qp->ex.qp_base.state != IBV_QPS_RTS ||
        mask & ~(IBV_QP_STATE | IBV_QP_CUR_STATE | IBV_QP_MIN_RNR_TIMER | IBV_QP_ACCESS_FLAGS))
        return EINVAL;
    if (mask & IBV_QP_MIN_RNR_TIMER)
        qp->min_rnr_timer = attr->min_rnr_timer;
    if (mask & IBV_QP_ACCESS_FLAGS)
        qp->access = attr->qp_access_flags;
    return 0;
}

int ibv_modify_qp(struct ibv_qp *base, struct ibv_qp_attr *attr, int mask)
{
    fake_enter();
    int err = fake_call(FAKE_CALL_MODIFY_QP);
    if (!err)
        err = modify(fake_qp_of(base), attr, mask);
    fake_leave();
    return err;
}

int ibv_query_qp(struct ibv_qp *base, struct ibv_qp_attr *attr, int mask, struct ibv_qp_init_attr *init)
{
    (void)mask;
    struct fake_qp *qp = fake_qp_of(base);
    fake_enter();
    *attr = (struct ibv_qp_attr){.qp_state = base->state,
                                 .cur_qp_state = base->state,
                                 .dest_qp_num = qp->peer,
                                 .qp_access_flags = qp->access,
                                 .cap = qp->cap,
                                 .min_rnr_timer = qp->min_rnr_timer,
                                 .rnr_retry = qp->rnr_retry,
                                 .max_rd_atomic = qp->read_depth,
                                 .port_num = 1,
                                 .path_mtu = FAKE_OF(base->context->device, struct fake_device, base)->setup->mtu};
    *init = (struct ibv_qp_init_attr){.qp_context = base->qp_context,
                                      .send_cq = base->send_cq,
                                      .recv_cq = base->recv_cq,
                                      .cap = qp->cap,
                                      .qp_type = base->qp_type,
                                      .sq_sig_all = qp->sig_all};
    fake_leave();
    return 0;
}
