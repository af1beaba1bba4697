/* What one channel has carried: written by its own thread, read by anybody, summed only when asked. */
#ifndef MULTIFD_COUNTERS_H
#define MULTIFD_COUNTERS_H

#include <stdatomic.h>
#include <stdio.h>

#include <godwit/info.h>

#include "multifd/batch.h"
#include "transport/channel.h"

struct counters {
    _Atomic uint64_t bytes, inline_bytes, placed_bytes, normal, duplicate, packets, busy_ns, replacements;
};

static inline void counters_add(_Atomic uint64_t *counter, uint64_t add)
{
    atomic_fetch_add_explicit(counter, add, memory_order_relaxed);
}

static inline uint64_t counters_get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* One data record of `head` bytes that describes these extents, their content placed or inline. */
static inline void counters_add_record(struct counters *counters, uint64_t head, const struct extent *extents,
                                       unsigned count, bool placed)
{
    uint64_t normal = 0, zeros = 0;
    for (unsigned i = 0; i < count; i++)
        *(extents[i].kind == EXTENT_NORMAL ? &normal : &zeros) += extents[i].pages;
    counters_add(&counters->bytes, head + (normal << PAGE_SHIFT));
    counters_add(placed ? &counters->placed_bytes : &counters->inline_bytes, normal << PAGE_SHIFT);
    counters_add(&counters->normal, normal);
    counters_add(&counters->duplicate, zeros);
    counters_add(&counters->packets, 1);
}

/* What carries and protects a channel now; constant while it exists. */
static inline void counters_read_carrier(const struct channel *channel, struct godwit_channel_info *info)
{
    const struct channel_security *security = channel_security(channel);
    snprintf(info->tls_version, sizeof info->tls_version, "%s", security->version);
    snprintf(info->tls_cipher, sizeof info->tls_cipher, "%s", security->cipher);
    info->tls_kernel = security->kernel;
    snprintf(info->device, sizeof info->device, "%s", channel_device(channel));
    info->queue_pair = channel_queue_pair(channel);
}

/* The rest of *info stays as it is. */
static inline void counters_read(const struct counters *counters, struct godwit_channel_info *info)
{
    info->bytes = counters_get(&counters->bytes);
    info->inline_bytes = counters_get(&counters->inline_bytes);
    info->placed_bytes = counters_get(&counters->placed_bytes);
    info->normal = counters_get(&counters->normal);
    info->duplicate = counters_get(&counters->duplicate);
    info->packets = counters_get(&counters->packets);
    info->busy_ns = counters_get(&counters->busy_ns);
    info->replacements = counters_get(&counters->replacements);
}

#endif
