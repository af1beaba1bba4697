/*
 * The RDMA transport: data channels "rdma:HOST:PORT" as reliable queue pairs, made by the connection manager. Two-sided
 * by SEND into a credited ring of receives, one-sided by RDMA WRITE and READ of registered memory. RoCEv2, InfiniBand
 * and soft-RoCE; control connections belong on another transport (docs/protocol.md).
 */
#ifndef RDMA_RDMA_H
#define RDMA_RDMA_H

#include "transport/channel.h"

extern const struct transport rdma_transport;

#endif
