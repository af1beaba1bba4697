/*
 * Books of one send queue: pure arithmetic, no verbs. A slot of the queue is free again only when a signalled work
 * request at or behind it has completed, and completions come in the order of posting; so one number per completion
 * says it all: how many requests had been posted up to and with the signalled one. It travels as wr_id.
 *
 * Each completion may wake a thread, so they are rare; but not so rare that the link runs dry, which has about half of
 * the queue to send while a thread that waited for room fills the other half.
 */
#ifndef RDMA_QUEUE_H
#define RDMA_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    QUEUE_DEPTH = 160,                    /* work requests posted at once */
    QUEUE_RESERVE = 8,                    /* of these, kept for credits and the end of the stream */
    QUEUE_BYTES = 4 << 20,                /* put bytes under way: several times what any link holds */
    QUEUE_LIST = 16,                      /* requests posted in one call */
    QUEUE_LIST_BYTES = 1 << 20,           /* a list of so many bytes is not made longer */
    QUEUE_SIGNAL = 64,                    /* behind so many requests or */
    QUEUE_SIGNAL_BYTES = QUEUE_BYTES / 2, /* bytes the end of a list is signalled */
};

struct queue {
    uint64_t posted, signalled, retired;                   /* requests */
    uint64_t posted_bytes, signalled_bytes, retired_bytes; /* of puts and gets */
    uint32_t posted_buffers, retired_buffers; /* of the ring that sends are copied into */
    struct {
        uint64_t bytes;
        uint32_t buffers;
    } slots[QUEUE_DEPTH]; /* totals up to and with the request in this slot */
};

/* Books one request; returns the wr_id for it, should it be signalled. */
static inline uint64_t queue_post(struct queue *queue, uint64_t bytes, unsigned buffers)
{
    unsigned slot = queue->posted % QUEUE_DEPTH;
    queue->posted_bytes += bytes;
    queue->posted_buffers += buffers;
    queue->slots[slot].bytes = queue->posted_bytes;
    queue->slots[slot].buffers = queue->posted_buffers;
    return ++queue->posted;
}

/* Is a completion due for what was booked last? */
static inline bool queue_owes_signal(const struct queue *queue)
{
    return queue->posted - queue->signalled >= QUEUE_SIGNAL ||
           queue->posted_bytes - queue->signalled_bytes >= QUEUE_SIGNAL_BYTES;
}

/* The request that was booked last is signalled. */
static inline void queue_signal(struct queue *queue)
{
    queue->signalled = queue->posted;
    queue->signalled_bytes = queue->posted_bytes;
}

/* A completion with this wr_id; false: none that is outstanding. */
static inline bool queue_retire(struct queue *queue, uint64_t wr_id)
{
    if (wr_id <= queue->retired || wr_id > queue->posted)
        return false;
    unsigned slot = (wr_id - 1) % QUEUE_DEPTH;
    queue->retired = wr_id;
    queue->retired_bytes = queue->slots[slot].bytes;
    queue->retired_buffers = queue->slots[slot].buffers;
    return true;
}

static inline bool queue_idle(const struct queue *queue)
{
    return queue->retired == queue->posted;
}

/* Room for so many requests of so many bytes? A single request larger than QUEUE_BYTES may go alone. */
static inline bool queue_has_room(const struct queue *queue, unsigned requests, uint64_t bytes)
{
    uint64_t under_way = queue->posted_bytes - queue->retired_bytes;
    return queue->posted - queue->retired + requests <= QUEUE_DEPTH - QUEUE_RESERVE &&
           (under_way == 0 || under_way + bytes <= QUEUE_BYTES);
}

/* Room for one request out of the reserve? */
static inline bool queue_has_reserve(const struct queue *queue)
{
    return queue->posted - queue->retired < QUEUE_DEPTH;
}

#endif
