/*
 * Files of credentials, read whole. Everything about a file is asked of its open descriptor, so that what is judged is
 * what is read. Opened without blocking: a FIFO in the place of a file is refused instead of waited for.
 */
#include "tcp/tls_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/error.h"

enum godwit_err tls_directory_check(const char *directory, struct godwit_error *error)
{
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return error_set_sys(error, GODWIT_ERR_INVALID, errno, "cannot use the directory of TLS credentials \"%.256s\"",
                             directory);
    close(fd);
    return GODWIT_OK;
}

static char *join(const char *directory, const char *name)
{
    char *path = NULL;
    if (directory == NULL)
        return strdup(name);
    return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

static enum godwit_err no_memory(const char *name, struct godwit_error *error)
{
    return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to read %.256s", name);
}

static enum godwit_err unreadable(const char *path, int cause, struct godwit_error *error)
{
    const char *remedy = cause == ENOENT   ? ", which has to be there"
                         : cause == EACCES ? ", which this user has to be able to read"
                                           : "";
    return error_set_sys(error, GODWIT_ERR_INVALID, cause, "cannot read %.256s%s", path, remedy);
}

enum godwit_err tls_file_exists(const char *directory, const char *name, bool *out, struct godwit_error *error)
{
    char *path = join(directory, name);
    if (path == NULL)
        return no_memory(name, error);
    struct stat status;
    int cause = lstat(path, &status) == 0 ? 0 : errno;
    enum godwit_err err = cause && cause != ENOENT ? unreadable(path, cause, error) : GODWIT_OK;
    if (err == GODWIT_OK)
        *out = cause == 0;
    free(path);
    return err;
}

static enum godwit_err judge(const char *path, int fd, enum tls_file_secrecy secrecy, size_t *size,
                             struct godwit_error *error)
{
    struct stat status;
    if (fstat(fd, &status))
        return unreadable(path, errno, error);
    if (!S_ISREG(status.st_mode))
        return error_set(error, GODWIT_ERR_INVALID, "%.256s is not a file", path);
    if (secrecy == TLS_FILE_SECRET && status.st_mode & (S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH))
        return error_set(error, GODWIT_ERR_INVALID,
                         "%.160s holds a secret and others than its owner may read or change it (mode %04o): "
                         "chmod 600 %.160s",
                         path, (unsigned)status.st_mode & 07777, path);
    if (status.st_mode & S_IWOTH)
        return error_set(error, GODWIT_ERR_INVALID,
                         "anybody may change %.160s, and so who is trusted (mode %04o): chmod o-w %.160s", path,
                         (unsigned)status.st_mode & 07777, path);
    if (status.st_size == 0)
        return error_set(error, GODWIT_ERR_INVALID, "%.256s is empty", path);
    if (status.st_size > TLS_FILE_MAX)
        return error_set(error, GODWIT_ERR_INVALID, "%.256s is larger than %d MiB", path, TLS_FILE_MAX >> 20);
    *size = (size_t)status.st_size;
    return GODWIT_OK;
}

/* What is read is what was there when it was judged; a file that shrank meanwhile is shorter. */
static enum godwit_err read_whole(struct tls_file *file, int fd, size_t size, struct godwit_error *error)
{
    file->data = malloc(size + 1);
    if (file->data == NULL)
        return no_memory(file->path, error);
    while (file->size < size) {
        ssize_t n = read(fd, file->data + file->size, size - file->size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return unreadable(file->path, errno, error);
        if (n == 0)
            break;
        file->size += (size_t)n;
    }
    file->data[file->size] = 0;
    return GODWIT_OK;
}

enum godwit_err tls_file_read(struct tls_file *file, const char *directory, const char *name,
                              enum tls_file_secrecy secrecy, struct godwit_error *error)
{
    *file = (struct tls_file){.path = join(directory, name)};
    if (file->path == NULL)
        return no_memory(name, error);
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return unreadable(file->path, errno, error);
    size_t size = 0;
    enum godwit_err err = judge(file->path, fd, secrecy, &size, error);
    if (err == GODWIT_OK)
        err = read_whole(file, fd, size, error);
    close(fd);
    return err;
}

void tls_file_release(struct tls_file *file)
{
    if (file->data != NULL)
        explicit_bzero(file->data, file->size);
    free(file->data);
    free(file->path);
    *file = (struct tls_file){0};
}
