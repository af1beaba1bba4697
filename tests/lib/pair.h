/* Two connected channels of any kind, with all that stands behind them. Plain C: stress programs use it too. */
#ifndef TESTS_LIB_PAIR_H
#define TESTS_LIB_PAIR_H

#include "transport/channel.h"
#include "transport/fault.h"
#include "transport/loop.h"

/* The split kinds wrap the plain ones in faults that cut every transfer into odd pieces and delay it. */
enum pair_kind {
    PAIR_LOOP,
    PAIR_TCP4,
    PAIR_TCP6,
    PAIR_UNIX,
    PAIR_LOOP_SPLIT,
    PAIR_TCP4_SPLIT,
    PAIR_TCP6_SPLIT,
    PAIR_UNIX_SPLIT,
    PAIR_KINDS
};

struct pair {
    struct loop_net *loop;
    struct fault_net *fault;
    const struct transport *transport;
    struct listener *listener; /* may be freed early by setting it to NULL */
    struct address address;    /* of the listener */
    struct channel *a, *b;     /* a connected, b was accepted; may be freed early as well */
    char directory[64];
    struct godwit_error error; /* of what failed */
};

const char *pair_kind_name(enum pair_kind kind);
bool pair_kind_is_split(enum pair_kind kind);

/* Whether this machine can do it at all: IPv6 may be missing. */
bool pair_kind_works(enum pair_kind kind);

/* A transport and a listener, no channels. On failure pair->error says why, and pair_close is still due. */
enum godwit_err pair_listen(struct pair *pair, enum pair_kind kind);

/* Connects pair->a to pair->b. */
enum godwit_err pair_connect(struct pair *pair);

/* pair_listen and pair_connect. */
enum godwit_err pair_open(struct pair *pair, enum pair_kind kind);

/* Frees whatever is not NULL. */
void pair_close(struct pair *pair);

#endif
