/* One hash per 4 KiB page of guest memory, to compare two memories that are never in one place at one time. */
#ifndef GUEST_FINGERPRINT_H
#define GUEST_FINGERPRINT_H

#include <stdint.h>

#include <godwit/error.h>

/*
 * XXH3_64bits of each page of [addr, addr + size) into out[size / 4096]. Holes, found as by godwit_memory_next_data(),
 * get the hash of a zero page and are not touched. threads: 0 for as many as processors online. Nobody may write
 * meanwhile.
 */
enum godwit_err fingerprint_pages(void *addr, uint64_t size, int fd, uint64_t fd_offset, uint64_t *out,
                                  unsigned threads, struct godwit_error *error);

/* How many of `pages` fingerprints differ; *first is the lowest page that does, written only when there is one. */
uint64_t fingerprint_compare(const uint64_t *a, const uint64_t *b, uint64_t pages, uint64_t *first);

#endif
