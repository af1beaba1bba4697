/* RDMA channels on the fake. Stopping it fails when rdma/ left anything behind. */
#include "rdma/rdma.h"
#include "tests/lib/fabric.h"
#include "tests/rdma/fake_verbs.h"

static const char *fake_host(void)
{
    return "127.0.0.1";
}

const struct fabric fabric = {.transport = &rdma_transport, .host = fake_host, .stop = fake_verbs_stop};
