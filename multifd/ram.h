/* The memory being migrated, as senders and receivers see it: the same on both sides, block by block. */
#ifndef MULTIFD_RAM_H
#define MULTIFD_RAM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <godwit/guest.h>

#include "transport/region.h"

enum { PAGE_SIZE = GODWIT_PAGE_SIZE, PAGE_SHIFT = 12 };

struct ram_block {
    char id[GODWIT_BLOCK_ID_MAX + 1];
    uint8_t *addr;
    uint64_t pages;
    int fd;
    uint64_t fd_offset;

    /* One-sided transports only; else NULL. */
    struct mr *mr;                  /* this side's registration */
    _Atomic(struct remote *) remote; /* source: the destination's memory, once its key has come */

    /* Destination only. */
    bool fresh;                /* never-received pages read as zero */
    bool present;              /* stores need no memory that is not there yet */
    _Atomic uint64_t *received; /* bitmap: announced by any extent so far; set by receivers, read by all */
    _Atomic uint64_t *stored;   /* bitmap: content was stored there */
};

struct ram {
    struct ram_block *blocks;
    unsigned count;
    uint64_t pages; /* of all blocks */
};

/* Copies what the guest tells; allocates received bitmaps if asked. NULL when memory is out. */
struct ram *ram_new(const struct godwit_block *blocks, unsigned count, bool with_received);
/* Frees registrations and remotes too; after the channels that used them. NULL allowed. */
void ram_free(struct ram *ram);

#endif
