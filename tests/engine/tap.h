/*
 * A transport that shows each record to a rule before it passes, and lets the rule swallow it or cut the connection
 * there. It wraps what the source connects; it understands hellos, control records and data records.
 */
#ifndef TESTS_ENGINE_TAP_H
#define TESTS_ENGINE_TAP_H

#include <stdatomic.h>

#include "multifd/packet.h"
#include "session/hello.h"
#include "tests/lib/watched_domain.h"
#include "transport/channel.h"
#include "transport/channel_ops.h"

enum tap_verdict {
    TAP_PASS,
    TAP_SWALLOW,   /* sending only: the peer does not get it, the sender does not notice */
    TAP_CUT,       /* the connection breaks before this record */
    TAP_CUT_AFTER, /* and after it */
    TAP_LOSE,      /* sending only: it breaks for this side; the peer's end stays open and silent until tap_fini */
};

struct tap_event {
    struct hello hello; /* of the connection */
    bool received;
    uint16_t type;         /* enum record_type, or enum packet_type on data channels */
    struct channel *inner; /* for rules that do more than decide */
    const uint8_t *head;   /* data channels: header and extents */
    struct packet packet;
};

/* Called from the thread that sends or receives. */
typedef enum tap_verdict tap_rule(void *opaque, const struct tap_event *event);

struct tap {
    struct transport transport; /* use this one */
    struct transport_ops ops;
    const struct transport *inner;
    tap_rule *rule; /* NULL: everything passes */
    void *opaque;
    atomic_bool refuse; /* connecting: nobody is there any more */
    _Atomic(struct channel *) lost; /* the peer of it knows nothing yet */
    watch_fn *watch; /* of the domains made here; NULL: they are the inner transport's own */
    void *watch_opaque;
    void (*before_flush)(void *opaque, const struct hello *hello); /* may be NULL */
    /* May be NULL. Connecting waits until it returns; *cancel is what ends the attempt. */
    void (*before_connect)(void *opaque, const atomic_bool *cancel);
};

void tap_init(struct tap *tap, const struct transport *inner, tap_rule *rule, void *opaque);
void tap_fini(struct tap *tap);

#endif
