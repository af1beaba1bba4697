/*
 * The switchboard of the loop transport: who listens under which name, and who waits to be accepted. One lock and one
 * condition for the whole net; connecting is rare. The channels themselves are in loop_channel.c, memory in
 * loop_domain.c.
 *
 * Failure modes as of a network: nobody listens (REFUSED), the backlog stays full (UNREACHABLE), a name in use (BUSY).
 */
#include "transport/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/clock.h"
#include "transport/error.h"
#include "transport/loop_private.h"

enum { CANCEL_SLICE_MS = 20 };

struct waiting {
    STAILQ_ENTRY(waiting) link;
    struct channel *channel;
};

/* All but base and net under net->lock. */
struct loop_listener {
    struct listener base;
    struct loop_net *net;
    LIST_ENTRY(loop_listener) link;
    STAILQ_HEAD(, waiting) queue;
    unsigned backlog, queued;
    bool shut;
};

uint64_t loop_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static uint64_t deadline_of(int timeout_ms)
{
    return timeout_ms == CHANNEL_FOREVER ? UINT64_MAX : clock_now_ms() + (uint64_t)timeout_ms;
}

/* Waits for a change of the net, at most until deadline or slice_ms; false: the deadline has passed. */
static bool net_wait(struct loop_net *net, uint64_t deadline_ms, int slice_ms)
{
    int left = clock_left_ms(deadline_ms);
    if (!left)
        return false;
    struct timespec until = clock_timespec(clock_now_ns() + (uint64_t)(left < slice_ms ? left : slice_ms) * 1000000u);
    pthread_cond_clockwait(&net->changed, &net->lock, CLOCK_MONOTONIC, &until);
    return true;
}

/* Caller holds net->lock. */
static struct loop_listener *listener_find(struct loop_net *net, const char *name)
{
    struct loop_listener *listener;
    LIST_FOREACH (listener, &net->listeners, link) {
        if (!listener->shut && !strcmp(listener->base.address.path, name))
            return listener;
    }
    return NULL;
}

/* Makes a connection and puts its far end into the listener's queue. Caller holds net->lock. */
static enum godwit_err join(struct loop_net *net, struct loop_listener *listener, struct channel **out,
                            struct godwit_error *error)
{
    struct waiting *waiting = calloc(1, sizeof *waiting);
    struct channel *ends[2];
    if (!waiting || loop_channel_pair(net, listener->base.address.path, loop_random(&net->random), ends)) {
        free(waiting);
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a connection");
    }
    waiting->channel = ends[1];
    STAILQ_INSERT_TAIL(&listener->queue, waiting, link);
    listener->queued++;
    pthread_cond_broadcast(&net->changed);
    *out = ends[0];
    return GODWIT_OK;
}

static enum godwit_err out_of_time(const struct address *address, const struct loop_listener *listener, int timeout_ms,
                                   struct godwit_error *error)
{
    return error_set(error, listener ? GODWIT_ERR_UNREACHABLE : GODWIT_ERR_REFUSED,
                     "cannot connect to loop:%s within %d ms: %s", address->path, timeout_ms,
                     listener ? "the listener's backlog is full" : "connection refused (nothing listens there)");
}

static enum godwit_err loop_connect(void *context, const struct address *address,
                                    const struct introduction *introduction, int timeout_ms, const atomic_bool *cancel,
                                    struct channel **out, struct godwit_error *error)
{
    (void)introduction; /* one net is one rail, and there is nothing to knock at before the channel exists */
    struct loop_net *net = context;
    uint64_t deadline = deadline_of(timeout_ms);
    int slice_ms = cancel ? CANCEL_SLICE_MS : INT32_MAX;
    enum godwit_err err;
    pthread_mutex_lock(&net->lock);
    for (;;) {
        if (cancel && atomic_load_explicit(cancel, memory_order_relaxed)) {
            err = error_set(error, GODWIT_ERR_CANCELLED, "connecting to loop:%s was cancelled", address->path);
            break;
        }
        struct loop_listener *listener = listener_find(net, address->path);
        if (listener && listener->queued < listener->backlog) {
            err = join(net, listener, out, error);
            break;
        }
        if (!net_wait(net, deadline, slice_ms)) {
            err = out_of_time(address, listener, timeout_ms, error);
            break;
        }
    }
    pthread_mutex_unlock(&net->lock);
    return err;
}

/* Caller holds net->lock. NULL: nobody waits. */
static struct channel *listener_pop(struct loop_listener *listener)
{
    struct waiting *waiting = STAILQ_FIRST(&listener->queue);
    if (!waiting)
        return NULL;
    struct channel *channel = waiting->channel;
    STAILQ_REMOVE_HEAD(&listener->queue, link);
    listener->queued--;
    free(waiting);
    return channel;
}

static enum godwit_err loop_accept(struct listener *base, int timeout_ms, struct channel **out,
                                   struct godwit_error *error)
{
    struct loop_listener *listener = (struct loop_listener *)base;
    struct loop_net *net = listener->net;
    uint64_t deadline = deadline_of(timeout_ms);
    struct channel *channel = NULL;
    enum godwit_err err = GODWIT_OK;
    pthread_mutex_lock(&net->lock);
    while (!err && !channel) {
        if (listener->shut)
            err = error_set(error, GODWIT_ERR_CLOSED, "loop:%s: no longer listening", base->address.path);
        else if (!(channel = listener_pop(listener)) && !net_wait(net, deadline, INT32_MAX))
            err = error_set(error, GODWIT_ERR_TIMEOUT, "loop:%s: nobody connected within %d ms", base->address.path,
                            timeout_ms);
    }
    if (channel)
        pthread_cond_broadcast(&net->changed); /* room in the backlog */
    pthread_mutex_unlock(&net->lock);
    if (!err)
        *out = channel;
    return err;
}

static void loop_listener_shutdown(struct listener *base)
{
    struct loop_listener *listener = (struct loop_listener *)base;
    pthread_mutex_lock(&listener->net->lock);
    listener->shut = true;
    pthread_cond_broadcast(&listener->net->changed);
    pthread_mutex_unlock(&listener->net->lock);
}

static void loop_listener_free(struct listener *base)
{
    struct loop_listener *listener = (struct loop_listener *)base;
    struct channel *channel;
    pthread_mutex_lock(&listener->net->lock);
    LIST_REMOVE(listener, link);
    pthread_mutex_unlock(&listener->net->lock);
    /* Off the list nobody finds it, so the queue is ours. */
    while ((channel = listener_pop(listener)))
        channel_free(channel);
    free(listener);
}

static const struct listener_ops loop_listener_ops = {
    .accept = loop_accept,
    .shutdown = loop_listener_shutdown,
    .free = loop_listener_free,
};

static enum godwit_err loop_listen(void *context, const struct address *address, unsigned backlog,
                                   struct listener **out, struct backlog_warning *warning, struct godwit_error *error)
{
    (void)warning; /* any backlog can be had */
    struct loop_net *net = context;
    struct loop_listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a listener");
    listener->base = (struct listener){.ops = &loop_listener_ops, .address = *address};
    listener->net = net;
    listener->backlog = backlog ? backlog : 1;
    STAILQ_INIT(&listener->queue);

    pthread_mutex_lock(&net->lock);
    bool taken = listener_find(net, address->path);
    if (!taken) {
        LIST_INSERT_HEAD(&net->listeners, listener, link);
        pthread_cond_broadcast(&net->changed);
    }
    pthread_mutex_unlock(&net->lock);
    if (taken) {
        free(listener);
        return error_set(error, GODWIT_ERR_BUSY, "loop:%s: address already in use", address->path);
    }
    *out = &listener->base;
    return GODWIT_OK;
}

static enum godwit_err loop_domain(void *context, const struct address *address, struct domain **out,
                                   struct godwit_error *error)
{
    (void)address; /* one net is one rail */
    return loop_domain_new(context, out, error);
}

static const struct transport_ops loop_ops = {
    .scheme = "loop",
    .connect = loop_connect,
    .listen = loop_listen,
    .domain = loop_domain,
};

struct loop_net *loop_net_new(uint64_t seed)
{
    struct loop_net *net = calloc(1, sizeof *net);
    if (!net)
        return NULL;
    net->transport = (struct transport){&loop_ops, net};
    net->random = seed;
    LIST_INIT(&net->listeners);
    LIST_INIT(&net->regions);
    LIST_INIT(&net->past_regions);
    pthread_mutex_init(&net->lock, NULL);
    pthread_cond_init(&net->changed, NULL);
    pthread_rwlock_init(&net->regions_lock, NULL);
    return net;
}

const struct transport *loop_net_transport(const struct loop_net *net)
{
    return &net->transport;
}

void loop_net_free(struct loop_net *net)
{
    if (!net)
        return;
    assert(LIST_EMPTY(&net->listeners) && "a listener outlives its net");
    assert(LIST_EMPTY(&net->regions) && "a registration outlives its net");
    for (struct loop_region *region; (region = LIST_FIRST(&net->past_regions));) {
        LIST_REMOVE(region, link);
        free(region);
    }
    pthread_rwlock_destroy(&net->regions_lock);
    pthread_cond_destroy(&net->changed);
    pthread_mutex_destroy(&net->lock);
    free(net);
}
