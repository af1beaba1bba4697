/*
 * The wire: one thread that takes one step at a time, of a queue pair chosen at random among those that have something
 * to do, or of the connection manager when a message is due. Between steps it pauses now and then, so that every
 * interleaving with the callers has its chance; a seed makes the choices, though not the callers' timing, the same
 * again.
 *
 * A step executes the request at the head of one send queue, or flushes one request of a queue pair in error.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/rdma/fake_private.h"
#include "transport/clock.h"

enum { PAUSE_ODDS = 64, NOT_NOW = -1 };

/* --- completions --- */

static enum ibv_wc_opcode wc_opcode(enum fake_wr_kind kind)
{
    switch (kind) {
    case FAKE_WR_WRITE: return IBV_WC_RDMA_WRITE;
    case FAKE_WR_READ: return IBV_WC_RDMA_READ;
    default: return IBV_WC_SEND;
    }
}

/* Takes the head of sq. Without a completion the slot stays taken. */
static void complete_send(struct fake_qp *qp, enum ibv_wc_status status)
{
    struct fake_wr *wr = STAILQ_FIRST(&qp->sq);
    STAILQ_REMOVE_HEAD(&qp->sq, link);
    qp->retry_until = qp->not_before = 0;
    qp->rnr_tries = 0;
    qp->sq_silent++;
    if (status == IBV_WC_SUCCESS)
        fake.executed[wr->kind]++;
    if (status != IBV_WC_SUCCESS || wr->flags & IBV_SEND_SIGNALED || qp->sig_all) {
        struct fake_cqe *cqe = fake_cqe_new(qp, wr->wr_id, status);
        if (status == IBV_WC_SUCCESS) {
            cqe->wc.opcode = wc_opcode(wr->kind);
            cqe->wc.byte_len = (uint32_t)wr->size;
        }
        cqe->send_slots = qp->sq_silent;
        qp->sq_silent = 0;
        STAILQ_CONCAT(&cqe->placements, &qp->reads);
        fake_cq_push(qp->ex.qp_base.send_cq, cqe);
    }
    fake_wr_free(wr);
}

/* Takes the head of rq. */
static struct fake_cqe *complete_recv(struct fake_qp *qp, enum ibv_wc_status status)
{
    struct fake_wr *wr = STAILQ_FIRST(&qp->rq);
    STAILQ_REMOVE_HEAD(&qp->rq, link);
    struct fake_cqe *cqe = fake_cqe_new(qp, wr->wr_id, status);
    cqe->recv_slots = 1;
    fake.executed[FAKE_WR_RECV] += status == IBV_WC_SUCCESS;
    fake_wr_free(wr);
    return cqe;
}

static void fail_recv(struct fake_qp *qp, enum ibv_wc_status status)
{
    fake_cq_push(qp->ex.qp_base.recv_cq, complete_recv(qp, status));
    fake_qp_fail(qp);
}

static void flush_one(struct fake_qp *qp)
{
    if (!STAILQ_EMPTY(&qp->sq) && (STAILQ_EMPTY(&qp->rq) || fake_random(2)))
        complete_send(qp, IBV_WC_WR_FLUSH_ERR);
    else
        fail_recv(qp, IBV_WC_WR_FLUSH_ERR);
}

/* --- memory --- */

/* May qp's device use the memory of these requests: local protection. */
static enum ibv_wc_status check_local(const struct fake_qp *qp, const struct fake_wr *wr, bool written)
{
    for (unsigned i = 0; i < wr->sge_count; i++) {
        const struct ibv_sge *sge = &wr->sges[i];
        const struct fake_mr *mr = wr->mrs[i];
        if (!sge->length)
            continue;
        if (!mr || mr->base.pd != qp->ex.qp_base.pd || !fake_mr_at(mr, sge->addr, sge->length))
            return IBV_WC_LOC_PROT_ERR;
        if (written && !(mr->access & IBV_ACCESS_LOCAL_WRITE))
            return IBV_WC_LOC_PROT_ERR;
    }
    return IBV_WC_SUCCESS;
}

static void gather(const struct fake_wr *wr, uint8_t *to)
{
    if (wr->inline_data)
        memcpy(to, wr->inline_data, wr->size);
    for (unsigned i = 0; i < wr->sge_count; i++) {
        if (!wr->sges[i].length)
            continue;
        memcpy(to, fake_mr_at(wr->mrs[i], wr->sges[i].addr, wr->sges[i].length), wr->sges[i].length);
        to += wr->sges[i].length;
    }
}

static void scatter(struct fake_placements *list, const struct fake_wr *wr, const uint8_t *bytes, size_t size)
{
    for (unsigned i = 0; i < wr->sge_count && size; i++) {
        size_t step = wr->sges[i].length < size ? wr->sges[i].length : size;
        if (!step)
            continue;
        fake_place_later(list, wr->mrs[i], fake_mr_at(wr->mrs[i], wr->sges[i].addr, step), bytes, step);
        bytes += step;
        size -= step;
    }
}

/* The responder's check of an rkey. A request of no bytes needs none. */
static enum ibv_wc_status check_remote(const struct fake_qp *peer, const struct fake_wr *wr, unsigned right,
                                       struct fake_mr **mr)
{
    *mr = NULL;
    if (!(peer->access & right))
        return IBV_WC_REM_INV_REQ_ERR;
    if (!wr->size)
        return IBV_WC_SUCCESS;
    *mr = fake_mr_by_rkey(wr->rkey);
    if (!*mr || (*mr)->base.pd != peer->ex.qp_base.pd || !((*mr)->access & right) ||
        !fake_mr_at(*mr, wr->remote, wr->size))
        return IBV_WC_REM_ACCESS_ERR;
    return IBV_WC_SUCCESS;
}

/* --- execution: a status, or NOT_NOW --- */

static int retry_at(struct fake_qp *qp, uint64_t when)
{
    qp->not_before = when;
    return NOT_NOW;
}

static int no_answer(struct fake_qp *qp, uint64_t now)
{
    if (!qp->retry_until)
        qp->retry_until = now + (uint64_t)fake.setup.retry_ms * 1000000u;
    return now >= qp->retry_until ? IBV_WC_RETRY_EXC_ERR : retry_at(qp, now + 1000000u);
}

/* The peer has no receive for this: counted, tried again as often as the peer's rnr_retry_count says. */
static int not_ready(struct fake_qp *qp, uint64_t now)
{
    enum { FOR_EVER = 7 };
    fake.rnr++;
    if (qp->rnr_retry != FOR_EVER && qp->rnr_tries++ >= qp->rnr_retry)
        return IBV_WC_RNR_RETRY_EXC_ERR;
    return retry_at(qp, now + (uint64_t)fake.setup.rnr_ms * 1000000u);
}

/* A fault asked for by the test: SUCCESS for none. */
static enum ibv_wc_status fault(enum fake_wr_kind kind)
{
    struct fake_wr_rule *rule = &fake.wr_rules[kind];
    if (!rule->set)
        return IBV_WC_SUCCESS;
    if (rule->skip) {
        rule->skip--;
        return IBV_WC_SUCCESS;
    }
    rule->set = false;
    return rule->status;
}

/* Consumes a receive of peer: everything the peer wrote before becomes visible with it. */
static int deliver(struct fake_qp *qp, struct fake_qp *peer, const struct fake_wr *wr, uint64_t now)
{
    struct fake_wr *recv = STAILQ_FIRST(&peer->rq);
    bool write = wr->kind == FAKE_WR_WRITE;
    if (!recv)
        return not_ready(qp, now);
    enum ibv_wc_status status = fault(FAKE_WR_RECV);
    if (!status && !write)
        status = wr->size > recv->size ? IBV_WC_LOC_LEN_ERR : check_local(peer, recv, true);
    if (status) {
        fail_recv(peer, status);
        return status == IBV_WC_LOC_LEN_ERR ? IBV_WC_REM_INV_REQ_ERR : IBV_WC_REM_OP_ERR;
    }
    struct fake_placements payload = STAILQ_HEAD_INITIALIZER(payload);
    if (!write) {
        uint8_t *bytes = malloc(wr->size + 1);
        if (!bytes)
            fake_die("no memory");
        gather(wr, bytes);
        scatter(&payload, recv, bytes, wr->size);
        free(bytes);
    }
    struct fake_cqe *cqe = complete_recv(peer, IBV_WC_SUCCESS);
    bool imm = wr->opcode == IBV_WR_SEND_WITH_IMM || write;
    cqe->wc.opcode = write ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV;
    cqe->wc.byte_len = (uint32_t)wr->size;
    cqe->wc.wc_flags = imm ? IBV_WC_WITH_IMM : 0;
    cqe->wc.imm_data = wr->imm;
    cqe->solicited = wr->flags & IBV_SEND_SOLICITED;
    STAILQ_CONCAT(&cqe->placements, &peer->withheld);
    STAILQ_CONCAT(&cqe->placements, &payload);
    fake_cq_push(peer->ex.qp_base.recv_cq, cqe);
    return IBV_WC_SUCCESS;
}

static int execute_write(struct fake_qp *qp, struct fake_qp *peer, const struct fake_wr *wr, uint64_t now)
{
    struct fake_mr *mr;
    bool imm = wr->opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
    int status = check_remote(peer, wr, IBV_ACCESS_REMOTE_WRITE, &mr);
    if (status || (imm && STAILQ_EMPTY(&peer->rq)))
        return status ? status : not_ready(qp, now);
    if (wr->size) {
        uint8_t *to = fake_mr_at(mr, wr->remote, wr->size);
        gather(wr, fake_place_later(&peer->withheld, mr, to, NULL, wr->size)->bytes);
        if (fake.setup.prompt_writes)
            fake_place(&peer->withheld, NULL);
    }
    return imm ? deliver(qp, peer, wr, now) : IBV_WC_SUCCESS;
}

static int execute_read(struct fake_qp *qp, struct fake_qp *peer, const struct fake_wr *wr)
{
    struct fake_mr *mr;
    if (!qp->read_depth)
        return IBV_WC_LOC_QP_OP_ERR;
    int status = check_remote(peer, wr, IBV_ACCESS_REMOTE_READ, &mr);
    if (status)
        return status;
    fake_place(&peer->withheld, mr); /* a READ behind a WRITE sees it */
    if (wr->size)
        scatter(&qp->reads, wr, fake_mr_at(mr, wr->remote, wr->size), wr->size);
    return IBV_WC_SUCCESS;
}

static int execute(struct fake_qp *qp, const struct fake_wr *wr, uint64_t now)
{
    enum ibv_wc_status status = check_local(qp, wr, wr->kind == FAKE_WR_READ);
    if (!status && wr->size > fake.setup.limits.max_msg)
        status = IBV_WC_LOC_LEN_ERR;
    if (status)
        return (int)status;
    struct fake_qp *peer = fake_qp_by_number(qp->peer);
    enum ibv_qp_state far = peer ? peer->ex.qp_base.state : IBV_QPS_ERR;
    if (!peer || peer->peer != qp->ex.qp_base.qp_num || (far != IBV_QPS_RTR && far != IBV_QPS_RTS))
        return no_answer(qp, now);
    switch (wr->kind) {
    case FAKE_WR_WRITE: return execute_write(qp, peer, wr, now);
    case FAKE_WR_READ: return execute_read(qp, peer, wr);
    default: return deliver(qp, peer, wr, now);
    }
}

static bool peer_fails_too(enum ibv_wc_status status)
{
    return status == IBV_WC_REM_ACCESS_ERR || status == IBV_WC_REM_INV_REQ_ERR || status == IBV_WC_REM_OP_ERR;
}

static void send_step(struct fake_qp *qp, uint64_t now)
{
    struct fake_wr *wr = STAILQ_FIRST(&qp->sq);
    int status = IBV_WC_SUCCESS;
    if (!qp->not_before && !qp->retry_until) { /* the first try */
        status = (int)fault(wr->kind);
        if (!status)
            status = (int)fault(FAKE_WR_ANY);
    }
    if (!status)
        status = execute(qp, wr, now);
    if (status == NOT_NOW)
        return;
    if (fake.hole_at != FAKE_NEVER)
        fake.hole_at--;
    struct fake_qp *peer = fake_qp_by_number(qp->peer);
    complete_send(qp, (enum ibv_wc_status)status);
    if (status) {
        fake_qp_fail(qp);
        if (peer && peer_fails_too((enum ibv_wc_status)status))
            fake_qp_fail(peer);
    }
}

/* --- the thread --- */

/* When qp can take a step: 0 for now, UINT64_MAX for never. */
static uint64_t ready_at(const struct fake_qp *qp, uint64_t now)
{
    switch (qp->ex.qp_base.state) {
    case IBV_QPS_ERR: return STAILQ_EMPTY(&qp->sq) && STAILQ_EMPTY(&qp->rq) ? UINT64_MAX : 0;
    case IBV_QPS_RTS:
        if (STAILQ_EMPTY(&qp->sq) || !fake.hole_at)
            return UINT64_MAX;
        return qp->not_before <= now ? 0 : qp->not_before;
    default: return UINT64_MAX;
    }
}

/* One of those that are ready, each with the same odds; else *next is lowered to when one will be. */
static struct fake_qp *choose(uint64_t now, uint64_t *next)
{
    struct fake_qp *qp, *chosen = NULL;
    uint64_t seen = 0;
    LIST_FOREACH(qp, &fake.qps, link)
    {
        uint64_t at = ready_at(qp, now);
        if (!at && !fake_random(++seen))
            chosen = qp;
        else if (at && at < *next)
            *next = at;
    }
    return chosen;
}

static void pause_now_and_then(void)
{
    unsigned us = fake_random(PAUSE_ODDS) ? 0 : (unsigned)fake_random(fake.setup.delay_us + 1);
    pthread_mutex_unlock(&fake.lock);
    if (us)
        nanosleep(&(struct timespec){.tv_nsec = us * 1000L}, NULL);
    else
        sched_yield(); /* or callers would hardly ever get the lock */
    pthread_mutex_lock(&fake.lock);
}

static void *wire(void *unused)
{
    pthread_mutex_lock(&fake.lock);
    while (!fake.stopping) {
        uint64_t now = clock_now_ns(), next = UINT64_MAX;
        struct fake_qp *qp;
        if (fake_message_step(now, &next))
            continue;
        if ((qp = choose(now, &next))) {
            if (qp->ex.qp_base.state == IBV_QPS_ERR)
                flush_one(qp);
            else
                send_step(qp, now);
            pause_now_and_then();
        } else if (next == UINT64_MAX) {
            pthread_cond_wait(&fake.work, &fake.lock);
        } else {
            struct timespec until = clock_timespec(next);
            pthread_cond_clockwait(&fake.work, &fake.lock, CLOCK_MONOTONIC, &until);
        }
    }
    pthread_mutex_unlock(&fake.lock);
    return unused;
}

void fake_wire_wake(void)
{
    if (!fake.wired && pthread_create(&fake.wire, NULL, wire, NULL))
        fake_die("no thread for the wire");
    fake.wired = true;
    pthread_cond_signal(&fake.work);
}

void fake_wire_stop(void)
{
    if (!fake.wired)
        return;
    fake.stopping = true;
    pthread_cond_signal(&fake.work);
    pthread_mutex_unlock(&fake.lock);
    pthread_join(fake.wire, NULL);
    pthread_mutex_lock(&fake.lock);
    fake.wired = false;
}
