#include "tests/rdma/fake_scene.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/clock.h"

enum { PATIENCE_MS = 5000 };

static void need(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    abort();
}

static void unblock(int fd)
{
    need(!fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), "O_NONBLOCK");
}

struct rdma_event_channel *scene_events(void)
{
    struct rdma_event_channel *events = rdma_create_event_channel();
    need(events, "an event channel");
    unblock(events->fd);
    return events;
}

void scene_init(struct scene *scene, const struct fake_setup *setup)
{
    *scene = (struct scene){
        .param = {.responder_resources = 1, .initiator_depth = 1, .retry_count = 6, .rnr_retry_count = 7}};
    if (setup)
        fake_verbs_start(setup);
    scene->events = scene_events();
    scene->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    need(!rdma_create_id(scene->events, &scene->listener, scene, RDMA_PS_TCP), "an id");
    need(!rdma_bind_addr(scene->listener, (struct sockaddr *)&scene->address), "rdma_bind_addr");
    need(!rdma_listen(scene->listener, 4), "rdma_listen");
    scene->address.sin_port = rdma_get_src_port(scene->listener);
}

struct rdma_cm_event *scene_event(struct rdma_event_channel *events)
{
    struct rdma_cm_event *event;
    struct pollfd pollfd = {.fd = events->fd, .events = POLLIN};
    need(poll(&pollfd, 1, PATIENCE_MS) == 1, "an event");
    need(!rdma_get_cm_event(events, &event), "rdma_get_cm_event");
    return event;
}

int scene_expect(struct rdma_event_channel *events, enum rdma_cm_event_type type)
{
    struct rdma_cm_event *event = scene_event(events);
    int status = event->status;
    if (event->event != type) {
        fprintf(stderr, "%s instead of %s\n", rdma_event_str(event->event), rdma_event_str(type));
        abort();
    }
    rdma_ack_cm_event(event);
    return status;
}

bool scene_quiet(struct rdma_event_channel *events, int ms)
{
    struct pollfd pollfd = {.fd = events->fd, .events = POLLIN};
    return poll(&pollfd, 1, ms) == 0;
}

void scene_queues(struct end *end)
{
    end->pd = ibv_alloc_pd(end->id->verbs);
    end->completions = ibv_create_comp_channel(end->id->verbs);
    need(end->pd && end->completions, "a protection domain and a completion channel");
    unblock(end->completions->fd);
    end->send_cq = ibv_create_cq(end->id->verbs, SCENE_SENDS, end, end->completions, 0);
    end->recv_cq = ibv_create_cq(end->id->verbs, SCENE_RECVS, end, end->completions, 0);
    need(end->send_cq && end->recv_cq, "completion queues");
    struct ibv_qp_init_attr_ex attr = {
        .send_cq = end->send_cq,
        .recv_cq = end->recv_cq,
        .cap = {.max_send_wr = SCENE_SENDS,
                .max_recv_wr = SCENE_RECVS,
                .max_send_sge = 2,
                .max_recv_sge = 2,
                .max_inline_data = SCENE_INLINE},
        .qp_type = IBV_QPT_RC,
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .pd = end->pd,
        .send_ops_flags = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM |
                          IBV_QP_EX_WITH_RDMA_READ,
    };
    need(!rdma_create_qp_ex(end->id, &attr), "a queue pair");
    end->qp = ibv_qp_to_qp_ex(end->id->qp);
    end->memory = calloc(1, SCENE_MEMORY);
    end->mr = ibv_reg_mr(end->pd, end->memory, SCENE_MEMORY,
                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);
    need(end->mr, "a registration");
}

void scene_resolve(struct scene *scene)
{
    scene->a.events = scene_events();
    need(!rdma_create_id(scene->a.events, &scene->a.id, NULL, RDMA_PS_TCP), "an id");
    need(!rdma_resolve_addr(scene->a.id, NULL, (struct sockaddr *)&scene->address, 1000), "rdma_resolve_addr");
    scene_expect(scene->a.events, RDMA_CM_EVENT_ADDR_RESOLVED);
    need(!rdma_resolve_route(scene->a.id, 1000), "rdma_resolve_route");
    scene_expect(scene->a.events, RDMA_CM_EVENT_ROUTE_RESOLVED);
}

void scene_connect(struct scene *scene)
{
    scene_resolve(scene);
    scene_queues(&scene->a);
    need(!rdma_connect(scene->a.id, &scene->param), "rdma_connect");
    struct rdma_cm_event *event = scene_event(scene->events);
    need(event->event == RDMA_CM_EVENT_CONNECT_REQUEST, "a request");
    scene->b.id = event->id;
    rdma_ack_cm_event(event);
    scene->b.events = scene_events();
    need(!rdma_migrate_id(scene->b.id, scene->b.events), "rdma_migrate_id");
    scene_queues(&scene->b);
    need(!rdma_accept(scene->b.id, &scene->param), "rdma_accept");
    scene_expect(scene->a.events, RDMA_CM_EVENT_ESTABLISHED);
    scene_expect(scene->b.events, RDMA_CM_EVENT_ESTABLISHED);
}

void scene_end_fini(struct end *end)
{
    if (end->id && end->id->qp)
        rdma_destroy_qp(end->id);
    if (end->id)
        rdma_destroy_id(end->id);
    if (end->mr)
        ibv_dereg_mr(end->mr);
    if (end->send_cq)
        ibv_destroy_cq(end->send_cq);
    if (end->recv_cq)
        ibv_destroy_cq(end->recv_cq);
    if (end->completions)
        ibv_destroy_comp_channel(end->completions);
    if (end->pd)
        ibv_dealloc_pd(end->pd);
    if (end->events)
        rdma_destroy_event_channel(end->events);
    free(end->memory);
    *end = (struct end){.id = NULL};
}

void scene_fini(struct scene *scene)
{
    scene_end_fini(&scene->a);
    scene_end_fini(&scene->b);
    if (scene->listener)
        rdma_destroy_id(scene->listener);
    rdma_destroy_event_channel(scene->events);
    fake_verbs_stop();
}

/* False: nothing came within ms. */
static bool poll_for(struct ibv_cq *cq, int ms, struct ibv_wc *wc)
{
    uint64_t deadline = clock_now_ms() + (uint64_t)ms;
    int n;
    while (!(n = ibv_poll_cq(cq, 1, wc)) && clock_left_ms(deadline))
        poll(NULL, 0, 1);
    need(n >= 0, "ibv_poll_cq");
    return n > 0;
}

struct ibv_wc scene_poll(struct ibv_cq *cq)
{
    struct ibv_wc wc;
    need(poll_for(cq, PATIENCE_MS, &wc), "a completion");
    return wc;
}

bool scene_no_completion(struct ibv_cq *cq, int ms)
{
    struct ibv_wc wc;
    return !poll_for(cq, ms, &wc);
}

int scene_send(struct end *end, uint64_t wr_id, size_t offset, uint32_t size, unsigned flags)
{
    ibv_wr_start(end->qp);
    end->qp->wr_id = wr_id;
    end->qp->wr_flags = flags;
    ibv_wr_send(end->qp);
    if (flags & IBV_SEND_INLINE)
        ibv_wr_set_inline_data(end->qp, end->memory + offset, size);
    else
        ibv_wr_set_sge(end->qp, end->mr->lkey, (uintptr_t)end->memory + offset, size);
    return ibv_wr_complete(end->qp);
}

int scene_write(struct end *end, uint64_t wr_id, size_t offset, uint32_t size, const struct end *to, size_t at,
                unsigned flags)
{
    ibv_wr_start(end->qp);
    end->qp->wr_id = wr_id;
    end->qp->wr_flags = flags;
    ibv_wr_rdma_write(end->qp, to->mr->rkey, (uintptr_t)to->memory + at);
    ibv_wr_set_sge(end->qp, end->mr->lkey, (uintptr_t)end->memory + offset, size);
    return ibv_wr_complete(end->qp);
}

int scene_read(struct end *end, uint64_t wr_id, size_t offset, uint32_t size, const struct end *from, size_t at,
               unsigned flags)
{
    ibv_wr_start(end->qp);
    end->qp->wr_id = wr_id;
    end->qp->wr_flags = flags;
    ibv_wr_rdma_read(end->qp, from->mr->rkey, (uintptr_t)from->memory + at);
    ibv_wr_set_sge(end->qp, end->mr->lkey, (uintptr_t)end->memory + offset, size);
    return ibv_wr_complete(end->qp);
}

int scene_recv(struct end *end, uint64_t wr_id, size_t offset, uint32_t size)
{
    struct ibv_sge sge = {(uintptr_t)end->memory + offset, size, end->mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = wr_id, .sg_list = &sge, .num_sge = 1}, *bad;
    return ibv_post_recv(end->id->qp, &wr, &bad);
}
