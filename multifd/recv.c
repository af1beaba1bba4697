/*
 * The life of a record in a receiver thread: read the header, then the extents, check both, populate what was not
 * stored to before, read the payload straight into the pages, note them as received. Placed content is already there.
 * A zero extent stores zeros, except on pages of a fresh block that were never stored to: those read as zero as they
 * are.
 *
 * A channel may go on by another connection. The source makes it, and ends the old one by a record that says so; the
 * receiver then frees the old one, which tells the source, and reads on from the new one.
 *
 * Failure modes: a broken record, a channel that ends or stalls, memory that cannot be had, a connection that was to
 * follow and does not come: the thread reports once and ends. Nothing a peer sends makes it store outside the blocks or
 * allocate.
 *
 * Teardown: stop sets its flag and then, under the lock of each receiver, shuts down what is there; whatever is
 * attached later finds the flag under the same lock and is refused. So every channel is shut down, and free, which
 * comes when the threads are joined, frees all of them.
 */
#include "multifd/recv.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "multifd/counters.h"
#include "multifd/packet.h"
#include "multifd/store.h"
#include "transport/clock.h"
#include "transport/error.h"

struct receiver {
    struct multifd_recv *recv;
    unsigned index;
    bool attached; /* its thread was started */
    pthread_t thread;
    struct counters counters;
    _Atomic uint64_t cleared; /* pages gone through to make them zero */

    pthread_mutex_t lock;
    pthread_cond_t came; /* a successor, or the end */
    /* under lock; the receiver thread, which alone changes channel while it runs, reads that without */
    struct channel *channel;
    struct channel *successor;          /* what takes its place when the source ends it */
    struct godwit_channel_info carrier; /* what carries it alone: it outlives the channel */

    /* receiver thread only */
    uint32_t sequence;
    uint32_t epoch; /* of the last marker */
    uint8_t head[PACKET_HEAD_MAX];
    struct extent extents[BATCH_EXTENTS];
    struct iovec iov[BATCH_EXTENTS];
};

struct multifd_recv {
    struct multifd_recv_config config;
    zero_test *is_zero;
    atomic_bool stopping;
    struct receiver receivers[];
};

/* Makes everything ready to be stored to, and lists where the payload goes. */
static enum godwit_err prepare(struct receiver *receiver, const struct packet *packet, unsigned *parts,
                               struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i < packet->extents && err == GODWIT_OK; i++) {
        const struct extent *extent = &receiver->extents[i];
        struct ram_block *block = &receiver->recv->config.ram->blocks[extent->block];
        if (extent->kind == EXTENT_ZERO) {
            err = store_zeros(block, extent, receiver->recv->is_zero, &receiver->recv->stopping, &receiver->cleared,
                              error);
        } else if (packet->payload > 0) {
            err = store_populate(block, extent, error);
            receiver->iov[(*parts)++] = (struct iovec){.iov_base = block->addr + (extent->first << PAGE_SHIFT),
                                                       .iov_len = (size_t)extent->pages << PAGE_SHIFT};
        }
    }
    return err;
}

static void note_received(struct receiver *receiver, const struct packet *packet)
{
    for (unsigned i = 0; i < packet->extents; i++)
        store_note(&receiver->recv->config.ram->blocks[receiver->extents[i].block], &receiver->extents[i]);
    counters_add_record(&receiver->counters, PACKET_HEADER_SIZE + packet->extents * PACKET_EXTENT_SIZE,
                        receiver->extents, packet->extents, (packet->flags & PACKET_PLACED) != 0);
}

static enum godwit_err channel_failed(const struct receiver *receiver, enum godwit_err err, struct godwit_error *error)
{
    const char *detail = channel_detail(receiver->channel);
    return error_set(error, err, "data channel %u (%s): %s", receiver->index, channel_name(receiver->channel),
                     detail[0] != 0 ? detail : godwit_err_text(err));
}

static enum godwit_err take_pages(struct receiver *receiver, const struct packet *packet, struct godwit_error *error)
{
    const struct multifd_recv_config *config = &receiver->recv->config;
    uint8_t *bytes = receiver->head + PACKET_HEADER_SIZE;
    size_t size = (size_t)packet->extents * PACKET_EXTENT_SIZE;
    enum godwit_err err = channel_recv_exact(receiver->channel, bytes, size, config->progress_ms);
    if (err != GODWIT_OK)
        return channel_failed(receiver, err, error);
    err = packet_decode_extents(packet, receiver->head, bytes, config->ram, receiver->extents, error);
    unsigned parts = 0;
    if (err == GODWIT_OK)
        err = prepare(receiver, packet, &parts, error);
    if (err != GODWIT_OK)
        return err;
    if (parts > 0)
        err = channel_recv(receiver->channel, receiver->iov, parts, config->progress_ms);
    if (err != GODWIT_OK)
        return channel_failed(receiver, err, error);
    note_received(receiver, packet);
    return GODWIT_OK;
}

/* Under the lock. The source connects it before it ends the old one, and the door may still be on its way with it. */
static bool await_successor(struct receiver *receiver)
{
    const struct multifd_recv *recv = receiver->recv;
    struct timespec until = clock_timespec(clock_now_ns() + (uint64_t)recv->config.progress_ms * 1000000u);
    int waited = 0;
    while (receiver->successor == NULL && !atomic_load(&recv->stopping) && waited == 0)
        waited = pthread_cond_clockwait(&receiver->came, &receiver->lock, CLOCK_MONOTONIC, &until);
    return receiver->successor != NULL;
}

static enum godwit_err take_end(struct receiver *receiver, struct godwit_error *error)
{
    struct channel *old = receiver->channel;
    pthread_mutex_lock(&receiver->lock);
    bool came = await_successor(receiver);
    if (came) {
        receiver->channel = receiver->successor;
        receiver->successor = NULL; /* before the source can know that the old one is done with, and make the next */
        counters_read_carrier(receiver->channel, &receiver->carrier);
    }
    pthread_mutex_unlock(&receiver->lock);
    if (!came)
        return error_set(error, GODWIT_ERR_STALLED,
                         "data channel %u (%s): ended by the source, and no connection followed within %d ms",
                         receiver->index, channel_name(old), receiver->recv->config.progress_ms);
    counters_add(&receiver->counters.replacements, 1);
    channel_free(old);
    return GODWIT_OK;
}

/* A record that is its header alone. */
static enum godwit_err take_bare(struct receiver *receiver, const struct packet *packet, struct godwit_error *error)
{
    struct extent none[1];
    enum godwit_err err =
        packet_decode_extents(packet, receiver->head, receiver->head, receiver->recv->config.ram, none, error);
    counters_add(&receiver->counters.bytes, PACKET_HEADER_SIZE);
    if (err != GODWIT_OK)
        return err;
    if (packet->type == PACKET_END)
        return take_end(receiver, error);
    receiver->epoch++;
    receiver->recv->config.marker(receiver->recv->config.opaque, receiver->index, packet->epoch);
    return GODWIT_OK;
}

static enum godwit_err take_record(struct receiver *receiver, struct godwit_error *error)
{
    struct packet packet;
    enum godwit_err err;
    do /* silence before its first byte is no failure; a header that stops half-way is one (STALLED) */
        err = channel_recv_exact(receiver->channel, receiver->head, PACKET_HEADER_SIZE,
                                 receiver->recv->config.progress_ms);
    while (err == GODWIT_ERR_TIMEOUT);
    if (err != GODWIT_OK)
        return channel_failed(receiver, err, error);
    uint64_t start = clock_now_ns();
    err = packet_decode(receiver->head, &packet, error);
    if (err != GODWIT_OK)
        return err;
    if (packet.sequence != receiver->sequence++)
        return error_set(error, GODWIT_ERR_PROTOCOL, "data channel %u: record %u where %u was due", receiver->index,
                         packet.sequence, receiver->sequence - 1);
    if (packet.epoch != receiver->epoch + 1)
        return error_set(error, GODWIT_ERR_PROTOCOL, "data channel %u: epoch %u where %u is open", receiver->index,
                         packet.epoch, receiver->epoch + 1);
    if ((packet.flags & PACKET_PLACED) != 0 && !receiver->recv->config.placed)
        return error_set(error, GODWIT_ERR_PROTOCOL, "data channel %u: placed pages, which were not agreed on",
                         receiver->index);
    err = packet.type == PACKET_PAGES ? take_pages(receiver, &packet, error) : take_bare(receiver, &packet, error);
    counters_add(&receiver->counters.busy_ns, clock_now_ns() - start);
    return err;
}

static void *receiver_main(void *opaque)
{
    struct receiver *receiver = opaque;
    struct godwit_error error;
    char name[16];
    snprintf(name, sizeof name, "multifdrecv_%u", receiver->index);
    pthread_setname_np(pthread_self(), name);
    while (take_record(receiver, &error) == GODWIT_OK)
        ;
    if (!atomic_load(&receiver->recv->stopping))
        receiver->recv->config.failed(receiver->recv->config.opaque, &error);
    return NULL;
}

struct multifd_recv *multifd_recv_new(const struct multifd_recv_config *config)
{
    struct multifd_recv *recv = calloc(1, sizeof *recv + config->count * sizeof recv->receivers[0]);
    if (recv == NULL)
        return NULL;
    recv->config = *config;
    recv->is_zero = zero_test_select();
    for (unsigned i = 0; i < config->count; i++) {
        recv->receivers[i].recv = recv;
        recv->receivers[i].index = i;
        pthread_mutex_init(&recv->receivers[i].lock, NULL);
        pthread_cond_init(&recv->receivers[i].came, NULL);
    }
    return recv;
}

/* Under the receiver's lock. */
static bool expects(const struct receiver *receiver)
{
    return receiver->successor == NULL && !atomic_load(&receiver->recv->stopping);
}

bool multifd_recv_expects(struct multifd_recv *recv, unsigned index)
{
    struct receiver *receiver = &recv->receivers[index];
    pthread_mutex_lock(&receiver->lock);
    bool expected = expects(receiver);
    pthread_mutex_unlock(&receiver->lock);
    return expected;
}

enum godwit_err multifd_recv_attach(struct multifd_recv *recv, unsigned index, struct channel *channel,
                                    struct godwit_error *error)
{
    struct receiver *receiver = &recv->receivers[index];
    pthread_mutex_lock(&receiver->lock);
    bool expected = expects(receiver), first = receiver->channel == NULL;
    if (expected && first) {
        receiver->channel = channel;
        counters_read_carrier(channel, &receiver->carrier);
    } else if (expected) {
        receiver->successor = channel;
        pthread_cond_signal(&receiver->came);
    }
    pthread_mutex_unlock(&receiver->lock);
    if (!expected) {
        channel_free(channel);
        return error_set(error, GODWIT_ERR_PROTOCOL, "data channel %u: another connection, which was not expected",
                         index);
    }
    if (!first)
        return GODWIT_OK;
    if (pthread_create(&receiver->thread, NULL, receiver_main, receiver) != 0)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "cannot start receiver thread %u", index);
    receiver->attached = true;
    return GODWIT_OK;
}

static void end_receiver(struct receiver *receiver)
{
    pthread_mutex_lock(&receiver->lock);
    if (receiver->channel != NULL)
        channel_shutdown(receiver->channel);
    if (receiver->successor != NULL)
        channel_shutdown(receiver->successor);
    pthread_cond_signal(&receiver->came);
    pthread_mutex_unlock(&receiver->lock);
}

void multifd_recv_stop(struct multifd_recv *recv)
{
    atomic_store(&recv->stopping, true);
    for (unsigned i = 0; i < recv->config.count; i++)
        end_receiver(&recv->receivers[i]);
    for (unsigned i = 0; i < recv->config.count; i++) {
        if (recv->receivers[i].attached)
            pthread_join(recv->receivers[i].thread, NULL);
        recv->receivers[i].attached = false;
    }
}

void multifd_recv_free(struct multifd_recv *recv)
{
    if (recv == NULL)
        return;
    multifd_recv_stop(recv);
    for (unsigned i = 0; i < recv->config.count; i++) {
        channel_free(recv->receivers[i].channel);
        channel_free(recv->receivers[i].successor);
        pthread_cond_destroy(&recv->receivers[i].came);
        pthread_mutex_destroy(&recv->receivers[i].lock);
    }
    free(recv);
}

void multifd_recv_info(struct multifd_recv *recv, unsigned channel, struct godwit_channel_info *info)
{
    struct receiver *receiver = &recv->receivers[channel];
    pthread_mutex_lock(&receiver->lock);
    *info = receiver->carrier;
    pthread_mutex_unlock(&receiver->lock);
    counters_read(&receiver->counters, info);
}

uint64_t multifd_recv_progress(const struct multifd_recv *recv)
{
    uint64_t progress = 0;
    for (unsigned i = 0; i < recv->config.count; i++)
        progress += counters_get(&recv->receivers[i].counters.bytes) + counters_get(&recv->receivers[i].cleared);
    return progress;
}
