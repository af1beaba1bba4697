/*
 * Starting and stopping the senders. Teardown: stop ends the queue, the rate limit, the wait for keys and every
 * channel, so that each sender leaves whatever it waits in; free joins them, and only then are channels and queue
 * freed: nobody holds them any more.
 */
#include "multifd/send.h"

#include <stdlib.h>

#include "multifd/sender.h"
#include "transport/error.h"

struct multifd_send {
    struct multifd_send_config config;
    struct queue *queue;
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
    sender->index = index;
    return pthread_create(&sender->thread, NULL, sender_main, sender) == 0;
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
    for (unsigned i = 0; i < send->count; i++)
        pthread_join(send->senders[i].thread, NULL);
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

void multifd_send_stop(struct multifd_send *send)
{
    end_waits(send);
    for (unsigned i = 0; i < send->count; i++)
        channel_shutdown(send->senders[i].channel);
}

void multifd_send_free(struct multifd_send *send)
{
    if (send == NULL)
        return;
    multifd_send_stop(send);
    join_senders(send);
    for (unsigned i = 0; i < send->count; i++)
        channel_free(send->senders[i].channel);
    queue_free(send->queue);
    free(send);
}

void multifd_send_info(const struct multifd_send *send, unsigned channel, struct godwit_channel_info *info)
{
    counters_read(&send->senders[channel].counters, info);
    counters_read_carrier(send->senders[channel].channel, info);
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

const char *multifd_send_name(const struct multifd_send *send, unsigned channel)
{
    return channel_name(send->senders[channel].channel);
}
