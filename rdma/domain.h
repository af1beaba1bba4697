/* Private to rdma/: one device as seen from one address, with a protection domain of its own. */
#ifndef RDMA_DOMAIN_H
#define RDMA_DOMAIN_H

#include "rdma/cm.h"

struct rdma_domain {
    struct domain base;
    struct cm cm; /* its identifier keeps the device open; never connected */
    struct ibv_context *verbs; /* of the connection manager; not ours to close */
    struct ibv_pd *pd;
};

struct rdma_mr {
    struct mr base;
    struct ibv_mr *mr;
    uint64_t iova; /* what the device calls the region's first byte */
};

struct rdma_remote {
    struct remote base;
    uint32_t rkey;
    uint64_t iova;
};

enum godwit_err rdma_domain_open(void *context, const struct address *address, struct domain **out,
                                 struct godwit_error *error);

/* Host and port as a socket address, the first that fits. */
enum godwit_err rdma_resolve(const struct address *address, struct sockaddr_storage *out, struct godwit_error *error);

#endif
