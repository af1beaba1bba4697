/*
 * See sabotage.h. The faults of the guest replace one operation of its table here; the faults of the line are in
 * sabotage_line.c.
 *
 * Each fault keeps hurting the same victims for the whole migration, since a page that is sent properly later would
 * heal.
 */
#include "engine/sabotage_private.h"

#include <stdlib.h>
#include <string.h>

#include "multifd/bitmap.h"
#include "transport/error.h"

const char *const sabotage_names[SABOTAGE_KINDS + 1] = {
    "none", "drop-dirty-bit", "swap-pages", "stale-page", "lose-extent", "old-device-state", NULL,
};

/* ---- faults of the guest ---- */

static enum godwit_err drop_dirty_sync(void *self, unsigned block, uint64_t *bitmap, struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    uint64_t pages = sabotage->guest.blocks[0].size / PAGE_SIZE;
    if (block != 0)
        return sabotage->guest.ops.dirty_sync(sabotage->guest.self, block, bitmap, error);
    uint64_t *found = calloc(bitmap_words(pages), sizeof *found);
    if (found == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to drop a dirty bit");
    enum godwit_err err = sabotage->guest.ops.dirty_sync(sabotage->guest.self, 0, found, error);
    /* A page that was clean at the last sync was not sent in the last pass: its new content would be lost for sure. */
    sabotage->syncs++;
    struct run victim = bitmap_next_run(found, sabotage->before, pages, 0, 1);
    if (!sabotage->chosen && sabotage->syncs > 1 && victim.pages > 0) {
        sabotage->chosen = true;
        sabotage->victim = victim.first;
    }
    memcpy(sabotage->before, found, bitmap_words(pages) * sizeof *found);
    if (sabotage->chosen)
        bitmap_clear(found, sabotage->victim, 1);
    for (uint64_t word = 0; word < bitmap_words(pages); word++)
        bitmap[word] |= found[word];
    free(found);
    return err;
}

static enum godwit_err keep_old_state(void *self, struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    const struct guest *guest = &sabotage->guest;
    enum godwit_err err = guest->ops.dirty_start(guest->self, error);
    if (err == GODWIT_OK)
        err = guest->ops.stop(guest->self, error);
    for (unsigned i = 0; i < guest->stream_count && err == GODWIT_OK; i++)
        err = guest->ops.save_rest(guest->self, i, &sabotage->old[i], error);
    return err == GODWIT_OK ? guest->ops.resume(guest->self, error) : err;
}

static enum godwit_err save_old_state(void *self, unsigned stream, struct godwit_state_writer *writer,
                                      struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    return godwit_state_write(writer, sabotage->old[stream].bytes, sabotage->old[stream].size);
}

/* Operations whose self is the sabotage must be forwarded one by one, all others too once self is replaced. */
static void forward_dirty_stop(void *self)
{
    struct sabotage *sabotage = self;
    sabotage->guest.ops.dirty_stop(sabotage->guest.self);
}

static enum godwit_err forward_dirty_start(void *self, struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    return sabotage->guest.ops.dirty_start(sabotage->guest.self, error);
}

static enum godwit_err forward_dirty_sync(void *self, unsigned block, uint64_t *bitmap, struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    return sabotage->guest.ops.dirty_sync(sabotage->guest.self, block, bitmap, error);
}

static enum godwit_err forward_dirty_clear(void *self, unsigned block, uint64_t first, uint64_t pages,
                                           struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    return sabotage->guest.ops.dirty_clear(sabotage->guest.self, block, first, pages, error);
}

static enum godwit_err forward_next_data(void *self, unsigned block, uint64_t from, uint64_t *first, uint64_t *pages,
                                         struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    return guest_next_data(&sabotage->guest, block, from, first, pages, error);
}

static enum godwit_err forward_stop(void *self, struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    return sabotage->guest.ops.stop(sabotage->guest.self, error);
}

static enum godwit_err forward_resume(void *self, struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    return sabotage->guest.ops.resume(sabotage->guest.self, error);
}

static uint64_t forward_pending(void *self, unsigned stream)
{
    struct sabotage *sabotage = self;
    return sabotage->guest.ops.state_pending(sabotage->guest.self, stream);
}

static enum godwit_err forward_some(void *self, unsigned stream, uint64_t budget, struct godwit_state_writer *writer,
                                    struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    return sabotage->guest.ops.save_some(sabotage->guest.self, stream, budget, writer, error);
}

static enum godwit_err forward_rest(void *self, unsigned stream, struct godwit_state_writer *writer,
                                    struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    return sabotage->guest.ops.save_rest(sabotage->guest.self, stream, writer, error);
}

static bool forward_ready(void *self)
{
    struct sabotage *sabotage = self;
    return sabotage->guest.ops.switchover_ready(sabotage->guest.self);
}

static enum godwit_err forward_release(void *self, struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    return sabotage->guest.ops.release(sabotage->guest.self, error);
}

static enum godwit_err forward_reclaim(void *self, struct godwit_error *error)
{
    struct sabotage *sabotage = self;
    return sabotage->guest.ops.reclaim(sabotage->guest.self, error);
}

static void damage_guest(struct sabotage *sabotage, struct guest *guest)
{
    bool old = sabotage->kind == SABOTAGE_OLD_DEVICE_STATE;
    guest->self = sabotage;
    guest->ops = (struct godwit_guest_ops){
        .dirty_start = old ? keep_old_state : forward_dirty_start,
        .dirty_sync = old ? forward_dirty_sync : drop_dirty_sync,
        .dirty_clear = sabotage->guest.ops.dirty_clear != NULL ? forward_dirty_clear : NULL,
        .dirty_stop = forward_dirty_stop,
        .next_data = forward_next_data,
        .stop = forward_stop,
        .resume = forward_resume,
        .state_pending = forward_pending,
        .save_some = forward_some,
        .save_rest = old ? save_old_state : forward_rest,
        .switchover_ready = forward_ready,
        .release = forward_release,
        .reclaim = forward_reclaim,
    };
}

enum godwit_err sabotage_new(enum sabotage_kind kind, struct guest *guest, struct sabotage **out,
                             struct godwit_error *error)
{
    *out = NULL;
    if (kind == SABOTAGE_NONE)
        return GODWIT_OK;
    struct sabotage *sabotage = calloc(1, sizeof *sabotage);
    if (sabotage == NULL)
        goto no_memory;
    sabotage->kind = kind;
    sabotage->guest = *guest;
    pthread_mutex_init(&sabotage->lock, NULL);
    sabotage->before = calloc(bitmap_words(guest->blocks[0].size / PAGE_SIZE), sizeof(uint64_t));
    sabotage->old = calloc(guest->stream_count + 1, sizeof *sabotage->old);
    sabotage->pages = kind == SABOTAGE_STALE_PAGE ? calloc(OLD_PAGES_MAX, sizeof *sabotage->pages) : NULL;
    if (sabotage->before == NULL || sabotage->old == NULL || (kind == SABOTAGE_STALE_PAGE && sabotage->pages == NULL))
        goto no_memory;
    if (kind == SABOTAGE_DROP_DIRTY_BIT || kind == SABOTAGE_OLD_DEVICE_STATE)
        damage_guest(sabotage, guest);
    *out = sabotage;
    return GODWIT_OK;

no_memory:
    sabotage_free(sabotage);
    return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for x-fault");
}

void sabotage_free(struct sabotage *sabotage)
{
    if (sabotage == NULL)
        return;
    for (unsigned i = 0; sabotage->old != NULL && i < sabotage->guest.stream_count; i++)
        free(sabotage->old[i].bytes);
    free(sabotage->old);
    free(sabotage->before);
    free(sabotage->pages);
    pthread_mutex_destroy(&sabotage->lock);
    free(sabotage);
}
