/* The table of the RDMA transport. */
#include "rdma/rdma.h"

#include "rdma/connect.h"

static const struct transport_ops rdma_ops = {
    .scheme = "rdma",
    .connect = rdma_connect_channel,
    .listen = rdma_listen_channels,
    .domain = rdma_domain_open,
};

const struct transport rdma_transport = {.ops = &rdma_ops};
