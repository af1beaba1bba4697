/*
 * RDMA channels on the devices of this machine, such as soft-RoCE in a virtual one. GODWIT_TEST_RDMA_HOST: an address
 * of a device; without it there is no RDMA here.
 */
#include <stdlib.h>

#include "rdma/rdma.h"
#include "tests/lib/fabric.h"

static const char *real_host(void)
{
    return getenv("GODWIT_TEST_RDMA_HOST");
}

static void real_stop(void)
{
}

const struct fabric fabric = {.transport = &rdma_transport, .alone = true, .host = real_host, .stop = real_stop};
