/* Defaults for the operations an embedder left out, as <godwit/guest.h> states them. */
#include "engine/guest.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "transport/error.h"

static enum godwit_err nothing(void *self, struct godwit_error *error)
{
    return GODWIT_OK;
}

static void nothing_void(void *self)
{
}

static enum godwit_err never_dirty(void *self, unsigned block, uint64_t *bitmap, struct godwit_error *error)
{
    return GODWIT_OK;
}

static uint64_t nothing_pending(void *self, unsigned stream)
{
    return 0;
}

static enum godwit_err save_no_some(void *self, unsigned stream, uint64_t budget, struct godwit_state_writer *writer,
                                    struct godwit_error *error)
{
    return GODWIT_OK;
}

static enum godwit_err save_no_rest(void *self, unsigned stream, struct godwit_state_writer *writer,
                                    struct godwit_error *error)
{
    return GODWIT_OK;
}

static bool always_ready(void *self)
{
    return true;
}

static enum godwit_err load_nothing(void *self, const char *stream, const void *data, size_t size,
                                    struct godwit_error *error)
{
    return error_set(error, GODWIT_ERR_GUEST, "the destination's guest has no device state called %s", stream);
}

static enum godwit_err check_block(const struct guest *guest, unsigned index, struct godwit_error *error)
{
    const struct godwit_block *block = &guest->blocks[index];
    if (block->id[0] == 0 || memchr(block->id, 0, sizeof block->id) == NULL)
        return error_set(error, GODWIT_ERR_INVALID, "memory block %u has no name of 1 to %u bytes", index,
                         GODWIT_BLOCK_ID_MAX);
    if (block->size == 0 || block->size % GODWIT_PAGE_SIZE != 0 || block->addr == NULL ||
        (uintptr_t)block->addr % GODWIT_PAGE_SIZE != 0)
        return error_set(error, GODWIT_ERR_INVALID, "memory block %s is not made of whole pages of %u bytes", block->id,
                         GODWIT_PAGE_SIZE);
    for (unsigned i = 0; i < index; i++)
        if (strcmp(guest->blocks[i].id, block->id) == 0)
            return error_set(error, GODWIT_ERR_INVALID, "two memory blocks are called %s", block->id);
    return GODWIT_OK;
}

static enum godwit_err check_stream(const struct guest *guest, unsigned index, struct godwit_error *error)
{
    const char *name = guest->streams[index];
    if (name[0] == 0 || strlen(name) > GODWIT_STATE_NAME_MAX)
        return error_set(error, GODWIT_ERR_INVALID, "device state %u has no name of 1 to %u bytes", index,
                         GODWIT_STATE_NAME_MAX);
    for (unsigned i = 0; i < index; i++)
        if (strcmp(guest->streams[i], name) == 0)
            return error_set(error, GODWIT_ERR_INVALID, "two device states are called %s", name);
    return GODWIT_OK;
}

/* For the default accept: the guest's own blocks, which must be those offered. */
static enum godwit_err accept_own(void *self, const struct godwit_block *offered, unsigned count,
                                  struct godwit_block *mine, struct godwit_error *error)
{
    const struct guest *guest = self;
    if (count != guest->block_count)
        return error_set(error, GODWIT_ERR_MISMATCH, "memory mismatch: the source has %u blocks, the destination %u",
                         count, guest->block_count);
    for (unsigned i = 0; i < count; i++) {
        const struct godwit_block *own = NULL;
        for (unsigned k = 0; k < count && own == NULL; k++)
            own = strcmp(guest->blocks[k].id, offered[i].id) == 0 ? &guest->blocks[k] : NULL;
        if (own == NULL)
            return error_set(error, GODWIT_ERR_MISMATCH, "memory mismatch: the destination has no block %s",
                             offered[i].id);
        if (own->size != offered[i].size)
            return error_set(error, GODWIT_ERR_MISMATCH,
                             "memory mismatch: block %s has %llu bytes at the source, %llu here", own->id,
                             (unsigned long long)offered[i].size, (unsigned long long)own->size);
        mine[i] = *own;
    }
    return GODWIT_OK;
}

#define FILL(slot, standard)         \
    do {                             \
        if (out->ops.slot == NULL)   \
            out->ops.slot = standard; \
    } while (0)

enum godwit_err guest_resolve(const struct godwit_guest *from, struct guest *out, struct godwit_error *error)
{
    *out = (struct guest){.self = from->self,
                          .blocks = from->blocks,
                          .block_count = from->block_count,
                          .streams = from->streams,
                          .stream_count = from->stream_count};
    if (from->ops != NULL)
        out->ops = *from->ops;
    FILL(dirty_start, nothing);
    FILL(dirty_sync, never_dirty);
    FILL(dirty_stop, nothing_void);
    FILL(stop, nothing);
    FILL(resume, nothing);
    FILL(state_pending, nothing_pending);
    FILL(save_some, save_no_some);
    FILL(save_rest, save_no_rest);
    FILL(switchover_ready, always_ready);
    FILL(release, nothing);
    FILL(reclaim, nothing);
    FILL(load, load_nothing);
    FILL(discard, nothing_void);
    if (out->block_count > GODWIT_BLOCKS_MAX || out->stream_count > GODWIT_STATES_MAX)
        return error_set(error, GODWIT_ERR_INVALID, "a guest has at most %u memory blocks and %u device states",
                         GODWIT_BLOCKS_MAX, GODWIT_STATES_MAX);
    for (unsigned i = 0; i < out->block_count; i++) {
        enum godwit_err err = check_block(out, i, error);
        if (err != GODWIT_OK)
            return err;
    }
    for (unsigned i = 0; i < out->stream_count; i++) {
        enum godwit_err err = check_stream(out, i, error);
        if (err != GODWIT_OK)
            return err;
    }
    return GODWIT_OK;
}

enum godwit_err guest_accept(const struct guest *guest, const struct godwit_block *offered, unsigned count,
                             struct godwit_block *mine, struct godwit_error *error)
{
    for (unsigned i = 0; i < count; i++)
        mine[i] = offered[i];
    if (guest->ops.accept != NULL)
        return guest_checked(guest->ops.accept(guest->self, offered, count, mine, error), error,
                             "the destination's guest gives no memory");
    return accept_own((void *)(uintptr_t)guest, offered, count, mine, error);
}

enum godwit_err guest_next_data(const struct guest *guest, unsigned block, uint64_t from, uint64_t *first,
                                uint64_t *pages, struct godwit_error *error)
{
    if (guest->ops.next_data != NULL)
        return guest_checked(guest->ops.next_data(guest->self, block, from, first, pages, error), error,
                             "cannot find what block %s holds", guest->blocks[block].id);
    *first = from;
    *pages = guest->blocks[block].size / GODWIT_PAGE_SIZE - from;
    return GODWIT_OK;
}

enum godwit_err guest_checked(enum godwit_err err, struct godwit_error *error, const char *format, ...)
{
    if (err == GODWIT_OK)
        return GODWIT_OK;
    if (error->code == GODWIT_OK || error->text[0] == 0)
        error_set(error, err, "%s", godwit_err_text(err));
    error->code = err;
    char context[128];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof context, format, args);
    va_end(args);
    error_prefix(error, "%s", context);
    return err;
}
