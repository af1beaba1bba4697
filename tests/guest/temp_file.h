/* Files for tests: named in a folder of the test's own, removed by it. */
#ifndef TESTS_GUEST_TEMP_FILE_H
#define TESTS_GUEST_TEMP_FILE_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct temp_dir {
    char path[64];
};

static inline void temp_dir_make(struct temp_dir *dir)
{
    snprintf(dir->path, sizeof dir->path, "/tmp/godwit-test-XXXXXX");
    cr_assert_not_null(mkdtemp(dir->path));
}

static inline char *temp_path(const struct temp_dir *dir, const char *name, char out[128])
{
    snprintf(out, 128, "%s/%s", dir->path, name);
    return out;
}

/* A sparse file of `pages` pages in which page i holds the byte i + 1 for every i with a bit in `data`. */
static inline void temp_file_make(const char *path, unsigned pages, unsigned data)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ftruncate(fd, (off_t)pages * 4096), 0);
    for (unsigned i = 0; i < pages && i < 32; i++) {
        char page[4096];
        memset(page, (int)i + 1, sizeof page);
        if (data >> i & 1)
            cr_assert_eq(pwrite(fd, page, sizeof page, (off_t)i * 4096), (ssize_t)sizeof page);
    }
    close(fd);
}

static inline void temp_dir_remove(const struct temp_dir *dir)
{
    cr_assert_eq(rmdir(dir->path), 0, "the test left files in %s", dir->path);
}

#endif
