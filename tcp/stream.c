/*
 * A connected stream socket as a channel. The sockets block; deadlines are SO_SNDTIMEO and SO_RCVTIMEO, set only when
 * they change, so that the data path is one system call per message: sendmsg of head and payload, recvmsg with
 * MSG_WAITALL. Payload is copied by the kernel before sendmsg returns, so flush has nothing to do.
 *
 * Failure modes: the end of the stream before the first byte of a recv is PEER_CLOSED, later it is RESET; a timeout
 * before the first byte is TIMEOUT, later STALLED. Whatever fails after our own shutdown is CLOSED.
 *
 * Accepted: the kernel's timeout covers one system call, and a call that moved some bytes and then timed out returns
 * them. A peer that stalls half-way is therefore noticed after one to two timeouts, for no extra system call anywhere.
 */
#include "tcp/stream.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "transport/error.h"

enum { TIMEOUT_UNSET = -2 };

struct stream {
    struct channel base;
    int fd; /* constant; closed in free only, so that shutdown never meets a reused number */
    atomic_bool shut;

    int send_timeout_ms; /* what SO_SNDTIMEO is; sending thread */
    int recv_timeout_ms; /* what SO_RCVTIMEO is; receiving thread */
};

/* An IPv4-mapped IPv6 address as the IPv4 one it is; others stay as they are. Returns the size. */
static socklen_t unmap(struct sockaddr_storage *address, socklen_t size)
{
    struct sockaddr_in6 v6;
    memcpy(&v6, address, sizeof v6);
    if (address->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr))
        return size;
    struct sockaddr_in plain = {.sin_family = AF_INET, .sin_port = v6.sin6_port};
    memcpy(&plain.sin_addr, v6.sin6_addr.s6_addr + 12, sizeof plain.sin_addr);
    memcpy(address, &plain, sizeof plain);
    return sizeof plain;
}

/* glibc declares both with a union of pointers: they have no address of the type that is wanted. */
static int local_of(int fd, struct sockaddr *address, socklen_t *size)
{
    return getsockname(fd, address, size);
}

static int peer_of(int fd, struct sockaddr *address, socklen_t *size)
{
    return getpeername(fd, address, size);
}

/* Numeric, with the scope of a link-local address; stays empty for Unix sockets. */
static void note_host(const struct stream *stream, int (*ask)(int fd, struct sockaddr *address, socklen_t *size),
                      char host[ADDRESS_HOST_MAX + 1])
{
    struct sockaddr_storage end = {0};
    socklen_t size = sizeof end;
    if (ask(stream->fd, (struct sockaddr *)&end, &size) != 0 || end.ss_family == AF_UNIX)
        return;
    size = unmap(&end, size);
    if (getnameinfo((struct sockaddr *)&end, size, host, ADDRESS_HOST_MAX + 1, NULL, 0, NI_NUMERICHOST) != 0)
        host[0] = '\0';
}

enum godwit_err stream_new(int fd, const struct channel_ops *ops, const char *name, struct channel **out,
                           struct godwit_error *error)
{
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a channel");
    stream->base.ops = ops;
    stream->base.limits = (struct channel_limits){.max_iov = STREAM_MAX_IOV, .put_align = 1};
    snprintf(stream->base.name, sizeof stream->base.name, "%s", name);
    stream->fd = fd;
    note_host(stream, local_of, stream->base.local_host);
    note_host(stream, peer_of, stream->base.peer_host);
    atomic_init(&stream->shut, false);
    stream->send_timeout_ms = TIMEOUT_UNSET;
    stream->recv_timeout_ms = TIMEOUT_UNSET;
    *out = &stream->base;
    return GODWIT_OK;
}

/* Zero means forever to the kernel; our zero is "do not wait" and travels as a flag of the call instead. */
static void apply_timeout(int fd, int option, int timeout_ms, int *current)
{
    if (timeout_ms == *current || !timeout_ms)
        return;
    struct timeval t = {0};
    if (timeout_ms != CHANNEL_FOREVER)
        t = (struct timeval){.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
    int rc = setsockopt(fd, SOL_SOCKET, option, &t, sizeof t);
    assert(!rc && "a timeout can be set on any socket");
    (void)rc;
    *current = timeout_ms;
}

/* The code for a failed call; moved: bytes of this message have passed already. */
static enum godwit_err failure(const struct stream *stream, int cause, bool moved)
{
    if (atomic_load_explicit(&stream->shut, memory_order_acquire))
        return GODWIT_ERR_CLOSED;
    switch (cause) {
    case EAGAIN:
        return moved ? GODWIT_ERR_STALLED : GODWIT_ERR_TIMEOUT;
    case ENOMEM:
    case ENOBUFS:
        return GODWIT_ERR_NO_MEMORY;
    case EFAULT:
        return GODWIT_ERR_SYSTEM; /* memory of the caller that is not there */
    default:
        return GODWIT_ERR_RESET; /* ECONNRESET, EPIPE, ETIMEDOUT of keepalive, EHOSTUNREACH and their kin */
    }
}

/* Takes n done bytes, and empty entries, off the front of msg. */
static void advance(struct msghdr *msg, size_t n)
{
    while (msg->msg_iovlen && n >= msg->msg_iov->iov_len) {
        n -= msg->msg_iov->iov_len;
        msg->msg_iov->iov_len = 0;
        msg->msg_iov++;
        msg->msg_iovlen--;
    }
    if (n) {
        assert(msg->msg_iovlen && "the kernel moves no more than it was given");
        msg->msg_iov->iov_base = (char *)msg->msg_iov->iov_base + n;
        msg->msg_iov->iov_len -= n;
    }
}

enum godwit_err stream_send(struct channel *channel, const void *head, size_t head_size, const struct iovec *payload,
                            unsigned count, int timeout_ms)
{
    struct stream *stream = (struct stream *)channel;
    if (atomic_load_explicit(&stream->shut, memory_order_acquire))
        return GODWIT_ERR_CLOSED;
    apply_timeout(stream->fd, SO_SNDTIMEO, timeout_ms, &stream->send_timeout_ms);

    struct iovec iov[STREAM_MAX_IOV + 1];
    iov[0].iov_base = (void *)(uintptr_t)head; /* sendmsg only reads */
    iov[0].iov_len = head_size;
    if (count)
        memcpy(iov + 1, payload, count * sizeof *iov);
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count + 1};
    int flags = MSG_NOSIGNAL | (timeout_ms ? 0 : MSG_DONTWAIT);
    bool moved = false;
    for (advance(&msg, 0); msg.msg_iovlen; ) {
        ssize_t n = sendmsg(stream->fd, &msg, flags);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failure(stream, errno, moved);
        moved |= n > 0;
        advance(&msg, (size_t)n);
    }
    return GODWIT_OK;
}

enum godwit_err stream_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    struct stream *stream = (struct stream *)channel;
    if (atomic_load_explicit(&stream->shut, memory_order_acquire))
        return GODWIT_ERR_CLOSED;
    apply_timeout(stream->fd, SO_RCVTIMEO, timeout_ms, &stream->recv_timeout_ms);

    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};
    int flags = MSG_WAITALL | (timeout_ms ? 0 : MSG_DONTWAIT);
    bool moved = false;
    for (advance(&msg, 0); msg.msg_iovlen; ) {
        ssize_t n = recvmsg(stream->fd, &msg, flags);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failure(stream, errno, moved);
        if (n == 0) {
            enum godwit_err err = failure(stream, 0, moved);
            return err == GODWIT_ERR_RESET && !moved ? GODWIT_ERR_PEER_CLOSED : err;
        }
        moved = true;
        advance(&msg, (size_t)n);
    }
    return GODWIT_OK;
}

enum godwit_err stream_recv_some(struct channel *channel, void *buffer, size_t size, int timeout_ms, size_t *got)
{
    struct stream *stream = (struct stream *)channel;
    if (atomic_load_explicit(&stream->shut, memory_order_acquire))
        return GODWIT_ERR_CLOSED;
    apply_timeout(stream->fd, SO_RCVTIMEO, timeout_ms, &stream->recv_timeout_ms);
    ssize_t n;
    do
        n = recv(stream->fd, buffer, size, timeout_ms ? 0 : MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        *got = (size_t)n;
        return GODWIT_OK;
    }
    enum godwit_err err = failure(stream, n < 0 ? errno : 0, false);
    return n == 0 && err == GODWIT_ERR_RESET ? GODWIT_ERR_PEER_CLOSED : err;
}

void stream_shutdown(struct channel *channel)
{
    struct stream *stream = (struct stream *)channel;
    /* Release: a call that this wakes finds the flag set (acquire in failure()) and says CLOSED. */
    if (!atomic_exchange_explicit(&stream->shut, true, memory_order_acq_rel))
        shutdown(stream->fd, SHUT_RDWR);
}

void stream_free(struct channel *channel)
{
    struct stream *stream = (struct stream *)channel;
    close(stream->fd);
    free(stream);
}

int stream_socket(const struct channel *channel)
{
    return channel->ops == &tcp_channel_ops ? ((const struct stream *)channel)->fd : -1;
}

static void set_int(int fd, int level, int option, int value)
{
    /* Unchecked: these make a connection quicker or its death noticed sooner, and it works without. */
    setsockopt(fd, level, option, &value, sizeof value);
}

/* Buffer sizes are not touched: setting them would turn the kernel's autotuning off. */
void stream_tune_tcp(int fd)
{
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);  /* s */
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15); /* s */
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 120 * 1000); /* ms: keepalive's 60 + 4 * 15 s, for data in flight */
}

void stream_name_tcp(const struct sockaddr *address, socklen_t size, char name[CHANNEL_NAME_MAX])
{
    struct sockaddr_storage peer = {0};
    memcpy(&peer, address, size);
    size = unmap(&peer, size);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getnameinfo((struct sockaddr *)&peer, size, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV)) {
        snprintf(name, CHANNEL_NAME_MAX, "tcp unknown peer");
        return;
    }
    snprintf(name, CHANNEL_NAME_MAX, strchr(host, ':') ? "tcp [%.255s]:%s" : "tcp %.255s:%s", host, port);
}
