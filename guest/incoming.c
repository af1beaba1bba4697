#include "guest/incoming.h"

#include <string.h>

#include "guest/guest_error.h"

void incoming_config_init(struct incoming_config *config)
{
    *config = (struct incoming_config){.backing = MEMORY_MEMFD};
}

enum godwit_err incoming_config_check(const struct incoming_config *config, struct godwit_error *error)
{
    if (config->keep_image && config->backing == MEMORY_ANON)
        return guest_fail(error, GODWIT_ERR_INVALID, "keeping the arrival image needs memfd or hugetlb backing");
    return GODWIT_OK;
}

enum godwit_err incoming_accept(const struct incoming_config *config, const char *kind,
                                const struct godwit_block *offered, unsigned count, struct memory *ram,
                                struct memory *view, struct godwit_error *error)
{
    if (ram->addr)
        return guest_fail(error, GODWIT_ERR_BUSY, "this destination has a guest already");
    if (count != 1 || strcmp(offered[0].id, MEMORY_BLOCK_ID) != 0)
        return guest_fail(error, GODWIT_ERR_MISMATCH,
                          "a %s guest has one memory block \"%s\"; the source offers %u, the first is \"%s\"", kind,
                          MEMORY_BLOCK_ID, count, count ? offered[0].id : "");
    enum godwit_err err = memory_alloc(ram, config->backing, offered[0].size, config->prealloc, error);
    if (err || !config->keep_image)
        return err;
    err = memory_private_view(view, ram, error);
    if (err)
        memory_free(ram);
    return err;
}

void incoming_describe(const struct incoming_config *config, const struct memory *ram, struct godwit_block *mine)
{
    mine->addr = ram->addr;
    mine->fd = ram->fd;
    mine->fd_offset = 0;
    mine->page_size = ram->page_size;
    mine->content = GODWIT_BLOCK_FRESH;
    mine->presence = config->prealloc ? GODWIT_BLOCK_PRESENT : GODWIT_BLOCK_ON_DEMAND;
}
