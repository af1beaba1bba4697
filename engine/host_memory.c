/*
 * See host_memory.h. Control groups of both versions: limit and usage of each level up to the root. Usage counts file
 * pages too, which the kernel gives back when memory is short; they count as available.
 */
#include "engine/host_memory.h"

#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "transport/error.h"

static uint64_t meminfo_available(void)
{
    FILE *file = fopen("/proc/meminfo", "re");
    unsigned long long kib = 0;
    char line[128];
    bool found = false;
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL)
        found = sscanf(line, "MemAvailable: %llu kB", &kib) == 1;
    if (file != NULL)
        fclose(file);
    return found ? kib * 1024 : UINT64_MAX;
}

/* UINT64_MAX for a file that is not there or says "max". */
static uint64_t read_number(const char *directory, const char *name)
{
    char path[PATH_MAX];
    unsigned long long value;
    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path)
        return UINT64_MAX;
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return UINT64_MAX;
    bool number = fscanf(file, "%llu", &value) == 1;
    fclose(file);
    return number ? value : UINT64_MAX;
}

/* How one version of control groups spells what is needed here. */
struct cgroup_version {
    const char *line; /* of /proc/self/cgroup, up to the path */
    const char *mount, *limit, *usage, *inactive, *active;
};

static const struct cgroup_version cgroup_versions[] = {
    {"0::", "/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file ", "active_file "},
    {"memory:", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ",
     "total_active_file "},
};

/* Bytes of file pages, by memory.stat. */
static uint64_t reclaimable(const struct cgroup_version *version, const char *directory)
{
    char path[PATH_MAX], line[128];
    unsigned long long bytes;
    uint64_t sum = 0;
    if (snprintf(path, sizeof path, "%s/memory.stat", directory) >= (int)sizeof path)
        return 0;
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *names[] = {version->inactive, version->active};
        for (unsigned i = 0; i < 2; i++)
            if (strncmp(line, names[i], strlen(names[i])) == 0 && sscanf(line + strlen(names[i]), "%llu", &bytes) == 1)
                sum += bytes;
    }
    if (file != NULL)
        fclose(file);
    return sum;
}

static uint64_t level_available(const struct cgroup_version *version, const char *directory)
{
    uint64_t most = read_number(directory, version->limit), used = read_number(directory, version->usage);
    if (most == UINT64_MAX || used == UINT64_MAX)
        return UINT64_MAX;
    uint64_t spare = reclaimable(version, directory);
    used -= spare < used ? spare : used;
    return most > used ? most - used : 0;
}

static uint64_t group_available(const struct cgroup_version *version, char *group)
{
    char directory[PATH_MAX];
    uint64_t least = UINT64_MAX;
    /* Up to and with the mount itself, which inside a namespace is the group of the container. */
    for (char *slash = group; slash != NULL;) {
        snprintf(directory, sizeof directory, "%s%s", version->mount, group);
        uint64_t left = level_available(version, directory);
        least = left < least ? left : least;
        slash = strrchr(group, '/');
        if (slash != NULL)
            *slash = 0;
    }
    return least;
}

static uint64_t cgroup_available(void)
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    char line[PATH_MAX / 2];
    uint64_t least = UINT64_MAX;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = 0;
        for (unsigned i = 0; i < sizeof cgroup_versions / sizeof cgroup_versions[0]; i++) {
            char *at = strstr(line, cgroup_versions[i].line);
            uint64_t left = at != NULL ? group_available(&cgroup_versions[i], at + strlen(cgroup_versions[i].line))
                                       : UINT64_MAX;
            least = left < least ? left : least;
        }
    }
    if (file != NULL)
        fclose(file);
    return least;
}

uint64_t host_memory_available(void)
{
    uint64_t host = meminfo_available(), group = cgroup_available();
    return host < group ? host : group;
}

static enum godwit_err too_little(uint64_t needed, uint64_t have, const char *where, struct godwit_error *error)
{
    return error_set(error, GODWIT_ERR_NO_MEMORY,
                     "too little room at the destination: the guest has %llu MiB in use, %s has %llu MiB left",
                     (unsigned long long)(needed >> 20), where, (unsigned long long)(have >> 20));
}

/* What one block is on. */
struct place {
    bool memory;   /* what is stored there takes memory of this host */
    bool file;     /* it has a device, and had */
    bool limited;  /* its file system has a size: left */
    dev_t device;
    ino_t inode;
    uint64_t left; /* bytes of the file system */
    uint64_t had;  /* bytes that its file has allocated, noted for the first block of the file only */
};

static void find_place(const struct godwit_block *block, struct place *places, unsigned index)
{
    struct place *place = &places[index];
    struct statfs fs;
    struct stat st;
    if (block->content == GODWIT_BLOCK_SCRATCH)
        return;
    if (block->fd < 0 || fstatfs(block->fd, &fs) != 0 || fstat(block->fd, &st) != 0) {
        place->memory = true;
        return;
    }
    place->file = true;
    place->device = st.st_dev;
    place->inode = st.st_ino;
    place->memory = fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC;
    /* The kernel's own tmpfs, behind memfds, has no size of its own. */
    place->limited = fs.f_type != HUGETLBFS_MAGIC && fs.f_blocks > 0;
    place->left = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
    for (unsigned i = 0; i < index; i++)
        if (places[i].file && places[i].device == st.st_dev && places[i].inode == st.st_ino)
            return;
    place->had = (uint64_t)st.st_blocks * 512;
}

/* Bytes that have to be found, at the least, where these places lie: all on this device, or all memory for NULL.
 * What the other blocks can hold need not be here. */
static uint64_t still_needed(const struct godwit_block *blocks, const struct place *places, unsigned count,
                             uint64_t populated, const struct place *device)
{
    uint64_t covered = 0;
    for (unsigned i = 0; i < count; i++) {
        bool here = device == NULL ? places[i].memory : places[i].file && places[i].device == device->device;
        covered += here ? places[i].had : blocks[i].size;
    }
    return populated > covered ? populated - covered : 0;
}

enum godwit_err host_memory_check(const struct godwit_block *blocks, unsigned count, uint64_t populated,
                                  uint64_t available, struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    struct place *places = calloc(count + 1, sizeof *places);
    if (places == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to look at %u blocks", count);
    for (unsigned i = 0; i < count; i++)
        find_place(&blocks[i], places, i);
    for (unsigned i = 0; i < count && err == GODWIT_OK; i++) {
        uint64_t needed = places[i].limited ? still_needed(blocks, places, count, populated, &places[i]) : 0;
        if (needed > places[i].left)
            err = too_little(needed, places[i].left, "the file system of its memory", error);
    }
    uint64_t needed = still_needed(blocks, places, count, populated, NULL);
    if (err == GODWIT_OK && needed > available)
        err = too_little(needed, available, "this host (or this process's control group)", error);
    free(places);
    return err;
}
