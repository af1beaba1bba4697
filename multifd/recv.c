/*
 * The life of a record in a receiver thread: read the header, then the extents, check both, populate what was not
 * stored to before, read the payload straight into the pages, note them as received. Placed content is already there.
 * A zero extent stores zeros, except on pages of a fresh block that were never stored to: those read as zero as they
 * are.
 *
 * Failure modes: a broken record, a channel that ends or stalls, memory that cannot be had: the thread reports once and
 * ends. Nothing a peer sends makes it store outside the blocks or allocate.
 */
#include "multifd/recv.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "multifd/counters.h"
#include "multifd/packet.h"
#include "multifd/store.h"
#include "transport/clock.h"
#include "transport/error.h"

struct receiver {
    struct multifd_recv *recv;
    struct channel *channel;
    unsigned index;
    bool attached; /* its thread was started */
    pthread_t thread;
    struct counters counters;
    struct godwit_channel_info carrier; /* what carries it alone, from attach on: it outlives the channel */
    _Atomic uint64_t cleared; /* pages gone through to make them zero */

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
    if (packet.type == PACKET_PAGES) {
        err = take_pages(receiver, &packet, error);
    } else {
        struct extent none[1];
        err = packet_decode_extents(&packet, receiver->head, receiver->head, receiver->recv->config.ram, none, error);
        counters_add(&receiver->counters.bytes, PACKET_HEADER_SIZE);
        receiver->epoch++;
        if (err == GODWIT_OK)
            receiver->recv->config.marker(receiver->recv->config.opaque, receiver->index, packet.epoch);
    }
    counters_add(&receiver->counters.busy_ns, clock_now_ns() - start);
    return err;
}

static void *receiver_main(void *opaque)
{
    struct receiver *receiver = opaque;
    struct godwit_error error;
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
    }
    return recv;
}

enum godwit_err multifd_recv_attach(struct multifd_recv *recv, unsigned index, struct channel *channel,
                                    struct godwit_error *error)
{
    struct receiver *receiver = &recv->receivers[index];
    receiver->channel = channel;
    counters_read_carrier(channel, &receiver->carrier);
    if (pthread_create(&receiver->thread, NULL, receiver_main, receiver) != 0)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "cannot start receiver thread %u", index);
    receiver->attached = true;
    return GODWIT_OK;
}

void multifd_recv_stop(struct multifd_recv *recv)
{
    atomic_store(&recv->stopping, true);
    for (unsigned i = 0; i < recv->config.count; i++)
        if (recv->receivers[i].channel != NULL)
            channel_shutdown(recv->receivers[i].channel);
    for (unsigned i = 0; i < recv->config.count; i++) {
        if (recv->receivers[i].attached)
            pthread_join(recv->receivers[i].thread, NULL);
        recv->receivers[i].attached = false;
    }
}

void multifd_recv_close(struct multifd_recv *recv)
{
    multifd_recv_stop(recv);
    for (unsigned i = 0; i < recv->config.count; i++) {
        channel_free(recv->receivers[i].channel);
        recv->receivers[i].channel = NULL;
    }
}

void multifd_recv_free(struct multifd_recv *recv)
{
    if (recv == NULL)
        return;
    multifd_recv_close(recv);
    free(recv);
}

void multifd_recv_info(const struct multifd_recv *recv, unsigned channel, struct godwit_channel_info *info)
{
    const struct receiver *receiver = &recv->receivers[channel];
    *info = receiver->carrier;
    counters_read(&receiver->counters, info);
}

uint64_t multifd_recv_progress(const struct multifd_recv *recv)
{
    uint64_t progress = 0;
    for (unsigned i = 0; i < recv->config.count; i++)
        progress += counters_get(&recv->receivers[i].counters.bytes) + counters_get(&recv->receivers[i].cleared);
    return progress;
}
