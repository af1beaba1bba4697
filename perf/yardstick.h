/*
 * What the yardsticks (bare_*.c) have in common, which is all but the connections: the memory of a file, one stream per
 * connection over loopback to another process, a thread per stream on both sides.
 *
 * The same work as a migration and nothing else. Source: the file mapped shared and read-only, its page tables empty.
 * Each thread takes the next piece of 2 MiB, whichever is free, and sends where it belongs and its bytes. Destination,
 * another process: memory mapped shared, preallocated if asked; each thread reads 16 bytes and then the piece into its
 * place. When every stream has ended it says so on one of them.
 *
 * The time runs from the moment all connections stand and all memory is prepared until the source reads that everything
 * has arrived. Any failure ends the program, with one line. Shares no code with the library on purpose.
 */
#ifndef PERF_YARDSTICK_H
#define PERF_YARDSTICK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

enum yardstick_side { YARDSTICK_SOURCE, YARDSTICK_DESTINATION };

/* One kind of connection. Each failure ends the program. A stream is one thread's at a time. */
struct yardstick_ops {
    /* fd: connected, and the stream's from here on. Both sides open their ends at the same time. */
    void *(*open)(void *context, int fd, enum yardstick_side side);
    /* All of it. */
    void (*send)(void *stream, struct iovec *iov, int count);
    /* Tells the peer that nothing more is sent. The other direction goes on. */
    void (*finish)(void *stream);
    /* All of it; false: the peer finished before the first byte. */
    bool (*receive)(void *stream, void *into, size_t size);
    /* At the end of everything. */
    void (*close)(void *stream);
};

struct yardstick {
    const char *file;
    unsigned streams;
    bool prealloc;    /* the destination's memory */
    const char *into; /* it is this shared file; NULL: a memfd */
    const struct yardstick_ops *ops;
    void *context; /* of ops->open, in both processes */
};

/* FILE STREAMS prealloc|fresh [INTO], NULL behind the last. usage: of the program, for its message. */
struct yardstick yardstick_parse(char *words[], const char *usage);

/* Copies, and prints one JSON object: seconds and bytes. */
void yardstick_run(const struct yardstick *yardstick);

#endif
