/* Guest RAM of the reference guests: getting it, populating it, a second private view of it, giving it back. */
#ifndef GUEST_MEMORY_H
#define GUEST_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/error.h>

enum memory_backing {
    MEMORY_MEMFD,   /* shared, has an fd; holes are known to the file */
    MEMORY_ANON,    /* private anonymous, transparent huge pages where the system gives them */
    MEMORY_HUGETLB, /* memfd on 2 MiB huge pages, reserved when allocated */
};

enum {
    RAM_HUGE_PAGE = 2 << 20,
};

#define MEMORY_BLOCK_ID "pc.ram" /* of every reference guest's one block; QEMU's name for the RAM of a PC */

/* Largest guest of this folder: page numbers fit 32 bits, which keeps the arithmetic of process_order.h in 64. */
#define RAM_SIZE_MAX (1ull << 44)

struct memory {
    void *addr;         /* NULL: none */
    uint64_t size;      /* bytes */
    int fd;             /* memfd, -1 for anonymous memory and private views */
    uint32_t page_size; /* 4096 or 2 MiB */
};

/* "memfd", "anon", "hugetlb"; false for anything else. */
bool memory_backing_parse(const char *name, enum memory_backing *out);

/*
 * Zero-filled memory of `size` bytes: a multiple of 4096, for hugetlb of 2 MiB, at most RAM_SIZE_MAX. With prealloc
 * every page is populated for writing before return, in as many threads as processors are online. May block long with
 * prealloc. INVALID for a bad size, NO_MEMORY with cause and remedy. memory_free gives it back.
 */
enum godwit_err memory_alloc(struct memory *out, enum memory_backing backing, uint64_t size, bool prealloc,
                          struct godwit_error *error);

/*
 * A copy-on-write view of memory that has an fd: reads see it, writes stay in the view. Freed by memory_free, in any
 * order.
 */
enum godwit_err memory_private_view(struct memory *out, const struct memory *ram, struct godwit_error *error);

/*
 * Memory of any size that keeps nothing: the same few MiB over and over, for measuring a link without the cost and size
 * of a guest. Its fd is -1.
 */
enum godwit_err memory_scratch(struct memory *out, uint64_t size, struct godwit_error *error);

/* Unmaps and closes; leaves *ram empty, so that a second call does nothing. */
void memory_free(struct memory *ram);

/* Populates [addr, addr + size) for writing in parallel. NO_MEMORY when it cannot be had: an error, never a SIGBUS. */
enum godwit_err memory_populate(void *addr, uint64_t size, struct godwit_error *error);

#endif
