#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/host_memory.h"

TestSuite(host_memory, .timeout = 20);

static const uint64_t MIB = 1 << 20;

static struct godwit_block block_on(int fd, uint64_t size)
{
    struct godwit_block block = {.size = size, .fd = fd, .addr = (void *)(uintptr_t)4096};
    cr_assert(fd < 0 || ftruncate(fd, (off_t)size) == 0);
    return block;
}

static int memfd(void)
{
    int fd = memfd_create("godwit-test", MFD_CLOEXEC);
    cr_assert_geq(fd, 0);
    return fd;
}

static void allocate(int fd, uint64_t size)
{
    cr_assert_eq(posix_fallocate(fd, 0, (off_t)size), 0);
}

static enum godwit_err check(const struct godwit_block *blocks, unsigned count, uint64_t populated, uint64_t available,
                             struct godwit_error *error)
{
    memset(error, 0, sizeof *error);
    return host_memory_check(blocks, count, populated, available, error);
}

Test(host_memory, something_is_available_here)
{
    cr_assert_gt(host_memory_available(), MIB);
}

Test(host_memory, anonymous_memory_needs_what_the_guest_has_in_use)
{
    struct godwit_block block = block_on(-1, 64 * MIB);
    struct godwit_error error;
    cr_assert_eq(check(&block, 1, 10 * MIB, 10 * MIB, &error), GODWIT_OK, "%s", error.text);
    cr_assert_eq(check(&block, 1, 10 * MIB, 9 * MIB, &error), GODWIT_ERR_NO_MEMORY);
    cr_assert(strstr(error.text, "10 MiB") && strstr(error.text, "9 MiB"), "%s", error.text);
    cr_assert_eq(check(&block, 1, 10 * MIB, UINT64_MAX, &error), GODWIT_OK);
}

Test(host_memory, what_a_memfd_has_allocated_counts_as_had)
{
    int fd = memfd();
    struct godwit_block block = block_on(fd, 64 * MIB);
    struct godwit_error error;
    cr_assert_eq(check(&block, 1, 10 * MIB, 4 * MIB, &error), GODWIT_ERR_NO_MEMORY);
    allocate(fd, 6 * MIB);
    cr_assert_eq(check(&block, 1, 10 * MIB, 4 * MIB, &error), GODWIT_OK, "%s", error.text);
    cr_assert_eq(check(&block, 1, 11 * MIB, 4 * MIB, &error), GODWIT_ERR_NO_MEMORY);
    allocate(fd, 64 * MIB);
    cr_assert_eq(check(&block, 1, 64 * MIB, 0, &error), GODWIT_OK, "%s", error.text);
    close(fd);
}

Test(host_memory, several_blocks_of_one_file_have_what_it_has_only_once)
{
    int fd = memfd();
    struct godwit_block blocks[2] = {block_on(fd, 32 * MIB)};
    struct godwit_error error;
    blocks[1] = blocks[0];
    blocks[1].fd_offset = blocks[0].size = blocks[1].size = 16 * MIB;
    allocate(fd, 6 * MIB);
    cr_assert_eq(check(blocks, 2, 20 * MIB, 10 * MIB, &error), GODWIT_ERR_NO_MEMORY);
    cr_assert_eq(check(blocks, 2, 16 * MIB, 10 * MIB, &error), GODWIT_OK, "%s", error.text);
    close(fd);
}

/* A file on a tmpfs of this size, of our own; -1 where we may not mount. */
static int file_on_tmpfs(const char *size)
{
    char directory[] = "/tmp/godwit-host-memory-XXXXXX", options[32], path[64];
    cr_assert_not_null(mkdtemp(directory));
    snprintf(options, sizeof options, "size=%s", size);
    if (mount("tmpfs", directory, "tmpfs", 0, options) != 0) {
        rmdir(directory);
        return -1;
    }
    snprintf(path, sizeof path, "%s/ram", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    umount2(directory, MNT_DETACH); /* lives as long as fd */
    rmdir(directory);
    cr_assert_geq(fd, 0);
    return fd;
}

Test(host_memory, a_file_needs_room_in_its_file_system)
{
    int fd = file_on_tmpfs("8m");
    if (fd < 0)
        cr_skip_test("this process may not mount a tmpfs");
    struct godwit_block block = block_on(fd, 64 * MIB);
    struct godwit_error error;
    cr_assert_eq(check(&block, 1, 8 * MIB, UINT64_MAX, &error), GODWIT_OK, "%s", error.text);
    cr_assert_eq(check(&block, 1, 9 * MIB, UINT64_MAX, &error), GODWIT_ERR_NO_MEMORY);
    cr_assert_not_null(strstr(error.text, "file system"), "%s", error.text);
    cr_assert_eq(check(&block, 1, 8 * MIB, 7 * MIB, &error), GODWIT_ERR_NO_MEMORY, "tmpfs is memory");
    allocate(fd, 4 * MIB);
    cr_assert_eq(check(&block, 1, 8 * MIB, UINT64_MAX, &error), GODWIT_OK, "%s", error.text);
    cr_assert_eq(check(&block, 1, 9 * MIB, UINT64_MAX, &error), GODWIT_ERR_NO_MEMORY);
    close(fd);
}

Test(host_memory, a_small_file_beside_large_memory_need_not_hold_all_of_it)
{
    int fd = file_on_tmpfs("8m");
    if (fd < 0)
        cr_skip_test("this process may not mount a tmpfs");
    struct godwit_block blocks[2] = {block_on(-1, 64 * MIB), block_on(fd, 4 * MIB)};
    struct godwit_error error;
    cr_assert_eq(check(blocks, 2, 60 * MIB, UINT64_MAX, &error), GODWIT_OK, "%s", error.text);
    close(fd);
}

Test(host_memory, two_file_systems_share_the_guest)
{
    int fds[2] = {file_on_tmpfs("8m"), file_on_tmpfs("8m")};
    if (fds[0] < 0 || fds[1] < 0)
        cr_skip_test("this process may not mount a tmpfs");
    struct godwit_block blocks[2] = {block_on(fds[0], 8 * MIB), block_on(fds[1], 8 * MIB)};
    struct godwit_error error;
    cr_assert_eq(check(blocks, 2, 16 * MIB, UINT64_MAX, &error), GODWIT_OK, "%s", error.text);
    blocks[1] = block_on(fds[1], 32 * MIB);
    cr_assert_eq(check(blocks, 2, 17 * MIB, UINT64_MAX, &error), GODWIT_ERR_NO_MEMORY);
    close(fds[0]);
    close(fds[1]);
}
