#include "rdma/memlock.h"

#include <inttypes.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "rdma/sysfs.h"

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)

static void put_amount(uint64_t bytes, char *text, size_t size)
{
    if (bytes >= GIB)
        snprintf(text, size, "%.1f GiB", (double)bytes / (double)GIB);
    else if (bytes >= MIB)
        snprintf(text, size, "%" PRIu64 " MiB", bytes / MIB);
    else
        snprintf(text, size, "%" PRIu64 " KiB", bytes / KIB);
}

void memlock_hint(const struct godwit_memlock *memlock, char *text, size_t size)
{
    text[0] = '\0';
    if (memlock->privileged || memlock->limit >= memlock->ram)
        return;
    char limit[32], ram[32];
    put_amount(memlock->limit, limit, sizeof limit);
    put_amount(memlock->ram, ram, sizeof ram);
    snprintf(text, size,
             "RLIMIT_MEMLOCK lets this process register %s of the machine's %s: a larger guest fails with \"Cannot "
             "allocate memory\": ulimit -l unlimited, LimitMEMLOCK=infinity in a systemd unit, or CAP_IPC_LOCK",
             limit, ram);
}

/* The kernel asks capable(), which wants the capability in the first user namespace; a container's own root has it in
 * another one, to no effect. The first namespace is the one that maps every id to itself. */
static bool in_first_namespace(const char *root)
{
    char line[64];
    unsigned long inside, outside, count;
    return sysfs_line(line, sizeof line, "%s/proc/self/uid_map", root) &&
           sscanf(line, "%lu %lu %lu", &inside, &outside, &count) == 3 && inside == 0 && outside == 0 &&
           count == UINT32_MAX;
}

static bool has_ipc_lock(const char *root)
{
    char path[256], line[128];
    unsigned long long effective = 0;
    snprintf(path, sizeof path, "%s/proc/self/status", root);
    FILE *status = fopen(path, "re");
    if (!status)
        return false;
    while (fgets(line, sizeof line, status) && sscanf(line, "CapEff: %llx", &effective) != 1)
        continue;
    fclose(status);
    return effective >> CAP_IPC_LOCK & 1;
}

void memlock_query(const char *root, struct godwit_memlock *out)
{
    struct rlimit limit;
    long pages = sysconf(_SC_PHYS_PAGES), page_size = sysconf(_SC_PAGESIZE);
    memset(out, 0, sizeof *out);
    bool known = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    out->limit = known ? limit.rlim_cur : UINT64_MAX;
    out->privileged = has_ipc_lock(root) && in_first_namespace(root);
    if (pages > 0 && page_size > 0)
        out->ram = (uint64_t)pages * (uint64_t)page_size;
    memlock_hint(out, out->hint, sizeof out->hint);
}

void godwit_memlock_query(struct godwit_memlock *out)
{
    memlock_query("", out);
}
