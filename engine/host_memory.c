/* See host_memory.h. Control groups: version 2, memory.max and memory.current of each level up to the root. */
#include "engine/host_memory.h"

#include <limits.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
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

static uint64_t cgroup_available(void)
{
    char group[PATH_MAX / 2] = "", directory[PATH_MAX];
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (file == NULL)
        return UINT64_MAX;
    bool found = fscanf(file, "0::%2047s", group) == 1;
    fclose(file);
    uint64_t least = UINT64_MAX;
    for (char *slash; found && group[0] == '/' && group[1] != 0; *slash = 0) {
        snprintf(directory, sizeof directory, "/sys/fs/cgroup%s", group);
        uint64_t most = read_number(directory, "memory.max"), used = read_number(directory, "memory.current");
        if (most != UINT64_MAX && used != UINT64_MAX) {
            uint64_t left = most > used ? most - used : 0;
            least = left < least ? left : least;
        }
        slash = strrchr(group, '/');
    }
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

enum godwit_err host_memory_check(const struct godwit_block *blocks, unsigned count, uint64_t populated,
                                  uint64_t available, struct godwit_error *error)
{
    uint64_t had = 0;
    bool memory = false;
    for (unsigned i = 0; i < count; i++) {
        struct statfs fs;
        struct stat st;
        if (blocks[i].content == GODWIT_BLOCK_SCRATCH)
            continue;
        if (blocks[i].fd < 0 || fstatfs(blocks[i].fd, &fs) != 0 || fstat(blocks[i].fd, &st) != 0) {
            memory = true;
            continue;
        }
        had += (uint64_t)st.st_blocks * 512;
        if (fs.f_type == TMPFS_MAGIC || fs.f_type == HUGETLBFS_MAGIC)
            memory = true;
        uint64_t left = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
        /* The kernel's own tmpfs, behind memfds, has no size of its own. One file can hold several blocks. */
        if (fs.f_type != HUGETLBFS_MAGIC && fs.f_blocks > 0 && populated > had && populated - had > left)
            return too_little(populated - had, left, "the file system of its memory", error);
    }
    if (memory && populated > had && populated - had > available)
        return too_little(populated - had, available, "this host (or this process's control group)", error);
    return GODWIT_OK;
}
