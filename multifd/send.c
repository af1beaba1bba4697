/*
 * Starting and stopping the senders. Teardown: stop ends the queue, the rate limit, the wait for keys and every
 * channel, so that each sender leaves whatever it waits in; free joins them, and only then are channels and queue
 * freed: nobody holds them any more. A connection that a sender takes over meanwhile is shut down by itself: it sees
 * the flag that stop has set, under the lock under which stop looks for connections.
 */
#include "multifd/send.h"

#include <stdlib.h>

#include "multifd/sender.h"
#include "transport/error.h"

struct multifd_send {
    struct multifd_send_config config;
    struct queue *queue;
    atomic_bool stopping;
    unsigned count; /* senders whose thread runs */
    struct sender senders[];
};

/* Two batches per sender on their way, and two for the engine to fill meanwhile. */
static unsigned batches_for(unsigned senders)
{
    return 2 * senders + 2;
}

static bool start_sender(struct multifd_send *send, unsigned index)
{
    struct sender *sender = &send->senders[index];
    sender->config = &send->config;
    sender->queue = send->queue;
    sender->channel = send->config.channels[index];
    sender->sorter.ram = send->config.ram;
    sender->sorter.placement = channel_limits(sender->channel)->one_sided ? send->config.placement : NULL;
    sender->sorter.zero = send->config.zero;
    sender->stopping = &send->stopping;
    sender->index = index;
    pthread_mutex_init(&sender->lock, NULL);
    if (pthread_create(&sender->thread, NULL, sender_main, sender) == 0)
        return true;
    pthread_mutex_destroy(&sender->lock);
    return false;
}

/* Nobody waits for work, for the rate limit or for a key any more. */
static void end_waits(struct multifd_send *send)
{
    queue_end(send->queue);
    migration_rate_end(send->config.rate);
    if (send->config.placement != NULL)
        placement_hurry(send->config.placement);
}

/* Ends the threads that run, without touching the channels: a failed start leaves them to the caller. */
static void join_senders(struct multifd_send *send)
{
    end_waits(send);
    for (unsigned i = 0; i < send->count; i++) {
        pthread_join(send->senders[i].thread, NULL);
        pthread_mutex_destroy(&send->senders[i].lock);
    }
}

enum godwit_err multifd_send_start(const struct multifd_send_config *config, struct multifd_send **out,
                                   struct godwit_error *error)
{
    struct multifd_send *send = calloc(1, sizeof *send + config->count * sizeof send->senders[0]);
    if (send == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for %u sender threads", config->count);
    send->config = *config;
    send->queue = queue_new(batches_for(config->count), config->count);
    if (send->queue == NULL)
        goto free_send;
    for (; send->count < config->count; send->count++)
        if (!start_sender(send, send->count))
            goto end_senders;
    send->config.channels = NULL; /* the caller's array; each sender has its own pointer now */
    *out = send;
    return GODWIT_OK;

end_senders:
    join_senders(send);
    queue_free(send->queue);
free_send:
    free(send);
    return error_set(error, GODWIT_ERR_NO_MEMORY, "cannot start %u sender threads", config->count);
}

struct batch *multifd_send_batch(struct multifd_send *send, uint32_t epoch, int timeout_ms)
{
    struct batch *batch = queue_take_empty(send->queue, timeout_ms);
    if (batch != NULL)
        batch_reset(batch, epoch);
    return batch;
}

void multifd_send_submit(struct multifd_send *send, struct batch *batch)
{
    if (batch->count > 0)
        queue_push(send->queue, batch);
    else
        queue_recycle(send->queue, batch);
}

void multifd_send_mark(struct multifd_send *send, uint32_t epoch)
{
    queue_mark(send->queue, epoch);
}

uint32_t multifd_send_marked(struct multifd_send *send)
{
    return queue_passed(send->queue);
}

static void shut_down(struct sender *sender)
{
    pthread_mutex_lock(&sender->lock);
    channel_shutdown(sender->channel);
    if (sender->ending != NULL)
        channel_shutdown(sender->ending);
    pthread_mutex_unlock(&sender->lock);
}

void multifd_send_stop(struct multifd_send *send)
{
    atomic_store(&send->stopping, true);
    end_waits(send);
    for (unsigned i = 0; i < send->count; i++)
        shut_down(&send->senders[i]);
}

void multifd_send_free(struct multifd_send *send)
{
    if (send == NULL)
        return;
    multifd_send_stop(send);
    join_senders(send);
    for (unsigned i = 0; i < send->count; i++) {
        channel_free(send->senders[i].channel);
        channel_free(send->senders[i].ending);
    }
    queue_free(send->queue);
    free(send);
}

void multifd_send_info(struct multifd_send *send, unsigned channel, struct godwit_channel_info *info)
{
    struct sender *sender = &send->senders[channel];
    counters_read(&sender->counters, info);
    pthread_mutex_lock(&sender->lock);
    counters_read_carrier(sender->channel, info);
    pthread_mutex_unlock(&sender->lock);
}

uint64_t multifd_send_bytes(const struct multifd_send *send)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < send->count; i++)
        bytes += counters_get(&send->senders[i].counters.bytes);
    return bytes;
}

unsigned multifd_send_channels(const struct multifd_send *send)
{
    return send->count;
}

void multifd_send_name(struct multifd_send *send, unsigned channel, char *name, size_t size)
{
    struct sender *sender = &send->senders[channel];
    pthread_mutex_lock(&sender->lock);
    snprintf(name, size, "%s", channel_name(sender->channel));
    pthread_mutex_unlock(&sender->lock);
}
