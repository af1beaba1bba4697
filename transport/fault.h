/*
 * Faults on demand: a channel that wraps a channel, and a transport that wraps every channel of another transport. What
 * goes wrong is a plan; where it goes wrong is counted, so a test sweeps n = 0, 1, 2, ... until n is beyond the last
 * call.
 */
#ifndef TRANSPORT_FAULT_H
#define TRANSPORT_FAULT_H

#include <stdatomic.h>
#include <stdint.h>

#include "transport/channel.h"

enum fault_op { FAULT_SEND, FAULT_RECV, FAULT_PUT, FAULT_GET, FAULT_FLUSH, FAULT_OPS };

#define FAULT_NEVER UINT64_MAX

/* Calls made so far. One object may be shared by many channels: their calls are then numbered together. */
struct fault_counts {
    atomic_uint_fast64_t calls[FAULT_OPS];
};

struct fault_plan {
    /* The call of this number, counted from 0, returns fail_code and does nothing. FAULT_NEVER: none does. */
    enum fault_op fail_op;
    uint64_t fail_at;
    enum godwit_err fail_code;
    struct fault_counts *counts; /* NULL: each channel counts for itself; else outlives the channels */

    /* The connection is cut when so many bytes of this channel were sent or received: RESET. FAULT_NEVER: never. */
    uint64_t cut_sent, cut_received;

    /* Byte * 8 + bit of the sent or received stream of this channel that arrives inverted. FAULT_NEVER: none. */
    uint64_t flip_sent, flip_received;

    unsigned delay_ms; /* before every operation, 0 for none */
    uint64_t chunk;    /* most bytes per inner operation, 0 for no limit; puts and gets are not split below put_align */
};

/* A plan of nothing: start from this. */
struct fault_plan fault_plan_none(void);

/*
 * Owns inner from success on. The plan is copied. NULL: no memory, inner is still the caller's. Name, limits and
 * one-sided access are those of inner. Works for any channel; payload is passed on by reference, so inner's rules for
 * it hold.
 */
struct channel *fault_channel_wrap(struct channel *inner, const struct fault_plan *plan);

struct fault_net;

/*
 * Wraps every channel that inner connects or accepts. only: the number, from 0 in the order of their making, of the
 * single channel that gets the plan (the others work as ever), FAULT_NEVER for all. NULL: no memory. inner outlives the
 * net, the net outlives its listeners.
 */
struct fault_net *fault_net_new(const struct transport *inner, const struct fault_plan *plan, uint64_t only);
const struct transport *fault_net_transport(const struct fault_net *net);
void fault_net_free(struct fault_net *net); /* NULL allowed */

#endif
