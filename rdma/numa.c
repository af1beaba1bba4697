#include "rdma/numa.h"

#include <sched.h>
#include <stdio.h>

#include "rdma/sysfs.h"

enum { CPU_LIST_MAX = 4096 };

bool numa_list_has(const char *list, unsigned cpu)
{
    unsigned first, last;
    for (int used = 0; sscanf(list, "%u%n", &first, &used) == 1;) {
        list += used;
        last = first;
        if (sscanf(list, "-%u%n", &last, &used) == 1)
            list += used;
        if (cpu >= first && cpu <= last)
            return true;
        if (*list++ != ',')
            break;
    }
    return false;
}

bool numa_is_remote(const char *root, int node)
{
    char list[CPU_LIST_MAX];
    cpu_set_t allowed;
    if (node < 0 || !sysfs_line(list, sizeof list, "%s/sys/devices/system/node/node%d/cpulist", root, node))
        return false;
    /* A node of memory alone has no processor to be near; a machine beyond CPU_SETSIZE is not judged. */
    if (!list[0] || sched_getaffinity(0, sizeof allowed, &allowed))
        return false;
    for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && !numa_list_has(list, cpu))
            return true;
    return false;
}
