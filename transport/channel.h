/*
 * What users of a channel see. A channel is one connection to the peer:
 *
 *   two-sided  every channel but file: an ordered, reliable byte stream. send() and recv() block, whole or error.
 *   one-sided  where limits->one_sided: put() copies local registered memory to an offset of the peer's, get() the
 * other              way. Both may be queued.
 *
 * Completion. flush() returns when everything queued is complete locally: its memory may be changed or unmapped, its
 * errors are known. flush says nothing about visibility: a put is visible to the peer exactly when the peer has
 * received a later send of the same channel. Until then puts have no order among themselves: of two that overlap either
 * may win (RDMA registers memory with relaxed ordering). Between channels there is no order at all.
 *
 * Threads. One thread per direction: send, put, get and flush from one, recv from another (or the same). shutdown from
 * any thread, any number of times. free when no other thread is inside a call.
 *
 * Deadlines. Every call takes the longest time in ms that it may pass without any progress; CHANNEL_FOREVER leaves the
 * end to shutdown(), for callers that have a thread which will call it. A recv that times out before its first byte
 * returns GODWIT_ERR_TIMEOUT and consumed nothing: it may be repeated. Any other failure breaks the channel, but for a
 * call that was refused because of its arguments. A send, or a recv after its first byte, that makes no progress is
 * STALLED (TIMEOUT for a send that had not begun). More iovs than limits->max_iov are INVALID, never split.
 *
 *   connect/accept -> handshake of what was accepted -> open -> (shutdown) -> free
 *
 * Introductions. A one-sided transport ties a connection to a domain, and lets the listening side decide before the
 * connection exists: the connecting side shows a ticket, the listener's owner looks at it and names the domain on its
 * side. Streams carry no ticket: who is let in is then decided by what is said on the channel.
 */
#ifndef TRANSPORT_CHANNEL_H
#define TRANSPORT_CHANNEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <godwit/error.h>

#include "transport/address.h"
#include "transport/region.h"

enum { CHANNEL_FOREVER = -1 };

enum {
    TICKET_SIZE = 48,       /* what is left of the private data of an RDMA connection request */
    TICKET_TEXT_MAX = 140,  /* bytes of the reason for a refusal that reach the other side, likewise */
    CHANNEL_DETAIL_MAX = 384, /* room for the longest hint of a device */
};

struct channel;
struct listener;

/* Read once at open; constant for the life of the channel. */
struct channel_limits {
    unsigned max_iov;     /* payload and recv iov entries per call, at least 64 */
    uint64_t max_put;     /* bytes of one put, 0 where not one-sided */
    uint32_t put_align;   /* offsets and lengths of puts are multiples of this, 1 where free */
    bool one_sided;
    uint64_t lifetime;    /* bytes sent after which another connection should take its place; 0: none need to */
};

/*
 * Completes what accept began, where two sides have to agree on keys before anything can be said: TLS. Other channels
 * have nothing to do. timeout_ms is for all of it. Only on accepted channels, before any other call; connect has done
 * it. TIMEOUT, NOT_ADMITTED for a peer that must not come in, PROTOCOL for one that does something else; after any
 * failure the channel can only be freed.
 */
enum godwit_err channel_handshake(struct channel *channel, int timeout_ms, struct godwit_error *error);

/*
 * Sends head, then the payload iovs in order. head is consumed when send returns; payload memory may be referenced
 * until the next flush (or free). Success says the bytes were taken, not that they arrived.
 */
enum godwit_err channel_send(struct channel *channel, const void *head, size_t head_size, const struct iovec *payload,
                             unsigned count, int timeout_ms);

/* Fills every iov completely, in order. The iov array is used as scratch space and is undefined afterwards. */
enum godwit_err channel_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms);

/* One buffer: channel_recv of a single iov. */
enum godwit_err channel_recv_exact(struct channel *channel, void *buffer, size_t size, int timeout_ms);

/* At least one byte and at most size, which is not 0: what is there. For whoever reads ahead into a buffer. */
enum godwit_err channel_recv_some(struct channel *channel, void *buffer, size_t size, int timeout_ms, size_t *got);

/*
 * Queues a copy of size bytes from mr at mr_offset to remote at remote_offset. The memory may be read at any time until
 * the next flush. UNSUPPORTED on channels that are not one-sided; INVALID when a range leaves its mr or remote or is
 * not aligned; TOO_BIG above limits->max_put. Of these the channel is as before.
 */
enum godwit_err channel_put(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                            const struct remote *remote, uint64_t remote_offset, uint64_t size);
/* The other direction: complete after the next flush. mr was registered to be written. */
enum godwit_err channel_get(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                            const struct remote *remote, uint64_t remote_offset, uint64_t size);

enum godwit_err channel_flush(struct channel *channel, int timeout_ms);

/* Ends the conversation: calls blocked in other threads return GODWIT_ERR_CLOSED, later ones too. The peer reads the
 * end of the stream, or GODWIT_ERR_RESET where it has puts under way; no put or get that it begins once this has
 * returned touches memory. What a device is in the middle of ends with free at the latest. Waits for nobody's bytes; an
 * RDMA device is given one command or two. */
void channel_shutdown(struct channel *channel);

/* Frees the channel and what it wraps. NULL allowed. Shuts down first if that has not been done. */
void channel_free(struct channel *channel);

const struct channel_limits *channel_limits(const struct channel *channel);

/* Kind and peer for messages, such as "tcp 192.0.2.1:4444"; lives as long as the channel. */
const char *channel_name(const struct channel *channel);

/* The host of either side, numeric, of channels that have one; else "". */
const char *channel_local_host(const struct channel *channel);
const char *channel_peer_host(const struct channel *channel);

/* Why the channel broke, in more words than the code has, with the remedy where there is one; "": none. */
const char *channel_detail(const struct channel *channel);

/* Device and connection for statistics, such as "rxe0" and its queue pair; "" and 0 where there is none. */
const char *channel_device(const struct channel *channel);
uint32_t channel_queue_pair(const struct channel *channel);

/* How what is said on a channel is kept from others; all of it constant once the channel is open. */
struct channel_security {
    char version[8]; /* "TLS1.3"; "" where nothing protects it */
    char cipher[24]; /* "AES-256-GCM" */
    bool kernel;     /* the kernel, not the library, does the records */
};
const struct channel_security *channel_security(const struct channel *channel);

/* Who connects, to whom it may concern. */
struct introduction {
    struct domain *domain; /* of this side; outlives the channel */
    uint8_t ticket[TICKET_SIZE];
};

struct ticket_check {
    /*
     * The thread that accepts. May the connection that shows this ticket exist? OK: *domain is this side's, held for
     * the connection, which ends with domain_free. Else error says why, to the other side too, cut to TICKET_TEXT_MAX
     * bytes.
     */
    enum godwit_err (*check)(void *opaque, const uint8_t ticket[TICKET_SIZE], struct domain **domain,
                           struct godwit_error *error);
    void *opaque;
};

/*
 * Accepts one connection. GODWIT_ERR_TIMEOUT when none came in time, GODWIT_ERR_CLOSED after shutdown. An error of a
 * single incoming connection is not an error of the listener: it is skipped. Shortage of descriptors is
 * GODWIT_ERR_SYSTEM, and the listener stays usable.
 */
enum godwit_err listener_accept(struct listener *listener, int timeout_ms, struct channel **out,
                                struct godwit_error *error);
/* Before the first accept. Streams and the loop never ask; RDMA lets nobody in without a check. */
void listener_check_tickets(struct listener *listener, const struct ticket_check *check);
/* The address it really listens on, a port of 0 resolved. */
const struct address *listener_address(const struct listener *listener);
/* Wakes a blocked accept; any thread. */
void listener_shutdown(struct listener *listener);
void listener_free(struct listener *listener); /* NULL allowed */

/* Why a transport could not give a listener the backlog asked for; empty text: it could. */
struct backlog_warning {
    char text[256];
};

/* One way of making channels. Values of this struct are const objects exported by each transport, or a loop network. */
struct transport {
    const struct transport_ops *ops; /* transport/channel_ops.h */
    void *context;                   /* NULL for transports without state */
};

/* Of the addresses it takes: "tcp". */
const char *transport_scheme(const struct transport *transport);

/*
 * Connects within timeout_ms in all, trying again while nothing listens there yet. INVALID for an address this
 * transport cannot use, REFUSED or UNREACHABLE when time runs out (the text names the address and the last cause),
 * NOT_ADMITTED with the words of the listener's owner, CANCELLED as soon as *cancel (may be NULL) reads true.
 * introduction: what RDMA needs; NULL elsewhere, or ignored.
 */
enum godwit_err transport_connect(const struct transport *transport, const struct address *address,
                                  const struct introduction *introduction, int timeout_ms, const atomic_bool *cancel,
                                  struct channel **out, struct godwit_error *error);
/* BUSY when the address is in use. backlog is clamped to what the system allows; *warning then says so. */
enum godwit_err transport_listen(const struct transport *transport, const struct address *address, unsigned backlog,
                                 struct listener **out, struct backlog_warning *warning, struct godwit_error *error);
/* The domain of the rail that address leads to. UNSUPPORTED for stream-only transports. */
enum godwit_err transport_domain(const struct transport *transport, const struct address *address, struct domain **out,
                                 struct godwit_error *error);

#endif
