/*
 * The in-process reference transport, "loop:NAME": the weakest legal implementation of the channel contract, so that a
 * misuse fails in the first test. It is two-sided and one-sided, and within the contract as unhelpful as it can be:
 *
 *   - payload of a send is read when the peer receives it or at the next flush, whichever comes first (or at free);
 *   - a put stays invisible until the peer has received the first byte of a later send of the same channel; its memory
 *     is read at once or as late as that, and puts may arrive in any order: a seeded choice;
 *   - a put without a later send never happens, whatever flush said;
 *   - a get is carried out at once or at the flush, the same choice;
 *   - a channel holds about 4 MiB, then send waits;
 *   - a put or get of a region that is revoked, or of the wrong access, breaks the channel (RESET).
 */
#ifndef TRANSPORT_LOOP_H
#define TRANSPORT_LOOP_H

#include <stdint.h>

#include "transport/channel.h"

struct loop_net;

/* A switchboard of its own: its names and keys mean nothing in another. seed fixes the choices. NULL: no memory. */
struct loop_net *loop_net_new(uint64_t seed);

/* Lives as long as net. */
const struct transport *loop_net_transport(const struct loop_net *net);

/* After all its channels, listeners and domains are freed. NULL allowed. */
void loop_net_free(struct loop_net *net);

#endif
