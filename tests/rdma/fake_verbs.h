/*
 * A fake of libibverbs and librdmacm: the fabric, its devices and the far ends of all connections in one process,
 * without hardware, kernel or privileges. A test program links it instead of -libverbs -lrdmacm; the headers are the
 * real ones. It is as unhelpful as real devices may be:
 *
 *   - a WRITE's bytes are invisible to the responder until it has polled a later receive completion of the same queue
 *     pair, or tears down (queue pair in error or destroyed, memory deregistered); the requester's completion may have
 *     been polled long before;
 *   - WRITEs into memory registered with IBV_ACCESS_RELAXED_ORDERING arrive in any order;
 *   - queue pairs advance in random order, work requests of one in order; the memory of a request is read when it is
 *     executed and not when it is posted;
 *   - a slot of a send queue is free when a completion at or behind it was polled, one of a receive queue when its own
 *     was;
 *   - arming is for completions to come, and for one event; what is in the queue already raises none;
 *   - fields of a failed completion beyond wr_id, status, vendor_err and qp_num hold rubbish;
 *   - id->verbs is NULL until ADDR_RESOLVED has been fetched, and a connection is made while its events are fetched;
 *   - queue pairs raise no asynchronous event of their own, as on soft-RoCE.
 *
 * What the real thing answers with an error is answered the same way. What would be undefined, or would wait for ever
 * because of the caller, ends the program with a message: overflow of a completion queue, deregistration under queued
 * work, destroying an id or a queue that has unacknowledged events, or an id that has a queue pair.
 *
 * Faults are set with the functions below, at any time and from any thread. Everything is under one lock, so what the
 * callers' threads do around calls is ordered a little more than by the real libraries.
 */
#ifndef TESTS_RDMA_FAKE_VERBS_H
#define TESTS_RDMA_FAKE_VERBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

enum { FAKE_MAX_DEVICES = 4, FAKE_MAX_ADDRESSES = 4 };

#define FAKE_NEVER UINT64_MAX

struct fake_limits {
    int max_qp_wr, max_sge, max_cqe, max_rd_atomic;
    uint32_t max_inline;
    uint32_t max_msg;    /* bytes of one message */
    uint64_t max_pinned; /* bytes of all registrations, each counted in full: RLIMIT_MEMLOCK */
};

struct fake_device_setup {
    const char *name;                          /* NULL: no such device */
    const char *addresses[FAKE_MAX_ADDRESSES]; /* IPv4 or IPv6, NULL behind the last */
    enum ibv_mtu mtu;
    enum ibv_port_state state;
    bool infiniband; /* link layer; else Ethernet */
};

struct fake_setup {
    uint64_t seed;
    struct fake_limits limits;
    struct fake_device_setup devices[FAKE_MAX_DEVICES];
    bool prompt_writes;    /* a WRITE is visible as soon as it is executed */
    unsigned delay_us;     /* the longest random pause between two steps of the wire */
    unsigned retry_ms;     /* from the first try to RETRY_EXC_ERR */
    unsigned rnr_ms;       /* between two tries of a request that found no receive */
    unsigned cm_delay_us;  /* the longest random delay of a message of the connection manager */
    unsigned cm_resend_ms; /* between two requests to connect that nobody answers */
    unsigned cm_resends;   /* then UNREACHABLE */
    unsigned reg_ms;       /* that a registration takes */
};

/* One device "fake0", 127.0.0.1 and ::1, MTU 4096, Ethernet, active; soft-RoCE's limits; seed 1; short delays. */
void fake_setup_init(struct fake_setup *setup);

/* Starts with setup; its strings are borrowed. The first use of any verb starts with the defaults if nobody did. */
void fake_verbs_start(const struct fake_setup *setup);

/* Stops, and forgets faults and counts. Aborts with a list when any object is left: it is the leak check. */
void fake_verbs_stop(void);

/* Objects that callers hold. Devices and the protection domain that librdmacm keeps for itself are not among them. */
struct fake_living {
    unsigned contexts, pds, mrs, comp_channels, cqs, qps, event_channels, ids;
    unsigned unacked; /* events of all kinds that were fetched and not acknowledged */
};
struct fake_living fake_verbs_living(void);
unsigned fake_verbs_living_total(void);

/* How often a request found no receive at the responder, retries included. Credits are wrong if it is not 0. */
uint64_t fake_verbs_rnr_count(void);

/* Work requests that were executed with success, by kind. */
enum fake_wr_kind { FAKE_WR_SEND, FAKE_WR_WRITE, FAKE_WR_READ, FAKE_WR_RECV, FAKE_WR_ANY };
uint64_t fake_verbs_executed(enum fake_wr_kind kind);

/* --- calls that fail --------------------------------------------------------------------------------------------- */

enum fake_call {
    FAKE_CALL_GET_DEVICES, /* of either library */
    FAKE_CALL_OPEN_DEVICE,
    FAKE_CALL_QUERY_DEVICE,
    FAKE_CALL_QUERY_PORT,
    FAKE_CALL_ALLOC_PD,
    FAKE_CALL_REG_MR,
    FAKE_CALL_CREATE_COMP_CHANNEL,
    FAKE_CALL_CREATE_CQ,
    FAKE_CALL_REQ_NOTIFY,
    FAKE_CALL_POLL_CQ,
    FAKE_CALL_CREATE_QP,
    FAKE_CALL_MODIFY_QP,
    FAKE_CALL_POST_SEND, /* wr_complete as well */
    FAKE_CALL_POST_RECV,
    FAKE_CALL_CREATE_EVENT_CHANNEL,
    FAKE_CALL_CREATE_ID,
    FAKE_CALL_BIND_ADDR,
    FAKE_CALL_LISTEN,
    FAKE_CALL_RESOLVE_ADDR,
    FAKE_CALL_RESOLVE_ROUTE,
    FAKE_CALL_CONNECT,
    FAKE_CALL_ACCEPT,
    FAKE_CALL_REJECT,
    FAKE_CALL_DISCONNECT,
    FAKE_CALL_MIGRATE,
    FAKE_CALL_SET_OPTION,
    FAKE_CALL_GET_EVENT,
    FAKE_CALLS
};

/* After skip more calls, the following `times` ones (FAKE_NEVER: all) fail with error. One rule per kind of call. */
void fake_fail_call(enum fake_call call, uint64_t skip, uint64_t times, int error);
/* Calls since the start, failed ones included. */
uint64_t fake_calls(enum fake_call call);

/* --- the data path ------------------------------------------------------------------------------------------------ */

/*
 * After skip more requests of this kind, one completes with status and does nothing; its queue pair is in error then,
 * the peer's as well where status says that the responder refused. FAKE_WR_RECV: the receive, and the peer gets
 * REM_OP_ERR.
 */
void fake_fail_wr(enum fake_wr_kind kind, uint64_t skip, enum ibv_wc_status status);

/* After skip more requests of any kind nothing is executed any more, nor fails. FAKE_NEVER: all is well again. */
void fake_black_hole(uint64_t skip);

/* Completion queues never run empty: polled, they yield completions with success of requests that nobody posted. */
void fake_babble(bool babbling);

/* --- the connection manager --------------------------------------------------------------------------------------- */

enum fake_step { FAKE_STEP_ADDR, FAKE_STEP_ROUTE, FAKE_STEP_CONNECT, FAKE_STEP_ACCEPT, FAKE_STEPS };
enum { FAKE_NO_EVENT = -1 };

/*
 * The next such step ends, once, with this event in place of what it would have done; FAKE_NO_EVENT: with nothing at
 * all. data: of a REJECTED, at most 148 bytes. FAKE_STEP_ACCEPT is the accepting side's; the other is told nothing.
 */
void fake_answer_step(enum fake_step step, int event, int status, const void *data, size_t size);

enum fake_role { FAKE_ACTIVE, FAKE_PASSIVE, FAKE_LISTENER };

/* Raises the event on every id of this role; DEVICE_REMOVAL puts its queue pair in error. Returns how many ids. */
unsigned fake_raise_cm(enum fake_role role, enum rdma_cm_event_type event, int status);

/* Messages between ids get lost while silent. */
void fake_cm_silent(bool silent);

/* --- asynchronous events ------------------------------------------------------------------------------------------ */

/*
 * Raises the event on every context that a caller or librdmacm has open; events of a queue pair (of a completion queue)
 * on each of these that lives. QP_FATAL and DEVICE_FATAL put queue pairs in error, CQ_ERR those that use the queue.
 * Returns how many events there were. After DEVICE_FATAL ibv_dereg_mr and ibv_dealloc_pd do their work and say EIO, as
 * those of a removed device do.
 */
unsigned fake_raise_async(enum ibv_event_type event);
/* The same, an event of a queue pair or of a completion queue, for this one alone. */
unsigned fake_raise_async_at(enum ibv_event_type event, const void *element);

#endif
