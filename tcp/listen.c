/*
 * Listening. The socket never blocks; accept waits in poll on it and on an eventfd that shutdown writes, so that any
 * thread can end it. A Unix listener removes the socket file that a dead process left behind, and its own at the end.
 *
 * Failure modes: an address in use is BUSY, one that is not of this host INVALID. What goes wrong with one incoming
 * connection is skipped; being out of descriptors is reported, the connection stays in the backlog and can be accepted
 * later.
 */
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tcp/stream.h"
#include "transport/clock.h"
#include "transport/error.h"

struct stream_listener {
    struct listener base;
    int fd;
    int wake; /* eventfd, readable from shutdown on */
    atomic_bool shut;
    dev_t file_device; /* the socket file of a Unix listener, as it was made; inode 0 for TCP */
    ino_t file_inode;
};

static void text_of(const struct address *address, char text[ADDRESS_TEXT_MAX])
{
    address_format(address, text);
}

/* backlog as listen() should get it; the kernel would clamp it too, without a word. */
static int clamp_backlog(unsigned wanted, struct backlog_warning *warning)
{
    unsigned most = SOMAXCONN;
    FILE *file = fopen("/proc/sys/net/core/somaxconn", "re");
    if (file) {
        if (fscanf(file, "%u", &most) != 1)
            most = SOMAXCONN;
        fclose(file);
    }
    if (!wanted)
        wanted = 1;
    if (wanted > most)
        snprintf(warning->text, sizeof warning->text,
                 "net.core.somaxconn is %u: the listener's backlog is %u instead of the %u wanted, connections that "
                 "arrive together may be delayed; raise it with sysctl net.core.somaxconn=%u",
                 most, most, wanted, wanted);
    else
        most = wanted;
    return most > INT32_MAX ? INT32_MAX : (int)most;
}

/* Makes the listener of a bound socket, which it owns on success only. */
static enum godwit_err listener_start(int fd, const struct listener_ops *ops, const struct address *address,
                                      int backlog, struct stream_listener **out, struct godwit_error *error)
{
    char text[ADDRESS_TEXT_MAX];
    text_of(address, text);
    /* With SO_REUSEADDR two sockets can be bound to one port as long as none listens: the conflict is found here. */
    if (listen(fd, backlog))
        return error_set_sys(error, errno == EADDRINUSE ? GODWIT_ERR_BUSY : GODWIT_ERR_SYSTEM, errno,
                             "%s: cannot listen", text);
    struct stream_listener *listener = calloc(1, sizeof *listener);
    if (!listener)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "%s: no memory for a listener", text);
    listener->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (listener->wake < 0) {
        enum godwit_err err = error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "%s: cannot make an eventfd", text);
        free(listener);
        return err;
    }
    listener->base.ops = ops;
    listener->base.address = *address;
    listener->fd = fd;
    atomic_init(&listener->shut, false);
    *out = listener;
    return GODWIT_OK;
}

/* Waits until somebody may be there: OK, TIMEOUT or CLOSED. */
static enum godwit_err await_connection(struct stream_listener *listener, uint64_t deadline_ms, bool forever)
{
    struct pollfd pollfds[] = {{.fd = listener->fd, .events = POLLIN}, {.fd = listener->wake, .events = POLLIN}};
    for (;;) {
        if (atomic_load_explicit(&listener->shut, memory_order_acquire))
            return GODWIT_ERR_CLOSED;
        int left = forever ? -1 : clock_left_ms(deadline_ms);
        int n = poll(pollfds, 2, left);
        if (n < 0 && errno != EINTR)
            return GODWIT_ERR_SYSTEM;
        if (n > 0 && !pollfds[1].revents)
            return GODWIT_OK;
        if (n == 0)
            return GODWIT_ERR_TIMEOUT;
    }
}

/* Failures that say that nobody can be accepted now; all others are of the one connection, as accept(2) lists them. */
static bool is_shortage(int cause)
{
    return cause == EMFILE || cause == ENFILE || cause == ENOBUFS || cause == ENOMEM;
}

static bool is_bug(int cause)
{
    return cause == EBADF || cause == EINVAL || cause == ENOTSOCK || cause == EFAULT;
}

/* Accepts one socket; *peer and *peer_size are filled for its name. */
static enum godwit_err accept_socket(struct stream_listener *listener, int timeout_ms, struct sockaddr_storage *peer,
                                     socklen_t *peer_size, int *out, struct godwit_error *error)
{
    char text[ADDRESS_TEXT_MAX];
    text_of(&listener->base.address, text);
    uint64_t deadline = clock_now_ms() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0);
    for (;;) {
        enum godwit_err err = await_connection(listener, deadline, timeout_ms == CHANNEL_FOREVER);
        if (err == GODWIT_ERR_CLOSED)
            return error_set(error, err, "%s: no longer listening", text);
        if (err == GODWIT_ERR_TIMEOUT)
            return error_set(error, err, "%s: nobody connected within %d ms", text, timeout_ms);
        if (err)
            return error_set_sys(error, err, errno, "%s: cannot wait for a connection", text);
        *peer_size = sizeof *peer;
        int fd = accept4(listener->fd, (struct sockaddr *)peer, peer_size, SOCK_CLOEXEC);
        if (fd >= 0) {
            *out = fd;
            return GODWIT_OK;
        }
        assert(!is_bug(errno) && "the listening socket is ours until free");
        if (is_shortage(errno))
            return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "%s: cannot accept a connection", text);
    }
}

static enum godwit_err listener_accept_tcp(struct listener *base, int timeout_ms, struct channel **out,
                                           struct godwit_error *error)
{
    struct sockaddr_storage peer;
    socklen_t size;
    int fd = -1;
    enum godwit_err err = accept_socket((struct stream_listener *)base, timeout_ms, &peer, &size, &fd, error);
    if (err)
        return err;
    char name[CHANNEL_NAME_MAX];
    stream_tune_tcp(fd);
    stream_name_tcp((struct sockaddr *)&peer, size, name);
    err = stream_new(fd, &tcp_channel_ops, name, out, error);
    if (err)
        close(fd);
    return err;
}

static enum godwit_err listener_accept_unix(struct listener *base, int timeout_ms, struct channel **out,
                                            struct godwit_error *error)
{
    struct sockaddr_storage peer;
    socklen_t size;
    int fd = -1;
    enum godwit_err err = accept_socket((struct stream_listener *)base, timeout_ms, &peer, &size, &fd, error);
    if (err)
        return err;
    char name[CHANNEL_NAME_MAX];
    snprintf(name, sizeof name, "unix %s", base->address.path); /* a connecting socket has no name of its own */
    err = stream_new(fd, &unix_channel_ops, name, out, error);
    if (err)
        close(fd);
    return err;
}

static void listener_shutdown_stream(struct listener *base)
{
    struct stream_listener *listener = (struct stream_listener *)base;
    atomic_store_explicit(&listener->shut, true, memory_order_release);
    /* Fails only when the counter is full, and then it is readable, which is all that is wanted. */
    ssize_t written = write(listener->wake, &(uint64_t){1}, sizeof(uint64_t));
    (void)written;
}

static void listener_free_stream(struct listener *base)
{
    struct stream_listener *listener = (struct stream_listener *)base;
    struct stat st;
    /* Another process may have put its socket there since: only the file that was made here is removed. */
    if (listener->file_inode && !lstat(base->address.path, &st) && st.st_dev == listener->file_device &&
        st.st_ino == listener->file_inode)
        unlink(base->address.path);
    close(listener->fd);
    close(listener->wake);
    free(listener);
}

static const struct listener_ops tcp_listener_ops = {
    .accept = listener_accept_tcp,
    .shutdown = listener_shutdown_stream,
    .free = listener_free_stream,
};

static const struct listener_ops unix_listener_ops = {
    .accept = listener_accept_unix,
    .shutdown = listener_shutdown_stream,
    .free = listener_free_stream,
};

/* Returns 0 and a bound socket, or an errno. both: an IPv6 wildcard that takes IPv4 too. */
static int bind_tcp(const struct sockaddr *at, socklen_t size, bool both, int *out)
{
    int fd = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    int on = 1, off = 0;
    int cause = 0;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        (both && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off)) || bind(fd, at, size)) {
        cause = errno;
        close(fd);
        return cause;
    }
    *out = fd;
    return 0;
}

/* The wildcard: both families in one socket where IPv6 exists, else IPv4. */
static int bind_any(uint16_t port, int *out)
{
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = in6addr_any};
    int cause = bind_tcp((struct sockaddr *)&v6, sizeof v6, true, out);
    if (!cause || cause == EADDRINUSE || cause == EACCES)
        return cause;
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    return bind_tcp((struct sockaddr *)&v4, sizeof v4, false, out);
}

static enum godwit_err bind_failed(const struct address *address, int cause, struct godwit_error *error)
{
    char text[ADDRESS_TEXT_MAX];
    text_of(address, text);
    if (cause == EADDRINUSE) {
        error_set(error, GODWIT_ERR_BUSY, "%s: address already in use (something listens there)", text);
        if (error)
            error->sys_errno = cause;
        return GODWIT_ERR_BUSY;
    }
    if (cause == EADDRNOTAVAIL)
        return error_set_sys(error, GODWIT_ERR_INVALID, cause, "%s: not an address of this host", text);
    return error_set_sys(error, GODWIT_ERR_SYSTEM, cause, "%s: cannot listen", text);
}

static enum godwit_err bind_host(const struct address *address, int *out, struct godwit_error *error)
{
    char port[8];
    snprintf(port, sizeof port, "%u", address->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | AI_PASSIVE};
    struct addrinfo *list = NULL;
    int rc = getaddrinfo(address->host, port, &hints, &list);
    if (rc)
        return error_set(error, rc == EAI_MEMORY ? GODWIT_ERR_NO_MEMORY : GODWIT_ERR_INVALID,
                         "cannot resolve host \"%.200s\": %s", address->host, gai_strerror(rc));
    int cause = EADDRNOTAVAIL;
    for (struct addrinfo *at = list; at && cause; at = at->ai_next)
        cause = bind_tcp(at->ai_addr, at->ai_addrlen, false, out);
    freeaddrinfo(list);
    return cause ? bind_failed(address, cause, error) : GODWIT_OK;
}

static uint16_t bound_port(int fd)
{
    struct sockaddr_storage at = {0};
    socklen_t size = sizeof at;
    int rc = getsockname(fd, (struct sockaddr *)&at, &size);
    assert(!rc && "a bound socket has a name");
    (void)rc;
    uint16_t port;
    if (at.ss_family == AF_INET6)
        port = ((const struct sockaddr_in6 *)&at)->sin6_port;
    else
        port = ((const struct sockaddr_in *)&at)->sin_port;
    return ntohs(port);
}

enum godwit_err listen_tcp(void *context, const struct address *address, unsigned backlog, struct listener **out,
                           struct backlog_warning *warning, struct godwit_error *error)
{
    (void)context;
    int fd = -1;
    if (address->host[0]) {
        enum godwit_err err = bind_host(address, &fd, error);
        if (err)
            return err;
    } else {
        int cause = bind_any(address->port, &fd);
        if (cause)
            return bind_failed(address, cause, error);
    }
    struct address real = *address;
    real.port = bound_port(fd);
    struct stream_listener *listener = NULL;
    enum godwit_err err =
        listener_start(fd, &tcp_listener_ops, &real, clamp_backlog(backlog, warning), &listener, error);
    if (err)
        close(fd);
    else
        *out = &listener->base;
    return err;
}

/* Whether nobody listens at the socket file: true removes any doubt that a process still uses it. */
static bool socket_is_stale(const struct sockaddr_un *at)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    bool refused = connect(fd, (const struct sockaddr *)at, sizeof *at) && errno == ECONNREFUSED;
    close(fd);
    return refused;
}

/*
 * Makes way for bind where a socket file is left over. Accepted race: two processes that clear the same stale file at
 * the same moment; the inode is compared again just before the unlink, and what remains costs one of them its file.
 */
static enum godwit_err clear_stale(const struct address *address, const struct sockaddr_un *at,
                                   struct godwit_error *error)
{
    struct stat before, now;
    if (lstat(address->path, &before))
        return GODWIT_OK; /* gone meanwhile: bind says what is wrong, if anything still is */
    if (!S_ISSOCK(before.st_mode))
        return error_set(error, GODWIT_ERR_BUSY, "unix:%s: a file is there that is not a socket", address->path);
    if (!socket_is_stale(at))
        return bind_failed(address, EADDRINUSE, error);
    if (!lstat(address->path, &now) && now.st_dev == before.st_dev && now.st_ino == before.st_ino)
        unlink(address->path);
    return GODWIT_OK;
}

static enum godwit_err bind_unix(int fd, const struct address *address, struct godwit_error *error)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    static_assert(sizeof at.sun_path > ADDRESS_PATH_MAX, "every parsed path fits");
    memcpy(at.sun_path, address->path, strlen(address->path));
    if (!bind(fd, (struct sockaddr *)&at, sizeof at))
        return GODWIT_OK;
    if (errno != EADDRINUSE)
        return bind_failed(address, errno, error);
    enum godwit_err err = clear_stale(address, &at, error);
    if (err)
        return err;
    return bind(fd, (struct sockaddr *)&at, sizeof at) ? bind_failed(address, errno, error) : GODWIT_OK;
}

enum godwit_err listen_unix(void *context, const struct address *address, unsigned backlog, struct listener **out,
                            struct backlog_warning *warning, struct godwit_error *error)
{
    (void)context;
    if (!address->path[0])
        return error_set(error, GODWIT_ERR_INVALID, "no path to listen at: expected unix:PATH");
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "unix:%s: cannot make a socket", address->path);
    struct stream_listener *listener = NULL;
    struct stat st;
    enum godwit_err err = bind_unix(fd, address, error);
    if (err)
        goto close_socket;
    err = listener_start(fd, &unix_listener_ops, address, clamp_backlog(backlog, warning), &listener, error);
    if (err)
        goto remove_file;
    if (!lstat(address->path, &st)) {
        listener->file_device = st.st_dev;
        listener->file_inode = st.st_ino;
    }
    *out = &listener->base;
    return GODWIT_OK;

remove_file:
    unlink(address->path);
close_socket:
    close(fd);
    return err;
}
