/*
 * What implementers of a channel see: base structs, first member of the private ones, and the ops tables. Callers never
 * include this file; the wrappers of channel.c check state, ranges and "a failure has a code" for all transports at
 * once.
 *
 * For each op, beyond what channel.h promises to users:
 *   handshake may block; one thread, before any other op but shutdown; ops that need none use channel_handshake_nothing
 *   send      may block; sending thread; borrows head for the call and payload until flush; never partial on success
 *   recv      may block; receiving thread; buffers are the caller's throughout; never partial on success
 *   recv_some as recv, but content with a part; channel_recv_one_byte where the transport can do no better
 *   put, get  may block for queue space; sending thread; memory stays the caller's; ranges were checked by the wrapper
 *   flush     may block; sending thread
 *   shutdown  must not block; any thread, repeatedly; called at least once before free
 *   free      no other call is running; also after a failed call; releases the struct itself
 *
 * No slot is NULL: a stream transport uses the *_unsupported functions below.
 */
#ifndef TRANSPORT_CHANNEL_OPS_H
#define TRANSPORT_CHANNEL_OPS_H

#include "transport/channel.h"

enum { CHANNEL_NAME_MAX = ADDRESS_TEXT_MAX };

struct channel_ops {
    const char *name;
    enum godwit_err (*handshake)(struct channel *channel, int timeout_ms, struct godwit_error *error);
    enum godwit_err (*send)(struct channel *channel, const void *head, size_t head_size, const struct iovec *payload,
                            unsigned count, int timeout_ms);
    enum godwit_err (*recv)(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms);
    enum godwit_err (*recv_some)(struct channel *channel, void *buffer, size_t size, int timeout_ms, size_t *got);
    enum godwit_err (*put)(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                           const struct remote *remote, uint64_t remote_offset, uint64_t size);
    enum godwit_err (*get)(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                           const struct remote *remote, uint64_t remote_offset, uint64_t size);
    enum godwit_err (*flush)(struct channel *channel, int timeout_ms);
    void (*shutdown)(struct channel *channel);
    void (*free)(struct channel *channel);
};

struct channel {
    const struct channel_ops *ops;
    struct channel_limits limits;
    char name[CHANNEL_NAME_MAX];
    struct channel *wrapped; /* NULL, or the channel that knows what follows */
    char local_host[ADDRESS_HOST_MAX + 1], peer_host[ADDRESS_HOST_MAX + 1];
    char device[64];
    uint32_t queue_pair;
    struct channel_security security;

    /* Written once, by channel_set_detail; detailed is its release. */
    char detail[CHANNEL_DETAIL_MAX];
    atomic_int detailed; /* 0 not, 1 being written, 2 written */
};

/* Any thread; of a channel that wraps, it is what the wrapped one will say. Only the first detail counts: what comes later is mostly its consequence. */
void channel_set_detail(struct channel *channel, const char *text);

struct listener_ops {
    enum godwit_err (*accept)(struct listener *listener, int timeout_ms, struct channel **out,
                              struct godwit_error *error);
    void (*shutdown)(struct listener *listener);
    void (*free)(struct listener *listener);
};

struct listener {
    const struct listener_ops *ops;
    struct address address;
    struct ticket_check tickets; /* check NULL: nobody asked for one */
};

struct domain_ops {
    enum godwit_err (*reg)(struct domain *domain, const struct region *region, enum region_access access,
                           struct mr **out, struct godwit_error *error);
    enum godwit_err (*import)(struct domain *domain, const struct region_key *key, struct remote **out,
                              struct godwit_error *error);
    void (*export)(const struct mr *mr, struct region_key *key);
    void (*mr_free)(struct mr *mr);
    void (*remote_free)(struct remote *remote);
    void (*free)(struct domain *domain);
};

struct domain {
    const struct domain_ops *ops;
    atomic_uint more_holders; /* beside the one who made it */
};

struct mr {
    struct domain *domain;
    struct region region;
    enum region_access access;
};

struct remote {
    struct domain *domain;
    uint64_t size;
};

struct transport_ops {
    const char *scheme; /* of the addresses it takes; for messages */
    enum godwit_err (*connect)(void *context, const struct address *address, const struct introduction *introduction,
                               int timeout_ms, const atomic_bool *cancel, struct channel **out,
                               struct godwit_error *error);
    enum godwit_err (*listen)(void *context, const struct address *address, unsigned backlog, struct listener **out,
                              struct backlog_warning *warning, struct godwit_error *error);
    enum godwit_err (*domain)(void *context, const struct address *address, struct domain **out,
                              struct godwit_error *error);
};

enum godwit_err channel_handshake_nothing(struct channel *channel, int timeout_ms, struct godwit_error *error);
/* Of a wrapper that has no handshake of its own. */
enum godwit_err channel_handshake_wrapped(struct channel *channel, int timeout_ms, struct godwit_error *error);
enum godwit_err channel_recv_one_byte(struct channel *channel, void *buffer, size_t size, int timeout_ms, size_t *got);
enum godwit_err channel_put_unsupported(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                        const struct remote *remote, uint64_t remote_offset, uint64_t size);
enum godwit_err channel_get_unsupported(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                        const struct remote *remote, uint64_t remote_offset, uint64_t size);
enum godwit_err channel_flush_nothing(struct channel *channel, int timeout_ms);
enum godwit_err transport_domain_unsupported(void *context, const struct address *address, struct domain **out,
                                             struct godwit_error *error);

#endif
