/* Will it fit? An early answer, so that a migration that cannot end well is refused before it begins. */
#ifndef ENGINE_HOST_MEMORY_H
#define ENGINE_HOST_MEMORY_H

#include <stdint.h>

#include <godwit/guest.h>

/* Bytes of memory this process could still get: what the host has, or its control group allows, whichever is less.
 * UINT64_MAX where that cannot be told. */
uint64_t host_memory_available(void);

/*
 * Can these blocks take `populated` bytes, if `available` could be had before they were made? Looks at memory for what
 * is backed by memory, at the file system for what is backed by a file; what is allocated already counts as had.
 */
enum godwit_err host_memory_check(const struct godwit_block *blocks, unsigned count, uint64_t populated,
                                  uint64_t available, struct godwit_error *error);

#endif
