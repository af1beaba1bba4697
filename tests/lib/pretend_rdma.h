/*
 * A transport "rdma:HOST:PORT" without RDMA: what the real one promises about connections (a ticket is shown before
 * there is one, the listener's owner names the domain, which the connection holds), around channels and domains of a
 * loop.
 */
#ifndef TESTS_LIB_PRETEND_RDMA_H
#define TESTS_LIB_PRETEND_RDMA_H

#include <stdatomic.h>

#include "transport/channel_ops.h"
#include "transport/loop.h"

#define PRETEND_DEVICE "pretend0"

struct pretend_rdma {
    struct transport transport; /* use this one */
    struct loop_net *loop;
    atomic_uint made, refused; /* connections, at the listening side */
    /* Set by tests before they connect, or NULL. wait_turn: before connecting, as the listener looks at one ticket after
     * another. forge: the ticket that is about to be shown. Connections are numbered as they come here. */
    void (*wait_turn)(void *opaque, unsigned connection);
    void (*forge)(void *opaque, unsigned connection, uint8_t ticket[TICKET_SIZE]);
    void *opaque;
    const char *detail; /* of every failed send; NULL: none */
    atomic_uint tried;  /* connections */
    char sought[ADDRESS_TEXT_MAX]; /* the host of the first of them */
};

void pretend_rdma_init(struct pretend_rdma *rdma, uint64_t seed);
void pretend_rdma_fini(struct pretend_rdma *rdma); /* after all that came of it is freed */

#endif
