/* Reading the small files of /sys, /proc and /dev. Callers put a root before the path: tests bring their own. */
#ifndef RDMA_SYSFS_H
#define RDMA_SYSFS_H

#include <stdbool.h>
#include <stddef.h>

/* The first line of a file, without its end, cut to size. False: there is none, and out is "". */
__attribute__((format(printf, 3, 4))) bool sysfs_line(char *out, size_t size, const char *format, ...);

/* A whole number on the first line of a file. False: there is none, and *out is as it was. */
__attribute__((format(printf, 2, 3))) bool sysfs_number(long *out, const char *format, ...);

/* The last part of where a symbolic link leads. False: it is no link, and out is "". */
__attribute__((format(printf, 3, 4))) bool sysfs_link(char *out, size_t size, const char *format, ...);

/* How many entries a folder has; first, unless NULL, takes the name of one of them. -1: there is no such folder. */
__attribute__((format(printf, 3, 4))) int sysfs_entries(char *first, size_t size, const char *format, ...);

/* 0 when the file is there and may be read and written; otherwise the errno that says why not. */
__attribute__((format(printf, 1, 2))) int sysfs_usable(const char *format, ...);

#endif
