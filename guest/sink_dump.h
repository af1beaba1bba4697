/* The file of a dump: grown as <name>.partial, renamed to <name> when it is whole and on disk. */
#ifndef GUEST_SINK_DUMP_H
#define GUEST_SINK_DUMP_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/error.h>

struct sink_dump {
    char *name;
    char *partial;
    int fd;     /* -1: not open */
    void *addr; /* whole file, mapped shared; NULL when not mapped */
    uint64_t size;
};

/* Copies name and checks that a dump may go there. sink_dump_fini after success and failure alike. */
enum godwit_err sink_dump_init(struct sink_dump *dump, const char *name, struct godwit_error *error);

/*
 * Creates, locks, sizes and maps the partial file, emptying one left by a run that died; BUSY when another process
 * writes it. prealloc also allocates its disk space. After a failure the file is gone again.
 */
enum godwit_err sink_dump_open(struct sink_dump *dump, uint64_t size, bool prealloc, struct godwit_error *error);

/* fsync, rename, fsync of the folder. After a failure the partial file is still there. */
enum godwit_err sink_dump_commit(struct sink_dump *dump, struct godwit_error *error);

/* Unmaps and closes; with remove set deletes the partial file too. Nothing to do when not open. */
void sink_dump_close(struct sink_dump *dump, bool remove);

/* Closes without removing, frees names. */
void sink_dump_fini(struct sink_dump *dump);

#endif
