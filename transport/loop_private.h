/* Private to loop*.c: what the switchboard, the channels and the domains share. */
#ifndef TRANSPORT_LOOP_PRIVATE_H
#define TRANSPORT_LOOP_PRIVATE_H

#include <pthread.h>
#include <sys/queue.h>

#include "transport/channel_ops.h"
#include "transport/loop.h"

/* A registration that a peer may name by key. */
struct loop_region {
    LIST_ENTRY(loop_region) link;
    uint64_t key;
    uint8_t *addr;
    uint64_t size;
    enum region_access access;
};

LIST_HEAD(loop_regions, loop_region);

struct loop_listener;

struct loop_net {
    struct transport transport; /* constant */

    pthread_mutex_t lock; /* listeners and random */
    pthread_cond_t changed;
    LIST_HEAD(, loop_listener) listeners;
    uint64_t random;

    /* Held to read while a peer's memory is touched, to write when it is revoked: mr_free waits for the last touch.
     * Taken inside the lock of a link, never the other way round. */
    pthread_rwlock_t regions_lock;
    struct loop_regions regions, past_regions; /* what is registered, and what was */
};

struct loop_remote {
    struct remote base;
    uint64_t key;
};

/* The next number of a splitmix64 sequence. */
uint64_t loop_random(uint64_t *state);

/* Both ends of a new connection called name. */
enum godwit_err loop_channel_pair(struct loop_net *net, const char *name, uint64_t seed, struct channel *ends[2]);

enum godwit_err loop_domain_new(struct loop_net *net, struct domain **out, struct godwit_error *error);

/*
 * Copies between local memory and what key names, if it still names a region with that access and range: true. Anything
 * else touches nothing.
 */
bool loop_region_write(struct loop_net *net, uint64_t key, uint64_t offset, const void *from, uint64_t size);
bool loop_region_read(struct loop_net *net, uint64_t key, uint64_t offset, void *to, uint64_t size);

#endif
