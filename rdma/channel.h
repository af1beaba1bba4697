/* Private to rdma/: a connected queue pair as a channel. */
#ifndef RDMA_CHANNEL_H
#define RDMA_CHANNEL_H

#include "rdma/domain.h"

struct rdma_channel;

/*
 * Makes queue pair, completion queues and rings for an identifier that knows its device, and posts the receives: the
 * peer may send as soon as it is connected. The identifier is taken out of cm on success (it is zeroed).
 */
enum godwit_err rdma_channel_open(struct cm *cm, struct rdma_domain *domain, const char *name,
                                  struct rdma_channel **out, struct godwit_error *error);

/* Destroys a channel whose connection did not come to be. */
void rdma_channel_abandon(struct rdma_channel *channel);

/* The connection stands, on this side at least. */
void rdma_channel_connected(struct rdma_channel *channel);

struct cm *rdma_channel_cm(struct rdma_channel *channel);
struct channel *rdma_channel_base(struct rdma_channel *channel);

/* Any thread: what the device reported about this channel's queue pair or completion queues. */
void rdma_channel_async(struct rdma_channel *channel, const char *hint);

#endif
