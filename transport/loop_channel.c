/*
 * A connection of the loop transport. Each direction is a queue of items: pieces of sent bytes, and puts. recv consumes
 * bytes across messages; before the first byte that follows a put it carries that put out. Until then, and until flush,
 * an item refers to the sender's memory and nothing has been copied.
 *
 * Happy path: send queues a copy of head and references to payload, waiting while 4 MiB are unread; the peer's recv
 * copies from the sender's memory into its buffers.
 *
 * Failure modes: shutdown of this side (CLOSED), of the other (PEER_CLOSED after the last byte, RESET for a sender), a
 * put whose key is no longer good (RESET for both, nothing is touched), no progress in time (TIMEOUT or STALLED).
 *
 * Teardown. A link is freed with its second end. An end that is freed first leaves its unread bytes as copies, so no
 * item refers to its user's memory, drops its puts without a later send, and drops what was sent to it.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/clock.h"
#include "transport/loop_private.h"

enum { PIPE_MAX = 4 << 20, PIECE_MAX = 256 << 10, PUT_MAX = 1 << 20, LOOP_MAX_IOV = 1024 };

struct item {
    TAILQ_ENTRY(item) link;
    bool is_put;
    uint8_t *copy;        /* owned; NULL while memory is the sender's own */
    const uint8_t *memory;
    uint64_t size, taken; /* taken: bytes of a send that were received */

    uint64_t key, offset; /* of a put: where it goes */
};

TAILQ_HEAD(items, item);

/* One direction. Everything under the link's lock. */
struct pipe {
    struct items items;
    uint64_t bytes; /* in items, puts included */
    unsigned sends; /* send items in there */
    pthread_cond_t moved;
};

struct link {
    struct loop_net *net;
    pthread_mutex_t lock;
    uint64_t random;
    struct pipe pipes[2]; /* [n] is written by end n */
    bool shut[2];
    bool broken;
    unsigned ends; /* that are not freed */
};

struct end {
    struct channel base;
    struct link *link;
    unsigned side;
    struct items gets; /* sending thread */
};

static void item_free(struct item *item)
{
    free(item->copy);
    free(item);
}

/* Ends the reference to the sender's memory. */
static bool item_settle(struct item *item)
{
    if (item->copy)
        return true;
    item->copy = malloc(item->size);
    if (!item->copy)
        return false;
    memcpy(item->copy, item->memory, item->size);
    item->memory = item->copy;
    return true;
}

static struct item *item_new(const void *memory, uint64_t size)
{
    struct item *item = calloc(1, sizeof *item);
    if (item) {
        item->memory = memory;
        item->size = size;
    }
    return item;
}

static void pipe_remove(struct pipe *pipe, struct item *item)
{
    TAILQ_REMOVE(&pipe->items, item, link);
    pipe->bytes -= item->size;
    pipe->sends -= !item->is_put;
    item_free(item);
}

static void pipe_drop_all(struct pipe *pipe)
{
    while (!TAILQ_EMPTY(&pipe->items))
        pipe_remove(pipe, TAILQ_FIRST(&pipe->items));
}

/* Ends all references to the sender's memory; false: by dropping the items, which breaks the stream. */
static bool pipe_settle(struct pipe *pipe)
{
    struct item *item;
    TAILQ_FOREACH (item, &pipe->items, link) {
        if (!item_settle(item)) {
            pipe_drop_all(pipe);
            return false;
        }
    }
    return true;
}

static void wake_all(struct link *link)
{
    pthread_cond_broadcast(&link->pipes[0].moved);
    pthread_cond_broadcast(&link->pipes[1].moved);
}

/* Deadline for the next piece of progress. */
static uint64_t deadline_ns(int timeout_ms)
{
    return timeout_ms == CHANNEL_FOREVER ? UINT64_MAX : clock_now_ns() + (uint64_t)timeout_ms * 1000000u;
}

/* Waits for the pipe to move; false: the deadline has passed. */
static bool pipe_wait(struct link *link, struct pipe *pipe, uint64_t deadline)
{
    if (deadline == UINT64_MAX) {
        pthread_cond_wait(&pipe->moved, &link->lock);
        return true;
    }
    struct timespec until = clock_timespec(deadline);
    pthread_cond_clockwait(&pipe->moved, &link->lock, CLOCK_MONOTONIC, &until);
    return clock_now_ns() < deadline;
}

static enum godwit_err send_state(const struct end *end)
{
    const struct link *link = end->link;
    if (link->shut[end->side])
        return GODWIT_ERR_CLOSED;
    return link->broken || link->shut[!end->side] ? GODWIT_ERR_RESET : GODWIT_OK;
}

/* Queues one piece when there is room for it: takes the item, on failure too. */
static enum godwit_err send_item(struct end *end, struct item *item, int timeout_ms, bool moved)
{
    struct link *link = end->link;
    struct pipe *pipe = &link->pipes[end->side];
    uint64_t deadline = deadline_ns(timeout_ms);
    enum godwit_err err = send_state(end);
    /* Puts count, but only bytes can be received: with no send in the pipe there is nothing to wait for. */
    for (bool late = false; !err && pipe->sends && pipe->bytes + item->size > PIPE_MAX; err = send_state(end)) {
        if (late) {
            err = moved ? GODWIT_ERR_STALLED : GODWIT_ERR_TIMEOUT;
            break;
        }
        late = !pipe_wait(link, pipe, deadline);
    }
    if (err) {
        item_free(item);
        return err;
    }
    TAILQ_INSERT_TAIL(&pipe->items, item, link);
    pipe->bytes += item->size;
    pipe->sends++;
    pthread_cond_broadcast(&pipe->moved);
    return GODWIT_OK;
}

/* Queues size bytes in pieces; copied at once for a head, referenced for payload. */
static enum godwit_err send_range(struct end *end, const uint8_t *memory, size_t size, bool copy, int timeout_ms,
                                  bool *moved)
{
    while (size) {
        size_t step = size < PIECE_MAX ? size : PIECE_MAX;
        struct item *item = item_new(memory, step);
        if (!item)
            return GODWIT_ERR_NO_MEMORY;
        if (copy && !item_settle(item)) {
            item_free(item);
            return GODWIT_ERR_NO_MEMORY;
        }
        enum godwit_err err = send_item(end, item, timeout_ms, *moved);
        if (err)
            return err;
        *moved = true;
        memory += step;
        size -= step;
    }
    return GODWIT_OK;
}

static enum godwit_err loop_send(struct channel *channel, const void *head, size_t head_size,
                                 const struct iovec *payload, unsigned count, int timeout_ms)
{
    struct end *end = (struct end *)channel;
    bool moved = false;
    pthread_mutex_lock(&end->link->lock);
    enum godwit_err err = send_state(end);
    if (!err)
        err = send_range(end, head, head_size, true, timeout_ms, &moved);
    for (unsigned i = 0; i < count && !err; i++)
        err = send_range(end, payload[i].iov_base, payload[i].iov_len, false, timeout_ms, &moved);
    pthread_mutex_unlock(&end->link->lock);
    return err;
}

/* Carries out the puts at the front of the pipe: the first byte after them is about to be received. */
static bool deliver_puts(struct link *link, struct pipe *pipe)
{
    for (struct item *item; (item = TAILQ_FIRST(&pipe->items)) && item->is_put; pipe_remove(pipe, item)) {
        if (!loop_region_write(link->net, item->key, item->offset, item->memory, item->size))
            return false;
    }
    return true;
}

/* Moves what is there into iov[*at...]; false when a put could not be carried out. *moved: any byte was. */
static bool consume(struct link *link, struct pipe *pipe, struct iovec *iov, unsigned count, unsigned *at, bool *moved)
{
    while (*at < count) {
        struct iovec *to = &iov[*at];
        if (!to->iov_len) {
            ++*at;
            continue;
        }
        if (!pipe->sends)
            return true;
        if (!deliver_puts(link, pipe))
            return false;
        struct item *item = TAILQ_FIRST(&pipe->items);
        uint64_t step = item->size - item->taken < to->iov_len ? item->size - item->taken : to->iov_len;
        memcpy(to->iov_base, item->memory + item->taken, step);
        to->iov_base = (uint8_t *)to->iov_base + step;
        to->iov_len -= step;
        item->taken += step;
        if (item->taken == item->size)
            pipe_remove(pipe, item);
        *moved = true;
    }
    return true;
}

static enum godwit_err recv_state(const struct end *end, const struct pipe *pipe, bool moved)
{
    const struct link *link = end->link;
    if (link->shut[end->side])
        return GODWIT_ERR_CLOSED;
    if (link->broken)
        return GODWIT_ERR_RESET;
    if (link->shut[!end->side] && !pipe->sends)
        return moved ? GODWIT_ERR_RESET : GODWIT_ERR_PEER_CLOSED;
    return GODWIT_OK;
}

static enum godwit_err recv_locked(struct end *end, struct iovec *iov, unsigned count, int timeout_ms)
{
    struct link *link = end->link;
    struct pipe *pipe = &link->pipes[!end->side];
    uint64_t deadline = deadline_ns(timeout_ms);
    unsigned at = 0;
    bool any = false;
    if (link->shut[end->side])
        return GODWIT_ERR_CLOSED;
    for (bool late = false;; late = !pipe_wait(link, pipe, deadline)) {
        bool moved = false;
        if (!link->shut[end->side] && !link->broken && !consume(link, pipe, iov, count, &at, &moved)) {
            link->broken = true;
            wake_all(link);
        }
        if (moved) {
            any = true;
            late = false;
            deadline = deadline_ns(timeout_ms);
            pthread_cond_broadcast(&pipe->moved);
        }
        if (at == count)
            return GODWIT_OK;
        enum godwit_err err = recv_state(end, pipe, any);
        if (err)
            return err;
        if (late)
            return any ? GODWIT_ERR_STALLED : GODWIT_ERR_TIMEOUT;
    }
}

static enum godwit_err loop_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    struct end *end = (struct end *)channel;
    pthread_mutex_lock(&end->link->lock);
    enum godwit_err err = recv_locked(end, iov, count, timeout_ms);
    pthread_mutex_unlock(&end->link->lock);
    return err;
}

/* Lets a new put overtake puts, as far as chance will have it. A send is never overtaken. */
static void queue_put(struct link *link, struct pipe *pipe, struct item *item)
{
    TAILQ_INSERT_TAIL(&pipe->items, item, link);
    pipe->bytes += item->size;
    for (struct item *before; (before = TAILQ_PREV(item, items, link));) {
        if (!before->is_put || loop_random(&link->random) % 2)
            break;
        TAILQ_REMOVE(&pipe->items, item, link);
        TAILQ_INSERT_BEFORE(before, item, link);
    }
}

static enum godwit_err loop_put(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    struct end *end = (struct end *)channel;
    struct link *link = end->link;
    const struct loop_remote *to = (const struct loop_remote *)remote;
    struct item *item = item_new((const uint8_t *)mr->region.addr + mr_offset, size);
    if (!item)
        return GODWIT_ERR_NO_MEMORY;
    item->is_put = true;
    item->key = to->key;
    item->offset = remote_offset;

    pthread_mutex_lock(&link->lock);
    enum godwit_err err = send_state(end);
    if (!err && loop_random(&link->random) % 2 && !item_settle(item))
        err = GODWIT_ERR_NO_MEMORY;
    if (!err)
        queue_put(link, &link->pipes[end->side], item);
    else
        item_free(item);
    pthread_mutex_unlock(&link->lock);
    return err;
}

/* Caller holds the link's lock. A get that the peer does not allow breaks the connection, as it does on hardware. */
static enum godwit_err carry_out_get(struct link *link, const struct item *item)
{
    void *to = (void *)(uintptr_t)item->memory; /* registered by the caller to be written */
    if (loop_region_read(link->net, item->key, item->offset, to, item->size))
        return GODWIT_OK;
    link->broken = true;
    wake_all(link);
    return GODWIT_ERR_RESET;
}

static enum godwit_err loop_get(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    struct end *end = (struct end *)channel;
    struct link *link = end->link;
    struct item *item = item_new((const uint8_t *)mr->region.addr + mr_offset, size);
    if (!item)
        return GODWIT_ERR_NO_MEMORY;
    item->key = ((const struct loop_remote *)remote)->key;
    item->offset = remote_offset;

    pthread_mutex_lock(&link->lock);
    enum godwit_err err = send_state(end);
    bool now = loop_random(&link->random) % 2;
    if (!err && now)
        err = carry_out_get(link, item);
    pthread_mutex_unlock(&link->lock);
    if (!err && !now)
        TAILQ_INSERT_TAIL(&end->gets, item, link);
    else
        item_free(item);
    return err;
}

static void gets_drop(struct end *end)
{
    for (struct item *item; (item = TAILQ_FIRST(&end->gets));) {
        TAILQ_REMOVE(&end->gets, item, link);
        item_free(item);
    }
}

static enum godwit_err loop_flush(struct channel *channel, int timeout_ms)
{
    (void)timeout_ms; /* nothing here waits for the peer */
    struct end *end = (struct end *)channel;
    struct link *link = end->link;
    struct item *item;
    pthread_mutex_lock(&link->lock);
    enum godwit_err err = send_state(end);
    TAILQ_FOREACH (item, &end->gets, link) {
        if (!err)
            err = carry_out_get(link, item);
    }
    if (!pipe_settle(&link->pipes[end->side])) {
        link->broken = true;
        wake_all(link);
        err = err ? err : GODWIT_ERR_NO_MEMORY;
    }
    pthread_mutex_unlock(&link->lock);
    gets_drop(end);
    return err;
}

static void loop_shutdown(struct channel *channel)
{
    struct end *end = (struct end *)channel;
    pthread_mutex_lock(&end->link->lock);
    end->link->shut[end->side] = true;
    wake_all(end->link);
    pthread_mutex_unlock(&end->link->lock);
}

static void link_free(struct link *link)
{
    for (unsigned i = 0; i < 2; i++) {
        pipe_drop_all(&link->pipes[i]);
        pthread_cond_destroy(&link->pipes[i].moved);
    }
    pthread_mutex_destroy(&link->lock);
    free(link);
}

/* Leaves unread bytes to the peer as copies, with the puts in front of them; the puts after them go. */
static bool pipe_leave(struct pipe *pipe)
{
    struct item *last;
    while ((last = TAILQ_LAST(&pipe->items, items)) && last->is_put)
        pipe_remove(pipe, last);
    return pipe_settle(pipe);
}

static void loop_free(struct channel *channel)
{
    struct end *end = (struct end *)channel;
    struct link *link = end->link;
    gets_drop(end);
    pthread_mutex_lock(&link->lock);
    if (!pipe_leave(&link->pipes[end->side]))
        link->broken = true;
    pipe_drop_all(&link->pipes[!end->side]);
    bool last = --link->ends == 0;
    wake_all(link);
    pthread_mutex_unlock(&link->lock);
    /* Two frees meet in the lock; the one that counts to zero is alone. */
    if (last)
        link_free(link);
    free(end);
}

static const struct channel_ops loop_channel_ops = {
    .name = "loop",
    .handshake = channel_handshake_nothing,
    .send = loop_send,
    .recv = loop_recv,
    .recv_some = channel_recv_one_byte,
    .put = loop_put,
    .get = loop_get,
    .flush = loop_flush,
    .shutdown = loop_shutdown,
    .free = loop_free,
};

static struct link *link_new(struct loop_net *net, uint64_t seed)
{
    struct link *link = calloc(1, sizeof *link);
    if (!link)
        return NULL;
    link->net = net;
    link->random = seed;
    link->ends = 2;
    pthread_mutex_init(&link->lock, NULL);
    for (unsigned i = 0; i < 2; i++) {
        TAILQ_INIT(&link->pipes[i].items);
        pthread_cond_init(&link->pipes[i].moved, NULL);
    }
    return link;
}

static struct end *end_new(struct link *link, const char *name, unsigned side)
{
    struct end *end = calloc(1, sizeof *end);
    if (!end)
        return NULL;
    end->base.ops = &loop_channel_ops;
    end->base.limits =
        (struct channel_limits){.max_iov = LOOP_MAX_IOV, .max_put = PUT_MAX, .put_align = 1, .one_sided = true};
    snprintf(end->base.name, sizeof end->base.name, "loop %s", name);
    end->link = link;
    end->side = side;
    TAILQ_INIT(&end->gets);
    return end;
}

enum godwit_err loop_channel_pair(struct loop_net *net, const char *name, uint64_t seed, struct channel *ends[2])
{
    struct link *link = link_new(net, seed);
    struct end *a = link ? end_new(link, name, 0) : NULL;
    struct end *b = link ? end_new(link, name, 1) : NULL;
    if (!a || !b) {
        free(a);
        free(b);
        if (link)
            link_free(link);
        return GODWIT_ERR_NO_MEMORY;
    }
    ends[0] = &a->base;
    ends[1] = &b->base;
    return GODWIT_OK;
}
