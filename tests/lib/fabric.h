/*
 * What RDMA channels of tests run on. Programs that have one name it with pair_use_fabric; tests/rdma/fabric_fake.c is
 * the fake, tests/rdma/fabric_real.c the devices of this machine.
 */
#ifndef TESTS_LIB_FABRIC_H
#define TESTS_LIB_FABRIC_H

#include "transport/channel.h"

struct fabric {
    const struct transport *transport;
    bool alone;                /* a program with this fabric is for its kinds of channels only */
    const char *(*host)(void); /* to listen at, numeric; starts what there is to start. NULL: nothing here */
    void (*stop)(void);        /* after all channels, listeners and domains are freed; also when nothing was started */
};

extern const struct fabric fabric;

#endif
