/*
 * The idle guest.
 *
 * Happy path: map the file shared and read-only, or generate memory; the engine's default for the dirty log ("nothing
 * ever writes the memory") is the truth, so those operations are left out. One small stream makes the state path run
 * too. Failure modes: unusable files and sizes, all before a migration begins.
 */
#include "guest/idle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <godwit/tracker.h>

#include "guest/guest_error.h"
#include "guest/memory_file.h"
#include "guest/state_codec.h"

enum { IDLE_STATE_VERSION = 1 };

struct idle_guest {
    struct memory ram;
    uint64_t seed;
    struct godwit_block block;
    struct godwit_guest interface;
};

static const char *const idle_streams[] = {"idle"};

void idle_guest_config_init(struct idle_guest_config *config)
{
    *config = (struct idle_guest_config){.pattern = PATTERN_RANDOM, .seed = 1, .backing = MEMORY_MEMFD};
}

static enum godwit_err idle_map_file(struct idle_guest *guest, const struct idle_guest_config *config,
                                     struct godwit_error *error)
{
    int fd;
    uint64_t size;
    enum godwit_err err = memory_file_open(config->memory_from, &fd, &size, error);
    if (err)
        return err;
    guest->ram = (struct memory){.size = size, .fd = fd, .page_size = GODWIT_PAGE_SIZE};
    if (config->ram && config->ram != size)
        return guest_fail(error, GODWIT_ERR_INVALID,
                          "memory file %s has %" PRIu64 " bytes, the guest is to have %" PRIu64, config->memory_from,
                          size, config->ram);
    void *addr = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (addr == MAP_FAILED)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot map memory file %s", config->memory_from);
    guest->ram.addr = addr;
    return GODWIT_OK;
}

static enum godwit_err idle_generate(struct idle_guest *guest, const struct idle_guest_config *config,
                                     struct godwit_error *error)
{
    if (config->pattern == PATTERN_FILE)
        return guest_fail(error, GODWIT_ERR_INVALID, "an idle guest without a file needs a pattern to generate");
    enum godwit_err err = memory_alloc(&guest->ram, config->backing, config->ram, config->prealloc, error);
    if (!err)
        pattern_fill(config->pattern, config->seed, guest->ram.addr, guest->ram.size);
    return err;
}

static enum godwit_err idle_next_data(void *self, unsigned block, uint64_t from, uint64_t *first, uint64_t *pages,
                                      struct godwit_error *error)
{
    const struct idle_guest *guest = self;
    return godwit_memory_next_data(guest->ram.addr, guest->ram.size, guest->ram.fd, 0, from, first, pages, error);
}

static enum godwit_err idle_save_rest(void *self, unsigned stream, struct godwit_state_writer *writer,
                                      struct godwit_error *error)
{
    const struct idle_guest *guest = self;
    uint8_t bytes[20];
    struct state_cursor cursor = {bytes, bytes + sizeof bytes, false};
    state_put(&cursor, IDLE_STATE_VERSION, 4);
    state_put(&cursor, guest->ram.size, 8);
    state_put(&cursor, guest->seed, 8);
    enum godwit_err err = godwit_state_write(writer, bytes, sizeof bytes);
    return err ? guest_fail(error, err, "cannot save the idle guest's state") : GODWIT_OK;
}

static const struct godwit_guest_ops idle_ops = {
    .next_data = idle_next_data,
    .save_rest = idle_save_rest,
};

enum godwit_err idle_guest_new(struct idle_guest **out, const struct idle_guest_config *config,
                               struct godwit_error *error)
{
    struct idle_guest *guest = calloc(1, sizeof *guest);
    if (!guest)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for a guest");
    guest->ram.fd = -1;
    guest->seed = config->seed;
    enum godwit_err err = config->memory_from ? idle_map_file(guest, config, error)
                                              : idle_generate(guest, config, error);
    if (err) {
        idle_guest_free(guest);
        return err;
    }
    guest->block = (struct godwit_block){.id = MEMORY_BLOCK_ID,
                                         .addr = guest->ram.addr,
                                         .size = guest->ram.size,
                                         .page_size = guest->ram.page_size,
                                         .fd = guest->ram.fd};
    guest->interface = (struct godwit_guest){.ops = &idle_ops,
                                             .self = guest,
                                             .blocks = &guest->block,
                                             .block_count = 1,
                                             .streams = idle_streams,
                                             .stream_count = 1};
    *out = guest;
    return GODWIT_OK;
}

const struct godwit_guest *idle_guest_interface(const struct idle_guest *guest)
{
    return &guest->interface;
}

void idle_guest_free(struct idle_guest *guest)
{
    if (!guest)
        return;
    memory_free(&guest->ram);
    free(guest);
}
