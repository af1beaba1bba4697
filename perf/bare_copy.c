/*
 * The yardstick: how fast can this machine copy cold memory from one process to another over N TCP connections?
 *
 *     bare_copy FILE STREAMS prealloc|fresh [INTO]      memory of FILE into a memfd, or into the shared file INTO
 *
 * The work is told in yardstick.h. Where a piece belongs and its bytes go in one sendmsg, and come by recv with
 * MSG_WAITALL.
 */
#include "perf/yardstick.h"

#include <err.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void *bare_open(void *context, int fd, enum yardstick_side side)
{
    int *stream = malloc(sizeof *stream);
    if (stream == NULL)
        err(1, "a stream");
    *stream = fd;
    return stream;
}

static void bare_send(void *stream, struct iovec *iov, int count)
{
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += iov[i].iov_len;
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    ssize_t n = sendmsg(*(int *)stream, &msg, MSG_NOSIGNAL);
    if (n != (ssize_t)size)
        err(1, "sendmsg gave %zd", n);
}

static void bare_finish(void *stream)
{
    if (shutdown(*(int *)stream, SHUT_WR) < 0)
        err(1, "shutdown");
}

static bool bare_receive(void *stream, void *into, size_t size)
{
    ssize_t n = recv(*(int *)stream, into, size, MSG_WAITALL);
    if (n != 0 && n != (ssize_t)size)
        err(1, "recv gave %zd", n);
    return n != 0;
}

static void bare_close(void *stream)
{
    close(*(int *)stream);
    free(stream);
}

static const struct yardstick_ops bare_ops = {
    .open = bare_open,
    .send = bare_send,
    .finish = bare_finish,
    .receive = bare_receive,
    .close = bare_close,
};

int main(int argc, char *argv[])
{
    struct yardstick yardstick = yardstick_parse(argv + 1, "bare_copy FILE STREAMS prealloc|fresh [INTO]");
    yardstick.ops = &bare_ops;
    yardstick_run(&yardstick);
    return 0;
}
