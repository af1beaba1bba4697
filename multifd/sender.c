/*
 * The life of a batch in a sender thread: split off its zero pages, sort the rest into what can be put and what cannot,
 * describe each in a packet head, wait for the rate limit, then either send head and pages in one call (inline), or put
 * the pages into the destination's memory and send the head behind them (placed). Pages are read in place, once each,
 * by the transport: what changes meanwhile is in the dirty log and comes again. The zero test reads a page too, but a
 * page it calls zero is not read again, and for one it does not, only the transport's read counts.
 *
 * Between two batches a channel that has carried what it should carry is replaced: a new connection first, then the
 * record that ends the old one, then the destination's close of it. The sender waits for that close, which costs one
 * round trip per lifetime, and buys that the end has been read, whatever the old connection would do to it when it is
 * freed, and that there is never more than one connection ahead. It is done for a batch that is there to be sent and
 * never for want of work, since without one the destination may have all it needs, and end its channels.
 *
 * Failure modes: any error of the channel ends this thread and is reported once; the engine decides what it means. So
 * does a replacement that cannot be had: the old connection must not go on.
 */
#include "multifd/sender.h"

#include <stdio.h>

#include "transport/clock.h"
#include "transport/error.h"

/* No put leaves its slice: each has a registration and a key of its own. */
static enum godwit_err put_extent(struct sender *sender, const struct extent *extent)
{
    const struct ram *ram = sender->config->ram;
    uint64_t most = channel_limits(sender->channel)->max_put;
    uint64_t at = extent->first << PAGE_SHIFT;
    uint64_t end = at + ((uint64_t)extent->pages << PAGE_SHIFT);
    enum godwit_err err = GODWIT_OK;
    for (uint64_t size; at < end && err == GODWIT_OK; at += size) {
        struct placed to;
        placement_look(ram_slice(ram, extent->block, at >> PAGE_SHIFT), &to); /* it was there before */
        uint64_t offset = at & (ram->slice_size - 1), left = ram->slice_size - offset;
        size = end - at < left ? end - at : left;
        size = size < most ? size : most;
        err = channel_put(sender->channel, to.mr, offset, to.remote, offset, size);
    }
    return err;
}

static enum godwit_err put_pages(struct sender *sender)
{
    const struct batch *placed = &sender->sorter.placed;
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i < placed->count && err == GODWIT_OK; i++)
        if (placed->extents[i].kind == EXTENT_NORMAL)
            err = put_extent(sender, &placed->extents[i]);
    return err;
}

static unsigned gather_pages(struct sender *sender)
{
    unsigned used = 0;
    for (unsigned i = 0; i < sender->sorter.inlined.count; i++) {
        const struct extent *extent = &sender->sorter.inlined.extents[i];
        if (extent->kind != EXTENT_NORMAL)
            continue;
        sender->iov[used++] = (struct iovec){
            .iov_base = ram_content(&sender->config->ram->blocks[extent->block], extent->first),
            .iov_len = (size_t)extent->pages << PAGE_SHIFT,
        };
    }
    return used;
}

/* One record for one of the two batches of the sorter. */
static enum godwit_err send_record(struct sender *sender, const struct batch *batch, uint64_t *waited_ns)
{
    bool placed = batch == &sender->sorter.placed;
    uint32_t content = batch->normal_pages << PAGE_SHIFT;
    if (batch->count == 0)
        return GODWIT_OK;
    struct packet packet = {
        .type = PACKET_PAGES,
        .flags = placed ? PACKET_PLACED : 0,
        .epoch = batch->epoch,
        .sequence = sender->sequence++,
        .extents = (uint16_t)batch->count,
        .payload = placed ? 0 : content,
    };
    size_t head = packet_encode(&packet, batch->extents, sender->head);

    *waited_ns += migration_rate_wait(sender->config->rate, head + content);
    enum godwit_err err = placed ? put_pages(sender) : GODWIT_OK;
    unsigned parts = placed ? 0 : gather_pages(sender);
    if (err == GODWIT_OK)
        err = channel_send(sender->channel, sender->head, head, sender->iov, parts, sender->config->progress_ms);
    if (err == GODWIT_OK)
        counters_add_record(&sender->counters, head, batch->extents, batch->count, placed);
    return err;
}

static enum godwit_err send_batch(struct sender *sender, const struct batch *batch, uint64_t *waited_ns)
{
    sorter_sort(&sender->sorter, batch, waited_ns);
    enum godwit_err err = send_record(sender, &sender->sorter.placed, waited_ns);
    return err == GODWIT_OK ? send_record(sender, &sender->sorter.inlined, waited_ns) : err;
}

static enum godwit_err send_marker(struct sender *sender, uint32_t epoch)
{
    struct packet packet = {.type = PACKET_MARKER, .epoch = epoch, .sequence = sender->sequence++};
    size_t head = packet_encode(&packet, NULL, sender->head);
    /* The marker comes last: once it is out the destination may be done with this channel, and close it; and the whole
     * migration may end before this thread runs again, so it is counted first. */
    counters_add(&sender->counters.bytes, head);
    enum godwit_err err = channel_flush(sender->channel, sender->config->progress_ms);
    if (err == GODWIT_OK)
        err = channel_send(sender->channel, sender->head, head, NULL, 0, sender->config->progress_ms);
    return err;
}

static enum godwit_err channel_failed(const struct sender *sender, const struct channel *channel, enum godwit_err err,
                                     struct godwit_error *error)
{
    const char *detail = channel_detail(channel);
    return error_set(error, err, "data channel %u (%s): %s", sender->index, channel_name(channel),
                     detail[0] != 0                ? detail
                     : err == GODWIT_ERR_TIMEOUT ? "the destination takes no data"
                                                 : godwit_err_text(err));
}

/* ---- the next connection of the channel ---- */

static bool is_worn(const struct sender *sender)
{
    uint64_t lifetime = channel_limits(sender->channel)->lifetime, most = sender->config->lifetime;
    if (lifetime == 0 || (most != 0 && most < lifetime))
        lifetime = most;
    return sender->config->replace != NULL && lifetime != 0 &&
           counters_get(&sender->counters.bytes) - sender->since > lifetime;
}

static void take_over(struct sender *sender, struct channel *next)
{
    pthread_mutex_lock(&sender->lock);
    sender->ending = sender->channel;
    sender->channel = next;
    if (atomic_load(sender->stopping))
        channel_shutdown(next);
    pthread_mutex_unlock(&sender->lock);
}

static void forget_old(struct sender *sender)
{
    struct channel *old = sender->ending;
    pthread_mutex_lock(&sender->lock);
    sender->ending = NULL;
    pthread_mutex_unlock(&sender->lock);
    channel_free(old);
}

/*
 * Silence is no failure: what lies in buffers may take its time, and who watches whether data moves stops us. If the
 * connection broke, the destination knows whether it has read the end, and fails if not.
 */
static enum godwit_err await_close(struct channel *old, int progress_ms)
{
    uint8_t byte;
    enum godwit_err err;
    do
        err = channel_recv_exact(old, &byte, 1, progress_ms);
    while (err == GODWIT_ERR_TIMEOUT);
    if (err == GODWIT_ERR_PEER_CLOSED || err == GODWIT_ERR_RESET)
        return GODWIT_OK;
    return err == GODWIT_OK ? GODWIT_ERR_PROTOCOL : err; /* the destination says nothing on a data channel */
}

/* As a marker the end comes last: once it is out the destination may close the connection, and a flush would fail. */
static enum godwit_err end_old(struct sender *sender, uint32_t epoch)
{
    struct channel *old = sender->ending;
    int progress_ms = sender->config->progress_ms;
    struct packet packet = {.type = PACKET_END, .epoch = epoch, .sequence = sender->sequence++};
    size_t head = packet_encode(&packet, NULL, sender->head);
    enum godwit_err err = channel_flush(old, progress_ms);
    if (err == GODWIT_OK)
        err = channel_send(old, sender->head, head, NULL, 0, progress_ms);
    counters_add(&sender->counters.bytes, head);
    return err == GODWIT_OK ? await_close(old, progress_ms) : err;
}

static enum godwit_err replace(struct sender *sender, uint32_t epoch, struct godwit_error *error)
{
    struct channel *next;
    enum godwit_err err =
        sender->config->replace(sender->config->opaque, sender->index, sender->stopping, &next, error);
    if (err != GODWIT_OK)
        return err;
    take_over(sender, next);
    err = end_old(sender, epoch);
    if (err != GODWIT_OK)
        return channel_failed(sender, sender->ending, err, error);
    forget_old(sender);
    sender->since = counters_get(&sender->counters.bytes);
    counters_add(&sender->counters.replacements, 1);
    return GODWIT_OK;
}

/* ---- the thread ---- */

static enum godwit_err do_batch(struct sender *sender, const struct batch *batch, struct godwit_error *error)
{
    enum godwit_err err = is_worn(sender) ? replace(sender, batch->epoch, error) : GODWIT_OK;
    if (err != GODWIT_OK)
        return err;
    uint64_t start = clock_now_ns(), waited = 0;
    err = send_batch(sender, batch, &waited);
    counters_add(&sender->counters.busy_ns, clock_now_ns() - start - waited);
    return err == GODWIT_OK ? err : channel_failed(sender, sender->channel, err, error);
}

static enum godwit_err do_mark(struct sender *sender, uint32_t epoch, struct godwit_error *error)
{
    uint64_t start = clock_now_ns();
    enum godwit_err err = send_marker(sender, epoch);
    counters_add(&sender->counters.busy_ns, clock_now_ns() - start);
    return err == GODWIT_OK ? err : channel_failed(sender, sender->channel, err, error);
}

void *sender_main(void *opaque)
{
    struct sender *sender = opaque;
    struct godwit_error error;
    enum godwit_err err = GODWIT_OK;
    char name[16];
    snprintf(name, sizeof name, "multifdsend_%u", sender->index);
    pthread_setname_np(pthread_self(), name);
    while (err == GODWIT_OK) {
        struct batch *batch;
        uint32_t epoch;
        enum queue_item item = queue_next(sender->queue, sender->index, &batch, &epoch);
        if (item == QUEUE_END)
            return NULL;
        if (item == QUEUE_MARK) {
            err = do_mark(sender, epoch, &error);
        } else {
            err = do_batch(sender, batch, &error);
            queue_recycle(sender->queue, batch);
        }
    }
    sender->config->failed(sender->config->opaque, &error);
    return NULL;
}
