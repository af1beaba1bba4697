/* Private to rdma/: the asynchronous events of a device, which all its users in this process share. */
#ifndef RDMA_ASYNC_H
#define RDMA_ASYNC_H

#include <infiniband/verbs.h>

struct rdma_channel;

/* From here on events of this channel find it, until leave; reading the device's events does not block from now on. */
void rdma_async_join(struct rdma_channel *channel, struct ibv_context *verbs);
void rdma_async_leave(struct rdma_channel *channel); /* also one that has not joined */

/*
 * Hands every event that is there to the channel it concerns, whoever asks. Removal of a device reaches each channel by
 * its own connection manager event; a port that goes down is left to the retries of the queue pairs, which survive
 * short interruptions.
 */
void rdma_async_drain(struct ibv_context *verbs);

#endif
