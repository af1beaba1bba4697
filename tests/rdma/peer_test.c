/* What a peer that does not keep the rules gets: RDMA channels against one made with plain verbs, on the fake. */
#include <criterion/criterion.h>
#include <string.h>

#include "rdma/cm.h"
#include "rdma/credits.h"
#include "rdma/frame.h"
#include "tests/lib/pair.h"
#include "tests/rdma/fake_scene.h"

TestSuite(rdma_peer, .timeout = 30);

static struct pair pair; /* b is the channel */
static struct scene s;   /* a is its peer */

static void begin(void)
{
    uint8_t request[CM_REQUEST_SIZE];
    pair_use_fabric(&fabric);
    cr_assert_eq(pair_listen(&pair, PAIR_RDMA), GODWIT_OK);
    s = (struct scene){.address = {.sin_family = AF_INET,
                                   .sin_port = htons(pair.address.port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    cm_request_encode(pair.introduction.ticket, request);
    struct rdma_conn_param param = {
        .private_data = request, .private_data_len = sizeof request, .retry_count = 6, .rnr_retry_count = 7};
    scene_resolve(&s);
    scene_queues(&s.a);
    for (unsigned i = 0; i < SCENE_RECVS; i++)
        cr_assert_eq(scene_recv(&s.a, i, 60000 + i * 16, 16), 0);
    cr_assert_eq(rdma_connect(s.a.id, &param), 0);
    cr_assert_eq(listener_accept(pair.listener, 5000, &pair.b, &pair.error), GODWIT_OK, "%s", pair.error.text);
    scene_expect(s.a.events, RDMA_CM_EVENT_ESTABLISHED);
}

static void end(void)
{
    channel_free(pair.b);
    pair.b = NULL;
    scene_end_fini(&s.a);
    pair_close(&pair);
}

/* A message of these bytes of header and, behind them, zeros. */
static void say(uint32_t credits, uint32_t size, uint32_t bytes)
{
    struct wire_out out = wire_out(s.a.memory, FRAME_HEADER);
    wire_put_u32(&out, credits);
    wire_put_u32(&out, size);
    cr_assert_eq(scene_send(&s.a, 1, 0, bytes, IBV_SEND_SIGNALED), 0);
    scene_poll(s.a.send_cq);
}

static enum godwit_err hear(size_t size)
{
    uint8_t bytes[64];
    return channel_recv_exact(pair.b, bytes, size, 5000);
}

Test(rdma_peer, a_good_frame_is_read)
{
    begin();
    say(0, 20, FRAME_HEADER + 20);
    cr_assert_eq(hear(20), GODWIT_OK);
    say(0, 0, FRAME_HEADER);
    say(0, FRAME_END, FRAME_HEADER);
    cr_assert_eq(hear(1), GODWIT_ERR_PEER_CLOSED);
    end();
}

Test(rdma_peer, malformed_frames_break_the_channel)
{
    static const struct {
        uint32_t credits, size, bytes;
    } frames[] = {
        {0, 0, 0},
        {0, 0, 4},
        {0, 20, FRAME_HEADER + 19},
        {0, 20, FRAME_HEADER + 21},
        {0, 20, FRAME_HEADER},
        {0, FRAME_END | 4, FRAME_HEADER + 4},
        {0, FRAME_DATA + 1, FRAME_HEADER + 40},
        {0, 0x7fffffff, FRAME_HEADER + 40},
        {1, 20, FRAME_HEADER + 20},          /* credits for what was never sent */
        {UINT32_MAX, 20, FRAME_HEADER + 20}, /* a total that goes back */
    };
    for (unsigned i = 0; i < sizeof frames / sizeof *frames; i++) {
        begin();
        say(frames[i].credits, frames[i].size, frames[i].bytes);
        cr_assert_eq(hear(1), GODWIT_ERR_PROTOCOL, "frame %u", i);
        cr_assert(strstr(channel_detail(pair.b), "malformed"), "frame %u: %s", i, channel_detail(pair.b));
        end();
    }
}

Test(rdma_peer, data_without_credit_breaks_the_channel)
{
    begin();
    for (unsigned i = 0; i < CREDITS_RING; i++)
        say(0, 1, FRAME_HEADER + 1);
    say(0, 1, FRAME_HEADER + 1);
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i <= CREDITS_RING && !err; i++)
        err = hear(1);
    cr_assert_eq(err, GODWIT_ERR_PROTOCOL);
    cr_assert(strstr(channel_detail(pair.b), "no credit"), "%s", channel_detail(pair.b));
    end();
}

Test(rdma_peer, a_peer_that_never_gives_credits_back_stops_the_sender)
{
    uint8_t byte = 0;
    enum godwit_err err = GODWIT_OK;
    unsigned sent = 0;
    begin();
    for (; sent < 2 * CREDITS_RING && !(err = channel_send(pair.b, &byte, 1, NULL, 0, 50)); sent++) {
        struct ibv_wc wc = scene_poll(s.a.recv_cq);
        cr_assert_eq(wc.status, IBV_WC_SUCCESS);
        cr_assert_eq(scene_recv(&s.a, wc.wr_id, 60000 + wc.wr_id * 16, 16), 0);
    }
    cr_assert_eq(err, GODWIT_ERR_TIMEOUT);
    cr_assert_eq(sent, CREDITS_RING);
    end();
}

static uint8_t shared[4096]; /* b's */
static struct end far;       /* how a reaches it */
static struct mr *shared_mr;

static void begin_sharing(void)
{
    static struct ibv_mr theirs;
    struct region region = {.addr = shared, .size = sizeof shared, .fd = -1};
    struct region_key key;
    begin();
    cr_assert_eq(domain_register(pair.domain_b, &region, REGION_REMOTE_WRITE, &shared_mr, NULL), GODWIT_OK);
    mr_export(shared_mr, &key);
    struct wire_in in = wire_in(key.bytes, key.size);
    theirs.rkey = wire_get_u32(&in);
    far = (struct end){.mr = &theirs, .memory = (uint8_t *)(uintptr_t)wire_get_u64(&in)};
    memset(s.a.memory, 'x', 64);
}

static enum ibv_wc_status write_shared(void)
{
    cr_assert_eq(scene_write(&s.a, 1, 0, 64, &far, 0, IBV_SEND_SIGNALED), 0);
    return scene_poll(s.a.send_cq).status;
}

static void end_sharing(void)
{
    mr_free(shared_mr);
    end();
}

Test(rdma_peer, rights_end_with_the_channel)
{
    begin_sharing();
    cr_assert_eq(write_shared(), IBV_WC_SUCCESS);
    channel_free(pair.b);
    pair.b = NULL;
    memset(shared, 0, sizeof shared);
    cr_assert_neq(write_shared(), IBV_WC_SUCCESS);
    cr_assert_eq(shared[0], 0);
    end_sharing();
}

Test(rdma_peer, rights_end_with_shutdown)
{
    begin_sharing();
    channel_shutdown(pair.b);
    cr_assert_eq(write_shared(), IBV_WC_REM_INV_REQ_ERR);
    channel_free(pair.b);
    pair.b = NULL;
    cr_assert_eq(shared[0], 0);
    end_sharing();
}

Test(rdma_peer, rights_that_cannot_be_taken_end_with_the_queue_pair)
{
    begin_sharing();
    fake_fail_call(FAKE_CALL_MODIFY_QP, 0, 1, EINVAL);
    channel_shutdown(pair.b);
    cr_assert_neq(write_shared(), IBV_WC_SUCCESS);
    channel_free(pair.b);
    pair.b = NULL;
    cr_assert_eq(shared[0], 0);
    end_sharing();
}
