/*
 * The yardstick: how fast can this machine copy cold memory from one process to another over N TCP connections?
 *
 *     bare_copy FILE STREAMS prealloc|fresh [INTO]      memory of FILE into a memfd, or into the shared file INTO
 *
 * The same work as a migration and nothing else. Source: FILE mapped shared and read-only, its page tables empty. One
 * thread per stream takes the next piece of 2 MiB, whichever is free, and sends where it belongs and its bytes in one
 * sendmsg. Destination, another process: memory mapped shared, preallocated if asked; one thread per stream reads 16
 * bytes and then the piece into its place, by recv with MSG_WAITALL. When every stream has ended it says so on one of
 * them.
 *
 * The time runs from the moment all connections stand and all memory is prepared until the source reads that everything
 * has arrived. Prints one JSON object. Shares no code with the library on purpose.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STREAMS_MAX = 255, PIECE = 2 << 20, POPULATE_STEP = 64 << 20 };

struct head {
    uint64_t offset, size;
};

static char *memory;
static uint64_t total;
static _Atomic uint64_t next_offset;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *send_pieces(void *opaque)
{
    int fd = *(int *)opaque;
    for (;;) {
        struct head head = {.offset = atomic_fetch_add(&next_offset, PIECE)};
        if (head.offset >= total)
            break;
        head.size = total - head.offset < PIECE ? total - head.offset : PIECE;
        struct iovec iov[] = {{&head, sizeof head}, {memory + head.offset, head.size}};
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
        ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL);
        if (n != (ssize_t)(sizeof head + head.size))
            err(1, "sendmsg gave %zd", n);
    }
    if (shutdown(fd, SHUT_WR) < 0)
        err(1, "shutdown");
    return NULL;
}

static void *receive_pieces(void *opaque)
{
    int fd = *(int *)opaque;
    for (;;) {
        struct head head;
        ssize_t n = recv(fd, &head, sizeof head, MSG_WAITALL);
        if (n == 0)
            return NULL;
        if (n != sizeof head || head.offset > total || head.size > total - head.offset)
            errx(1, "a broken head");
        n = recv(fd, memory + head.offset, head.size, MSG_WAITALL);
        if (n != (ssize_t)head.size)
            err(1, "recv gave %zd", n);
    }
}

static void run_threads(int *fds, unsigned streams, void *(*body)(void *))
{
    pthread_t threads[STREAMS_MAX];
    for (unsigned i = 0; i < streams; i++)
        if (pthread_create(&threads[i], NULL, body, &fds[i]) != 0)
            errx(1, "cannot start thread %u", i);
    for (unsigned i = 0; i < streams; i++)
        pthread_join(threads[i], NULL);
}

static int listen_on_loopback(struct sockaddr_in *address, unsigned streams)
{
    socklen_t size = sizeof *address;
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)address, size) < 0 || listen(fd, (int)streams) < 0 ||
        getsockname(fd, (struct sockaddr *)address, &size) < 0)
        err(1, "cannot listen on 127.0.0.1");
    return fd;
}

static void make_destination(const char *into, bool prealloc)
{
    int fd = into != NULL ? open(into, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : memfd_create("bare-copy", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)total) < 0)
        err(1, "cannot make %s", into != NULL ? into : "a memfd");
    memory = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (memory == MAP_FAILED)
        err(1, "cannot map %" PRIu64 " bytes", total);
    for (uint64_t at = 0; prealloc && at < total; at += POPULATE_STEP) {
        uint64_t step = total - at < POPULATE_STEP ? total - at : POPULATE_STEP;
        if (madvise(memory + at, step, MADV_POPULATE_WRITE) < 0)
            err(1, "cannot populate");
    }
}

/* The destination process. */
static void serve(int listening, unsigned streams, const char *into, bool prealloc)
{
    int fds[STREAMS_MAX];
    make_destination(into, prealloc);
    for (unsigned i = 0; i < streams; i++) {
        fds[i] = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
        if (fds[i] < 0)
            err(1, "accept");
    }
    if (send(fds[0], "r", 1, MSG_NOSIGNAL) != 1) /* ready */
        err(1, "send");
    run_threads(fds, streams, receive_pieces);
    if (send(fds[0], "d", 1, MSG_NOSIGNAL) != 1) /* done */
        err(1, "send");
}

static void expect(int fd, char what)
{
    char byte;
    if (recv(fd, &byte, 1, 0) != 1 || byte != what)
        errx(1, "the destination has failed");
}

static void map_source(const char *path)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        err(1, "cannot open %s", path);
    total = (uint64_t)status.st_size;
    memory = mmap(NULL, total, PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        err(1, "cannot map %s", path);
    close(fd);
}

static double copy(const struct sockaddr_in *address, unsigned streams)
{
    int fds[STREAMS_MAX], on = 1;
    for (unsigned i = 0; i < streams; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fds[i] < 0 || connect(fds[i], (const struct sockaddr *)address, sizeof *address) < 0)
            err(1, "connect");
        setsockopt(fds[i], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    expect(fds[0], 'r');
    double start = now();
    run_threads(fds, streams, send_pieces);
    expect(fds[0], 'd');
    return now() - start;
}

int main(int argc, char *argv[])
{
    unsigned streams = argc == 4 || argc == 5 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
    if (streams == 0 || streams > STREAMS_MAX)
        errx(2, "usage: bare_copy FILE STREAMS prealloc|fresh [INTO]");
    map_source(argv[1]);
    struct sockaddr_in address;
    int listening = listen_on_loopback(&address, streams);

    pid_t child = fork();
    if (child < 0)
        err(1, "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        munmap(memory, total);
        serve(listening, streams, argc == 5 ? argv[4] : NULL, strcmp(argv[3], "prealloc") == 0);
        return 0;
    }
    close(listening);
    double seconds = copy(&address, streams);
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        errx(1, "the destination has failed");
    printf("{\"seconds\": %.6f, \"bytes\": %" PRIu64 "}\n", seconds, total);
    return 0;
}
