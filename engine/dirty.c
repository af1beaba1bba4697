/* See dirty.h. */
#include "engine/dirty.h"

#include <stdlib.h>

#include "transport/error.h"

static bool block_init(struct dirty_block *block, uint64_t pages)
{
    /* calloc of this size is fresh from the kernel: maps of memory that nobody touches cost nothing */
    block->bits = calloc(bitmap_words(pages), sizeof(uint64_t));
    block->sent[0] = calloc(bitmap_words(pages), sizeof(uint64_t));
    block->sent[1] = calloc(bitmap_words(pages), sizeof(uint64_t));
    return block->bits != NULL && block->sent[0] != NULL && block->sent[1] != NULL;
}

struct dirty *dirty_new(const struct ram *ram)
{
    struct dirty *dirty = calloc(1, sizeof *dirty);
    if (dirty == NULL)
        return NULL;
    dirty->ram = ram;
    pthread_mutex_init(&dirty->lock, NULL);
    dirty->blocks = calloc(ram->count, sizeof *dirty->blocks);
    if (dirty->blocks == NULL)
        goto free_dirty;
    for (unsigned i = 0; i < ram->count; i++)
        if (!block_init(&dirty->blocks[i], ram->blocks[i].pages))
            goto free_dirty;
    return dirty;

free_dirty:
    dirty_free(dirty);
    return NULL;
}

void dirty_free(struct dirty *dirty)
{
    if (dirty == NULL)
        return;
    for (unsigned i = 0; dirty->blocks != NULL && i < dirty->ram->count; i++) {
        free(dirty->blocks[i].bits);
        free(dirty->blocks[i].sent[0]);
        free(dirty->blocks[i].sent[1]);
    }
    free(dirty->blocks);
    free(dirty->marks);
    pthread_mutex_destroy(&dirty->lock);
    free(dirty);
}

static void recount(struct dirty *dirty)
{
    dirty->pages = 0;
    for (unsigned i = 0; i < dirty->ram->count; i++)
        dirty->pages += bitmap_count(dirty->blocks[i].bits, dirty->ram->blocks[i].pages);
}

enum godwit_err dirty_find_block_data(struct dirty *dirty, const struct guest *guest, unsigned block,
                                      struct godwit_error *error)
{
    uint64_t pages = dirty->ram->blocks[block].pages;
    for (uint64_t from = 0; from < pages;) {
        struct run run;
        enum godwit_err err = guest_next_data(guest, block, from, &run.first, &run.pages, error);
        if (err != GODWIT_OK)
            return err;
        if (run.pages == 0)
            return GODWIT_OK;
        if (run.first < from || run.first >= pages || run.pages > pages - run.first)
            return error_set(error, GODWIT_ERR_GUEST, "the guest's next_data left block %s",
                             dirty->ram->blocks[block].id);
        bitmap_set(dirty->blocks[block].bits, run.first, run.pages);
        from = run.first + run.pages;
    }
    return GODWIT_OK;
}

enum godwit_err dirty_find_data(struct dirty *dirty, const struct guest *guest, struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i < dirty->ram->count && err == GODWIT_OK; i++)
        err = dirty_find_block_data(dirty, guest, i, error);
    recount(dirty);
    return err;
}

static void take_marks(struct dirty *dirty)
{
    pthread_mutex_lock(&dirty->lock);
    for (unsigned i = 0; i < dirty->mark_count; i++) {
        const struct dirty_mark *mark = &dirty->marks[i];
        bitmap_set(dirty->blocks[mark->block].bits, mark->first, mark->pages);
    }
    for (unsigned i = 0; dirty->mark_all && i < dirty->ram->count; i++)
        bitmap_set(dirty->blocks[i].bits, 0, dirty->ram->blocks[i].pages);
    dirty->mark_count = 0;
    dirty->mark_all = false;
    pthread_mutex_unlock(&dirty->lock);
}

enum godwit_err dirty_sync(struct dirty *dirty, const struct guest *guest, uint64_t *found, struct godwit_error *error)
{
    uint64_t before = dirty->pages;
    for (unsigned i = 0; i < dirty->ram->count; i++) {
        enum godwit_err err = guest_checked(guest->ops.dirty_sync(guest->self, i, dirty->blocks[i].bits, error), error,
                                            "cannot read the dirty log of block %s", dirty->ram->blocks[i].id);
        if (err != GODWIT_OK)
            return err;
    }
    take_marks(dirty);
    recount(dirty);
    *found = dirty->pages - before;
    return GODWIT_OK;
}

void dirty_mark(struct dirty *dirty, unsigned block, uint64_t first, uint64_t pages)
{
    if (block >= dirty->ram->count || first >= dirty->ram->blocks[block].pages || pages == 0)
        return;
    uint64_t most = dirty->ram->blocks[block].pages - first;
    pthread_mutex_lock(&dirty->lock);
    if (dirty->mark_count == dirty->mark_room) {
        unsigned room = dirty->mark_room > 0 ? 2 * dirty->mark_room : 64;
        struct dirty_mark *marks = realloc(dirty->marks, room * sizeof *marks);
        if (marks != NULL) {
            dirty->marks = marks;
            dirty->mark_room = room;
        }
    }
    if (dirty->mark_count < dirty->mark_room)
        dirty->marks[dirty->mark_count++] = (struct dirty_mark){block, first, pages < most ? pages : most};
    else
        dirty->mark_all = true;
    pthread_mutex_unlock(&dirty->lock);
}

/* Notes pages of sent[epoch % 2]: they lie in [first, end). */
static void note_sent(struct dirty_block *block, uint32_t epoch, uint64_t first, uint64_t end)
{
    uint64_t *lowest = &block->first[epoch % 2], *highest = &block->end[epoch % 2];
    if (*highest == 0 || first < *lowest)
        *lowest = first;
    if (end > *highest)
        *highest = end;
}

/* Adds the pages of a word to the batch, run by run, while there is room; returns those that went in. */
static uint64_t take_word(struct batch *batch, unsigned most, unsigned block, uint64_t word, uint64_t bits)
{
    uint64_t taken = 0;
    while (bits != 0 && batch->normal_pages < most) {
        /* Adding the lowest bit carries through its run, to the clear bit behind it or out of the word. */
        uint64_t carried = bits + (bits & -bits);
        unsigned first = (unsigned)__builtin_ctzll(bits), end = carried == 0 ? 64 : (unsigned)__builtin_ctzll(carried);
        unsigned room = most - batch->normal_pages, pages = end - first < room ? end - first : room;
        batch_add_joined(batch, block, word * 64 + first, pages, EXTENT_NORMAL);
        taken |= bitmap_mask(0, first, pages);
        bits &= carried;
    }
    return taken;
}

static void take_block(struct dirty *dirty, const struct dirty_cursor *cursor, bool hold, unsigned most,
                       struct batch *batch)
{
    struct dirty_block *block = &dirty->blocks[cursor->block];
    uint64_t pages = dirty->ram->blocks[cursor->block].pages;
    uint64_t *sent = block->sent[batch->epoch % 2];
    const uint64_t *held = block->sent[(batch->epoch - 1) % 2];
    for (uint64_t word = cursor->page / 64; word < bitmap_words(pages) && batch->normal_pages < most; word++) {
        uint64_t bits = hold ? block->bits[word] & ~held[word] : block->bits[word];
        if (bits == 0)
            continue;
        bits &= bitmap_mask(word, cursor->page, pages - cursor->page);
        uint64_t taken = take_word(batch, most, cursor->block, word, bits);
        block->bits[word] &= ~taken;
        sent[word] |= taken;
        note_sent(block, batch->epoch, word * 64, (word + 1) * 64);
    }
}

void dirty_take(struct dirty *dirty, struct dirty_cursor *cursor, bool hold, unsigned most, struct batch *batch)
{
    unsigned before = batch->normal_pages;
    for (; cursor->block < dirty->ram->count; cursor->block++, cursor->page = 0) {
        take_block(dirty, cursor, hold, most, batch);
        if (batch->normal_pages < most)
            continue;
        const struct extent *last = &batch->extents[batch->count - 1];
        cursor->page = last->first + last->pages;
        break;
    }
    dirty->pages -= batch->normal_pages - before;
}

struct run dirty_next_hole(struct dirty *dirty, unsigned block, uint64_t from, uint32_t epoch)
{
    struct dirty_block *maps = &dirty->blocks[block];
    struct run run = bitmap_next_clear_run(maps->bits, dirty->ram->blocks[block].pages, from, UINT32_MAX);
    if (run.pages > 0) {
        bitmap_set(maps->sent[epoch % 2], run.first, run.pages);
        note_sent(maps, epoch, run.first, run.first + run.pages);
    }
    return run;
}

void dirty_reset_sent(struct dirty *dirty, uint32_t epoch)
{
    for (unsigned i = 0; i < dirty->ram->count; i++) {
        struct dirty_block *block = &dirty->blocks[i];
        uint64_t *sent = block->sent[epoch % 2];
        /* An epoch of a long pass covers a small part of a large memory: going through all of the map each time would
         * cost more than taking the pages. */
        for (uint64_t word = block->first[epoch % 2] / 64; word < bitmap_words(block->end[epoch % 2]); word++)
            if (sent[word] != 0) /* maps of memory that nobody touches stay out of memory themselves */
                sent[word] = 0;
        block->first[epoch % 2] = block->end[epoch % 2] = 0;
    }
}
