/*
 * What the parts of the fake share. One lock over everything; functions named fake_* that are declared here expect it
 * held, but for fake_enter() and fake_leave() themselves.
 */
#ifndef TESTS_RDMA_FAKE_PRIVATE_H
#define TESTS_RDMA_FAKE_PRIVATE_H

#include <pthread.h>
#include <sys/queue.h>

#include "tests/rdma/fake_verbs.h"

enum { FAKE_MAX_SGE = 32, FAKE_PRIVATE_DATA_MAX = 196, FAKE_ACK_PATIENCE_MS = 5000 };

/* The counterpart of the container: the private struct whose member is at pointer. */
#define FAKE_OF(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

/* --- devices (fake_device.c) --- */

struct fake_device {
    struct ibv_device base;
    const struct fake_device_setup *setup; /* NULL: no such device */
    struct fake_context *cm_context;       /* librdmacm's own, kept until the end; NULL: not opened yet */
    struct ibv_pd *cm_pd;                  /* lives as long as any id is bound to the device */
    unsigned cm_ids;
    unsigned users; /* contexts of callers */
};

struct fake_async {
    STAILQ_ENTRY(fake_async) link;
    struct ibv_async_event event;
};

struct fake_context {
    LIST_ENTRY(fake_context) link;
    struct fake_device *device;
    bool cm_owned;
    unsigned objects; /* PDs, CQs and channels that need it */
    STAILQ_HEAD(, fake_async) async;
    unsigned async_unacked;     /* of ports and the device */
    struct verbs_context verbs; /* the last one: struct ibv_context is its tail */
};

struct fake_context *fake_context_of(struct ibv_context *context);
/* librdmacm's context of the device, opened when needed. NULL: no memory, or a fault; errno is set. */
struct fake_context *fake_cm_context(struct fake_device *device);
void fake_devices_init(void);
void fake_devices_fini(void); /* frees what librdmacm keeps for itself */
/* A queue pair or completion queue goes: its events that nobody fetched go with it (fake_async.c). */
void fake_async_forget(struct fake_context *context, const void *element);

/* --- memory (fake_memory.c) --- */

struct fake_pd {
    struct ibv_pd base;
    unsigned users; /* registrations and queue pairs */
    bool cm_owned;
};

struct fake_mr {
    struct ibv_mr base;
    LIST_ENTRY(fake_mr) link;
    unsigned access;
    uint64_t iova;
    unsigned queued; /* work requests that name its lkey and were not executed */
};

/* Bytes on their way to the memory of a registration. */
struct fake_placement {
    STAILQ_ENTRY(fake_placement) link;
    struct fake_mr *mr;
    uint8_t *to;
    size_t size;
    uint8_t bytes[];
};
STAILQ_HEAD(fake_placements, fake_placement);

struct ibv_pd *fake_pd_new(struct ibv_context *context, bool cm_owned);
int fake_pd_free(struct ibv_pd *pd);
struct fake_mr *fake_mr_by_lkey(uint32_t lkey);
/* The address of [at, at + size) of an rkey's or lkey's memory, NULL when it leaves the registration. */
uint8_t *fake_mr_at(const struct fake_mr *mr, uint64_t at, uint64_t size);
struct fake_mr *fake_mr_by_rkey(uint32_t rkey);

/* Queues bytes (NULL: to be filled in by the caller) behind the others. */
struct fake_placement *fake_place_later(struct fake_placements *list, struct fake_mr *mr, uint8_t *to,
                                        const void *bytes, size_t size);
/* Moves the last one to any place among the others. */
void fake_place_shuffle(struct fake_placements *list, struct fake_placement *last);
/* Carries out all (mr NULL), or those into mr. */
void fake_place(struct fake_placements *list, const struct fake_mr *mr);
void fake_place_drop(struct fake_placements *list);

/* --- completion queues (fake_completion.c) --- */

struct fake_cqe {
    STAILQ_ENTRY(fake_cqe) link;
    struct ibv_wc wc;
    bool solicited;
    struct fake_qp *qp; /* whose slots polling frees; NULL: destroyed meanwhile */
    unsigned send_slots, recv_slots;
    struct fake_placements placements; /* what polling makes visible */
};

struct fake_comp_event {
    STAILQ_ENTRY(fake_comp_event) link;
    struct fake_cq *cq;
};

struct fake_channel {
    struct ibv_comp_channel base;
    STAILQ_HEAD(, fake_comp_event) events;
};

enum fake_armed { FAKE_ARMED_NOT, FAKE_ARMED_SOLICITED, FAKE_ARMED_NEXT };

struct fake_cq {
    struct ibv_cq base;
    LIST_ENTRY(fake_cq) link;
    STAILQ_HEAD(, fake_cqe) cqes;
    int count;
    enum fake_armed armed;
    unsigned users; /* ends of queue pairs */
    unsigned comp_unacked, async_unacked;
};

struct fake_cqe *fake_cqe_new(struct fake_qp *qp, uint64_t wr_id, enum ibv_wc_status status);
/* Takes the entry. */
void fake_cq_push(struct ibv_cq *cq, struct fake_cqe *cqe);
/* The queue pair goes: its entries stay, as on soft-RoCE, but what they bring is in memory now. */
void fake_cqs_forget(const struct fake_qp *qp);
void fake_cqs_place(const struct fake_mr *mr);
int fake_poll_cq(struct ibv_cq *cq, int count, struct ibv_wc *wc);
int fake_req_notify_cq(struct ibv_cq *cq, int solicited_only);

/* --- queue pairs (fake_queue_pair.c) --- */

struct fake_wr {
    STAILQ_ENTRY(fake_wr) link;
    enum fake_wr_kind kind;
    enum ibv_wr_opcode opcode;
    uint64_t wr_id;
    unsigned flags;
    __be32 imm;
    uint32_t rkey;
    uint64_t remote;
    unsigned sge_count;
    struct ibv_sge sges[FAKE_MAX_SGE];
    struct fake_mr *mrs[FAKE_MAX_SGE]; /* of sges, NULL: no such lkey; counted in fake_mr.queued */
    uint8_t *inline_data;              /* owned; NULL: sges */
    size_t size;                       /* bytes of all sges, or inline */
};
STAILQ_HEAD(fake_wrs, fake_wr);

struct fake_qp {
    struct ibv_qp_ex ex; /* ex.qp_base.state is the state */
    LIST_ENTRY(fake_qp) link;
    struct ibv_qp_cap cap;
    bool sig_all;
    uint64_t send_ops; /* 0: made without */
    unsigned access;
    uint8_t min_rnr_timer, rnr_retry, read_depth;
    uint32_t peer; /* queue pair number, 0: not connected */

    pthread_t builder;
    bool building;
    struct fake_wrs built;
    struct fake_wr *last_built; /* NULL: none yet */
    unsigned built_count;
    int build_error;

    struct fake_wrs sq, rq; /* posted and not executed */
    unsigned sq_used, rq_used;
    unsigned sq_silent; /* slots of executed requests that had no completion */

    struct fake_placements withheld; /* writes of the peer */
    struct fake_placements reads;    /* that await a completion here */

    uint64_t not_before;  /* ns; the head of sq waits for a retry */
    uint64_t retry_until; /* ns; 0: the head was not tried yet */
    unsigned rnr_tries;
    unsigned async_unacked;
};

struct fake_qp *fake_qp_of(struct ibv_qp *qp);
struct fake_qp *fake_qp_by_number(uint32_t number);
int fake_post_send(struct ibv_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad);
int fake_post_recv(struct ibv_qp *qp, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad);
struct fake_qp *fake_qp_new(struct fake_context *context, struct ibv_qp_init_attr_ex *attr);
void fake_qp_free(struct fake_qp *qp);
/* In error: everything queued will be flushed, by the wire. */
void fake_qp_fail(struct fake_qp *qp);
void fake_wr_free(struct fake_wr *wr);

/* --- the wire (fake_wire.c) --- */

/* Something to do for its thread. */
void fake_wire_wake(void);
void fake_wire_stop(void); /* joins; takes and gives back the lock */

/* --- the connection manager (fake_cm.c, fake_cm_wire.c) --- */

enum fake_id_state {
    FAKE_ID_IDLE,
    FAKE_ID_BOUND,
    FAKE_ID_LISTENING,
    FAKE_ID_ADDR_QUERY,
    FAKE_ID_ADDR_RESOLVED,
    FAKE_ID_ROUTE_QUERY,
    FAKE_ID_ROUTE_RESOLVED,
    FAKE_ID_REQ_SENT,
    FAKE_ID_REQ_RECEIVED,
    FAKE_ID_REP_SENT,
    FAKE_ID_REP_RECEIVED,
    FAKE_ID_CONNECTED,
    FAKE_ID_DREQ_SENT,
    FAKE_ID_DREQ_RECEIVED,
    FAKE_ID_OVER, /* rejected, unreachable, disconnected, device removed */
};

struct fake_event_channel {
    struct rdma_event_channel base;
    STAILQ_HEAD(, fake_cm_event) events;
    unsigned ids;
};

struct fake_id {
    struct rdma_cm_id base;
    LIST_ENTRY(fake_id) link;
    uint32_t number;
    enum fake_id_state state;
    bool fetched; /* the caller knows it: false for a request that waits at the listener */
    bool bound;   /* holds its port against others */
    bool reuse, afonly, passive;
    bool accepted;              /* passive: only now events of it reach the caller */
    struct fake_device *device; /* NULL: none, or any */
    uint32_t peer;              /* number of the other side's id, 0: none */
    uint32_t listener;          /* number, of a request that waits there */
    unsigned backlog, waiting;
    unsigned unacked;
    bool destroying;
    uint64_t last_due; /* of its messages: they keep their order */

    struct rdma_conn_param param;
    uint8_t data[FAKE_PRIVATE_DATA_MAX]; /* private_data of its request, for sending it again */
    unsigned requests;
    uint32_t far_qp; /* number, from REQ or REP */
    struct rdma_conn_param far;
};

struct fake_cm_event {
    struct rdma_cm_event base; /* base.event is the kernel's until it is fetched */
    STAILQ_ENTRY(fake_cm_event) link;
    struct fake_id *id, *acked_by; /* acked_by: whose counter it is on; the listener's for a request */
    uint8_t data[256];
};

enum fake_message_type { FAKE_EVENT, FAKE_REQ, FAKE_REP, FAKE_REJ, FAKE_RTU, FAKE_DREQ, FAKE_DREP };

struct fake_message {
    LIST_ENTRY(fake_message) link;
    enum fake_message_type type;
    uint64_t due;
    uint32_t from, to; /* numbers of ids; to: of FAKE_REQ unused */
    int event, status; /* FAKE_EVENT; status: FAKE_REJ too */
    struct rdma_conn_param param;
    uint8_t size; /* of data */
    uint8_t data[FAKE_PRIVATE_DATA_MAX];
};

enum { FAKE_REJ_CONSUMER_DEFINED = 28 };

struct fake_id *fake_id_of(struct rdma_cm_id *id);
/* What librdmacm's functions return. */
int fake_cm_result(int err);
struct fake_id *fake_id_new(enum rdma_port_space ps, void *context);
struct fake_id *fake_id_by_number(uint32_t number);
void fake_id_forget(struct fake_id *id); /* frees it: no message or event refers to it afterwards */
int fake_id_attach(struct fake_id *id);  /* base.verbs and base.pd, from device; an errno */
void fake_id_ready(struct fake_id *id);  /* its queue pair may send and receive */
void fake_id_raise(struct fake_id *id, struct fake_id *acked_by, int event, int status, const void *data, size_t size);
bool fake_address_any(const struct sockaddr *address);
bool fake_address_same(const struct sockaddr *a, const struct sockaddr *b); /* without ports */
__be16 fake_address_port(const struct sockaddr *address);

/* Sends after a random delay, but behind what id sent before. Copies *message. */
void fake_message_send(struct fake_id *id, const struct fake_message *message);
void fake_message_to_peer(struct fake_id *id, enum fake_message_type type, int status);
void fake_message_event(struct fake_id *id, enum rdma_cm_event_type event, int status); /* to itself */
/* Carries out one message that is due: true. Else *next is lowered to the time of the first one. */
bool fake_message_step(uint64_t now, uint64_t *next);
void fake_messages_drop(const struct fake_id *id); /* NULL: all */

/* --- the state of everything (fake_verbs.c) --- */

struct fake_call_rule {
    uint64_t calls, skip, times;
    int error;
};

struct fake_wr_rule {
    bool set;
    uint64_t skip;
    enum ibv_wc_status status;
};

struct fake_step_rule {
    bool set;
    int event, status;
    uint8_t data[148];
    size_t size;
};

struct fake {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* an acknowledgement, the end of building */
    pthread_cond_t work;    /* for the wire */
    bool started, stopping, wired;
    pthread_t wire;
    struct fake_setup setup;
    uint64_t random;
    struct fake_device devices[FAKE_MAX_DEVICES];
    LIST_HEAD(, fake_context) contexts;
    LIST_HEAD(, fake_mr) mrs;
    LIST_HEAD(, fake_cq) cqs;
    LIST_HEAD(, fake_qp) qps;
    LIST_HEAD(, fake_id) ids;
    LIST_HEAD(, fake_message) messages;
    struct fake_living living;
    uint64_t pinned;
    uint32_t next_key, next_qp, next_id;
    uint16_t next_port;
    uint64_t rnr, executed[FAKE_WR_ANY];
    struct fake_call_rule call_rules[FAKE_CALLS];
    struct fake_wr_rule wr_rules[FAKE_WR_ANY + 1];
    struct fake_step_rule step_rules[FAKE_STEPS];
    uint64_t hole_at; /* requests until the black hole opens, FAKE_NEVER: none */
    bool cm_silent;
    bool babbling;
    bool removed; /* DEVICE_FATAL was raised: what is ended has ended already, and says EIO */
};

extern struct fake fake;

/* Locks, and starts with the defaults if nobody has. */
void fake_enter(void);
void fake_leave(void);
uint64_t fake_random(uint64_t below); /* 0 for 0 */
/* Counts the call; 0, or the error it is to fail with. */
int fake_call(enum fake_call call);
/* Waits until *count is 0; aborts after 5 s, since the caller would wait for ever. */
void fake_await_acks(const unsigned *count, const char *whose);
_Noreturn void fake_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A descriptor that is readable once per post: what the event channels of both libraries are. */
int fake_fd_new(void);
void fake_fd_post(int fd);
/* Takes one; blocks or fails as the descriptor's flags say. Without the lock. */
int fake_fd_take(int fd);

#endif
