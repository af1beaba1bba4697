/* A machine of files: a folder that stands for / in lookups below a root. */
#ifndef TESTS_RDMA_FILE_TREE_H
#define TESTS_RDMA_FILE_TREE_H

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_tree {
    char root[64];
};

static inline void file_tree_make(struct file_tree *tree)
{
    snprintf(tree->root, sizeof tree->root, "/tmp/godwit-test-XXXXXX");
    cr_assert_not_null(mkdtemp(tree->root));
}

/* The folders above the last part of path, and the path itself in out. */
static inline void file_tree_path(const struct file_tree *tree, const char *path, char out[256])
{
    snprintf(out, 256, "%s%s", tree->root, path);
    for (char *slash = out + strlen(tree->root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(out, 0700);
        *slash = '/';
    }
}

/* A file, or with a path that ends in a slash a folder. */
static inline void file_tree_put(const struct file_tree *tree, const char *path, const char *text)
{
    char name[256];
    file_tree_path(tree, path, name);
    if (name[strlen(name) - 1] == '/')
        return;
    FILE *file = fopen(name, "w");
    cr_assert_not_null(file, "%s", name);
    fputs(text, file);
    cr_assert_eq(fclose(file), 0);
}

static inline void file_tree_link(const struct file_tree *tree, const char *path, const char *target)
{
    char name[256];
    file_tree_path(tree, path, name);
    cr_assert_eq(symlink(target, name), 0);
}

static inline int file_tree_unlink(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    return remove(path);
}

static inline void file_tree_remove(const struct file_tree *tree)
{
    cr_assert_eq(nftw(tree->root, file_tree_unlink, 8, FTW_DEPTH | FTW_PHYS), 0);
}

#endif
