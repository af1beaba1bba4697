/*
 * See host_memory.h. Control groups of both versions: limit and usage of each level up to the root. Usage counts file pages
 * too, which the kernel gives back when memory is short; they count as available.
 */
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
    for (char *slash; group[0] == '/' && group[1] != 0; *slash = 0) {
        snprintf(directory, sizeof directory, "%s%s", version->mount, group);
        uint64_t left = level_available(version, directory);
        least = left < least ? left : least;
        slash = strrchr(group, '/');
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
