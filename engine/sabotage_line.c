/*
 * Faults of the line: a channel around a data channel that reads the records it forwards and damages some, and puts.
 * Content that is kept to be sent again is not registered: for stale-page there are no puts, and all pages pass here.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/sabotage_private.h"
#include "multifd/packet.h"
#include "transport/channel_ops.h"
#include "transport/error.h"

struct sabotage_channel {
    struct channel channel;
    struct channel *inner;
    struct sabotage *sabotage;
    const struct ram *ram;

    /* sending thread only */
    bool marked;          /* the first pass is over */
    struct packet packet; /* being damaged, with what follows */
    struct extent extents[BATCH_EXTENTS];
    struct iovec pages[BATCH_PAGES]; /* the payload, page by page */
    uint8_t head[PACKET_HEAD_MAX];
};

_Static_assert(offsetof(struct sabotage_channel, channel) == 0, "a channel is the first member of its kind");

/* Neighbours of every extent of the first pass; most are never sent again. */
static void swap_pages(struct sabotage_channel *self)
{
    unsigned at = 0;
    for (unsigned i = 0; i < self->packet.extents; i++) {
        const struct extent *extent = &self->extents[i];
        if (extent->kind != EXTENT_NORMAL)
            continue;
        if (extent->pages > 1) {
            struct iovec page = self->pages[at];
            self->pages[at] = self->pages[at + 1];
            self->pages[at + 1] = page;
        }
        at += extent->pages;
    }
}

static struct old_page *find_old(struct sabotage *sabotage, unsigned block, uint64_t page)
{
    for (unsigned i = 0; i < sabotage->page_count; i++)
        if (sabotage->pages[i].block == block && sabotage->pages[i].page == page)
            return &sabotage->pages[i];
    return NULL;
}

/* Under the lock: what the page holds now, to be sent again in its place. */
static void keep_old(struct sabotage_channel *self, const struct extent *extent, uint32_t offset, unsigned at)
{
    struct sabotage *sabotage = self->sabotage;
    if (at % OLD_PAGES_EVERY != 0 || sabotage->page_count == OLD_PAGES_MAX)
        return;
    struct old_page *old = &sabotage->pages[sabotage->page_count++];
    old->block = extent->block;
    old->page = extent->first + offset;
    memcpy(old->content, self->pages[at].iov_base, PAGE_SIZE);
}

/* First pass: keep some pages of the record. Later: wherever such a page comes again, send what was kept. */
static void make_stale(struct sabotage_channel *self)
{
    unsigned at = 0;
    pthread_mutex_lock(&self->sabotage->lock);
    for (unsigned i = 0; i < self->packet.extents; i++) {
        const struct extent *extent = &self->extents[i];
        for (uint32_t k = 0; extent->kind == EXTENT_NORMAL && k < extent->pages; k++, at++) {
            struct old_page *old = NULL;
            if (self->packet.epoch == 1)
                keep_old(self, extent, k, at);
            else
                old = find_old(self->sabotage, extent->block, extent->first + k);
            if (old != NULL)
                self->pages[at].iov_base = old->content; /* it outlives the channel */
        }
    }
    pthread_mutex_unlock(&self->sabotage->lock);
}

/*
 * After the first pass, in which it would be missed, every record loses its last extent with content, and a record of a
 * single extent that one's last page: the last pass of a small hot set has no other records, and mends what went
 * before.
 */
static void lose_extent(struct sabotage_channel *self)
{
    unsigned last = self->packet.extents;
    while (last > 0 && self->extents[last - 1].kind != EXTENT_NORMAL)
        last--;
    if (self->packet.epoch == 1 || last == 0)
        return;
    if (self->packet.extents == 1) {
        if (self->extents[0].pages > 1) {
            self->extents[0].pages--;
            self->packet.payload -= PAGE_SIZE;
        }
        return;
    }
    self->packet.payload -= self->extents[last - 1].pages << PAGE_SHIFT;
    memmove(&self->extents[last - 1], &self->extents[last], (self->packet.extents - last) * sizeof self->extents[0]);
    self->packet.extents--;
}

/* One iov per page, so that single pages can be replaced. */
static void list_pages(struct sabotage_channel *self, const struct iovec *payload, unsigned count)
{
    unsigned at = 0;
    for (unsigned i = 0; i < count; i++)
        for (size_t offset = 0; offset < payload[i].iov_len && at < BATCH_PAGES; offset += PAGE_SIZE)
            self->pages[at++] = (struct iovec){(uint8_t *)payload[i].iov_base + offset, PAGE_SIZE};
}

static enum godwit_err sabotage_send(struct channel *channel, const void *head, size_t head_size,
                                     const struct iovec *payload, unsigned count, int timeout_ms)
{
    struct sabotage_channel *self = (struct sabotage_channel *)channel;
    const uint8_t *bytes = head;
    bool known = head_size >= PACKET_HEADER_SIZE && packet_decode(bytes, &self->packet, NULL) == GODWIT_OK;
    self->marked |= known && self->packet.type == PACKET_MARKER;
    if (!known || count == 0 ||
        packet_decode_extents(&self->packet, bytes, bytes + PACKET_HEADER_SIZE, self->ram, self->extents, NULL) !=
            GODWIT_OK)
        return channel_send(self->inner, head, head_size, payload, count, timeout_ms);
    list_pages(self, payload, count);
    if (self->sabotage->kind == SABOTAGE_SWAP_PAGES)
        swap_pages(self);
    else if (self->sabotage->kind == SABOTAGE_STALE_PAGE)
        make_stale(self);
    else
        lose_extent(self);
    size_t size = packet_encode(&self->packet, self->extents, self->head);
    return channel_send(self->inner, self->head, size, self->pages, self->packet.payload >> PAGE_SHIFT, timeout_ms);
}

/* Neighbours of every put, or every put after the first pass. */
static enum godwit_err sabotage_put(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                    const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    struct sabotage_channel *self = (struct sabotage_channel *)channel;
    enum godwit_err err = GODWIT_OK;
    if (self->sabotage->kind == SABOTAGE_LOSE_EXTENT && self->marked)
        return GODWIT_OK;
    if (self->sabotage->kind == SABOTAGE_SWAP_PAGES && size >= 2 * PAGE_SIZE) {
        err = channel_put(self->inner, mr, mr_offset, remote, remote_offset + PAGE_SIZE, PAGE_SIZE);
        if (err == GODWIT_OK)
            err = channel_put(self->inner, mr, mr_offset + PAGE_SIZE, remote, remote_offset, PAGE_SIZE);
        mr_offset += 2 * PAGE_SIZE;
        remote_offset += 2 * PAGE_SIZE;
        size -= 2 * PAGE_SIZE;
    }
    return err == GODWIT_OK && size > 0 ? channel_put(self->inner, mr, mr_offset, remote, remote_offset, size) : err;
}

static enum godwit_err sabotage_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    return channel_recv(((struct sabotage_channel *)channel)->inner, iov, count, timeout_ms);
}

static enum godwit_err sabotage_flush(struct channel *channel, int timeout_ms)
{
    return channel_flush(((struct sabotage_channel *)channel)->inner, timeout_ms);
}

static void sabotage_shutdown(struct channel *channel)
{
    channel_shutdown(((struct sabotage_channel *)channel)->inner);
}

static void sabotage_channel_free(struct channel *channel)
{
    channel_free(((struct sabotage_channel *)channel)->inner);
    free(channel);
}

static const struct channel_ops sabotage_channel_ops = {
    .name = "sabotage",
    .handshake = channel_handshake_wrapped,
    .send = sabotage_send,
    .recv = sabotage_recv,
    .recv_some = channel_recv_one_byte,
    .put = sabotage_put,
    .get = channel_get_unsupported,
    .flush = sabotage_flush,
    .shutdown = sabotage_shutdown,
    .free = sabotage_channel_free,
};

struct channel *sabotage_wrap(struct sabotage *sabotage, struct channel *channel, const struct ram *ram)
{
    if (sabotage == NULL || (sabotage->kind != SABOTAGE_SWAP_PAGES && sabotage->kind != SABOTAGE_STALE_PAGE &&
                             sabotage->kind != SABOTAGE_LOSE_EXTENT))
        return channel;
    struct sabotage_channel *self = calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->channel.ops = &sabotage_channel_ops;
    self->channel.limits = *channel_limits(channel);
    self->channel.wrapped = channel;
    if (sabotage->kind == SABOTAGE_STALE_PAGE) {
        self->channel.limits.one_sided = false;
        self->channel.limits.max_put = 0;
    }
    strncpy(self->channel.name, channel_name(channel), sizeof self->channel.name - 1);
    self->inner = channel;
    self->sabotage = sabotage;
    self->ram = ram;
    return &self->channel;
}
