/*
 * The life of a batch in a sender thread: split off its zero pages, describe the rest in a packet head, wait for the
 * rate limit, then either send head and pages in one call (inline), or put the pages into the destination's memory and
 * send the head behind them (placed). Pages are read in place, once each, by the transport: what changes meanwhile is
 * in the dirty log and comes again. The zero test reads a page too, but a page it calls zero is not read again, and for
 * one it does not, only the transport's read counts.
 *
 * Failure modes: any error of the channel ends this thread and is reported once; the engine decides what it means.
 */
#include "multifd/sender.h"

#include "transport/clock.h"
#include "transport/error.h"

/* So far ahead that a cache line has come by the time its page is tested. */
enum { PREFETCH_PAGES = 8 };

static void split_extent(struct sender *sender, const struct extent *extent)
{
    const uint8_t *page = sender->config->ram->blocks[extent->block].addr + (extent->first << PAGE_SHIFT);
    for (uint32_t i = 0; i < extent->pages; i++, page += PAGE_SIZE) {
        if (i + PREFETCH_PAGES < extent->pages)
            __builtin_prefetch(page + PREFETCH_PAGES * PAGE_SIZE); /* the word that the test will look at first */
        enum extent_kind kind = sender->config->zero(page) ? EXTENT_ZERO : EXTENT_NORMAL;
        batch_add_joined(&sender->out, extent->block, extent->first + i, 1, kind);
    }
}

/* Zero detection: from the engine's batch to sender->out. */
static void split_zero_pages(struct sender *sender, const struct batch *batch)
{
    batch_reset(&sender->out, batch->epoch);
    for (unsigned i = 0; i < batch->count; i++) {
        const struct extent *extent = &batch->extents[i];
        if (extent->kind == EXTENT_NORMAL && sender->config->zero != NULL)
            split_extent(sender, extent);
        else
            batch_add(&sender->out, extent->block, extent->first, extent->pages, extent->kind);
    }
}

/* Placing needs the keys of every block that is touched; until they have come, and without one-sided channels, pages go
 * inline. */
static bool can_place(const struct sender *sender)
{
    if (!sender->config->placed || !channel_limits(sender->channel)->one_sided)
        return false;
    for (unsigned i = 0; i < sender->out.count; i++) {
        struct ram_block *block = &sender->config->ram->blocks[sender->out.extents[i].block];
        if (block->mr == NULL || atomic_load_explicit(&block->remote, memory_order_acquire) == NULL)
            return false; /* acquire: pairs with the release of whoever publishes an imported key */
    }
    return sender->out.normal_pages > 0;
}

static enum godwit_err put_extent(struct sender *sender, const struct extent *extent)
{
    const struct ram_block *block = &sender->config->ram->blocks[extent->block];
    const struct remote *remote = atomic_load_explicit(&block->remote, memory_order_acquire);
    uint64_t most = channel_limits(sender->channel)->max_put;
    uint64_t at = extent->first << PAGE_SHIFT;
    uint64_t end = at + ((uint64_t)extent->pages << PAGE_SHIFT);
    enum godwit_err err = GODWIT_OK;
    for (uint64_t size; at < end && err == GODWIT_OK; at += size) {
        size = end - at < most ? end - at : most;
        err = channel_put(sender->channel, block->mr, at, remote, at, size);
    }
    return err;
}

static enum godwit_err put_pages(struct sender *sender)
{
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i < sender->out.count && err == GODWIT_OK; i++)
        if (sender->out.extents[i].kind == EXTENT_NORMAL)
            err = put_extent(sender, &sender->out.extents[i]);
    return err;
}

static unsigned gather_pages(struct sender *sender)
{
    unsigned used = 0;
    for (unsigned i = 0; i < sender->out.count; i++) {
        const struct extent *extent = &sender->out.extents[i];
        if (extent->kind != EXTENT_NORMAL)
            continue;
        sender->iov[used++] = (struct iovec){
            .iov_base = sender->config->ram->blocks[extent->block].addr + (extent->first << PAGE_SHIFT),
            .iov_len = (size_t)extent->pages << PAGE_SHIFT,
        };
    }
    return used;
}

static enum godwit_err send_batch(struct sender *sender, const struct batch *batch, uint64_t *waited_ns)
{
    split_zero_pages(sender, batch);
    bool placed = can_place(sender);
    uint32_t content = sender->out.normal_pages << PAGE_SHIFT;
    struct packet packet = {
        .type = PACKET_PAGES,
        .flags = placed ? PACKET_PLACED : 0,
        .epoch = batch->epoch,
        .sequence = sender->sequence++,
        .extents = (uint16_t)sender->out.count,
        .payload = placed ? 0 : content,
    };
    size_t head = packet_encode(&packet, sender->out.extents, sender->head);

    uint64_t before = clock_now_ns();
    migration_rate_wait(sender->config->rate, head + content);
    *waited_ns += clock_now_ns() - before;

    enum godwit_err err = placed ? put_pages(sender) : GODWIT_OK;
    unsigned parts = placed ? 0 : gather_pages(sender);
    if (err == GODWIT_OK)
        err = channel_send(sender->channel, sender->head, head, sender->iov, parts, sender->config->progress_ms);
    if (err == GODWIT_OK)
        counters_add_record(&sender->counters, head, sender->out.extents, sender->out.count, placed);
    return err;
}

static enum godwit_err send_marker(struct sender *sender, uint32_t epoch)
{
    struct packet packet = {.type = PACKET_MARKER, .epoch = epoch, .sequence = sender->sequence++};
    size_t head = packet_encode(&packet, NULL, sender->head);
    /* The marker comes last: once it is out the destination may be done with this channel, and close it. */
    enum godwit_err err = channel_flush(sender->channel, sender->config->progress_ms);
    if (err == GODWIT_OK)
        err = channel_send(sender->channel, sender->head, head, NULL, 0, sender->config->progress_ms);
    counters_add(&sender->counters.bytes, head);
    return err;
}

static void report(struct sender *sender, enum godwit_err err)
{
    struct godwit_error error;
    error_set(&error, err, "data channel %u (%s): %s", sender->index, channel_name(sender->channel),
              err == GODWIT_ERR_TIMEOUT ? "the destination takes no data" : godwit_err_text(err));
    sender->config->failed(sender->config->opaque, &error);
}

void *sender_main(void *opaque)
{
    struct sender *sender = opaque;
    enum godwit_err err = GODWIT_OK;
    while (err == GODWIT_OK) {
        struct batch *batch;
        uint32_t epoch;
        enum queue_item item = queue_next(sender->queue, sender->index, &batch, &epoch);
        if (item == QUEUE_END)
            return NULL;
        uint64_t start = clock_now_ns(), waited = 0;
        if (item == QUEUE_MARK) {
            err = send_marker(sender, epoch);
        } else {
            err = send_batch(sender, batch, &waited);
            queue_recycle(sender->queue, batch);
        }
        counters_add(&sender->counters.busy_ns, clock_now_ns() - start - waited);
    }
    report(sender, err);
    return NULL;
}
