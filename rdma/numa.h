/* Where this process may run, seen from a device. */
#ifndef RDMA_NUMA_H
#define RDMA_NUMA_H

#include <stdbool.h>

/* Is processor `cpu` in a list like "0-3,8"? */
bool numa_list_has(const char *list, unsigned cpu);

/* May this thread run on a processor outside of `node`? False as well where that cannot be known. */
bool numa_is_remote(const char *root, int node);

#endif
