/*
 * Files that come into being together.
 *
 * Happy path: each file is written as NAME.partial and synced; when all are, each is linked to its name, which never
 * replaces anything (a rename would, and is used where it should), and the directory is synced. Failure modes: whatever
 * fails, close removes what was made here and nothing else. A process that is killed leaves .partial files, and at
 * worst the first names of the order: the caller stages last what no user of the set can do without. A lock on the
 * directory keeps two runs apart; where a filesystem has none, NAME.partial does.
 */
#include "tcp/pki_files.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tcp/tls_files.h"
#include "transport/error.h"

static void partial_name(const char *name, char text[64])
{
    snprintf(text, 64, "%s.partial", name);
}

enum godwit_err pki_files_open(struct pki_files *files, const char *directory, struct godwit_error *error)
{
    *files = (struct pki_files){.directory = directory, .fd = -1};
    files->made = mkdir(directory, 0700) == 0;
    if (!files->made && errno != EEXIST)
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot make directory %s", directory);
    files->fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat status;
    if (files->fd < 0 || fstat(files->fd, &status))
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot open directory %s", directory);
    if (status.st_mode & S_IWOTH)
        return error_set(error, GODWIT_ERR_INVALID,
                         "anybody may write in %s, and so put another authority there: chmod o-w, or give another "
                         "directory",
                         directory);
    if (flock(files->fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return error_set(error, GODWIT_ERR_BUSY, "another run is at work in %s: wait for its end", directory);
    return GODWIT_OK;
}

bool pki_files_exist(const char *directory, const char *name)
{
    bool there = true;
    return tls_file_exists(directory, name, &there, NULL) || there;
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

enum godwit_err pki_files_stage(struct pki_files *files, const char *name, enum pki_secrecy secrecy, const void *data,
                                size_t size, struct godwit_error *error)
{
    mode_t mode = secrecy == PKI_SECRET ? 0600 : 0644;
    char partial[64];
    partial_name(name, partial);
    int fd = openat(files->fd, partial, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return error_set(error, GODWIT_ERR_BUSY, "%s/%s is left of a run that was killed: remove it", files->directory,
                         partial);
    if (fd < 0)
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot create %s/%s", files->directory, name);
    files->files[files->count++].name = name;
    int cause = write_all(fd, data, size);
    if (!cause && (fchmod(fd, mode) || fsync(fd))) /* fchmod: whatever the umask is */
        cause = errno;
    if (close(fd) && !cause)
        cause = errno;
    if (cause)
        return error_set_sys(error, GODWIT_ERR_SYSTEM, cause, "cannot write %s/%s", files->directory, name);
    return GODWIT_OK;
}

static enum godwit_err give_name(struct pki_files *files, unsigned i, struct godwit_error *error)
{
    const char *name = files->files[i].name;
    char partial[64];
    partial_name(name, partial);
    if (linkat(files->fd, partial, files->fd, name, 0) == 0) {
        files->files[i].linked = true;
        return GODWIT_OK;
    }
    if (errno == EEXIST)
        return error_set(error, GODWIT_ERR_BUSY,
                         "%s/%s exists and is not replaced: give another directory, or move away what is there",
                         files->directory, name);
    return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot name %s/%s", files->directory, name);
}

static void remove_partials(struct pki_files *files)
{
    for (unsigned i = 0; i < files->count; i++) {
        char partial[64];
        partial_name(files->files[i].name, partial);
        (void)unlinkat(files->fd, partial, 0);
    }
}

static enum godwit_err sync_directory(const struct pki_files *files, struct godwit_error *error)
{
    if (fsync(files->fd) && errno != EINVAL) /* EINVAL: a filesystem that does not sync directories */
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot write %s to disk", files->directory);
    return GODWIT_OK;
}

enum godwit_err pki_files_publish(struct pki_files *files, struct godwit_error *error)
{
    for (unsigned i = 0; i < files->count; i++) {
        enum godwit_err err = give_name(files, i, error);
        if (err)
            return err;
    }
    enum godwit_err err = sync_directory(files, error);
    if (err)
        return err;
    remove_partials(files);
    files->published = true;
    return GODWIT_OK;
}

enum godwit_err pki_files_replace(struct pki_files *files, struct godwit_error *error)
{
    assert(files->count == 1 && "several names cannot change hands at once");
    const char *name = files->files[0].name;
    char partial[64];
    partial_name(name, partial);
    if (renameat(files->fd, partial, files->fd, name))
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot name %s/%s", files->directory, name);
    files->published = true;
    return sync_directory(files, error);
}

void pki_files_close(struct pki_files *files)
{
    if (!files->published && files->fd >= 0) {
        for (unsigned i = files->count; i-- > 0;) /* backwards: what was named last makes the set usable */
            if (files->files[i].linked)
                (void)unlinkat(files->fd, files->files[i].name, 0);
        remove_partials(files);
    }
    if (files->fd >= 0)
        close(files->fd);
    if (!files->published && files->made)
        (void)rmdir(files->directory);
}
