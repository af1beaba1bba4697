/* Two connected channels of any kind, with all that stands behind them. Plain C: stress programs use it too. */
#ifndef TESTS_LIB_PAIR_H
#define TESTS_LIB_PAIR_H

#include <pthread.h>

#include "tcp/tls.h"
#include "tests/lib/fabric.h"
#include "transport/channel.h"
#include "transport/fault.h"
#include "transport/loop.h"

/* The split kinds wrap the plain ones in faults that cut every transfer into odd pieces and delay it. */
enum pair_kind {
    PAIR_LOOP,
    PAIR_TCP4,
    PAIR_TCP6,
    PAIR_UNIX,
    PAIR_RDMA,
    PAIR_TLS_TCP,
    PAIR_TLS_UNIX,
    PAIR_LOOP_SPLIT,
    PAIR_TCP4_SPLIT,
    PAIR_TCP6_SPLIT,
    PAIR_UNIX_SPLIT,
    PAIR_RDMA_SPLIT,
    PAIR_TLS_TCP_SPLIT,
    PAIR_TLS_UNIX_SPLIT,
    PAIR_KINDS
};

/* Of TLS kinds, user "qemu". */
enum { PAIR_KEY_SIZE = 32 };
extern const unsigned char pair_key[PAIR_KEY_SIZE];

struct pair {
    struct loop_net *loop;
    struct fault_net *fault;
    const struct fabric *fabric; /* NULL: none */
    struct tls *tls_listens, *tls_connects; /* of TLS kinds; with a pre-shared key */
    const struct transport *transport; /* of the listener, and of who connects where there is no other */
    const struct transport *connects;  /* NULL: transport */
    struct listener *listener;          /* may be freed early by setting it to NULL */
    struct address address;             /* of the listener */
    struct channel *a, *b;              /* a connected, b was accepted; may be freed early as well */
    struct domain *domain_a, *domain_b; /* of one-sided kinds: what the channels belong to */
    struct introduction introduction;   /* of a; b's listener lets in who shows this ticket */
    char directory[64];
    struct godwit_error error; /* of what failed */
};

const char *pair_kind_name(enum pair_kind kind);
bool pair_kind_is_split(enum pair_kind kind);
bool pair_kind_is_one_sided(enum pair_kind kind);
bool pair_kind_is_loop(enum pair_kind kind);
bool pair_kind_is_rdma(enum pair_kind kind);
bool pair_kind_is_tls(enum pair_kind kind);

/* Whether this machine can do it at all: IPv6 may be missing, and RDMA needs a fabric. */
bool pair_kind_works(enum pair_kind kind);

/* For the RDMA kinds from now on. */
void pair_use_fabric(const struct fabric *fabric);

/* A transport and a listener, no channels. On failure pair->error says why, and pair_close is still due. */
enum godwit_err pair_listen(struct pair *pair, enum pair_kind kind);

/* The same, with this plan for every channel on both sides, beneath TLS where there is TLS; NULL: none. */
enum godwit_err pair_listen_faulty(struct pair *pair, enum pair_kind kind, const struct fault_plan *plan);

/* Another listener at pair->address, for one that was freed. */
enum godwit_err pair_listen_again(struct pair *pair);

/* transport_connect to the listener, introduced as pair->introduction. */
enum godwit_err pair_knock(struct pair *pair, int timeout_ms, const atomic_bool *cancel, struct channel **out,
                           struct godwit_error *error);

/* listener_accept and channel_handshake. */
enum godwit_err pair_accept(struct pair *pair, int timeout_ms, struct channel **out, struct godwit_error *error);

/* pair_knock in a thread of its own; cancel may be set meanwhile. */
struct pair_knocker {
    struct pair *pair;
    int timeout_ms;
    pthread_t thread;
    atomic_bool cancel;
    struct channel *channel; /* out */
    enum godwit_err err;
    struct godwit_error error;
};
void pair_knocker_start(struct pair_knocker *knocker);
enum godwit_err pair_knocker_join(struct pair_knocker *knocker);

/* Connects pair->a to pair->b. */
enum godwit_err pair_connect(struct pair *pair);

/* pair_listen and pair_connect. */
enum godwit_err pair_open(struct pair *pair, enum pair_kind kind);

/* Frees whatever is not NULL. */
void pair_close(struct pair *pair);

#endif
