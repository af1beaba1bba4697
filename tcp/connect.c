/*
 * Connecting. One attempt goes through the addresses that a name resolves to, each with a nonblocking connect; while
 * nothing listens yet the attempt is repeated, every 50 to 200 ms, until the time is up. *cancel is looked at every
 * 50 ms at the latest.
 *
 * Failure modes: a name that does not resolve is INVALID at once; "nothing listens" becomes REFUSED and "no answer"
 * UNREACHABLE when the time is up; no route is UNREACHABLE at once; anything else the system says is SYSTEM at once.
 * Accepted: getaddrinfo itself can neither be interrupted nor limited in time.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "tcp/stream.h"
#include "transport/clock.h"
#include "transport/error.h"

enum { SLICE_MS = 50, RETRY_FIRST_MS = 50, RETRY_MAX_MS = 200 };

/* What connect_once says for a caller that asked for the end; no system call of ours returns it. */
enum { CANCELLED = ECANCELED };

struct attempt {
    const struct address *address;
    int timeout_ms;
    uint64_t deadline_ms;
    const atomic_bool *cancel;
};

static struct attempt attempt_start(const struct address *address, int timeout_ms, const atomic_bool *cancel)
{
    uint64_t deadline = timeout_ms == CHANNEL_FOREVER ? UINT64_MAX : clock_now_ms() + (uint64_t)timeout_ms;
    return (struct attempt){address, timeout_ms, deadline, cancel};
}

static bool cancelled(const struct attempt *attempt)
{
    return attempt->cancel && atomic_load_explicit(attempt->cancel, memory_order_relaxed);
}

/* Waits for the outcome of a connect that is under way: 0 or the errno of its failure. */
static int await_connected(const struct attempt *attempt, int fd, uint64_t deadline_ms)
{
    for (;;) {
        if (cancelled(attempt))
            return CANCELLED;
        int left = clock_left_ms(deadline_ms);
        struct pollfd pollfd = {.fd = fd, .events = POLLOUT};
        int n = poll(&pollfd, 1, left < SLICE_MS ? left : SLICE_MS);
        if (n < 0 && errno != EINTR)
            return errno;
        if (n > 0)
            break;
        if (!left)
            return ETIMEDOUT;
    }
    int cause = 0;
    socklen_t size = sizeof cause;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &cause, &size) ? errno : cause;
}

/* Retrying on a local port of the ephemeral range can, by TCP's simultaneous open, connect a socket to itself. */
static bool connected_to_itself(int fd)
{
    struct sockaddr_storage local = {0}, peer = {0};
    socklen_t local_size = sizeof local, peer_size = sizeof peer;
    if (getsockname(fd, (struct sockaddr *)&local, &local_size) ||
        getpeername(fd, (struct sockaddr *)&peer, &peer_size))
        return false;
    return local.ss_family != AF_UNIX && local_size == peer_size && !memcmp(&local, &peer, local_size);
}

/* Returns 0 and a blocking connected socket in *out, or an errno. */
static int connect_once(const struct attempt *attempt, const struct sockaddr *to, socklen_t size, uint64_t deadline_ms,
                        int *out)
{
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return errno;
    int cause = connect(fd, to, size) ? errno : 0;
    if (cause == EINPROGRESS || cause == EINTR)
        cause = await_connected(attempt, fd, deadline_ms);
    if (!cause && connected_to_itself(fd))
        cause = ECONNREFUSED;
    if (!cause && fcntl(fd, F_SETFL, 0))
        cause = errno;
    if (cause) {
        close(fd);
        return cause;
    }
    *out = fd;
    return 0;
}

/* Somebody may start listening, or take from a full backlog, in a moment. */
static bool worth_retrying(int cause)
{
    switch (cause) {
    case ECONNREFUSED:
    case ENOENT:
    case EAGAIN:
    case ETIMEDOUT:
    case ECONNRESET:
    case ECONNABORTED:
    case EADDRNOTAVAIL: /* local ports are short just now */
        return true;
    default:
        return false;
    }
}

static void describe_limit(const struct attempt *attempt, char text[64])
{
    if (attempt->timeout_ms == CHANNEL_FOREVER)
        text[0] = '\0';
    else if (attempt->timeout_ms % 1000)
        snprintf(text, 64, " within %d ms", attempt->timeout_ms);
    else
        snprintf(text, 64, " within %d s", attempt->timeout_ms / 1000);
}

static enum godwit_err give_up(const struct attempt *attempt, int cause, struct godwit_error *error)
{
    char address[ADDRESS_TEXT_MAX], limit[64];
    address_format(attempt->address, address);
    describe_limit(attempt, limit);
    enum godwit_err code;
    switch (cause) {
    case CANCELLED:
        return error_set(error, GODWIT_ERR_CANCELLED, "connecting to %s was cancelled", address);
    case ECONNREFUSED:
        code = error_set(error, GODWIT_ERR_REFUSED,
                         "cannot connect to %s%s: connection refused (nothing listens there)", address, limit);
        break;
    case ENOENT:
        code = error_set(error, GODWIT_ERR_REFUSED, "cannot connect to %s%s: no such socket (nothing listens there)",
                         address, limit);
        break;
    case EAGAIN:
        code = error_set(error, GODWIT_ERR_UNREACHABLE, "cannot connect to %s%s: the listener's backlog is full",
                         address, limit);
        break;
    case ETIMEDOUT:
        code = error_set(error, GODWIT_ERR_UNREACHABLE, "cannot connect to %s%s: no answer", address, limit);
        break;
    case ENETUNREACH:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
    case ECONNRESET:
    case ECONNABORTED:
        return error_set_sys(error, GODWIT_ERR_UNREACHABLE, cause, "cannot connect to %s", address);
    default:
        return error_set_sys(error, GODWIT_ERR_SYSTEM, cause, "cannot connect to %s", address);
    }
    if (error)
        error->sys_errno = cause;
    return code;
}

/* Sleeps before the next round: 0, or CANCELLED. */
static int pause_before_retry(const struct attempt *attempt, int pause_ms)
{
    int left = clock_left_ms(attempt->deadline_ms);
    uint64_t until = clock_now_ms() + (uint64_t)(pause_ms < left ? pause_ms : left);
    while ((left = clock_left_ms(until)) > 0 && !cancelled(attempt))
        poll(NULL, 0, left < SLICE_MS ? left : SLICE_MS);
    return cancelled(attempt) ? CANCELLED : 0;
}

/* One round over all addresses. The cause kept is the one with hope in it: another round follows for that. */
static int connect_round(const struct attempt *attempt, const struct addrinfo *list, int *fd)
{
    int kept = 0;
    unsigned left = 0;
    for (const struct addrinfo *at = list; at; at = at->ai_next)
        left++;
    for (const struct addrinfo *at = list; at; at = at->ai_next, left--) {
        /* A fair share of the time each, so that one address that swallows packets does not hide the next. */
        uint64_t deadline = clock_now_ms() + (uint64_t)clock_left_ms(attempt->deadline_ms) / left;
        int cause = connect_once(attempt, at->ai_addr, at->ai_addrlen, deadline, fd);
        if (!cause || cause == CANCELLED)
            return cause;
        if (!kept || (worth_retrying(cause) && kept != ECONNREFUSED))
            kept = cause;
    }
    return kept;
}

/* Rounds until one connects, fails for good, or the time is up. */
static enum godwit_err connect_list(const struct attempt *attempt, const struct addrinfo *list, int *fd,
                                    struct godwit_error *error)
{
    int cause = cancelled(attempt) ? CANCELLED : 0;
    for (int pause_ms = RETRY_FIRST_MS; !cause; pause_ms = pause_ms * 2 < RETRY_MAX_MS ? pause_ms * 2 : RETRY_MAX_MS) {
        cause = connect_round(attempt, list, fd);
        if (!cause)
            return GODWIT_OK;
        if (!worth_retrying(cause) || !clock_left_ms(attempt->deadline_ms))
            break;
        int stop = pause_before_retry(attempt, pause_ms);
        if (stop || clock_left_ms(attempt->deadline_ms))
            cause = stop;
    }
    return give_up(attempt, cause, error);
}

static enum godwit_err resolve(const struct address *address, struct addrinfo **list, struct godwit_error *error)
{
    char port[8];
    snprintf(port, sizeof port, "%u", address->port);
    /* Without AI_ADDRCONFIG: an address of a family this host lacks fails at once, and the next one is tried. */
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    int rc = getaddrinfo(address->host, port, &hints, list);
    if (rc == EAI_SYSTEM)
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot resolve host \"%.200s\"", address->host);
    if (rc)
        return error_set(error, rc == EAI_MEMORY ? GODWIT_ERR_NO_MEMORY : GODWIT_ERR_INVALID,
                         "cannot resolve host \"%.200s\": %s", address->host, gai_strerror(rc));
    return GODWIT_OK;
}

enum godwit_err connect_tcp(void *context, const struct address *address, const struct introduction *introduction,
                            int timeout_ms, const atomic_bool *cancel, struct channel **out,
                            struct godwit_error *error)
{
    (void)context, (void)introduction;
    if (!address->host[0] || !address->port)
        return error_set(error, GODWIT_ERR_INVALID, "no %s to connect to in tcp:%s:%u: expected tcp:HOST:PORT",
                         address->host[0] ? "port" : "host", address->host, address->port);
    struct attempt attempt = attempt_start(address, timeout_ms, cancel);
    struct addrinfo *list = NULL;
    enum godwit_err err = resolve(address, &list, error);
    if (err)
        return err;

    int fd = -1;
    struct sockaddr_storage peer = {0};
    socklen_t size = sizeof peer;
    char name[CHANNEL_NAME_MAX];
    err = connect_list(&attempt, list, &fd, error);
    freeaddrinfo(list);
    if (err)
        return err;
    stream_tune_tcp(fd);
    if (getpeername(fd, (struct sockaddr *)&peer, &size))
        size = 0; /* gone already: the first recv will say so, and the name says that it is unknown */
    stream_name_tcp((struct sockaddr *)&peer, size, name);
    err = stream_new(fd, &tcp_channel_ops, name, out, error);
    if (err)
        close(fd);
    return err;
}

enum godwit_err connect_unix(void *context, const struct address *address, const struct introduction *introduction,
                             int timeout_ms, const atomic_bool *cancel, struct channel **out,
                             struct godwit_error *error)
{
    (void)context, (void)introduction;
    if (!address->path[0])
        return error_set(error, GODWIT_ERR_INVALID, "no path to connect to: expected unix:PATH");
    struct attempt attempt = attempt_start(address, timeout_ms, cancel);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    static_assert(sizeof to.sun_path > ADDRESS_PATH_MAX, "every parsed path fits");
    memcpy(to.sun_path, address->path, strlen(address->path));
    struct addrinfo list = {.ai_addr = (struct sockaddr *)&to, .ai_addrlen = sizeof to};

    int fd = -1;
    char name[CHANNEL_NAME_MAX];
    enum godwit_err err = connect_list(&attempt, &list, &fd, error);
    if (err)
        return err;
    snprintf(name, sizeof name, "unix %s", address->path);
    err = stream_new(fd, &unix_channel_ops, name, out, error);
    if (err)
        close(fd);
    return err;
}
