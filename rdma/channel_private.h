/*
 * Private to rdma/channel*.c: the struct, and what the files share. channel.c are the operations, channel_post.c what
 * is given to the device, channel_wait.c what comes back from it and the waiting for that, channel_open.c the making
 * and unmaking.
 */
#ifndef RDMA_CHANNEL_PRIVATE_H
#define RDMA_CHANNEL_PRIVATE_H

#include <assert.h>
#include <pthread.h>
#include <sys/queue.h>

#include "rdma/channel.h"
#include "rdma/credits.h"
#include "rdma/frame.h"
#include "rdma/queue.h"

enum {
    MAX_IOV = 1024,
    MAX_PUT = 1 << 20, /* longer requests gain nothing, and delay what is posted behind them */
    INLINE_MAX = 64,
    RECEIVES = CREDITS_RING + CREDITS_SPARE,
    SENDS = 16,
    POLL_BATCH = 16,
    POLL_BATCHES = 8,
    SPIN_NS = 10 * 1000,
    TICK_MS = 100, /* of free */
    PATIENCE_MS = 10 * 1000, /* for calls that have no timeout of their own: progress-timeout's default */
    DRAIN_MS = 1000,         /* what free grants the last frames */
    RNR_TIMER = 12,          /* 0.64 ms; the default of the connection manager is 655 ms */
};

static_assert(QUEUE_SIGNAL + QUEUE_LIST + 1 <= QUEUE_DEPTH - QUEUE_RESERVE &&
                  QUEUE_SIGNAL_BYTES + QUEUE_LIST_BYTES + MAX_PUT <= QUEUE_BYTES,
              "where there is no room for a list, a completion is on its way");

enum side { SENDING, RECEIVING, SIDES };

/* A put or get that waits to be posted. */
struct range {
    bool read;
    uint32_t lkey, rkey, size;
    uint64_t local, remote;
};

struct rdma_channel {
    struct channel base;

    /* constant after open */
    struct domain *domain; /* held */
    struct cm cm;
    struct ibv_context *verbs;
    struct ibv_comp_channel *completions;
    struct ibv_cq *send_cq, *recv_cq;
    struct ibv_qp_ex *qp;
    uint8_t *memory; /* the receives, then the sends: frames of FRAME_SIZE */
    struct ibv_mr *mr;
    LIST_ENTRY(rdma_channel) async_link; /* both under the lock of async.c */
    bool async_joined;
    int wake[SIDES]; /* eventfds, readable for good from shutdown on */

    atomic_bool shut;
    atomic_bool device_failed; /* see rdma_channel_async */

    /* the sending thread's alone, not posted yet */
    struct range ranges[QUEUE_LIST];
    unsigned range_count;
    uint64_t range_bytes;

    pthread_mutex_t lock;
    /* under lock */
    _Atomic(enum godwit_err) failure; /* the channel is broken; set once, and read by puts without the lock */
    bool ended; /* shut down: nothing follows our end of stream */
    bool peer_ended;
    bool peer_gone; /* disconnected: nothing is acknowledged any more */
    bool waiting[SIDES];
    uint64_t progress[SIDES]; /* grows with every completion that helps that side */
    struct queue queue;
    struct credits credits;
    struct {
        unsigned receive;
        uint32_t size; /* bytes of data */
    } filled[CREDITS_RING]; /* ring of frames to be read */
    unsigned filled_first, filled_count;
    uint32_t taken; /* bytes of the first that were read */
};

/* What a call waits for. */
struct need {
    unsigned requests; /* places in the send queue */
    uint64_t bytes;    /* of puts and gets among them */
    bool frame;        /* a credit and a buffer of the send ring */
    bool idle;         /* everything posted is complete */
    bool data;         /* something to read, or the end of the stream */
};

static inline uint8_t *receive_at(const struct rdma_channel *channel, unsigned index)
{
    return channel->memory + (size_t)index * FRAME_SIZE;
}

static inline uint8_t *send_at(const struct rdma_channel *channel, unsigned index)
{
    return receive_at(channel, RECEIVES + index);
}

/* All of the following under the lock, unless they say otherwise. */

/* ---- channel_post.c ---- */

/* Notes the first failure, and its reason where it has one; wakes who waits. */
void rdma_break(struct rdma_channel *channel, enum godwit_err err, const char *detail);
int rdma_post_receive(struct rdma_channel *channel, unsigned index); /* 0 or errno */
/* All ranges as one chain, signalled at its end if it is due, or if asked for. Room was awaited.
 * What is posted unsignalled has its completion when more follows: so ask for it when nothing may. */
enum godwit_err rdma_post_list(struct rdma_channel *channel, bool signal);
/* The same with the frame in a send buffer behind them, signalled. */
enum godwit_err rdma_post_frame(struct rdma_channel *channel, unsigned buffer, uint32_t size);
/* A frame without data, out of the reserve. */
void rdma_post_bare(struct rdma_channel *channel, bool end);
void rdma_return_credits(struct rdma_channel *channel);

/* ---- channel_wait.c ---- */

/* Without the lock as well: wakes who waits on this side. */
void rdma_kick(const struct rdma_channel *channel, enum side side);
/* Whoever sleeps, but not on this eventfd (-1: all). */
void rdma_kick_waiting(const struct rdma_channel *channel, int except);
/* Takes what both queues have; true: there was something. The other side's waiter is woken for its share. */
bool rdma_pump(struct rdma_channel *channel, enum side side);
/* The events of the completion channel, the connection manager and the device, waited for up to wait_ms and until the
 * eventfd wake (-1: none) can be read; wait_ms -1: for ever. Gives the lock up meanwhile. */
void rdma_take_events(struct rdma_channel *channel, int wake, int wait_ms);
/* Why this side cannot go on; OK: it can. */
enum godwit_err rdma_side_state(const struct rdma_channel *channel, enum side side);
/* Gives the lock up while it sleeps; TIMEOUT when nothing moved for timeout_ms. Data that came before a failure is
 * still read. */
enum godwit_err rdma_await(struct rdma_channel *channel, enum side side, const struct need *need, int timeout_ms);

/* ---- channel_open.c ---- */

/* Nobody else is inside; without the lock. */
void rdma_channel_destroy(struct rdma_channel *channel);

extern const struct channel_ops rdma_channel_ops; /* channel.c */

#endif
