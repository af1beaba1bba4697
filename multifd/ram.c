/* See ram.h. */
#include "multifd/ram.h"

#include <stdlib.h>
#include <string.h>

#include "multifd/bitmap.h"

static bool block_init(struct ram_block *block, const struct godwit_block *from, bool with_received)
{
    *block = (struct ram_block){
        .addr = from->addr,
        .pages = from->size / PAGE_SIZE,
        .fd = from->fd,
        .fd_offset = from->fd_offset,
        .fresh = from->content != GODWIT_BLOCK_USED,
        .present = from->presence == GODWIT_BLOCK_PRESENT,
    };
    memcpy(block->id, from->id, sizeof block->id);
    if (!with_received)
        return true;
    block->received = calloc(bitmap_words(block->pages), sizeof *block->received);
    block->stored = calloc(bitmap_words(block->pages), sizeof *block->stored);
    return block->received != NULL && block->stored != NULL;
}

struct ram *ram_new(const struct godwit_block *blocks, unsigned count, bool with_received)
{
    struct ram *ram = calloc(1, sizeof *ram);
    if (ram == NULL)
        return NULL;
    ram->blocks = calloc(count, sizeof *ram->blocks);
    if (ram->blocks == NULL)
        goto free_ram;
    while (ram->count < count) {
        struct ram_block *block = &ram->blocks[ram->count];
        bool made = block_init(block, &blocks[ram->count++], with_received);
        if (!made)
            goto free_ram;
        ram->pages += block->pages;
    }
    return ram;

free_ram:
    ram_free(ram);
    return NULL;
}

void ram_free(struct ram *ram)
{
    if (ram == NULL)
        return;
    for (unsigned i = 0; i < ram->count; i++) {
        free(ram->blocks[i].received);
        free(ram->blocks[i].stored);
        remote_free(ram->blocks[i].remote);
        mr_free(ram->blocks[i].mr);
    }
    free(ram->blocks);
    free(ram);
}
