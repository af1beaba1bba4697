/* Files that hold guest memory: `--memory-from FILE`. */
#ifndef GUEST_MEMORY_FILE_H
#define GUEST_MEMORY_FILE_H

#include <stdint.h>

#include <godwit/error.h>

/*
 * Opens a regular file of whole pages for reading. INVALID, with path and cause, when it is missing, not readable, a
 * directory or device, empty, or not a multiple of 4096 bytes. The caller closes *fd.
 */
enum godwit_err memory_file_open(const char *path, int *fd, uint64_t *size, struct godwit_error *error);

/*
 * Reads the data extents of the first `size` bytes of fd, from fd_offset on, to addr; holes are not touched, so addr
 * must read as zero. Memory that cannot be had (a full filesystem behind addr) is NO_MEMORY. path names the file in
 * errors.
 */
enum godwit_err memory_file_copy(const char *path, int fd, uint64_t fd_offset, void *addr, uint64_t size,
                                 struct godwit_error *error);

#endif
