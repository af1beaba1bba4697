/*
 * Files that hold guest memory.
 *
 * Happy path: open, check, and copy extent by extent with pread straight into guest memory. Reading through the kernel
 * instead of from a mapping has a reason: a shortage of memory or disk behind the destination, or a file that shrinks
 * meanwhile, is an error of the call where a memcpy would be a SIGBUS.
 */
#include "guest/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include <godwit/guest.h>

#include "guest/guest_error.h"
#include "guest/parallel.h"

enum { FILE_READ_STEP = 4 << 20 };

static enum godwit_err file_check(const char *path, const struct stat *status, struct godwit_error *error)
{
    if (S_ISDIR(status->st_mode))
        return guest_fail(error, GODWIT_ERR_INVALID, "memory file %s is a directory", path);
    if (!S_ISREG(status->st_mode))
        return guest_fail(error, GODWIT_ERR_INVALID, "memory file %s is not a regular file", path);
    if (status->st_size == 0)
        return guest_fail(error, GODWIT_ERR_INVALID, "memory file %s is empty", path);
    if (status->st_size % GODWIT_PAGE_SIZE)
        return guest_fail(error, GODWIT_ERR_INVALID, "memory file %s has %" PRIu64 " bytes, not a multiple of %d", path,
                          (uint64_t)status->st_size, GODWIT_PAGE_SIZE);
    return GODWIT_OK;
}

enum godwit_err memory_file_open(const char *path, int *fd, uint64_t *size, struct godwit_error *error)
{
    /* For writing where that is allowed, though nothing is written: memory that is registered with an RDMA device is pinned
     * as if it were. O_NONBLOCK: opening a named pipe by mistake must be an error, not a wait for its writer. */
    int file = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (file < 0 && errno != ENOENT)
        file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return guest_fail_sys(error, GODWIT_ERR_INVALID, errno, "cannot open memory file %s", path);
    struct stat status;
    enum godwit_err err = fstat(file, &status) < 0
                              ? guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot look at memory file %s", path)
                              : file_check(path, &status, error);
    if (err) {
        close(file);
        return err;
    }
    *fd = file;
    *size = (uint64_t)status.st_size;
    return GODWIT_OK;
}

struct file_copy {
    const char *path;
    int fd;
    uint64_t fd_offset;
    char *addr;
};

static enum godwit_err file_read(const struct file_copy *copy, uint64_t at, uint64_t end, struct godwit_error *error)
{
    while (at < end) {
        size_t want = end - at < FILE_READ_STEP ? end - at : FILE_READ_STEP;
        ssize_t got = pread(copy->fd, copy->addr + at, want, (off_t)(copy->fd_offset + at));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EFAULT)
            return guest_fail(error, GODWIT_ERR_NO_MEMORY, "not enough memory or disk space for the content of %s",
                              copy->path);
        if (got < 0)
            return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot read memory file %s", copy->path);
        if (got == 0)
            return guest_fail(error, GODWIT_ERR_SYSTEM, "memory file %s became shorter while it was read", copy->path);
        at += (uint64_t)got;
    }
    return GODWIT_OK;
}

/* Bytes [*at, *stop) of the file are its first data at or after *at; everything where holes cannot be asked for. */
static void file_next_data(int fd, uint64_t *at, uint64_t *stop, uint64_t end)
{
    off_t data = lseek(fd, (off_t)*at, SEEK_DATA);
    if (data < 0) {
        *at = errno == ENXIO ? end : *at;
        *stop = end;
        return;
    }
    off_t hole = lseek(fd, data, SEEK_HOLE);
    *at = (uint64_t)data < end ? (uint64_t)data : end;
    *stop = hole < 0 || (uint64_t)hole > end ? end : (uint64_t)hole;
}

static enum godwit_err file_copy_slice(void *context, uint64_t first, uint64_t last, struct godwit_error *error)
{
    const struct file_copy *copy = context;
    uint64_t end = copy->fd_offset + last * GODWIT_PAGE_SIZE, stop;
    for (uint64_t at = copy->fd_offset + first * GODWIT_PAGE_SIZE; at < end; at = stop) {
        file_next_data(copy->fd, &at, &stop, end);
        enum godwit_err err = file_read(copy, at - copy->fd_offset, stop - copy->fd_offset, error);
        if (err)
            return err;
    }
    return GODWIT_OK;
}

enum godwit_err memory_file_copy(const char *path, int fd, uint64_t fd_offset, void *addr, uint64_t size,
                                 struct godwit_error *error)
{
    struct file_copy copy = {path, fd, fd_offset, addr};
    return parallel_run(size / GODWIT_PAGE_SIZE, 512, 0, file_copy_slice, &copy, error);
}
