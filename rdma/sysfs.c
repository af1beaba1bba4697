#include "rdma/sysfs.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A path that does not fit is no path of /sys: the cut one names nothing, and the lookup finds that out. */
#define FORMAT_PATH(path, format)                        \
    char path[PATH_MAX];                                 \
    do {                                                 \
        va_list list;                                    \
        va_start(list, format);                          \
        vsnprintf(path, sizeof path, (format), list);    \
        va_end(list);                                    \
    } while (0)

static bool read_line(const char *path, char *out, size_t size)
{
    out[0] = '\0';
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool there = fgets(out, (int)size, file) != NULL; /* some attributes open and then fail to be read */
    fclose(file);
    out[there ? strcspn(out, "\n") : 0] = '\0';
    return there;
}

bool sysfs_line(char *out, size_t size, const char *format, ...)
{
    FORMAT_PATH(path, format);
    return read_line(path, out, size);
}

bool sysfs_number(long *out, const char *format, ...)
{
    FORMAT_PATH(path, format);
    char line[32], *end;
    if (!read_line(path, line, sizeof line))
        return false;
    errno = 0;
    long number = strtol(line, &end, 10);
    if (errno || end == line || *end)
        return false;
    *out = number;
    return true;
}

bool sysfs_link(char *out, size_t size, const char *format, ...)
{
    FORMAT_PATH(path, format);
    char target[PATH_MAX];
    out[0] = '\0';
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        return false;
    target[length] = '\0';
    const char *slash = strrchr(target, '/');
    snprintf(out, size, "%s", slash ? slash + 1 : target);
    return true;
}

int sysfs_entries(char *first, size_t size, const char *format, ...)
{
    FORMAT_PATH(path, format);
    DIR *folder = opendir(path);
    if (!folder)
        return -1;
    int count = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        if (count++ == 0 && first)
            snprintf(first, size, "%s", entry->d_name);
    }
    closedir(folder);
    return count;
}

int sysfs_usable(const char *format, ...)
{
    FORMAT_PATH(path, format);
    return access(path, R_OK | W_OK) == 0 ? 0 : errno;
}
