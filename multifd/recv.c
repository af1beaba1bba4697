/*
 * The life of a record in a receiver thread: read the header, then the extents, check both, populate what is touched for the
 * first time, read the payload straight into the pages, note them as received. Placed content is already there. A zero
 * extent stores zeros, except on pages of a fresh block that were never received: those read as zero as they are.
 *
 * Failure modes: a broken record, a channel that ends or stalls, memory that cannot be had: the thread reports once and
 * ends. Nothing a peer sends makes it store outside the blocks or allocate.
 */
#include "multifd/recv.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "multifd/bitmap.h"
#include "multifd/counters.h"
#include "multifd/packet.h"
#include "multifd/zero.h"
#include "transport/clock.h"
#include "transport/error.h"

struct receiver {
    struct multifd_recv *recv;
    struct channel *channel;
    unsigned index;
    bool attached; /* its thread was started */
    pthread_t thread;
    struct counters counters;

    /* receiver thread only */
    uint32_t sequence;
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

static enum godwit_err populate(struct ram_block *block, uint64_t first, uint64_t pages, struct godwit_error *error)
{
    if (bitmap_all_atomic(block->received, first, pages))
        return GODWIT_OK;
    if (madvise(block->addr + (first << PAGE_SHIFT), pages << PAGE_SHIFT, MADV_POPULATE_WRITE) == 0)
        return GODWIT_OK;
    switch (errno) {
    case EINVAL: /* a kernel before 5.14, or memory of a device: stores will do without */
        return GODWIT_OK;
    case EFAULT: /* where a store would end in SIGBUS (madvise(2)) */
    case ENOSPC:
        return error_set(error, GODWIT_ERR_NO_MEMORY,
                         "the destination cannot store the guest's memory: what backs block %s is full at offset %llu",
                         block->id, (unsigned long long)(first << PAGE_SHIFT));
    default:
        return error_set_sys(error, GODWIT_ERR_NO_MEMORY, errno,
                             "the destination cannot get memory for block %s at offset %llu", block->id,
                             (unsigned long long)(first << PAGE_SHIFT));
    }
}

static enum godwit_err store_zeros(struct receiver *receiver, const struct extent *extent, struct godwit_error *error)
{
    struct ram_block *block = &receiver->recv->config.ram->blocks[extent->block];
    if (block->fresh && !bitmap_any_atomic(block->received, extent->first, extent->pages))
        return GODWIT_OK;
    for (uint64_t page = extent->first; page < extent->first + extent->pages; page++) {
        uint8_t *addr = block->addr + (page << PAGE_SHIFT);
        if (block->fresh && !bitmap_any_atomic(block->received, page, 1))
            continue;
        /* Never a discard: the memory may be registered with a device that would keep the old pages. */
        if (receiver->recv->is_zero(addr))
            continue;
        enum godwit_err err = populate(block, page, 1, error);
        if (err != GODWIT_OK)
            return err;
        memset(addr, 0, PAGE_SIZE);
    }
    return GODWIT_OK;
}

/* Makes everything ready to be stored to, and lists where the payload goes. */
static enum godwit_err prepare(struct receiver *receiver, const struct packet *packet, unsigned *parts,
                               struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i < packet->extents && err == GODWIT_OK; i++) {
        const struct extent *extent = &receiver->extents[i];
        struct ram_block *block = &receiver->recv->config.ram->blocks[extent->block];
        if (extent->kind == EXTENT_ZERO) {
            err = store_zeros(receiver, extent, error);
        } else if (packet->payload > 0) {
            err = populate(block, extent->first, extent->pages, error);
            receiver->iov[(*parts)++] = (struct iovec){.iov_base = block->addr + (extent->first << PAGE_SHIFT),
                                                       .iov_len = (size_t)extent->pages << PAGE_SHIFT};
        }
    }
    return err;
}

static void note_received(struct receiver *receiver, const struct packet *packet)
{
    for (unsigned i = 0; i < packet->extents; i++) {
        const struct extent *extent = &receiver->extents[i];
        bitmap_set_atomic(receiver->recv->config.ram->blocks[extent->block].received, extent->first, extent->pages);
    }
    counters_add_record(&receiver->counters, PACKET_HEADER_SIZE + packet->extents * PACKET_EXTENT_SIZE,
                        receiver->extents, packet->extents, (packet->flags & PACKET_PLACED) != 0);
}

static enum godwit_err channel_failed(const struct receiver *receiver, enum godwit_err err, struct godwit_error *error)
{
    return error_set(error, err, "data channel %u (%s): %s", receiver->index, channel_name(receiver->channel),
                     godwit_err_text(err));
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
    enum godwit_err err =
        channel_recv_exact(receiver->channel, receiver->head, PACKET_HEADER_SIZE, CHANNEL_FOREVER);
    if (err != GODWIT_OK)
        return channel_failed(receiver, err, error);
    uint64_t start = clock_now_ns();
    err = packet_decode(receiver->head, &packet, error);
    if (err != GODWIT_OK)
        return err;
    if (packet.sequence != receiver->sequence++)
        return error_set(error, GODWIT_ERR_PROTOCOL, "data channel %u: record %u where %u was due", receiver->index,
                         packet.sequence, receiver->sequence - 1);
    if (packet.type == PACKET_PAGES) {
        err = take_pages(receiver, &packet, error);
    } else {
        struct extent none[1];
        err = packet_decode_extents(&packet, receiver->head, receiver->head, receiver->recv->config.ram, none, error);
        counters_add(&receiver->counters.bytes, PACKET_HEADER_SIZE);
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

void multifd_recv_free(struct multifd_recv *recv)
{
    if (recv == NULL)
        return;
    multifd_recv_stop(recv);
    for (unsigned i = 0; i < recv->config.count; i++)
        channel_free(recv->receivers[i].channel);
    free(recv);
}

void multifd_recv_info(const struct multifd_recv *recv, unsigned channel, struct godwit_channel_info *info)
{
    counters_read(&recv->receivers[channel].counters, info);
}
