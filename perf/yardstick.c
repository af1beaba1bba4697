#include "perf/yardstick.h"

#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
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

/* Of one process. */
struct copy {
    const struct yardstick_ops *ops;
    char *memory;
    uint64_t total;
    _Atomic uint64_t next_offset; /* source */
};

struct job {
    struct copy *copy;
    void *stream;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *send_pieces(void *opaque)
{
    const struct job *job = opaque;
    struct copy *copy = job->copy;
    for (;;) {
        struct head head = {.offset = atomic_fetch_add(&copy->next_offset, PIECE)};
        if (head.offset >= copy->total)
            break;
        head.size = copy->total - head.offset < PIECE ? copy->total - head.offset : PIECE;
        struct iovec iov[] = {{&head, sizeof head}, {copy->memory + head.offset, head.size}};
        copy->ops->send(job->stream, iov, 2);
    }
    copy->ops->finish(job->stream);
    return NULL;
}

static void *receive_pieces(void *opaque)
{
    const struct job *job = opaque;
    struct copy *copy = job->copy;
    struct head head;
    while (copy->ops->receive(job->stream, &head, sizeof head)) {
        if (head.offset > copy->total || head.size > copy->total - head.offset)
            errx(1, "a broken head");
        if (!copy->ops->receive(job->stream, copy->memory + head.offset, head.size))
            errx(1, "a piece without its bytes");
    }
    return NULL;
}

static void run_threads(struct copy *copy, void **streams, unsigned count, void *(*body)(void *))
{
    pthread_t threads[STREAMS_MAX];
    struct job jobs[STREAMS_MAX];
    for (unsigned i = 0; i < count; i++) {
        jobs[i] = (struct job){copy, streams[i]};
        if (pthread_create(&threads[i], NULL, body, &jobs[i]) != 0)
            errx(1, "cannot start thread %u", i);
    }
    for (unsigned i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void say(const struct copy *copy, void *stream, char what)
{
    copy->ops->send(stream, &(struct iovec){&what, 1}, 1);
}

static void expect(const struct copy *copy, void *stream, char what)
{
    char byte;
    if (!copy->ops->receive(stream, &byte, 1) || byte != what)
        errx(1, "the destination has failed");
}

static void close_streams(const struct copy *copy, void **streams, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        copy->ops->close(streams[i]);
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

static char *make_destination(const char *into, bool prealloc, uint64_t total)
{
    int fd = into != NULL ? open(into, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : memfd_create("yardstick", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)total) < 0)
        err(1, "cannot make %s", into != NULL ? into : "a memfd");
    char *memory = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (memory == MAP_FAILED)
        err(1, "cannot map %" PRIu64 " bytes", total);
    for (uint64_t at = 0; prealloc && at < total; at += POPULATE_STEP) {
        uint64_t step = total - at < POPULATE_STEP ? total - at : POPULATE_STEP;
        if (madvise(memory + at, step, MADV_POPULATE_WRITE) < 0)
            err(1, "cannot populate");
    }
    return memory;
}

/* The destination process. */
static void serve(const struct yardstick *yardstick, int listening, uint64_t total)
{
    void *streams[STREAMS_MAX];
    struct copy copy = {.ops = yardstick->ops, .total = total};
    copy.memory = make_destination(yardstick->into, yardstick->prealloc, total);
    for (unsigned i = 0; i < yardstick->streams; i++) {
        int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            err(1, "accept");
        streams[i] = copy.ops->open(yardstick->context, fd, YARDSTICK_DESTINATION);
    }
    say(&copy, streams[0], 'r'); /* ready */
    run_threads(&copy, streams, yardstick->streams, receive_pieces);
    say(&copy, streams[0], 'd'); /* done */
    close_streams(&copy, streams, yardstick->streams);
}

static char *map_source(const char *path, uint64_t *total)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status) < 0)
        err(1, "cannot open %s", path);
    *total = (uint64_t)status.st_size;
    char *memory = mmap(NULL, *total, PROT_READ, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED)
        err(1, "cannot map %s", path);
    close(fd);
    return memory;
}

/* The source process; seconds. */
static double copy_to(const struct yardstick *yardstick, struct copy *copy, const struct sockaddr_in *address)
{
    void *streams[STREAMS_MAX];
    int on = 1;
    for (unsigned i = 0; i < yardstick->streams; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) < 0)
            err(1, "connect");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        streams[i] = copy->ops->open(yardstick->context, fd, YARDSTICK_SOURCE);
    }
    expect(copy, streams[0], 'r');
    double start = now();
    run_threads(copy, streams, yardstick->streams, send_pieces);
    expect(copy, streams[0], 'd');
    double seconds = now() - start;
    close_streams(copy, streams, yardstick->streams);
    return seconds;
}

struct yardstick yardstick_parse(char *words[], const char *usage)
{
    unsigned count = 0;
    while (words[count] != NULL)
        count++;
    unsigned streams = count == 3 || count == 4 ? (unsigned)strtoul(words[1], NULL, 10) : 0;
    if (streams == 0 || streams > STREAMS_MAX)
        errx(2, "usage: %s", usage);
    return (struct yardstick){
        .file = words[0], .streams = streams, .prealloc = strcmp(words[2], "prealloc") == 0, .into = words[3]};
}

void yardstick_run(const struct yardstick *yardstick)
{
    struct copy copy = {.ops = yardstick->ops};
    copy.memory = map_source(yardstick->file, &copy.total);
    struct sockaddr_in address;
    int listening = listen_on_loopback(&address, yardstick->streams);

    pid_t child = fork();
    if (child < 0)
        err(1, "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        munmap(copy.memory, copy.total);
        serve(yardstick, listening, copy.total);
        exit(0);
    }
    close(listening);
    double seconds = copy_to(yardstick, &copy, &address);
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        errx(1, "the destination has failed");
    printf("{\"seconds\": %.6f, \"bytes\": %" PRIu64 "}\n", seconds, copy.total);
}
