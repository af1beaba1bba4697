/* See ram.h. */
#include "multifd/ram.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

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
    for (uint32_t i = 0; i < ram->slice_count; i++) {
        remote_free(ram->slices[i].remote);
        mr_free(ram->slices[i].mr);
    }
    for (unsigned i = 0; i < ram->count; i++) {
        struct ram_block *block = &ram->blocks[i];
        free(block->received);
        free(block->stored);
        if (block->alias != NULL) /* after the registrations that name it */
            munmap(block->alias, block->pages << PAGE_SHIFT);
    }
    free(ram->slices);
    free(ram->blocks);
    free(ram);
}

bool ram_cut(struct ram *ram, uint32_t slice_size)
{
    assert(slice_size >= PAGE_SIZE && (slice_size & (slice_size - 1)) == 0 && "slices are powers of 2");
    uint64_t pages = slice_size >> PAGE_SHIFT, count = 0;
    for (unsigned i = 0; i < ram->count; i++)
        count += (ram->blocks[i].pages + pages - 1) / pages;
    struct slice *next = count <= UINT32_MAX ? calloc(count, sizeof *next) : NULL;
    if (next == NULL)
        return false;
    ram->slices = next;
    ram->slice_count = (uint32_t)count;
    ram->slice_size = slice_size;
    ram->slice_shift = (unsigned)__builtin_ctz(slice_size);
    for (unsigned i = 0; i < ram->count; i++) {
        struct ram_block *block = &ram->blocks[i];
        block->slices = next;
        block->slice_count = (uint32_t)((block->pages + pages - 1) / pages);
        for (uint32_t k = 0; k < block->slice_count; k++)
            next++->block = (uint16_t)i;
    }
    return true;
}

bool ram_map_again(struct ram_block *block)
{
    if (block->fd < 0)
        return false;
    void *addr = mmap(NULL, block->pages << PAGE_SHIFT, PROT_READ | PROT_WRITE, MAP_SHARED, block->fd,
                      (off_t)block->fd_offset);
    if (addr == MAP_FAILED)
        return false;
    block->alias = addr;
    return true;
}
