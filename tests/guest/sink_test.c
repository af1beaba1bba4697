/* The sink: dump files that appear whole or not at all, and plain memory. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>

#include "guest/sink.h"
#include "tests/guest/temp_file.h"

TestSuite(sink, .timeout = 20);

static const struct godwit_block offer[2] = {
    {.id = "pc.ram", .size = 16 * 4096, .page_size = 4096, .fd = -1},
    {.id = "vga", .size = 4 * 4096, .page_size = 4096, .fd = -1},
};

static struct sink_guest *new_sink(const struct sink_guest_config *config)
{
    struct sink_guest *guest = NULL;
    struct godwit_error error = {0};
    cr_assert_eq(sink_guest_new(&guest, config, &error), GODWIT_OK, "%s", error.text);
    return guest;
}

static enum godwit_err accept_offer(struct sink_guest *guest, struct godwit_block *mine, struct godwit_error *error)
{
    const struct godwit_guest *face = sink_guest_interface(guest);
    memcpy(mine, offer, sizeof offer);
    return face->ops->accept(face->self, offer, 2, mine, error);
}

Test(sink, a_dump_gets_its_name_when_it_is_committed)
{
    struct temp_dir dir;
    char path[128], partial[128];
    temp_dir_make(&dir);
    struct sink_guest_config config;
    sink_guest_config_init(&config);
    config.mode = SINK_DUMP;
    config.dump = temp_path(&dir, "dump", path);
    temp_path(&dir, "dump.partial", partial);
    struct sink_guest *guest = new_sink(&config);
    const struct godwit_guest *face = sink_guest_interface(guest);
    struct godwit_block mine[2];
    cr_assert_eq(accept_offer(guest, mine, NULL), GODWIT_OK);
    cr_expect_eq(mine[1].fd_offset, 16 * 4096);
    cr_expect_eq(mine[0].content, GODWIT_BLOCK_FRESH);
    memset((char *)mine[0].addr + 4096, 'r', 4096);
    memset((char *)mine[1].addr + 3 * 4096, 'v', 4096);
    cr_expect_eq(face->ops->load(face->self, "any", "12345", 5, NULL), GODWIT_OK);
    cr_expect_eq(face->ops->load(face->self, "other", "123", 3, NULL), GODWIT_OK);
    cr_expect_eq(sink_guest_state_bytes(guest), 8);
    cr_expect_eq(face->ops->resume(face->self, NULL), GODWIT_OK);
    cr_expect_eq(access(path, F_OK), -1);
    cr_expect_eq(sink_guest_commit(guest, NULL), GODWIT_OK);
    cr_expect_eq(access(path, F_OK), 0);
    cr_expect_eq(access(partial, F_OK), -1);
    sink_guest_free(guest);

    struct stat status;
    cr_assert_eq(stat(path, &status), 0);
    cr_expect_eq(status.st_size, 20 * 4096);
    cr_expect_lt(status.st_blocks * 512, 10 * 4096, "it is sparse");
    int fd = open(path, O_RDONLY);
    char byte[2];
    cr_expect_eq(pread(fd, byte, 1, 4096), 1);
    cr_expect_eq(pread(fd, byte + 1, 1, 19 * 4096), 1);
    cr_expect(byte[0] == 'r' && byte[1] == 'v');
    close(fd);
    unlink(path);
    temp_dir_remove(&dir);
}

Test(sink, a_failed_migration_leaves_no_file)
{
    struct temp_dir dir;
    char path[128];
    temp_dir_make(&dir);
    struct sink_guest_config config;
    struct godwit_block mine[2];
    sink_guest_config_init(&config);
    config.mode = SINK_DUMP;
    config.dump = temp_path(&dir, "dump", path);
    struct sink_guest *guest = new_sink(&config);
    const struct godwit_guest *face = sink_guest_interface(guest);
    cr_assert_eq(accept_offer(guest, mine, NULL), GODWIT_OK);
    face->ops->discard(face->self);
    cr_expect_eq(rmdir(dir.path), 0);
    cr_assert_eq(mkdir(dir.path, 0700), 0);
    cr_assert_eq(accept_offer(guest, mine, NULL), GODWIT_OK, "another migration may come");
    sink_guest_free(guest);
    temp_dir_remove(&dir);
}

Test(sink, a_dump_that_ran_is_never_removed)
{
    struct temp_dir dir;
    char path[128];
    temp_dir_make(&dir);
    struct sink_guest_config config;
    struct godwit_block mine[2];
    sink_guest_config_init(&config);
    config.mode = SINK_DUMP;
    config.dump = temp_path(&dir, "dump", path);
    struct sink_guest *guest = new_sink(&config);
    const struct godwit_guest *face = sink_guest_interface(guest);
    cr_assert_eq(accept_offer(guest, mine, NULL), GODWIT_OK);
    cr_assert_eq(face->ops->resume(face->self, NULL), GODWIT_OK);
    sink_guest_free(guest);
    cr_expect_eq(unlink(temp_path(&dir, "dump.partial", path)), 0);
    temp_dir_remove(&dir);
}

Test(sink, two_writers_of_one_dump_are_refused)
{
    struct temp_dir dir;
    char path[128];
    temp_dir_make(&dir);
    struct sink_guest_config config;
    struct godwit_block mine[2];
    struct godwit_error error = {0};
    sink_guest_config_init(&config);
    config.mode = SINK_DUMP;
    config.prealloc = true;
    config.dump = temp_path(&dir, "dump", path);
    struct sink_guest *one = new_sink(&config), *two = new_sink(&config);
    cr_assert_eq(accept_offer(one, mine, NULL), GODWIT_OK);
    cr_expect_eq(accept_offer(two, mine, &error), GODWIT_ERR_BUSY);
    sink_guest_free(two);
    cr_expect_eq(access(temp_path(&dir, "dump.partial", path), F_OK), 0, "the first one's file is still there");
    sink_guest_free(one);
    temp_dir_remove(&dir);
}

Test(sink, memory_that_was_preallocated_is_said_to_be_present)
{
    struct sink_guest_config config;
    struct godwit_block mine[2];
    sink_guest_config_init(&config);
    for (unsigned prealloc = 0; prealloc < 2; prealloc++) {
        config.prealloc = prealloc == 1;
        struct sink_guest *guest = new_sink(&config);
        cr_assert_eq(accept_offer(guest, mine, NULL), GODWIT_OK);
        for (unsigned i = 0; i < 2; i++)
            cr_expect_eq(mine[i].presence, prealloc == 1 ? GODWIT_BLOCK_PRESENT : GODWIT_BLOCK_ON_DEMAND);
        sink_guest_free(guest);
    }
}

Test(sink, a_dump_that_cannot_be_named_is_refused_before_the_migration)
{
    struct sink_guest_config config;
    struct sink_guest *guest = NULL;
    struct godwit_error error = {0};
    struct godwit_block mine[2];
    sink_guest_config_init(&config);
    config.mode = SINK_DUMP;
    cr_expect_eq(sink_guest_new(&guest, &config, &error), GODWIT_ERR_INVALID);
    config.dump = "/tmp";
    cr_expect_eq(sink_guest_new(&guest, &config, &error), GODWIT_ERR_INVALID);
    config.dump = "/tmp/no/such/folder/dump";
    guest = new_sink(&config);
    cr_expect_eq(accept_offer(guest, mine, &error), GODWIT_ERR_SYSTEM);
    cr_expect_eq(sink_guest_commit(guest, &error), GODWIT_ERR_INVALID);
    sink_guest_free(guest);
}

static void check_initial_content(enum sink_mode mode)
{
    struct temp_dir dir;
    char path[128], from[128];
    temp_dir_make(&dir);
    temp_file_make(temp_path(&dir, "from", from), 18, 1u << 2 | 1u << 17);
    struct sink_guest_config config;
    struct godwit_block mine[2];
    struct godwit_error error = {0};
    sink_guest_config_init(&config);
    config.mode = mode;
    config.dump = temp_path(&dir, "dump", path);
    config.memory_from = from;
    struct sink_guest *guest = new_sink(&config);
    cr_assert_eq(accept_offer(guest, mine, &error), GODWIT_OK, "%s", error.text);
    cr_expect_eq(mine[0].content, GODWIT_BLOCK_USED);
    cr_expect_eq(((char *)mine[0].addr)[2 * 4096], 3);
    cr_expect_eq(((char *)mine[0].addr)[3 * 4096], 0);
    cr_expect_eq(((char *)mine[1].addr)[1 * 4096], 18, "the file goes on in the second block");
    sink_guest_free(guest);

    cr_assert_eq(truncate(from, 21 * 4096), 0);
    guest = new_sink(&config);
    cr_expect_eq(accept_offer(guest, mine, &error), GODWIT_ERR_MISMATCH);
    sink_guest_free(guest);
    unlink(from);
    temp_dir_remove(&dir);
}

Test(sink, initial_content_fills_memory)
{
    check_initial_content(SINK_MEMORY);
}
Test(sink, initial_content_fills_a_dump)
{
    check_initial_content(SINK_DUMP);
}

Test(sink, refuses_sizes_from_a_broken_peer)
{
    struct sink_guest_config config;
    sink_guest_config_init(&config);
    struct sink_guest *guest = new_sink(&config);
    const struct godwit_guest *face = sink_guest_interface(guest);
    struct godwit_block bad[2] = {offer[0], offer[1]}, mine[2];
    bad[1].size = UINT64_MAX - 4095;
    cr_expect_eq(face->ops->accept(face->self, bad, 2, mine, NULL), GODWIT_ERR_TOO_BIG);
    bad[1].size = 0;
    cr_expect_eq(face->ops->accept(face->self, bad, 2, mine, NULL), GODWIT_ERR_MISMATCH);
    cr_expect_eq(face->ops->accept(face->self, bad, 0, mine, NULL), GODWIT_ERR_MISMATCH);
    cr_expect_null(sink_guest_block(guest, 0));
    sink_guest_free(guest);
}
