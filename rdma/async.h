/* Private to rdma/: the asynchronous events of a device, which all its users in this process share. */
#ifndef RDMA_ASYNC_H
#define RDMA_ASYNC_H

#include <infiniband/verbs.h>

/* Once per opened device, any number of times: reading events must not block. */
void rdma_async_prepare(struct ibv_context *verbs);

/*
 * Hands every event that is there to the channel it concerns, whoever asks. Removal of a device reaches each channel by
 * its own connection manager event; a port that goes down is left to the retries of the queue pairs, which survive
 * short interruptions.
 */
void rdma_async_drain(struct ibv_context *verbs);

#endif
