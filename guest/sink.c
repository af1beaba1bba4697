/*
 * The sink.
 *
 * Happy path: accept makes room for every block (in the dump file, or one memory each), copies the initial content if
 * there is one, load counts bytes, resume means that the source has let go, commit finishes a dump. Failure modes: no
 * room, an initial content larger than the guest; discard and a free without resume remove the partial file. After
 * resume it is the guest's only copy and stays whatever happens.
 */
#include "guest/sink.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/guest_error.h"
#include "guest/memory_file.h"
#include "guest/sink_dump.h"

struct sink_guest {
    struct sink_guest_config config; /* its strings are not used: see the two below */
    char *memory_from;
    struct sink_dump dump;
    struct memory *rams; /* but for SINK_DUMP: one per block */
    struct godwit_block *blocks;
    unsigned block_count;
    uint64_t state_bytes;
    bool ran;
    bool committed;
    struct godwit_guest interface;
};

void sink_guest_config_init(struct sink_guest_config *config)
{
    *config = (struct sink_guest_config){.mode = SINK_MEMORY, .backing = MEMORY_MEMFD};
}

static void sink_discard(void *self)
{
    struct sink_guest *guest = self;
    for (unsigned i = 0; guest->rams && i < guest->block_count; i++)
        memory_free(&guest->rams[i]);
    free(guest->rams);
    free(guest->blocks);
    guest->rams = NULL;
    guest->blocks = NULL;
    guest->block_count = 0;
    sink_dump_close(&guest->dump, !guest->ran);
}

static enum godwit_err sink_total(const struct godwit_block *offered, unsigned count, uint64_t *total,
                                  struct godwit_error *error)
{
    *total = 0;
    for (unsigned i = 0; i < count; i++) {
        if (!offered[i].size || offered[i].size % GODWIT_PAGE_SIZE)
            return guest_fail(error, GODWIT_ERR_MISMATCH, "block \"%s\" has %" PRIu64 " bytes, not whole pages",
                              offered[i].id, offered[i].size);
        if (offered[i].size > RAM_SIZE_MAX - *total)
            return guest_fail(error, GODWIT_ERR_TOO_BIG, "the offered blocks have more than %llu bytes", RAM_SIZE_MAX);
        *total += offered[i].size;
    }
    return *total ? GODWIT_OK : guest_fail(error, GODWIT_ERR_MISMATCH, "the source offers no memory");
}

/* Initial content: the file's bytes from `at` on belong to the block. */
static enum godwit_err sink_fill_block(struct sink_guest *guest, const struct godwit_block *block, int fd, uint64_t at,
                                       uint64_t file, struct godwit_error *error)
{
    if (at >= file)
        return GODWIT_OK;
    uint64_t size = block->size < file - at ? block->size : file - at;
    return memory_file_copy(guest->memory_from, fd, at, block->addr, size, error);
}

static enum godwit_err sink_fill(struct sink_guest *guest, uint64_t total, struct godwit_error *error)
{
    int fd;
    uint64_t file, at = 0;
    enum godwit_err err = memory_file_open(guest->memory_from, &fd, &file, error);
    if (err)
        return err;
    if (file > total)
        err = guest_fail(error, GODWIT_ERR_MISMATCH,
                         "memory file %s has %" PRIu64 " bytes, the offered guest only %" PRIu64, guest->memory_from,
                         file, total);
    for (unsigned i = 0; !err && i < guest->block_count; i++) {
        err = sink_fill_block(guest, &guest->blocks[i], fd, at, file, error);
        at += guest->blocks[i].size;
    }
    close(fd);
    return err;
}

static enum godwit_err sink_place_memory(struct sink_guest *guest, struct godwit_error *error)
{
    for (unsigned i = 0; i < guest->block_count; i++) {
        struct godwit_block *block = &guest->blocks[i];
        struct memory *ram = &guest->rams[i];
        enum godwit_err err =
            guest->config.mode == SINK_DISCARD
                ? memory_scratch(ram, block->size, error)
                : memory_alloc(ram, guest->config.backing, block->size, guest->config.prealloc, error);
        if (err)
            return err;
        block->addr = ram->addr;
        block->fd = ram->fd;
        block->fd_offset = 0;
        block->page_size = ram->page_size;
        if (guest->config.mode == SINK_MEMORY && guest->config.prealloc)
            block->presence = GODWIT_BLOCK_PRESENT;
    }
    return GODWIT_OK;
}

static enum godwit_err sink_place_dump(struct sink_guest *guest, uint64_t total, struct godwit_error *error)
{
    enum godwit_err err = sink_dump_open(&guest->dump, total, guest->config.prealloc, error);
    if (err)
        return err;
    uint64_t at = 0;
    for (unsigned i = 0; i < guest->block_count; i++) {
        struct godwit_block *block = &guest->blocks[i];
        block->addr = (char *)guest->dump.addr + at;
        block->fd = guest->dump.fd;
        block->fd_offset = at;
        block->page_size = GODWIT_PAGE_SIZE;
        at += block->size;
    }
    return GODWIT_OK;
}

static enum godwit_err sink_accept(void *self, const struct godwit_block *offered, unsigned count,
                                   struct godwit_block *mine, struct godwit_error *error)
{
    struct sink_guest *guest = self;
    uint64_t total;
    if (guest->blocks || guest->ran)
        return guest_fail(error, GODWIT_ERR_BUSY, "this destination has received a guest already");
    enum godwit_err err = sink_total(offered, count, &total, error);
    if (err)
        return err;
    guest->blocks = calloc(count, sizeof *guest->blocks);
    guest->rams = calloc(count, sizeof *guest->rams);
    if (!guest->blocks || !guest->rams) {
        sink_discard(guest);
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for %u blocks", count);
    }
    guest->block_count = count;
    guest->state_bytes = 0;
    for (unsigned i = 0; i < count; i++) {
        guest->rams[i].fd = -1;
        guest->blocks[i] = offered[i];
        guest->blocks[i].content = guest->config.mode == SINK_DISCARD ? GODWIT_BLOCK_SCRATCH
                                   : guest->memory_from               ? GODWIT_BLOCK_USED
                                                                      : GODWIT_BLOCK_FRESH;
    }
    err = guest->config.mode == SINK_DUMP ? sink_place_dump(guest, total, error) : sink_place_memory(guest, error);
    if (!err && guest->memory_from)
        err = sink_fill(guest, total, error);
    if (err)
        sink_discard(guest);
    else
        memcpy(mine, guest->blocks, count * sizeof *mine);
    return err;
}

static enum godwit_err sink_load(void *self, const char *stream, const void *data, size_t size,
                                 struct godwit_error *error)
{
    struct sink_guest *guest = self;
    guest->state_bytes += size;
    return GODWIT_OK;
}

static enum godwit_err sink_resume(void *self, struct godwit_error *error)
{
    struct sink_guest *guest = self;
    guest->ran = true;
    return GODWIT_OK;
}

static const struct godwit_guest_ops sink_ops = {
    .resume = sink_resume,
    .accept = sink_accept,
    .load = sink_load,
    .discard = sink_discard,
};

enum godwit_err sink_guest_new(struct sink_guest **out, const struct sink_guest_config *config,
                               struct godwit_error *error)
{
    struct sink_guest *guest = calloc(1, sizeof *guest);
    if (!guest)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for a guest");
    guest->config = *config;
    guest->dump.fd = -1;
    guest->interface = (struct godwit_guest){.ops = &sink_ops, .self = guest};
    enum godwit_err err = GODWIT_OK;
    if (config->memory_from && !(guest->memory_from = strdup(config->memory_from)))
        err = guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for a file name");
    if (!err && config->mode == SINK_DUMP)
        err = sink_dump_init(&guest->dump, config->dump, error);
    if (err) {
        sink_guest_free(guest);
        return err;
    }
    *out = guest;
    return GODWIT_OK;
}

const struct godwit_guest *sink_guest_interface(const struct sink_guest *guest)
{
    return &guest->interface;
}

enum godwit_err sink_guest_commit(struct sink_guest *guest, struct godwit_error *error)
{
    if (!guest->blocks)
        return guest_fail(error, GODWIT_ERR_INVALID, "nothing was received that could be kept");
    if (guest->config.mode != SINK_DUMP || guest->committed)
        return GODWIT_OK;
    enum godwit_err err = sink_dump_commit(&guest->dump, error);
    guest->committed = !err;
    return err;
}

uint64_t sink_guest_state_bytes(const struct sink_guest *guest)
{
    return guest->state_bytes;
}

const struct godwit_block *sink_guest_block(const struct sink_guest *guest, unsigned i)
{
    return i < guest->block_count ? &guest->blocks[i] : NULL;
}

void sink_guest_free(struct sink_guest *guest)
{
    if (!guest)
        return;
    guest->ran = guest->ran || guest->committed; /* a committed dump has no partial file, and another's is not ours */
    sink_discard(guest);
    sink_dump_fini(&guest->dump);
    free(guest->memory_from);
    free(guest);
}
