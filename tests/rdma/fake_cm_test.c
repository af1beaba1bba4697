/* Holds the fake's connection manager to the kernel's and the library's: their orders, and their silences. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tests/rdma/fake_scene.h"
#include "transport/clock.h"

TestSuite(fake_cm, .timeout = 30);

static struct scene s;

/* Up to a's request; b.id is what the listener made of it. */
static void knock(void)
{
    scene_resolve(&s);
    scene_queues(&s.a);
    cr_assert_eq(rdma_connect(s.a.id, &s.param), 0);
    struct rdma_cm_event *event = scene_event(s.events);
    cr_assert_eq(event->event, RDMA_CM_EVENT_CONNECT_REQUEST);
    s.b.id = event->id;
    rdma_ack_cm_event(event);
}

static void begin(void)
{
    scene_init(&s, NULL);
    knock();
}

Test(fake_cm, an_id_learns_its_device_when_the_event_is_fetched)
{
    scene_init(&s, NULL);
    s.a.events = scene_events();
    rdma_create_id(s.a.events, &s.a.id, &s, RDMA_PS_TCP);
    cr_assert_eq(s.a.id->context, &s);
    cr_assert_eq(rdma_resolve_route(s.a.id, 1000), -1, "too early");
    cr_assert_eq(errno, EINVAL);
    cr_assert_eq(rdma_resolve_addr(s.a.id, NULL, (struct sockaddr *)&s.address, 1000), 0);
    cr_assert_not(scene_quiet(s.a.events, 1000));
    cr_assert_null(s.a.id->verbs);
    scene_expect(s.a.events, RDMA_CM_EVENT_ADDR_RESOLVED);
    cr_assert_not_null(s.a.id->verbs);
    cr_assert_eq(rdma_get_dst_port(s.a.id), s.address.sin_port);
    cr_assert_neq(rdma_get_src_port(s.a.id), 0);
    cr_assert_eq(rdma_connect(s.a.id, &s.param), -1, "no route yet");
    scene_fini(&s);
}

Test(fake_cm, private_data_has_its_full_size_and_ends_with_the_acknowledgement)
{
    scene_init(&s, NULL);
    struct rdma_conn_param param = s.param;
    s.param.private_data = "knock";
    s.param.private_data_len = 5;
    scene_resolve(&s);
    scene_queues(&s.a);
    cr_assert_eq(rdma_connect(s.a.id, &s.param), 0);
    struct rdma_cm_event *event = scene_event(s.events);
    cr_assert_eq(event->param.conn.private_data_len, 56);
    cr_assert_str_eq(event->param.conn.private_data, "knock");
    cr_assert_eq(event->listen_id, s.listener);
    cr_assert_eq(event->id->channel, s.events, "the listener's channel");
    s.b.id = event->id;
    rdma_ack_cm_event(event);
    scene_queues(&s.b);
    param.private_data = "come in";
    param.private_data_len = 7;
    cr_assert_eq(rdma_accept(s.b.id, &param), 0);
    event = scene_event(s.a.events);
    cr_assert_eq(event->event, RDMA_CM_EVENT_ESTABLISHED);
    cr_assert_eq(event->param.conn.private_data_len, 196);
    cr_assert_str_eq(event->param.conn.private_data, "come in");
    rdma_ack_cm_event(event);
    scene_expect(s.events, RDMA_CM_EVENT_ESTABLISHED);
    scene_fini(&s);
}

Test(fake_cm, too_much_private_data_is_refused)
{
    scene_init(&s, NULL);
    char much[200] = "";
    scene_resolve(&s);
    scene_queues(&s.a);
    s.param.private_data = much;
    s.param.private_data_len = 57;
    cr_assert_eq(rdma_connect(s.a.id, &s.param), -1);
    cr_assert_eq(errno, EINVAL);
    scene_fini(&s);
}

Test(fake_cm, the_passive_side_is_established_only_after_the_active_fetched_its_event)
{
    begin();
    scene_queues(&s.b);
    cr_assert_eq(scene_recv(&s.b, 1, 0, 100), 0, "before accepting");
    cr_assert_eq(rdma_accept(s.b.id, &s.param), 0);
    cr_assert_eq(s.b.id->qp->state, IBV_QPS_RTS, "accepting makes it ready");
    cr_assert(scene_quiet(s.events, 50), "no RTU without the other side's fetching");
    cr_assert_eq(s.a.id->qp->state, IBV_QPS_INIT);
    scene_expect(s.a.events, RDMA_CM_EVENT_ESTABLISHED);
    cr_assert_eq(s.a.id->qp->state, IBV_QPS_RTS);
    scene_expect(s.events, RDMA_CM_EVENT_ESTABLISHED);
    scene_fini(&s);
}

Test(fake_cm, data_may_come_before_established)
{
    begin();
    scene_queues(&s.b);
    scene_recv(&s.b, 1, 0, 100);
    fake_answer_step(FAKE_STEP_ADDR, FAKE_NO_EVENT, 0, NULL, 0); /* not used up by accepting */
    cr_assert_eq(rdma_accept(s.b.id, &s.param), 0);
    scene_expect(s.a.events, RDMA_CM_EVENT_ESTABLISHED);
    scene_send(&s.a, 1, 0, 8, IBV_SEND_SIGNALED);
    cr_assert_eq(scene_poll(s.b.recv_cq).status, IBV_WC_SUCCESS);
    scene_fini(&s);
}

Test(fake_cm, a_request_that_nobody_expects_is_rejected_at_once)
{
    scene_init(&s, NULL);
    s.address.sin_port = htons(1);
    scene_resolve(&s);
    scene_queues(&s.a);
    rdma_connect(s.a.id, &s.param);
    cr_assert_eq(scene_expect(s.a.events, RDMA_CM_EVENT_REJECTED), 8);
    cr_assert_eq(s.a.id->qp->state, IBV_QPS_ERR);
    scene_fini(&s);
}

Test(fake_cm, a_rejection_brings_its_words)
{
    begin();
    cr_assert_eq(rdma_reject(s.b.id, "not you", 7), 0);
    struct rdma_cm_event *event = scene_event(s.a.events);
    cr_assert(event->event == RDMA_CM_EVENT_REJECTED && event->status == 28);
    cr_assert_eq(event->param.conn.private_data_len, 148);
    cr_assert_str_eq(event->param.conn.private_data, "not you");
    rdma_ack_cm_event(event);
    cr_assert_eq(rdma_accept(s.b.id, &s.param), -1, "and that was that");
    scene_fini(&s);
}

Test(fake_cm, destroying_an_unaccepted_id_rejects)
{
    begin();
    rdma_destroy_id(s.b.id);
    s.b.id = NULL;
    cr_assert_eq(scene_expect(s.a.events, RDMA_CM_EVENT_REJECTED), 28);
    scene_fini(&s);
}

Test(fake_cm, destroying_a_listener_rejects_what_it_had_not_fetched)
{
    scene_init(&s, NULL);
    scene_resolve(&s);
    scene_queues(&s.a);
    rdma_connect(s.a.id, &s.param);
    cr_assert_not(scene_quiet(s.events, 1000));
    rdma_destroy_id(s.listener);
    s.listener = NULL;
    cr_assert_eq(scene_expect(s.a.events, RDMA_CM_EVENT_REJECTED), 28);
    struct rdma_cm_event *event;
    cr_assert_eq(rdma_get_cm_event(s.events, &event), -1);
    cr_assert_eq(errno, EAGAIN, "readable in vain, and no event");
    scene_fini(&s);
}

Test(fake_cm, a_request_withdrawn_before_it_is_accepted_cannot_be_accepted_and_nothing_says_so)
{
    begin();
    scene_queues(&s.b);
    scene_end_fini(&s.a);
    cr_assert(scene_quiet(s.events, 50));
    cr_assert_eq(rdma_accept(s.b.id, &s.param), -1);
    cr_assert_eq(errno, EINVAL);
    scene_fini(&s);
}

Test(fake_cm, a_request_withdrawn_after_it_was_accepted_is_a_rejection)
{
    begin();
    scene_queues(&s.b);
    rdma_accept(s.b.id, &s.param);
    cr_assert_not(scene_quiet(s.a.events, 1000));
    scene_end_fini(&s.a);
    scene_expect(s.events, RDMA_CM_EVENT_REJECTED);
    scene_fini(&s);
}

Test(fake_cm, a_full_backlog_drops_requests_in_silence)
{
    struct fake_setup setup;
    fake_setup_init(&setup);
    setup.cm_resend_ms = 100;
    scene_init(&s, &setup);
    rdma_destroy_id(s.listener);
    rdma_create_id(s.events, &s.listener, NULL, RDMA_PS_TCP);
    cr_assert_eq(rdma_bind_addr(s.listener, (struct sockaddr *)&s.address), 0);
    cr_assert_eq(rdma_listen(s.listener, 1), 0);
    struct scene second = {.address = s.address};
    scene_resolve(&s);
    scene_queues(&s.a);
    scene_resolve(&second);
    scene_queues(&second.a);
    rdma_connect(s.a.id, &s.param);
    cr_assert_not(scene_quiet(s.events, 1000));
    rdma_connect(second.a.id, &s.param);
    cr_assert(scene_quiet(second.a.events, 50), "neither accepted nor rejected");
    uint64_t start = clock_now_ms();
    struct rdma_cm_event *event = scene_event(s.events);
    s.b.id = event->id;
    rdma_ack_cm_event(event);
    event = scene_event(s.events);
    cr_assert_eq(event->event, RDMA_CM_EVENT_CONNECT_REQUEST);
    cr_assert_geq(clock_now_ms() - start, 20, "only when the manager asks again");
    second.b.id = event->id;
    rdma_ack_cm_event(event);
    scene_end_fini(&second.a);
    scene_end_fini(&second.b);
    scene_fini(&s);
}

Test(fake_cm, silence_becomes_unreachable)
{
    struct fake_setup setup;
    fake_setup_init(&setup);
    setup.cm_resend_ms = 5;
    setup.cm_resends = 4;
    scene_init(&s, &setup);
    scene_resolve(&s);
    scene_queues(&s.a);
    fake_cm_silent(true);
    rdma_connect(s.a.id, &s.param);
    cr_assert_eq(scene_expect(s.a.events, RDMA_CM_EVENT_UNREACHABLE), -ETIMEDOUT);
    cr_assert_eq(s.a.id->qp->state, IBV_QPS_INIT, "and nobody touches the queue pair");
    scene_fini(&s);
}

Test(fake_cm, disconnecting_flushes_here_and_is_told_there)
{
    scene_init(&s, NULL);
    scene_connect(&s);
    scene_recv(&s.a, 1, 0, 8);
    cr_assert_eq(rdma_disconnect(s.a.id), 0);
    cr_assert_eq(scene_poll(s.a.recv_cq).status, IBV_WC_WR_FLUSH_ERR);
    scene_expect(s.b.events, RDMA_CM_EVENT_DISCONNECTED);
    cr_assert_eq(s.b.id->qp->state, IBV_QPS_RTS, "until it disconnects as well");
    cr_assert(scene_quiet(s.a.events, 50), "this side hears when the other has answered");
    cr_assert_eq(rdma_disconnect(s.b.id), 0);
    cr_assert_eq(s.b.id->qp->state, IBV_QPS_ERR);
    scene_expect(s.a.events, RDMA_CM_EVENT_DISCONNECTED);
    scene_expect(s.a.events, RDMA_CM_EVENT_TIMEWAIT_EXIT);
    scene_expect(s.b.events, RDMA_CM_EVENT_TIMEWAIT_EXIT);
    scene_fini(&s);
}

Test(fake_cm, destroying_a_connected_id_disconnects)
{
    scene_init(&s, NULL);
    scene_connect(&s);
    scene_end_fini(&s.b);
    scene_expect(s.a.events, RDMA_CM_EVENT_DISCONNECTED);
    scene_fini(&s);
}

Test(fake_cm, both_sides_may_disconnect_at_once)
{
    scene_init(&s, NULL);
    scene_connect(&s);
    rdma_disconnect(s.a.id);
    rdma_disconnect(s.b.id);
    scene_expect(s.a.events, RDMA_CM_EVENT_DISCONNECTED);
    scene_expect(s.b.events, RDMA_CM_EVENT_DISCONNECTED);
    scene_fini(&s);
}

Test(fake_cm, ports_belong_to_one_listener)
{
    scene_init(&s, NULL);
    struct rdma_cm_id *second, *other_space;
    rdma_create_id(s.events, &second, NULL, RDMA_PS_TCP);
    cr_assert_eq(rdma_bind_addr(second, (struct sockaddr *)&s.address), -1);
    cr_assert_eq(errno, EADDRINUSE);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = s.address.sin_port};
    cr_assert_eq(rdma_bind_addr(second, (struct sockaddr *)&any), -1, "a wildcard of IPv6 is one of IPv4 too");
    int yes = 1;
    cr_assert_eq(rdma_set_option(second, RDMA_OPTION_ID, RDMA_OPTION_ID_AFONLY, &yes, sizeof yes), 0);
    cr_assert_eq(rdma_bind_addr(second, (struct sockaddr *)&any), 0, "unless told otherwise");
    cr_assert_null(second->verbs, "any device");
    rdma_create_id(s.events, &other_space, NULL, RDMA_PS_UDP);
    cr_assert_eq(rdma_bind_addr(other_space, (struct sockaddr *)&s.address), 0);
    cr_assert_not_null(other_space->verbs, "the address's device");
    rdma_destroy_id(second);
    rdma_destroy_id(other_space);
    scene_fini(&s);
}

Test(fake_cm, addresses_belong_to_devices)
{
    scene_init(&s, NULL);
    struct sockaddr_in stranger = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0xc0000201)};
    struct rdma_cm_id *id;
    rdma_create_id(s.events, &id, NULL, RDMA_PS_TCP);
    cr_assert_eq(rdma_bind_addr(id, (struct sockaddr *)&stranger), -1);
    cr_assert_eq(errno, EADDRNOTAVAIL);
    cr_assert_eq(rdma_resolve_addr(id, NULL, (struct sockaddr *)&stranger, 100), 0);
    cr_assert_eq(scene_expect(s.events, RDMA_CM_EVENT_ADDR_ERROR), -ENODEV);
    rdma_destroy_id(id);
    scene_fini(&s);
}

Test(fake_cm, options_that_are_not_known_say_so)
{
    scene_init(&s, NULL);
    uint8_t code = 16;
    cr_assert_eq(rdma_set_option(s.listener, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &code, 1), 0);
    cr_assert_eq(rdma_set_option(s.listener, RDMA_OPTION_ID, 99, &code, 1), -1);
    cr_assert_eq(errno, ENOSYS);
    scene_fini(&s);
}

Test(fake_cm, migration_takes_pending_events_along)
{
    begin();
    scene_queues(&s.b);
    rdma_accept(s.b.id, &s.param);
    scene_expect(s.a.events, RDMA_CM_EVENT_ESTABLISHED);
    cr_assert_not(scene_quiet(s.events, 1000));
    s.b.events = scene_events();
    cr_assert_eq(rdma_migrate_id(s.b.id, s.b.events), 0);
    scene_expect(s.b.events, RDMA_CM_EVENT_ESTABLISHED);
    struct rdma_cm_event *event;
    cr_assert_eq(rdma_get_cm_event(s.events, &event), -1);
    scene_fini(&s);
}

Test(fake_cm, every_step_can_end_otherwise)
{
    static const struct {
        enum fake_step step;
        enum rdma_cm_event_type event;
        int status;
    } faults[] = {
        {FAKE_STEP_ADDR, RDMA_CM_EVENT_ADDR_ERROR, -ETIMEDOUT},
        {FAKE_STEP_ADDR, RDMA_CM_EVENT_ADDR_ERROR, -ENODEV},
        {FAKE_STEP_ROUTE, RDMA_CM_EVENT_ROUTE_ERROR, -ENODEV},
        {FAKE_STEP_CONNECT, RDMA_CM_EVENT_REJECTED, 10},
        {FAKE_STEP_CONNECT, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT},
        {FAKE_STEP_CONNECT, RDMA_CM_EVENT_CONNECT_ERROR, -1},
        {FAKE_STEP_CONNECT, RDMA_CM_EVENT_DEVICE_REMOVAL, 0},
    };
    for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++) {
        scene_init(&s, NULL);
        fake_answer_step(faults[i].step, faults[i].event, faults[i].status, "why", 3);
        s.a.events = scene_events();
        rdma_create_id(s.a.events, &s.a.id, NULL, RDMA_PS_TCP);
        rdma_resolve_addr(s.a.id, NULL, (struct sockaddr *)&s.address, 1000);
        if (faults[i].step > FAKE_STEP_ADDR) {
            scene_expect(s.a.events, RDMA_CM_EVENT_ADDR_RESOLVED);
            rdma_resolve_route(s.a.id, 1000);
        }
        if (faults[i].step > FAKE_STEP_ROUTE) {
            scene_expect(s.a.events, RDMA_CM_EVENT_ROUTE_RESOLVED);
            scene_queues(&s.a);
            rdma_connect(s.a.id, &s.param);
        }
        cr_assert_eq(scene_expect(s.a.events, faults[i].event), faults[i].status);
        cr_assert(scene_quiet(s.events, 5), "the listener heard nothing");
        scene_fini(&s);
    }
}

Test(fake_cm, no_answer_at_all_is_possible)
{
    scene_init(&s, NULL);
    fake_answer_step(FAKE_STEP_CONNECT, FAKE_NO_EVENT, 0, NULL, 0);
    scene_resolve(&s);
    scene_queues(&s.a);
    rdma_connect(s.a.id, &s.param);
    cr_assert(scene_quiet(s.a.events, 50));
    scene_fini(&s);
}

Test(fake_cm, events_can_be_raised_on_whoever_plays_a_role)
{
    scene_init(&s, NULL);
    scene_connect(&s);
    cr_assert_eq(fake_raise_cm(FAKE_PASSIVE, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT), 1);
    cr_assert_eq(scene_expect(s.b.events, RDMA_CM_EVENT_UNREACHABLE), -ETIMEDOUT);
    cr_assert_eq(s.b.id->qp->state, IBV_QPS_RTS, "only a hint");
    cr_assert_eq(fake_raise_cm(FAKE_ACTIVE, RDMA_CM_EVENT_DEVICE_REMOVAL, 0), 1);
    scene_expect(s.a.events, RDMA_CM_EVENT_DEVICE_REMOVAL);
    cr_assert_eq(s.a.id->qp->state, IBV_QPS_ERR);
    cr_assert_eq(fake_raise_cm(FAKE_LISTENER, RDMA_CM_EVENT_DEVICE_REMOVAL, 0), 1);
    scene_expect(s.events, RDMA_CM_EVENT_DEVICE_REMOVAL);
    scene_fini(&s);
}

Test(fake_cm, destroying_an_id_before_its_queue_pair_aborts, .signal = SIGABRT)
{
    scene_init(&s, NULL);
    scene_connect(&s);
    rdma_destroy_id(s.a.id);
}

Test(fake_cm, destroying_an_id_with_an_unacknowledged_event_aborts, .signal = SIGABRT)
{
    begin();
    scene_queues(&s.b);
    rdma_accept(s.b.id, &s.param);
    scene_event(s.a.events);
    rdma_destroy_qp(s.a.id);
    rdma_destroy_id(s.a.id); /* after 5 s */
}
