/* The idle guest: generated or a file's content, nothing allocated for holes, unusable files refused. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>

#include "guest/idle.h"
#include "tests/guest/state_writer.h"
#include "tests/guest/temp_file.h"

TestSuite(idle, .timeout = 20);

Test(idle, serves_a_file_as_its_memory)
{
    struct temp_dir dir;
    char path[128];
    temp_dir_make(&dir);
    temp_file_make(temp_path(&dir, "ram", path), 64, 1u << 2 | 1u << 3 | 1u << 20);
    struct idle_guest_config config;
    idle_guest_config_init(&config);
    config.memory_from = path;
    struct idle_guest *guest;
    struct godwit_error error = {0};
    cr_assert_eq(idle_guest_new(&guest, &config, &error), GODWIT_OK, "%s", error.text);
    const struct godwit_guest *face = idle_guest_interface(guest);
    cr_expect_eq(face->block_count, 1);
    cr_expect_str_eq(face->blocks[0].id, "pc.ram");
    cr_expect_eq(face->blocks[0].size, 64 * 4096);
    cr_expect_eq(((char *)face->blocks[0].addr)[20 * 4096], 21);
    uint64_t first, pages;
    cr_assert_eq(face->ops->next_data(face->self, 0, 0, &first, &pages, NULL), GODWIT_OK);
    cr_expect_leq(first, 2);
    struct godwit_state_writer writer = {.used = 0};
    cr_expect_eq(face->ops->save_rest(face->self, 0, &writer, NULL), GODWIT_OK);
    cr_expect_eq(writer.used, 20);
    idle_guest_free(guest);
    unlink(path);
    temp_dir_remove(&dir);
}

static void expect_refused(const char *path, const char *word)
{
    struct idle_guest_config config;
    struct idle_guest *guest = NULL;
    struct godwit_error error = {0};
    idle_guest_config_init(&config);
    config.memory_from = path;
    cr_expect_eq(idle_guest_new(&guest, &config, &error), GODWIT_ERR_INVALID);
    cr_expect(strstr(error.text, word), "\"%s\" says nothing of \"%s\"", error.text, word);
    cr_expect_null(guest);
}

Test(idle, refuses_unusable_files_with_the_cause)
{
    struct temp_dir dir;
    char path[128];
    temp_dir_make(&dir);
    expect_refused(temp_path(&dir, "missing", path), "No such file");
    expect_refused(dir.path, "directory");
    expect_refused("/dev/zero", "regular file");
    temp_file_make(temp_path(&dir, "empty", path), 0, 0);
    expect_refused(path, "empty");
    cr_assert_eq(truncate(path, 4097), 0);
    expect_refused(path, "multiple of 4096");
    unlink(path);
    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_refused(path, "regular file");
    unlink(path);
    temp_dir_remove(&dir);
}

Test(idle, generates_the_same_content_from_the_same_seed_only)
{
    struct idle_guest_config config;
    struct idle_guest *a, *b, *c;
    idle_guest_config_init(&config);
    config.ram = 4 << 20;
    config.pattern = PATTERN_MIXED;
    cr_assert_eq(idle_guest_new(&a, &config, NULL), GODWIT_OK);
    cr_assert_eq(idle_guest_new(&b, &config, NULL), GODWIT_OK);
    config.seed = 2;
    cr_assert_eq(idle_guest_new(&c, &config, NULL), GODWIT_OK);
    const void *of_a = idle_guest_interface(a)->blocks[0].addr, *of_b = idle_guest_interface(b)->blocks[0].addr;
    const void *of_c = idle_guest_interface(c)->blocks[0].addr;
    cr_expect_eq(memcmp(of_a, of_b, config.ram), 0);
    cr_expect_neq(memcmp(of_a, of_c, config.ram), 0);
    unsigned zero = 0, text = 0;
    for (unsigned page = 0; page < 1024; page++) {
        const char *bytes = (const char *)of_a + page * 4096;
        zero += bytes[0] == 0 && memcmp(bytes, bytes + 1, 4095) == 0;
        text += bytes[4095] == '\n' && bytes[4094] == '\n';
    }
    cr_expect(zero > 180 && zero < 330, "%u zero pages", zero);
    cr_expect(text > 100 && text < 330, "%u text pages", text);
    idle_guest_free(a);
    idle_guest_free(b);
    idle_guest_free(c);
}

Test(idle, a_zero_guest_allocates_nothing)
{
    struct idle_guest_config config;
    struct idle_guest *guest;
    idle_guest_config_init(&config);
    config.ram = 1ull << 40;
    config.pattern = PATTERN_ZERO;
    cr_assert_eq(idle_guest_new(&guest, &config, NULL), GODWIT_OK);
    const struct godwit_guest *face = idle_guest_interface(guest);
    uint64_t first, pages;
    cr_assert_eq(face->ops->next_data(face->self, 0, 0, &first, &pages, NULL), GODWIT_OK);
    cr_expect_eq(pages, 0);
    idle_guest_free(guest);
    idle_guest_free(NULL);
}
