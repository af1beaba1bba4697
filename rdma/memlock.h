/*
 * How much memory may be registered. The kernel adds up what a process has pinned, once per registration, against
 * RLIMIT_MEMLOCK, and lets CAP_IPC_LOCK pass (ib_umem_get, drivers/infiniband/core/umem.c).
 */
#ifndef RDMA_MEMLOCK_H
#define RDMA_MEMLOCK_H

#include <stddef.h>

#include <godwit/devices.h>

/* What godwit_memlock_query() finds below a root: privileges from its /proc; limit and RAM are this machine's. */
void memlock_query(const char *root, struct godwit_memlock *out);

/* Pure: the hint that the other fields call for, "" for none. */
void memlock_hint(const struct godwit_memlock *memlock, char *text, size_t size);

#endif
