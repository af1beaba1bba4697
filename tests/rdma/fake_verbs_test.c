/*
 * Holds the fake to what devices, kernel and libraries do (and to the least helpful of it), so that it cannot drift
 * into kindness. The connection manager's part is fake_cm_test.c. Long, because it is one list of rules, each with its
 * test.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#include "tests/rdma/fake_scene.h"

TestSuite(fake_verbs, .timeout = 30);

static struct scene s;

static void open_scene(void)
{
    scene_init(&s, NULL);
    scene_connect(&s);
    for (unsigned i = 0; i < SCENE_MEMORY; i++)
        s.a.memory[i] = (uint8_t)(i % 251 + 1);
}

static void close_scene(void)
{
    scene_fini(&s);
}

static bool is_zero(const uint8_t *memory, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (memory[i])
            return false;
    }
    return true;
}

/* --- data --- */

Test(fake_verbs, a_send_lands_in_the_receive_that_was_posted_first)
{
    open_scene();
    scene_recv(&s.b, 10, 1000, 100);
    scene_recv(&s.b, 11, 2000, 100);
    cr_assert_eq(scene_send(&s.a, 1, 5, 30, IBV_SEND_SIGNALED), 0);
    struct ibv_wc wc = scene_poll(s.b.recv_cq);
    cr_assert(wc.wr_id == 10 && wc.status == IBV_WC_SUCCESS && wc.opcode == IBV_WC_RECV && wc.byte_len == 30);
    cr_assert_eq(wc.qp_num, s.b.id->qp->qp_num);
    cr_assert_arr_eq(s.b.memory + 1000, s.a.memory + 5, 30);
    cr_assert(is_zero(s.b.memory + 1030, 1000));
    wc = scene_poll(s.a.send_cq);
    cr_assert(wc.wr_id == 1 && wc.status == IBV_WC_SUCCESS && wc.opcode == IBV_WC_SEND);
    cr_assert_eq(fake_verbs_rnr_count(), 0);
    close_scene();
}

Test(fake_verbs, a_write_is_invisible_until_a_later_receive_was_polled)
{
    open_scene();
    scene_recv(&s.b, 10, 0, 100);
    cr_assert_eq(scene_write(&s.a, 1, 0, 500, &s.b, 4096, IBV_SEND_SIGNALED), 0);
    cr_assert_eq(scene_poll(s.a.send_cq).status, IBV_WC_SUCCESS);
    cr_assert_eq(scene_send(&s.a, 2, 0, 1, IBV_SEND_SIGNALED), 0);
    cr_assert_eq(scene_poll(s.a.send_cq).wr_id, 2);
    cr_assert(is_zero(s.b.memory, SCENE_MEMORY), "both are acknowledged, and nothing was polled here");
    cr_assert_eq(scene_poll(s.b.recv_cq).wr_id, 10);
    cr_assert_arr_eq(s.b.memory + 4096, s.a.memory, 500);
    cr_assert_eq(s.b.memory[0], s.a.memory[0]);
    close_scene();
}

Test(fake_verbs, a_write_behind_the_send_stays_invisible)
{
    open_scene();
    scene_recv(&s.b, 10, 0, 100);
    scene_send(&s.a, 1, 0, 1, IBV_SEND_SIGNALED);
    scene_write(&s.a, 2, 0, 500, &s.b, 4096, IBV_SEND_SIGNALED);
    scene_poll(s.a.send_cq);
    scene_poll(s.a.send_cq);
    scene_poll(s.b.recv_cq);
    cr_assert(is_zero(s.b.memory + 4096, 500));
    close_scene();
}

Test(fake_verbs, acknowledged_writes_land_at_the_latest_with_the_end_of_queue_pair_or_registration)
{
    open_scene();
    scene_write(&s.a, 1, 0, 100, &s.b, 0, IBV_SEND_SIGNALED);
    scene_poll(s.a.send_cq);
    cr_assert(is_zero(s.b.memory, 100));
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    cr_assert_eq(ibv_modify_qp(s.b.id->qp, &attr, IBV_QP_STATE), 0);
    cr_assert_arr_eq(s.b.memory, s.a.memory, 100);
    close_scene();

    open_scene();
    scene_write(&s.a, 1, 0, 100, &s.b, 0, IBV_SEND_SIGNALED);
    scene_poll(s.a.send_cq);
    cr_assert_eq(ibv_dereg_mr(s.b.mr), 0);
    s.b.mr = NULL;
    cr_assert_arr_eq(s.b.memory, s.a.memory, 100);
    close_scene();
}

/* Sixteen writes to one byte, behind the send that makes them visible: which of them was the last? */
static uint8_t last_of_many(unsigned access)
{
    open_scene();
    struct ibv_mr *mr = ibv_reg_mr(s.b.pd, s.b.memory, 4096, access);
    struct end to = {.memory = s.b.memory, .mr = mr};
    scene_recv(&s.b, 10, 5000, 100);
    for (unsigned i = 0; i < 16; i++) {
        scene_write(&s.a, i, i, 1, &to, 0, IBV_SEND_SIGNALED);
        scene_poll(s.a.send_cq);
    }
    scene_send(&s.a, 20, 0, 1, 0);
    scene_poll(s.b.recv_cq);
    uint8_t last = s.b.memory[0];
    ibv_dereg_mr(mr);
    close_scene();
    return last;
}

Test(fake_verbs, writes_keep_their_order_but_for_relaxed_ordering)
{
    unsigned access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE, relaxed = 0;
    for (unsigned i = 0; i < 10; i++) {
        cr_assert_eq(last_of_many(access), 16);
        relaxed += last_of_many(access | IBV_ACCESS_RELAXED_ORDERING) != 16;
    }
    cr_assert_gt(relaxed, 0);
}

Test(fake_verbs, memory_is_read_when_the_request_is_executed)
{
    open_scene();
    fake_black_hole(0);
    scene_recv(&s.b, 10, 0, 100);
    scene_send(&s.a, 1, 0, 4, IBV_SEND_SIGNALED);
    memcpy(s.a.memory, "late", 4);
    fake_black_hole(FAKE_NEVER);
    scene_poll(s.b.recv_cq);
    cr_assert_arr_eq(s.b.memory, "late", 4);
    close_scene();
}

Test(fake_verbs, inline_data_is_copied_when_it_is_posted)
{
    open_scene();
    fake_black_hole(0);
    scene_recv(&s.b, 10, 0, 100);
    memcpy(s.a.memory, "early", 5);
    cr_assert_eq(scene_send(&s.a, 1, 0, 5, IBV_SEND_SIGNALED | IBV_SEND_INLINE), 0);
    memcpy(s.a.memory, "later", 5);
    fake_black_hole(FAKE_NEVER);
    scene_poll(s.b.recv_cq);
    cr_assert_arr_eq(s.b.memory, "early", 5);
    cr_assert_eq(scene_send(&s.a, 2, 0, SCENE_INLINE + 1, IBV_SEND_SIGNALED | IBV_SEND_INLINE), EINVAL);
    close_scene();
}

Test(fake_verbs, a_write_with_immediate_consumes_a_receive_and_carries_its_number)
{
    open_scene();
    scene_recv(&s.b, 10, 0, 100);
    ibv_wr_start(s.a.qp);
    s.a.qp->wr_id = 1;
    s.a.qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_rdma_write_imm(s.a.qp, s.b.mr->rkey, (uintptr_t)s.b.memory + 512, htobe32(77));
    ibv_wr_set_sge(s.a.qp, s.a.mr->lkey, (uintptr_t)s.a.memory, 64);
    cr_assert_eq(ibv_wr_complete(s.a.qp), 0);
    struct ibv_wc wc = scene_poll(s.b.recv_cq);
    cr_assert(wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM && wc.wc_flags & IBV_WC_WITH_IMM && wc.byte_len == 64);
    cr_assert_eq(be32toh(wc.imm_data), 77);
    cr_assert_arr_eq(s.b.memory + 512, s.a.memory, 64);
    cr_assert(is_zero(s.b.memory, 100), "the receive's own buffer is not used");
    close_scene();
}

Test(fake_verbs, a_read_is_there_when_its_completion_is)
{
    open_scene();
    memset(s.b.memory, 'b', 300);
    cr_assert_eq(scene_read(&s.a, 1, 1000, 300, &s.b, 0, 0), 0);
    cr_assert_eq(scene_read(&s.a, 2, 2000, 300, &s.b, 0, IBV_SEND_SIGNALED), 0);
    cr_assert_eq(scene_poll(s.a.send_cq).wr_id, 2);
    cr_assert_arr_eq(s.a.memory + 1000, s.b.memory, 300);
    cr_assert_arr_eq(s.a.memory + 2000, s.b.memory, 300);
    close_scene();
}

Test(fake_verbs, lists_of_both_kinds_keep_their_order)
{
    open_scene();
    struct ibv_sge sges[] = {{(uintptr_t)s.a.memory, 10, s.a.mr->lkey}, {(uintptr_t)s.a.memory + 50, 10, s.a.mr->lkey}};
    struct ibv_send_wr second = {
        .wr_id = 2, .sg_list = sges, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr first = {.wr_id = 1,
                                .next = &second,
                                .sg_list = sges,
                                .num_sge = 2,
                                .opcode = IBV_WR_SEND,
                                .send_flags = IBV_SEND_SIGNALED},
                       *bad_send;
    scene_recv(&s.b, 10, 0, 100);
    scene_recv(&s.b, 11, 100, 100);
    cr_assert_eq(ibv_post_send(s.a.id->qp, &first, &bad_send), 0);
    cr_assert_eq(scene_poll(s.b.recv_cq).byte_len, 20);
    cr_assert_eq(scene_poll(s.b.recv_cq).byte_len, 10);
    cr_assert_arr_eq(s.b.memory, s.a.memory, 10);
    cr_assert_arr_eq(s.b.memory + 10, s.a.memory + 50, 10);
    cr_assert_eq(scene_poll(s.a.send_cq).wr_id, 1);
    cr_assert_eq(scene_poll(s.a.send_cq).wr_id, 2);
    close_scene();
}

/* --- slots --- */

Test(fake_verbs, a_slot_of_the_send_queue_is_free_only_when_a_completion_behind_it_was_polled)
{
    open_scene();
    for (unsigned i = 0; i < SCENE_SENDS - 1; i++)
        cr_assert_eq(scene_write(&s.a, i, 0, 8, &s.b, 0, 0), 0);
    cr_assert_eq(scene_write(&s.a, 100, 0, 8, &s.b, 0, IBV_SEND_SIGNALED), 0);
    cr_assert_eq(scene_write(&s.a, 101, 0, 8, &s.b, 0, IBV_SEND_SIGNALED), ENOMEM);
    while (fake_verbs_executed(FAKE_WR_WRITE) < SCENE_SENDS)
        poll(NULL, 0, 1);
    cr_assert_eq(scene_write(&s.a, 101, 0, 8, &s.b, 0, IBV_SEND_SIGNALED), ENOMEM, "executed is not enough");
    cr_assert_eq(scene_poll(s.a.send_cq).wr_id, 100, "and there is one completion in all");
    for (unsigned i = 0; i < SCENE_SENDS; i++)
        cr_assert_eq(scene_write(&s.a, i, 0, 8, &s.b, 0, 0), 0);
    cr_assert_eq(scene_write(&s.a, 101, 0, 8, &s.b, 0, 0), ENOMEM, "a queue full of silent requests is full for good");
    close_scene();
}

Test(fake_verbs, a_batch_that_does_not_fit_is_dropped_as_a_whole)
{
    open_scene();
    ibv_wr_start(s.a.qp);
    s.a.qp->wr_flags = IBV_SEND_SIGNALED;
    for (unsigned i = 0; i < SCENE_SENDS + 1; i++) {
        ibv_wr_rdma_write(s.a.qp, s.b.mr->rkey, (uintptr_t)s.b.memory);
        ibv_wr_set_sge(s.a.qp, s.a.mr->lkey, (uintptr_t)s.a.memory, 8);
    }
    cr_assert_eq(ibv_wr_complete(s.a.qp), ENOMEM);
    cr_assert(scene_no_completion(s.a.send_cq, 20));
    cr_assert_eq(fake_verbs_executed(FAKE_WR_ANY), 0);
    ibv_wr_start(s.a.qp);
    ibv_wr_rdma_write(s.a.qp, s.b.mr->rkey, (uintptr_t)s.b.memory);
    ibv_wr_abort(s.a.qp);
    cr_assert_eq(scene_write(&s.a, 7, 0, 8, &s.b, 0, IBV_SEND_SIGNALED), 0, "and an aborted one leaves nothing");
    cr_assert_eq(scene_poll(s.a.send_cq).wr_id, 7);
    close_scene();
}

Test(fake_verbs, a_slot_of_the_receive_queue_is_free_when_its_completion_was_polled)
{
    open_scene();
    for (unsigned i = 0; i < SCENE_RECVS; i++)
        cr_assert_eq(scene_recv(&s.b, i, 0, 100), 0);
    cr_assert_eq(scene_recv(&s.b, 99, 0, 100), ENOMEM);
    scene_send(&s.a, 1, 0, 1, IBV_SEND_SIGNALED);
    scene_poll(s.a.send_cq);
    cr_assert_eq(scene_recv(&s.b, 99, 0, 100), ENOMEM);
    scene_poll(s.b.recv_cq);
    cr_assert_eq(scene_recv(&s.b, 99, 0, 100), 0);
    close_scene();
}

/* --- errors --- */

static void expect_broken(struct end *end)
{
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    cr_assert_eq(ibv_query_qp(end->id->qp, &attr, IBV_QP_STATE, &init), 0);
    cr_assert_eq(attr.qp_state, IBV_QPS_ERR);
}

Test(fake_verbs, in_error_everything_outstanding_is_flushed_signalled_or_not)
{
    open_scene();
    fake_black_hole(0);
    scene_recv(&s.a, 50, 0, 100);
    for (unsigned i = 0; i < 4; i++)
        scene_write(&s.a, i, 0, 8, &s.b, 0, i == 2 ? IBV_SEND_SIGNALED : 0);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    cr_assert_eq(ibv_modify_qp(s.a.id->qp, &attr, IBV_QP_STATE), 0);
    for (unsigned i = 0; i < 4; i++) {
        struct ibv_wc wc = scene_poll(s.a.send_cq);
        cr_assert(wc.status == IBV_WC_WR_FLUSH_ERR && wc.wr_id == i);
        cr_assert_neq(wc.opcode, IBV_WC_RDMA_WRITE, "the operation of a failed request is rubbish");
    }
    struct ibv_wc wc = scene_poll(s.a.recv_cq);
    cr_assert(wc.status == IBV_WC_WR_FLUSH_ERR && wc.wr_id == 50);
    cr_assert_eq(scene_write(&s.a, 9, 0, 8, &s.b, 0, 0), 0, "later ones are taken, and flushed");
    cr_assert_eq(scene_poll(s.a.send_cq).status, IBV_WC_WR_FLUSH_ERR);
    cr_assert_eq(scene_recv(&s.a, 51, 0, 8), 0);
    cr_assert_eq(scene_poll(s.a.recv_cq).status, IBV_WC_WR_FLUSH_ERR);
    close_scene();
}

static void expect_write_fails(size_t offset, uint32_t size, uint32_t lkey, uint32_t rkey, uint64_t remote,
                               enum ibv_wc_status status)
{
    ibv_wr_start(s.a.qp);
    s.a.qp->wr_id = 5;
    s.a.qp->wr_flags = 0;
    ibv_wr_rdma_write(s.a.qp, rkey, remote);
    ibv_wr_set_sge(s.a.qp, lkey, (uintptr_t)s.a.memory + offset, size);
    cr_assert_eq(ibv_wr_complete(s.a.qp), 0);
    struct ibv_wc wc = scene_poll(s.a.send_cq);
    cr_assert(wc.wr_id == 5 && wc.status == status, "%s", ibv_wc_status_str(wc.status));
    expect_broken(&s.a);
    cr_assert(is_zero(s.b.memory, SCENE_MEMORY));
}

Test(fake_verbs, keys_ranges_and_rights_are_checked_on_both_sides)
{
    open_scene();
    expect_write_fails(0, 8, s.a.mr->lkey + 1, s.b.mr->rkey, (uintptr_t)s.b.memory, IBV_WC_LOC_PROT_ERR);
    close_scene();
    open_scene();
    expect_write_fails(SCENE_MEMORY - 4, 8, s.a.mr->lkey, s.b.mr->rkey, (uintptr_t)s.b.memory, IBV_WC_LOC_PROT_ERR);
    close_scene();
    open_scene();
    expect_write_fails(0, 8, s.a.mr->lkey, s.b.mr->lkey, (uintptr_t)s.b.memory, IBV_WC_REM_ACCESS_ERR);
    expect_broken(&s.b);
    close_scene();
    open_scene();
    expect_write_fails(0, 8, s.a.mr->lkey, s.b.mr->rkey, (uintptr_t)s.b.memory - 4, IBV_WC_REM_ACCESS_ERR);
    close_scene();
    open_scene();
    struct ibv_mr *readable = ibv_reg_mr(s.b.pd, s.b.memory, 100, IBV_ACCESS_REMOTE_READ);
    expect_write_fails(0, 8, s.a.mr->lkey, readable->rkey, (uintptr_t)s.b.memory, IBV_WC_REM_ACCESS_ERR);
    ibv_dereg_mr(readable);
    close_scene();
    open_scene();
    struct ibv_pd *other = ibv_alloc_pd(s.b.id->verbs);
    struct ibv_mr *foreign = ibv_reg_mr(other, s.b.memory, 100, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    expect_write_fails(0, 8, s.a.mr->lkey, foreign->rkey, (uintptr_t)s.b.memory, IBV_WC_REM_ACCESS_ERR);
    ibv_dereg_mr(foreign);
    ibv_dealloc_pd(other);
    close_scene();
    open_scene();
    struct ibv_qp_attr attr = {.qp_access_flags = 0};
    cr_assert_eq(ibv_modify_qp(s.b.id->qp, &attr, IBV_QP_ACCESS_FLAGS), 0);
    expect_write_fails(0, 8, s.a.mr->lkey, s.b.mr->rkey, (uintptr_t)s.b.memory, IBV_WC_REM_INV_REQ_ERR);
    close_scene();
}

Test(fake_verbs, a_write_of_nothing_needs_no_key)
{
    open_scene();
    ibv_wr_start(s.a.qp);
    s.a.qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_rdma_write(s.a.qp, 0, 0);
    ibv_wr_set_sge_list(s.a.qp, 0, NULL);
    cr_assert_eq(ibv_wr_complete(s.a.qp), 0);
    cr_assert_eq(scene_poll(s.a.send_cq).status, IBV_WC_SUCCESS);
    close_scene();
}

Test(fake_verbs, a_receive_that_is_too_small_fails_both_sides)
{
    open_scene();
    scene_recv(&s.b, 10, 0, 7);
    scene_send(&s.a, 1, 0, 8, 0);
    cr_assert_eq(scene_poll(s.a.send_cq).status, IBV_WC_REM_INV_REQ_ERR);
    cr_assert_eq(scene_poll(s.b.recv_cq).status, IBV_WC_LOC_LEN_ERR);
    expect_broken(&s.a);
    expect_broken(&s.b);
    close_scene();
}

Test(fake_verbs, a_read_needs_depth_on_both_sides)
{
    scene_init(&s, NULL);
    s.param.initiator_depth = 0;
    scene_connect(&s);
    scene_read(&s.a, 1, 0, 8, &s.b, 0, 0);
    cr_assert_eq(scene_poll(s.a.send_cq).status, IBV_WC_LOC_QP_OP_ERR);
    close_scene();
    scene_init(&s, NULL);
    s.param.responder_resources = 0;
    scene_connect(&s);
    scene_read(&s.a, 1, 0, 8, &s.b, 0, 0);
    cr_assert_eq(scene_poll(s.a.send_cq).status, IBV_WC_REM_INV_REQ_ERR);
    close_scene();
}

Test(fake_verbs, a_send_without_a_receive_is_counted_and_retried_and_fails_in_the_end)
{
    open_scene();
    scene_send(&s.a, 1, 0, 8, IBV_SEND_SIGNALED);
    while (fake_verbs_rnr_count() < 20)
        poll(NULL, 0, 1);
    cr_assert(scene_no_completion(s.a.send_cq, 0), "7 stands for ever");
    scene_recv(&s.b, 10, 0, 8);
    cr_assert_eq(scene_poll(s.a.send_cq).status, IBV_WC_SUCCESS);
    close_scene();
    scene_init(&s, NULL);
    s.param.rnr_retry_count = 2;
    scene_connect(&s);
    scene_send(&s.a, 1, 0, 8, 0);
    cr_assert_eq(scene_poll(s.a.send_cq).status, IBV_WC_RNR_RETRY_EXC_ERR);
    cr_assert_eq(fake_verbs_rnr_count(), 3, "the first try and two more");
    close_scene();
}

Test(fake_verbs, a_peer_that_is_gone_ends_the_retries)
{
    open_scene();
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    ibv_modify_qp(s.b.id->qp, &attr, IBV_QP_STATE);
    scene_write(&s.a, 1, 0, 8, &s.b, 0, 0);
    cr_assert(scene_no_completion(s.a.send_cq, 20), "not at once");
    cr_assert_eq(scene_poll(s.a.send_cq).status, IBV_WC_RETRY_EXC_ERR);
    close_scene();
}

Test(fake_verbs, every_status_can_be_had)
{
    for (enum ibv_wc_status status = IBV_WC_LOC_LEN_ERR; status <= IBV_WC_TM_RNDV_INCOMPLETE; status++) {
        open_scene();
        fake_fail_wr(FAKE_WR_WRITE, 1, status);
        scene_write(&s.a, 1, 0, 8, &s.b, 0, IBV_SEND_SIGNALED);
        cr_assert_eq(scene_poll(s.a.send_cq).status, IBV_WC_SUCCESS);
        scene_write(&s.a, 2, 0, 8, &s.b, 0, 0);
        cr_assert_eq(scene_poll(s.a.send_cq).status, status);
        expect_broken(&s.a);
        close_scene();
    }
}

Test(fake_verbs, a_receive_can_fail)
{
    open_scene();
    fake_fail_wr(FAKE_WR_RECV, 0, IBV_WC_LOC_PROT_ERR);
    scene_recv(&s.b, 10, 0, 8);
    scene_send(&s.a, 1, 0, 8, 0);
    cr_assert_eq(scene_poll(s.b.recv_cq).status, IBV_WC_LOC_PROT_ERR);
    cr_assert_eq(scene_poll(s.a.send_cq).status, IBV_WC_REM_OP_ERR);
    close_scene();
}

Test(fake_verbs, states_allow_what_they_allow)
{
    scene_init(&s, NULL);
    scene_resolve(&s);
    scene_queues(&s.a);
    cr_assert_eq(scene_send(&s.a, 1, 0, 8, 0), EINVAL, "not connected");
    cr_assert_eq(scene_recv(&s.a, 1, 0, 8), 0, "but receives may be posted");
    struct ibv_qp_attr attr = {.min_rnr_timer = 12};
    cr_assert_eq(ibv_modify_qp(s.a.id->qp, &attr, IBV_QP_MIN_RNR_TIMER), EINVAL);
    close_scene();
    open_scene();
    cr_assert_eq(ibv_modify_qp(s.a.id->qp, &attr, IBV_QP_MIN_RNR_TIMER), 0);
    struct ibv_qp_init_attr init;
    ibv_query_qp(s.a.id->qp, &attr, IBV_QP_MIN_RNR_TIMER, &init);
    cr_assert_eq(attr.min_rnr_timer, 12);
    cr_assert_eq(init.cap.max_send_wr, SCENE_SENDS);
    attr.qp_state = IBV_QPS_RTR;
    cr_assert_eq(ibv_modify_qp(s.a.id->qp, &attr, IBV_QP_STATE), EINVAL);
    close_scene();
}

/* --- events --- */

static bool get_event(struct end *end)
{
    struct ibv_cq *cq;
    void *context;
    if (ibv_get_cq_event(end->completions, &cq, &context)) {
        cr_assert_eq(errno, EAGAIN);
        return false;
    }
    cr_assert_eq(context, end);
    ibv_ack_cq_events(cq, 1);
    return true;
}

static bool readable(int fd, int ms)
{
    return poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, ms) == 1;
}

Test(fake_verbs, arming_is_for_one_event_and_for_what_comes_later)
{
    open_scene();
    scene_write(&s.a, 1, 0, 8, &s.b, 0, IBV_SEND_SIGNALED);
    while (!fake_verbs_executed(FAKE_WR_WRITE))
        poll(NULL, 0, 1);
    cr_assert_not(readable(s.a.completions->fd, 0), "not armed");
    cr_assert_eq(ibv_req_notify_cq(s.a.send_cq, 0), 0);
    cr_assert_not(readable(s.a.completions->fd, 10), "what is there raises nothing");
    scene_write(&s.a, 2, 0, 8, &s.b, 0, IBV_SEND_SIGNALED);
    scene_write(&s.a, 3, 0, 8, &s.b, 0, IBV_SEND_SIGNALED);
    cr_assert(readable(s.a.completions->fd, 1000));
    for (unsigned i = 1; i <= 3; i++)
        cr_assert_eq(scene_poll(s.a.send_cq).wr_id, i);
    cr_assert(get_event(&s.a));
    cr_assert_not(get_event(&s.a), "one event for two completions");
    close_scene();
}

Test(fake_verbs, armed_for_solicited_means_solicited_or_failed)
{
    open_scene();
    for (unsigned i = 0; i < 3; i++)
        scene_recv(&s.b, i, 0, 100);
    ibv_req_notify_cq(s.b.recv_cq, 1);
    scene_send(&s.a, 1, 0, 1, IBV_SEND_SIGNALED);
    scene_poll(s.b.recv_cq);
    cr_assert_not(readable(s.b.completions->fd, 10));
    scene_send(&s.a, 2, 0, 1, IBV_SEND_SOLICITED);
    cr_assert(readable(s.b.completions->fd, 1000));
    cr_assert(get_event(&s.b));
    scene_poll(s.b.recv_cq);
    ibv_req_notify_cq(s.b.recv_cq, 1);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    ibv_modify_qp(s.b.id->qp, &attr, IBV_QP_STATE);
    cr_assert(readable(s.b.completions->fd, 1000));
    cr_assert(get_event(&s.b));
    close_scene();
}

Test(fake_verbs, asynchronous_events_come_on_demand)
{
    open_scene();
    struct ibv_async_event event;
    int fd = s.a.id->verbs->async_fd;
    cr_assert_not(readable(fd, 0));
    cr_assert_eq(fake_raise_async(IBV_EVENT_PORT_ERR), 1);
    cr_assert(readable(fd, 0));
    cr_assert_eq(ibv_get_async_event(s.a.id->verbs, &event), 0);
    cr_assert(event.event_type == IBV_EVENT_PORT_ERR && event.element.port_num == 1);
    ibv_ack_async_event(&event);
    cr_assert_eq(fake_raise_async(IBV_EVENT_QP_FATAL), 2);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(ibv_get_async_event(s.a.id->verbs, &event), 0);
        cr_assert(event.element.qp == s.a.id->qp || event.element.qp == s.b.id->qp);
        ibv_ack_async_event(&event);
    }
    expect_broken(&s.a);
    cr_assert_eq(fake_raise_async(IBV_EVENT_CQ_ERR), 4, "and what nobody fetches goes with its object");
    close_scene();
}

/* --- objects --- */

Test(fake_verbs, objects_in_use_are_busy)
{
    open_scene();
    cr_assert_eq(ibv_dealloc_pd(s.a.pd), EBUSY);
    cr_assert_eq(ibv_destroy_cq(s.a.send_cq), EBUSY);
    cr_assert_eq(ibv_destroy_comp_channel(s.a.completions), EBUSY);
    struct fake_living living = fake_verbs_living();
    cr_assert(living.pds == 2 && living.mrs == 2 && living.cqs == 4 && living.comp_channels == 2 && living.qps == 2);
    cr_assert(living.ids == 3 && living.event_channels == 3 && living.unacked == 0 && living.contexts == 0);
    close_scene();
    cr_assert_eq(fake_verbs_living_total(), 0);
}

Test(fake_verbs, registrations_are_refused_for_the_right_reasons)
{
    struct fake_setup setup;
    fake_setup_init(&setup);
    setup.limits.max_pinned = 3 * SCENE_MEMORY;
    scene_init(&s, &setup);
    scene_connect(&s);
    void *at = s.a.memory;
    cr_assert_null(ibv_reg_mr(s.a.pd, at, 100, IBV_ACCESS_REMOTE_WRITE));
    cr_assert_eq(errno, EINVAL, "the peer may not write what we may not");
    cr_assert_null(ibv_reg_mr_iova(s.a.pd, at, 100, (uintptr_t)at + 1, 0));
    cr_assert_eq(errno, EINVAL, "another offset within the page");
    cr_assert_null(ibv_reg_mr(s.a.pd, at, 100, IBV_ACCESS_ON_DEMAND));
    cr_assert_eq(errno, EINVAL);
    cr_assert_null(ibv_reg_mr(s.a.pd, (void *)4096, 100, 0));
    cr_assert_eq(errno, EFAULT);
    cr_assert_null(ibv_reg_mr(s.a.pd, at, 2 * SCENE_MEMORY, 0));
    cr_assert_eq(errno, ENOMEM, "more than may be pinned");
    fake_fail_call(FAKE_CALL_REG_MR, 1, 1, EOPNOTSUPP);
    struct ibv_mr *mr = ibv_reg_mr(s.a.pd, at, 100, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_RELAXED_ORDERING);
    cr_assert_not_null(mr);
    cr_assert_eq(mr->rkey, 0, "no rights, no key");
    cr_assert_null(ibv_reg_mr(s.a.pd, at, 100, 0));
    cr_assert_eq(errno, EOPNOTSUPP);
    ibv_dereg_mr(mr);
    close_scene();
}

Test(fake_verbs, limits_are_limits)
{
    struct fake_setup setup;
    fake_setup_init(&setup);
    setup.limits.max_cqe = 100;
    setup.limits.max_qp_wr = 10;
    scene_init(&s, &setup);
    scene_connect(&s);
    cr_assert_null(ibv_create_cq(s.a.id->verbs, 101, NULL, NULL, 0));
    struct ibv_device_attr attr;
    cr_assert_eq(ibv_query_device(s.a.id->verbs, &attr), 0);
    cr_assert(attr.max_cqe == 100 && attr.max_qp_wr == 10);
    close_scene();
}

Test(fake_verbs, devices_are_listed_and_described)
{
    struct fake_setup setup;
    fake_setup_init(&setup);
    setup.devices[1] = (struct fake_device_setup){
        .name = "fake1", .addresses = {"192.0.2.1"}, .mtu = IBV_MTU_1024, .state = IBV_PORT_DOWN, .infiniband = true};
    fake_verbs_start(&setup);
    int count;
    struct ibv_device **list = ibv_get_device_list(&count);
    cr_assert_eq(count, 2);
    cr_assert_str_eq(ibv_get_device_name(list[1]), "fake1");
    cr_assert_null(list[2]);
    struct ibv_context *context = ibv_open_device(list[1]);
    ibv_free_device_list(list);
    struct ibv_port_attr port;
    struct ibv_device_attr_ex attr;
    struct ibv_gid_entry gids[4];
    cr_assert_eq(ibv_query_port(context, 1, &port), 0);
    cr_assert(port.state == IBV_PORT_DOWN && port.active_mtu == IBV_MTU_1024);
    cr_assert_eq(port.link_layer, IBV_LINK_LAYER_INFINIBAND);
    cr_assert_neq(ibv_query_port(context, 2, &port), 0);
    cr_assert_eq(ibv_query_device_ex(context, NULL, &attr), 0);
    cr_assert_eq(attr.orig_attr.phys_port_cnt, 1);
    cr_assert_eq(ibv_query_gid_table(context, gids, 4, 0), 1);
    cr_assert(gids[0].gid.raw[10] == 0xff && gids[0].gid.raw[12] == 192);
    cr_assert_eq(fake_verbs_living().contexts, 1);
    cr_assert_eq(ibv_close_device(context), 0);
    fake_verbs_stop();
}

/* --- what ends the program --- */

Test(fake_verbs, overflow_of_a_completion_queue_aborts, .signal = SIGABRT)
{
    scene_init(&s, NULL);
    scene_resolve(&s);
    struct ibv_cq *cq = ibv_create_cq(s.a.id->verbs, 1, NULL, NULL, 0);
    struct ibv_qp_init_attr attr = {.send_cq = cq, .recv_cq = cq, .cap = {.max_recv_wr = 2}, .qp_type = IBV_QPT_RC};
    cr_assert_eq(rdma_create_qp(s.a.id, NULL, &attr), 0);
    cr_assert_null(ibv_qp_to_qp_ex(s.a.id->qp), "made without ibv_wr_*");
    struct ibv_recv_wr wrs[] = {{.next = &wrs[1]}, {.wr_id = 1}}, *bad;
    cr_assert_eq(ibv_post_recv(s.a.id->qp, wrs, &bad), 0);
    struct ibv_qp_attr error = {.qp_state = IBV_QPS_ERR};
    ibv_modify_qp(s.a.id->qp, &error, IBV_QP_STATE);
    for (;;)
        poll(NULL, 0, 100); /* until the flush of the second receive */
}

Test(fake_verbs, deregistration_under_queued_work_aborts, .signal = SIGABRT)
{
    open_scene();
    scene_recv(&s.a, 1, 0, 8);
    ibv_dereg_mr(s.a.mr);
}

Test(fake_verbs, an_operation_that_was_not_named_aborts, .signal = SIGABRT)
{
    open_scene();
    ibv_wr_start(s.a.qp);
    ibv_wr_send_imm(s.a.qp, 0);
}

Test(fake_verbs, leftovers_abort_at_stop, .signal = SIGABRT)
{
    open_scene();
    fake_verbs_stop();
}
