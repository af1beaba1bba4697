/*
 * The fault wrapper. Without limits on size, cuts or flips in its plan it passes calls through whole; with them it
 * walks over the memory of a call piece by piece, where a piece ends at the end of a buffer, at the chunk size, at the
 * byte to be flipped and at the byte to be cut at.
 *
 * Failure modes are the purpose. An injected failure does nothing to the channel inside: what its real cause would have
 * done is not simulated, except for cuts, which shut it down.
 */
#include "transport/fault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "transport/channel_ops.h"
#include "transport/error.h"

/* How far one direction is. Only the thread of that direction uses it. */
struct stream_position {
    uint64_t at, cut, flip;
};

struct fault_channel {
    struct channel base;
    struct channel *inner;
    struct fault_plan plan;
    struct fault_counts own_counts;
    atomic_bool shut; /* by the user, not by a cut */
    struct stream_position sent, received;
};

struct fault_plan fault_plan_none(void)
{
    return (struct fault_plan){
        .fail_at = FAULT_NEVER,
        .cut_sent = FAULT_NEVER,
        .cut_received = FAULT_NEVER,
        .flip_sent = FAULT_NEVER,
        .flip_received = FAULT_NEVER,
    };
}

static void sleep_ms(unsigned ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    while (ms && nanosleep(&left, &left) && errno == EINTR)
        continue;
}

/* What every operation begins with: OK, or the failure that was asked for. */
static enum godwit_err begin(struct fault_channel *fault, enum fault_op op)
{
    struct fault_counts *counts = fault->plan.counts ? fault->plan.counts : &fault->own_counts;
    uint64_t number = atomic_fetch_add_explicit(&counts->calls[op], 1, memory_order_relaxed);
    sleep_ms(fault->plan.delay_ms);
    return op == fault->plan.fail_op && number == fault->plan.fail_at ? fault->plan.fail_code : GODWIT_OK;
}

static bool is_whole(const struct fault_channel *fault, const struct stream_position *position)
{
    return !fault->plan.chunk && position->cut == FAULT_NEVER && position->flip == FAULT_NEVER;
}

static uint64_t at_most(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The piece to move next of left bytes: 0 when the connection is to be cut here. */
static uint64_t piece(const struct fault_channel *fault, const struct stream_position *position, uint64_t left)
{
    uint64_t size = at_most(left, fault->plan.chunk ? fault->plan.chunk : left);
    if (position->cut != FAULT_NEVER)
        size = at_most(size, position->cut > position->at ? position->cut - position->at : 0);
    if (position->flip == FAULT_NEVER)
        return size;
    uint64_t byte = position->flip / 8;
    if (byte == position->at)
        return at_most(size, 1);
    return byte > position->at ? at_most(size, byte - position->at) : size;
}

static bool flips_here(const struct stream_position *position)
{
    return position->flip != FAULT_NEVER && position->flip / 8 == position->at;
}

static enum godwit_err cut(struct fault_channel *fault)
{
    channel_shutdown(fault->inner);
    return GODWIT_ERR_RESET;
}

/* A cut shuts inner down behind the user's back: it was not this side, to the user, and the connection broke. */
static enum godwit_err unless_cut(const struct fault_channel *fault, enum godwit_err err)
{
    if (err == GODWIT_ERR_CLOSED && !atomic_load_explicit(&fault->shut, memory_order_acquire))
        return GODWIT_ERR_RESET;
    return err;
}

/* Codes that mean "nothing was moved" stop being true after the first piece. */
static enum godwit_err after_pieces(const struct fault_channel *fault, enum godwit_err err, bool moved)
{
    if (moved && err == GODWIT_ERR_TIMEOUT)
        return GODWIT_ERR_STALLED;
    if (moved && err == GODWIT_ERR_PEER_CLOSED)
        return GODWIT_ERR_RESET;
    return unless_cut(fault, err);
}

/* Sends one buffer in pieces; as head, which is copied, or as payload, which may stay referenced. */
static enum godwit_err send_buffer(struct fault_channel *fault, void *buffer, size_t size, bool is_head, int timeout_ms)
{
    struct stream_position *position = &fault->sent;
    uint8_t *at = buffer;
    for (uint64_t left = size; left;) {
        uint64_t step = piece(fault, position, left);
        if (!step)
            return cut(fault);
        struct iovec iov = {.iov_base = at, .iov_len = step};
        enum godwit_err err;
        if (flips_here(position)) {
            uint8_t flipped = (uint8_t)(*at ^ 1u << position->flip % 8);
            err = channel_send(fault->inner, &flipped, 1, NULL, 0, timeout_ms);
        } else if (is_head) {
            err = channel_send(fault->inner, at, step, NULL, 0, timeout_ms);
        } else {
            err = channel_send(fault->inner, NULL, 0, &iov, 1, timeout_ms);
        }
        if (err)
            return err;
        at += step;
        left -= step;
        position->at += step;
    }
    return GODWIT_OK;
}

static enum godwit_err fault_send(struct channel *channel, const void *head, size_t head_size,
                                  const struct iovec *payload, unsigned count, int timeout_ms)
{
    struct fault_channel *fault = (struct fault_channel *)channel;
    enum godwit_err err = begin(fault, FAULT_SEND);
    if (err)
        return err;
    if (is_whole(fault, &fault->sent))
        return unless_cut(fault, channel_send(fault->inner, head, head_size, payload, count, timeout_ms));
    uint64_t start = fault->sent.at;
    err = send_buffer(fault, (void *)(uintptr_t)head, head_size, true, timeout_ms); /* only read */
    for (unsigned i = 0; i < count && !err; i++)
        err = send_buffer(fault, payload[i].iov_base, payload[i].iov_len, false, timeout_ms);
    return after_pieces(fault, err, fault->sent.at != start);
}

static enum godwit_err recv_buffer(struct fault_channel *fault, uint8_t *at, size_t size, int timeout_ms)
{
    struct stream_position *position = &fault->received;
    for (uint64_t left = size; left;) {
        uint64_t step = piece(fault, position, left);
        if (!step)
            return cut(fault);
        enum godwit_err err = channel_recv_exact(fault->inner, at, step, timeout_ms);
        if (err)
            return err;
        if (flips_here(position))
            *at ^= (uint8_t)(1u << position->flip % 8);
        at += step;
        left -= step;
        position->at += step;
    }
    return GODWIT_OK;
}

static enum godwit_err fault_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    struct fault_channel *fault = (struct fault_channel *)channel;
    enum godwit_err err = begin(fault, FAULT_RECV);
    if (err)
        return err;
    if (is_whole(fault, &fault->received))
        return unless_cut(fault, channel_recv(fault->inner, iov, count, timeout_ms));
    uint64_t start = fault->received.at;
    for (unsigned i = 0; i < count && !err; i++)
        err = recv_buffer(fault, iov[i].iov_base, iov[i].iov_len, timeout_ms);
    return after_pieces(fault, err, fault->received.at != start);
}

static enum godwit_err fault_recv_some(struct channel *channel, void *buffer, size_t size, int timeout_ms, size_t *got)
{
    struct fault_channel *fault = (struct fault_channel *)channel;
    struct stream_position *position = &fault->received;
    enum godwit_err err = begin(fault, FAULT_RECV);
    if (err)
        return err;
    uint64_t most = piece(fault, position, size);
    if (!most)
        return cut(fault);
    err = channel_recv_some(fault->inner, buffer, most, timeout_ms, got);
    if (err)
        return unless_cut(fault, err);
    if (flips_here(position))
        *(uint8_t *)buffer ^= (uint8_t)(1u << position->flip % 8);
    position->at += *got;
    return GODWIT_OK;
}

/* The size of one inner put or get: the chunk, rounded up to what the channel allows. */
static uint64_t one_sided_step(const struct fault_channel *fault, uint64_t left)
{
    uint64_t align = fault->base.limits.put_align ? fault->base.limits.put_align : 1;
    uint64_t chunk = fault->plan.chunk ? (fault->plan.chunk + align - 1) / align * align : left;
    return at_most(left, chunk);
}

static enum godwit_err fault_put(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                 const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    struct fault_channel *fault = (struct fault_channel *)channel;
    enum godwit_err err = begin(fault, FAULT_PUT);
    for (uint64_t done = 0, step; done < size && !err; done += step) {
        step = one_sided_step(fault, size - done);
        err = channel_put(fault->inner, mr, mr_offset + done, remote, remote_offset + done, step);
    }
    return unless_cut(fault, err);
}

static enum godwit_err fault_get(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                 const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    struct fault_channel *fault = (struct fault_channel *)channel;
    enum godwit_err err = begin(fault, FAULT_GET);
    for (uint64_t done = 0, step; done < size && !err; done += step) {
        step = one_sided_step(fault, size - done);
        err = channel_get(fault->inner, mr, mr_offset + done, remote, remote_offset + done, step);
    }
    return unless_cut(fault, err);
}

static enum godwit_err fault_flush(struct channel *channel, int timeout_ms)
{
    struct fault_channel *fault = (struct fault_channel *)channel;
    enum godwit_err err = begin(fault, FAULT_FLUSH);
    return err ? err : unless_cut(fault, channel_flush(fault->inner, timeout_ms));
}

static void fault_shutdown(struct channel *channel)
{
    struct fault_channel *fault = (struct fault_channel *)channel;
    /* Before inner is: a call that this wakes must find it (acquire in unless_cut). */
    atomic_store_explicit(&fault->shut, true, memory_order_release);
    channel_shutdown(fault->inner);
}

static void fault_free(struct channel *channel)
{
    struct fault_channel *fault = (struct fault_channel *)channel;
    channel_free(fault->inner);
    free(fault);
}

static const struct channel_ops fault_channel_ops = {
    .name = "fault",
    .handshake = channel_handshake_wrapped,
    .send = fault_send,
    .recv = fault_recv,
    .recv_some = fault_recv_some,
    .put = fault_put,
    .get = fault_get,
    .flush = fault_flush,
    .shutdown = fault_shutdown,
    .free = fault_free,
};

struct channel *fault_channel_wrap(struct channel *inner, const struct fault_plan *plan)
{
    struct fault_channel *fault = calloc(1, sizeof *fault);
    if (!fault)
        return NULL;
    fault->base.ops = &fault_channel_ops;
    fault->base.limits = inner->limits;
    fault->base.wrapped = inner;
    memcpy(fault->base.name, inner->name, sizeof fault->base.name);
    fault->inner = inner;
    fault->plan = *plan;
    for (unsigned op = 0; op < FAULT_OPS; op++)
        atomic_init(&fault->own_counts.calls[op], 0);
    atomic_init(&fault->shut, false);
    fault->sent = (struct stream_position){0, plan->cut_sent, plan->flip_sent};
    fault->received = (struct stream_position){0, plan->cut_received, plan->flip_received};
    return &fault->base;
}
