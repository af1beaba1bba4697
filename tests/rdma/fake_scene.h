/* Two connected queue pairs, made with plain verbs, for the tests of the fake itself and its stress. Plain C. */
#ifndef TESTS_RDMA_FAKE_SCENE_H
#define TESTS_RDMA_FAKE_SCENE_H

#include <netinet/in.h>

#include "tests/rdma/fake_verbs.h"

enum { SCENE_MEMORY = 64 << 10, SCENE_SENDS = 8, SCENE_RECVS = 4, SCENE_INLINE = 64 };

/* One side. The memory may be written and read by the peer and by its own device. */
struct end {
    struct rdma_event_channel *events;
    struct rdma_cm_id *id;
    struct ibv_pd *pd;
    struct ibv_comp_channel *completions; /* of both queues */
    struct ibv_cq *send_cq, *recv_cq;
    struct ibv_qp_ex *qp;
    uint8_t *memory;
    struct ibv_mr *mr;
};

struct scene {
    struct end a, b; /* a connected, b accepted */
    struct rdma_event_channel *events;
    struct rdma_cm_id *listener;
    struct sockaddr_in address;   /* of the listener */
    struct rdma_conn_param param; /* of both sides; set by scene_init, to be changed before scene_connect */
};

/* The listener only; the fake is started with setup (NULL: defaults). Channels of events do not block. */
void scene_init(struct scene *scene, const struct fake_setup *setup);
void scene_connect(struct scene *scene);
/* Destroys all that is left, in order, and stops the fake, which aborts if anything is. */
void scene_fini(struct scene *scene);

/* Parts of scene_connect, for tests of a single step. */
struct rdma_event_channel *scene_events(void);
void scene_resolve(struct scene *scene); /* a, up to ROUTE_RESOLVED */
void scene_queues(struct end *end);      /* PD, queues and memory of an id that knows its device */
void scene_end_fini(struct end *end);

/* Waits up to 5 s; aborts when none comes. To be acknowledged by the caller. */
struct rdma_cm_event *scene_event(struct rdma_event_channel *events);
/* The same, of this type; acknowledged. Returns its status. */
int scene_expect(struct rdma_event_channel *events, enum rdma_cm_event_type type);
/* True: nothing came within ms. */
bool scene_quiet(struct rdma_event_channel *events, int ms);

/* Polls until there is a completion, up to 5 s; aborts when none comes. */
struct ibv_wc scene_poll(struct ibv_cq *cq);
/* True: none within ms. */
bool scene_no_completion(struct ibv_cq *cq, int ms);

/* Posts one request of size bytes at offset of end's memory. 0 or an errno. */
int scene_send(struct end *end, uint64_t wr_id, size_t offset, uint32_t size, unsigned flags);
int scene_write(struct end *end, uint64_t wr_id, size_t offset, uint32_t size, const struct end *to, size_t at,
                unsigned flags);
int scene_read(struct end *end, uint64_t wr_id, size_t offset, uint32_t size, const struct end *from, size_t at,
               unsigned flags);
int scene_recv(struct end *end, uint64_t wr_id, size_t offset, uint32_t size);

#endif
