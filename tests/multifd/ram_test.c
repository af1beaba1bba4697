/* How memory is cut into slices, and mapped a second time. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "multifd/ram.h"

TestSuite(ram, .timeout = 20);

Test(ram, every_page_is_in_one_slice_and_the_last_may_be_short)
{
    static const uint64_t pages[] = {1, 511, 512, 513, 1024, 5000};
    struct godwit_block blocks[6] = {0};
    for (unsigned i = 0; i < 6; i++)
        blocks[i] = (struct godwit_block){.size = pages[i] * PAGE_SIZE, .fd = -1};
    struct ram *ram = ram_new(blocks, 6, false);
    cr_assert_not_null(ram);
    cr_assert(ram_cut(ram, SLICE_SIZE_MIN));
    uint32_t seen = 0;
    for (unsigned i = 0; i < 6; i++) {
        const struct ram_block *block = &ram->blocks[i];
        uint64_t next = 0;
        for (uint32_t k = 0; k < block->slice_count; k++, seen++) {
            const struct slice *slice = &block->slices[k];
            cr_assert_eq(slice, &ram->slices[seen]);
            cr_assert_eq(slice->block, i);
            cr_assert_eq(slice_index(ram, slice), k);
            cr_assert_eq(slice_first(ram, slice), next);
            cr_assert(slice_pages(ram, slice) > 0 && slice_pages(ram, slice) <= 512);
            next += slice_pages(ram, slice);
        }
        cr_assert_eq(next, pages[i]);
    }
    cr_assert_eq(seen, ram->slice_count);
    ram_free(ram);
}

Test(ram, the_second_mapping_is_the_same_memory_and_needs_a_descriptor)
{
    enum { SIZE = 16 * PAGE_SIZE };
    int fd = memfd_create("ram", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(fd, 2 * SIZE), 0);
    uint8_t *addr = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, SIZE);
    struct godwit_block blocks[2] = {{.addr = addr, .size = SIZE, .fd = fd, .fd_offset = SIZE},
                                     {.addr = addr, .size = SIZE, .fd = -1}};
    struct ram *ram = ram_new(blocks, 2, false);
    cr_assert(ram_map_again(&ram->blocks[0]));
    cr_assert_neq(ram->blocks[0].alias, addr);
    addr[5 * PAGE_SIZE] = 77;
    cr_assert_eq(ram->blocks[0].alias[5 * PAGE_SIZE], 77);
    cr_assert_not(ram_map_again(&ram->blocks[1]));
    cr_assert_null(ram->blocks[1].alias);
    cr_assert_eq(ram_content(&ram->blocks[0], 5), ram->blocks[0].alias + 5 * PAGE_SIZE, "mapped there already");
    cr_assert_eq(ram_content(&ram->blocks[1], 5), addr + 5 * PAGE_SIZE);
    ram_free(ram);
    munmap(addr, SIZE);
    close(fd);
}
