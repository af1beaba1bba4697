/*
 * Events of a device that is open once for the whole process: those of queue pairs that are somebody else's, or were a
 * channel's, concern no channel; those of a channel concern no other.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "rdma/channel_private.h"
#include "tests/lib/pair.h"
#include "tests/rdma/fake_scene.h"

TestSuite(rdma_async, .timeout = 30);

static const enum ibv_event_type of_queue_pairs[] = {IBV_EVENT_QP_FATAL, IBV_EVENT_QP_REQ_ERR,
                                                     IBV_EVENT_QP_ACCESS_ERR, IBV_EVENT_COMM_EST};

static struct pair pair;
static struct scene s; /* a: a queue pair of the same device, made with plain verbs by somebody else */

static void begin(void)
{
    pair_use_fabric(&fabric);
    cr_assert_eq(pair_open(&pair, PAIR_RDMA), GODWIT_OK, "%s", pair.error.text);
    s = (struct scene){.address = {.sin_family = AF_INET,
                                   .sin_port = htons(pair.address.port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    scene_resolve(&s);
    scene_queues(&s.a);
}

static void end(void)
{
    scene_end_fini(&s.a);
    pair_close(&pair);
}

static struct rdma_channel *private_of(struct channel *channel)
{
    return (struct rdma_channel *)channel;
}

/* The channel takes what events there are, and works. */
static void expect_well(struct channel *channel, struct channel *peer)
{
    char byte;
    cr_assert_eq(channel_recv_exact(channel, &byte, 1, 10), GODWIT_ERR_TIMEOUT);
    cr_assert_eq(fake_verbs_living().unacked, 0);
    cr_assert_eq(channel_send(peer, "!", 1, NULL, 0, 5000), GODWIT_OK);
    cr_assert_eq(channel_recv_exact(channel, &byte, 1, 5000), GODWIT_OK, "%s", channel_detail(channel));
    cr_assert_str_eq(channel_detail(channel), "");
}

Test(rdma_async, events_of_a_stranger_s_queue_pair_concern_no_channel)
{
    static char theirs[] = "what a stranger keeps there";
    void *contexts[] = {NULL, theirs, (void *)(uintptr_t)1, &s};
    begin();
    for (unsigned i = 0; i < sizeof contexts / sizeof *contexts; i++) {
        s.a.id->qp->qp_context = contexts[i];
        s.a.recv_cq->cq_context = contexts[i];
        for (unsigned k = 0; k < sizeof of_queue_pairs / sizeof *of_queue_pairs; k++)
            cr_assert_eq(fake_raise_async_at(of_queue_pairs[k], s.a.id->qp), 1);
        cr_assert_eq(fake_raise_async_at(IBV_EVENT_CQ_ERR, s.a.recv_cq), 1);
        expect_well(pair.a, pair.b);
        expect_well(pair.b, pair.a);
    }
    end();
}

Test(rdma_async, events_that_point_to_a_channel_that_is_gone_concern_nobody)
{
    begin();
    s.a.id->qp->qp_context = pair.a;
    channel_free(pair.a);
    pair.a = NULL;
    cr_assert_eq(fake_raise_async_at(IBV_EVENT_QP_ACCESS_ERR, s.a.id->qp), 1);
    char byte;
    cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, 5000), GODWIT_ERR_PEER_CLOSED);
    cr_assert_eq(channel_send(pair.b, "!", 1, NULL, 0, 100), GODWIT_ERR_RESET);
    cr_assert_null(strstr(channel_detail(pair.b), "not registered for it"), "%s", channel_detail(pair.b));
    end();
}

Test(rdma_async, an_event_of_one_channel_is_noted_there_whoever_finds_it)
{
    char byte;
    begin();
    cr_assert_eq(fake_raise_async_at(IBV_EVENT_CQ_ERR, private_of(pair.a)->recv_cq), 1);
    cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, 10), GODWIT_ERR_TIMEOUT, "%s", channel_detail(pair.b));
    cr_assert_eq(fake_verbs_living().unacked, 0);
    cr_assert_str_eq(channel_detail(pair.b), "");
    cr_assert_eq(channel_recv_exact(pair.a, &byte, 1, 5000), GODWIT_ERR_RESET);
    cr_assert(strstr(channel_detail(pair.a), "overflowed"), "%s", channel_detail(pair.a));
    end();
}
