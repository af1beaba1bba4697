/* Private to engine/sabotage.c (the guest) and engine/sabotage_line.c (the line). */
#ifndef ENGINE_SABOTAGE_PRIVATE_H
#define ENGINE_SABOTAGE_PRIVATE_H

#include <pthread.h>

#include "engine/sabotage.h"
#include "engine/state.h"

/* Old content of some pages of the first pass, to be sent again in its place. */
struct old_page {
    uint16_t block;
    uint64_t page;
    uint8_t content[PAGE_SIZE];
};

enum { OLD_PAGES_MAX = 4096, OLD_PAGES_EVERY = 16 };

struct sabotage {
    enum sabotage_kind kind;
    struct guest guest; /* undamaged */

    /* drop-dirty-bit: block 0 */
    uint64_t *before; /* dirty at the sync before */
    unsigned syncs;
    bool chosen;
    uint64_t victim;

    /* old-device-state: of stream 0..n, saved when the dirty log was started */
    struct godwit_state_writer *old;

    /* stale-page; several senders */
    pthread_mutex_t lock;
    struct old_page *pages;
    unsigned page_count;
};

#endif
