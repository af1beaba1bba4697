/*
 * The loop transport with puts that vanish: an in-process channel of unlimited speed. Whoever sends pages one-sidedly
 * over it pays for everything but the bytes; streams (records, headers, markers, acknowledgements) are the loop's and
 * do arrive.
 */
#ifndef PERF_SINK_TRANSPORT_H
#define PERF_SINK_TRANSPORT_H

#include "transport/loop.h"

struct sink_net {
    const struct transport *loop;
    struct transport transport; /* to be used by both sides */
};

/* Borrows loop, and is borrowed itself, until the last channel has been freed. */
void sink_net_init(struct sink_net *net, const struct transport *loop);

#endif
