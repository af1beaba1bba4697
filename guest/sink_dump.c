/*
 * The dump file.
 *
 * Happy path: init, open, stores through the mapping, commit. Nobody sees <name> before all of it is on disk. Failure
 * modes: a name that is a directory (found before the migration, not after it), file size limits, a full disk
 * (allocation here, or the populating that precedes every store), and a second writer, kept away by a lock on the
 * partial file.
 */
#include "guest/sink_dump.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/guest_error.h"

enum godwit_err sink_dump_init(struct sink_dump *dump, const char *name, struct godwit_error *error)
{
    *dump = (struct sink_dump){.fd = -1};
    if (!name || !*name)
        return guest_fail(error, GODWIT_ERR_INVALID, "a dump needs the name of a file");
    struct stat status;
    if (stat(name, &status) == 0 && !S_ISREG(status.st_mode))
        return guest_fail(error, GODWIT_ERR_INVALID, "dump file %s exists and is not a regular file", name);
    dump->name = strdup(name);
    if (!dump->name || asprintf(&dump->partial, "%s.partial", name) < 0) {
        dump->partial = NULL;
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for the name of a dump");
    }
    return GODWIT_OK;
}

static enum godwit_err dump_resize(struct sink_dump *dump, bool prealloc, struct godwit_error *error)
{
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    (void)getrlimit(RLIMIT_FSIZE, &limit);
    if (limit.rlim_cur != RLIM_INFINITY && dump->size > limit.rlim_cur) /* asked first: growing past it is a signal */
        return guest_fail(error, GODWIT_ERR_TOO_BIG,
                          "a dump of %" PRIu64 " bytes exceeds the file size limit of %" PRIu64
                          " bytes; raise it with ulimit -f",
                          dump->size, (uint64_t)limit.rlim_cur);
    if (ftruncate(dump->fd, 0) < 0 || ftruncate(dump->fd, (off_t)dump->size) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot make %s %" PRIu64 " bytes long", dump->partial,
                              dump->size);
    int cause = prealloc ? posix_fallocate(dump->fd, 0, (off_t)dump->size) : 0;
    if (cause)
        return guest_fail_sys(error, cause == ENOSPC ? GODWIT_ERR_NO_MEMORY : GODWIT_ERR_SYSTEM, cause,
                              "cannot allocate %" PRIu64 " bytes for %s", dump->size, dump->partial);
    dump->addr = mmap(NULL, dump->size, PROT_READ | PROT_WRITE, MAP_SHARED, dump->fd, 0);
    if (dump->addr != MAP_FAILED)
        return GODWIT_OK;
    dump->addr = NULL;
    return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot map %s", dump->partial);
}

enum godwit_err sink_dump_open(struct sink_dump *dump, uint64_t size, bool prealloc, struct godwit_error *error)
{
    dump->size = size;
    dump->fd = open(dump->partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600); /* memory holds secrets */
    if (dump->fd < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot create %s", dump->partial);
    if (flock(dump->fd, LOCK_EX | LOCK_NB) < 0) {
        sink_dump_close(dump, false);
        return guest_fail(error, GODWIT_ERR_BUSY, "another process is writing %s", dump->partial);
    }
    enum godwit_err err = dump_resize(dump, prealloc, error);
    if (err)
        sink_dump_close(dump, true);
    return err;
}

/* A rename is durable once its folder is. */
static int dump_sync_folder(const char *name)
{
    const char *slash = strrchr(name, '/');
    char *folder = slash ? strndup(name, (size_t)(slash - name) + 1) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int result = fd < 0 ? -1 : fsync(fd);
    int cause = errno;
    if (fd >= 0)
        close(fd);
    free(folder);
    errno = cause;
    return result < 0 && cause != EINVAL ? -1 : 0; /* EINVAL: a filesystem that does not sync folders */
}

enum godwit_err sink_dump_commit(struct sink_dump *dump, struct godwit_error *error)
{
    if (fsync(dump->fd) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot write %s to disk", dump->partial);
    if (rename(dump->partial, dump->name) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno,
                              "the dump is complete but cannot be renamed from %s to %s", dump->partial, dump->name);
    if (dump_sync_folder(dump->name) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot write the folder of %s to disk", dump->name);
    return GODWIT_OK;
}

void sink_dump_close(struct sink_dump *dump, bool remove)
{
    if (dump->addr)
        munmap(dump->addr, dump->size);
    dump->addr = NULL;
    if (dump->fd < 0)
        return;
    if (remove)
        (void)unlink(dump->partial); /* under the lock, so it is ours */
    close(dump->fd);
    dump->fd = -1;
}

void sink_dump_fini(struct sink_dump *dump)
{
    sink_dump_close(dump, false);
    free(dump->partial);
    free(dump->name);
    dump->partial = dump->name = NULL;
}
