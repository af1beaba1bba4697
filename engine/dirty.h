/*
 * What still has to be sent: a dirty bitmap per block, and per block two maps of what went out in the epochs that are
 * not acknowledged. Three bits per page are all the memory the source keeps.
 *
 * A page is in flight at most once per unacknowledged epoch: a page that is dirty again while its last copy may still
 * be on its way stays dirty until that epoch is acknowledged, because nothing orders two channels against each other.
 */
#ifndef ENGINE_DIRTY_H
#define ENGINE_DIRTY_H

#include <pthread.h>

#include "engine/guest.h"
#include "multifd/batch.h"
#include "multifd/bitmap.h"
#include "multifd/ram.h"

struct dirty_block {
    uint64_t *bits;
    uint64_t *sent[2];         /* [epoch % 2] */
    uint64_t first[2], end[2]; /* no page outside [first, end) is set in sent[]; both 0: none is */
};

struct dirty_mark {
    unsigned block;
    uint64_t first, pages;
};

struct dirty {
    const struct ram *ram;
    struct dirty_block *blocks;
    uint64_t pages; /* set in bits, of all blocks */

    /* godwit_source_mark() from any thread; taken over by the next sync */
    pthread_mutex_t lock;
    struct dirty_mark *marks;
    unsigned mark_count, mark_room;
    bool mark_all; /* memory for a mark could not be had: everything is sent again */
};

/* A place in the walk over all blocks. */
struct dirty_cursor {
    unsigned block;
    uint64_t page;
};

struct dirty *dirty_new(const struct ram *ram); /* nothing is dirty; NULL when memory is out */
void dirty_free(struct dirty *dirty);           /* NULL allowed */

/* Makes dirty what may hold data; what is left clear are holes. After dirty_start. */
enum godwit_err dirty_find_data(struct dirty *dirty, const struct guest *guest, struct godwit_error *error);

/* The part for one block, which may be asked before dirty_start too: what it makes dirty is sent at the latest then. */
enum godwit_err dirty_find_block_data(struct dirty *dirty, const struct guest *guest, unsigned block,
                                      struct godwit_error *error);

/* Takes the guest's dirty log and the marks over. *found: pages that were not dirty before. */
enum godwit_err dirty_sync(struct dirty *dirty, const struct guest *guest, uint64_t *found,
                           struct godwit_error *error);

/* Any thread. Ranges outside the block are cut off. */
void dirty_mark(struct dirty *dirty, unsigned block, uint64_t first, uint64_t pages);

/*
 * Adds to the batch, up to `most` pages in it, what is dirty at or after the cursor and, with hold, not on its way in
 * the epoch before the batch's. Clears the pages' bits, notes them as sent in the batch's epoch, moves the cursor
 * behind them. A batch that stays empty: the walk is over.
 */
void dirty_take(struct dirty *dirty, struct dirty_cursor *cursor, bool hold, unsigned most, struct batch *batch);

/*
 * The next hole of a block at or after page `from`, before the first dirty_take, of at most 2^32 - 1 pages. It is noted
 * as sent in epoch: a page that comes into being there may not overtake the announcement that it is zero.
 */
struct run dirty_next_hole(struct dirty *dirty, unsigned block, uint64_t from, uint32_t epoch);

/* Forgets what went out in this epoch's map: before the epoch is opened. */
void dirty_reset_sent(struct dirty *dirty, uint32_t epoch);

#endif
