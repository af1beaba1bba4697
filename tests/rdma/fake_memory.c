/*
 * Protection domains, registrations and what is written into them. Keys are random numbers out of a sequence, lkey and
 * rkey never the same, and an rkey is 0 where the peer has no rights: mixing them up does not go unnoticed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/rdma/fake_private.h"

struct ibv_pd *fake_pd_new(struct ibv_context *context, bool cm_owned)
{
    struct fake_pd *pd = calloc(1, sizeof *pd);
    if (!pd)
        return NULL;
    pd->base.context = context;
    pd->cm_owned = cm_owned;
    fake.living.pds += !cm_owned;
    fake_context_of(context)->objects++;
    return &pd->base;
}

int fake_pd_free(struct ibv_pd *base)
{
    struct fake_pd *pd = FAKE_OF(base, struct fake_pd, base);
    if (pd->users)
        return EBUSY;
    fake.living.pds -= !pd->cm_owned;
    fake_context_of(base->context)->objects--;
    free(pd);
    return 0;
}

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    fake_enter();
    errno = fake_call(FAKE_CALL_ALLOC_PD);
    struct ibv_pd *pd = errno ? NULL : fake_pd_new(context, false);
    fake_leave();
    return pd;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
    fake_enter();
    int err = fake_pd_free(pd);
    if (!err && fake.removed)
        err = EIO;
    fake_leave();
    return err;
}

/* As pinning would: memory has to be there, and written where the device may write. */
static bool mapped(void *addr, size_t length)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)addr & ~(page - 1);
    size_t size = ((uintptr_t)addr + length - start + page - 1) & ~(page - 1);
    unsigned char *core = malloc(size / page);
    bool ok = core && !mincore((void *)start, size, core);
    free(core);
    return ok;
}

static int check_registration(const struct fake_pd *pd, void *addr, size_t length, uint64_t iova, unsigned access)
{
    unsigned known = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                     IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_OPTIONAL_RANGE;
    if (!pd || !length || access & ~known)
        return EINVAL; /* on-demand paging is one of the unknown, as on soft-RoCE in Linux 6.1 */
    if (access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC) && !(access & IBV_ACCESS_LOCAL_WRITE))
        return EINVAL;
    if ((iova ^ (uintptr_t)addr) & ((uint64_t)sysconf(_SC_PAGESIZE) - 1))
        return EINVAL;
    if (length > fake.setup.limits.max_pinned - fake.pinned)
        return ENOMEM;
    if ((uintptr_t)addr + length < (uintptr_t)addr || iova + length < iova || !mapped(addr, length))
        return EFAULT;
    return 0;
}

static uint32_t new_key(void)
{
    fake.next_key++;
    return fake.next_key << 8 | (uint32_t)fake_random(256);
}

static struct ibv_mr *registered(struct fake_pd *pd, void *addr, size_t length, uint64_t iova, unsigned access)
{
    struct fake_mr *mr = calloc(1, sizeof *mr);
    if (!mr)
        return NULL;
    bool remote = access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC);
    mr->base = (struct ibv_mr){.context = pd->base.context, .pd = &pd->base, .addr = addr, .length = length};
    mr->base.lkey = new_key();
    mr->base.rkey = remote ? new_key() : 0;
    mr->access = access;
    mr->iova = iova;
    LIST_INSERT_HEAD(&fake.mrs, mr, link);
    pd->users++;
    fake.pinned += length;
    fake.living.mrs++;
    return &mr->base;
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *base, void *addr, size_t length, uint64_t iova, unsigned access)
{
    struct fake_pd *pd = base ? FAKE_OF(base, struct fake_pd, base) : NULL;
    struct ibv_mr *mr = NULL;
    fake_enter();
    unsigned delay_ms = fake.setup.reg_ms;
    int err = fake_call(FAKE_CALL_REG_MR);
    if (!err)
        err = check_registration(pd, addr, length, iova, access);
    if (!err)
        mr = registered(pd, addr, length, iova, access);
    fake_leave();
    if (err)
        errno = err;
    if (delay_ms)
        nanosleep(&(struct timespec){delay_ms / 1000, delay_ms % 1000 * 1000000L}, NULL);
    return mr;
}

/* The header's macros of the same names are for callers. */
#undef ibv_reg_mr
struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
    return ibv_reg_mr_iova2(pd, addr, length, (uintptr_t)addr, (unsigned)access);
}

#undef ibv_reg_mr_iova
struct ibv_mr *ibv_reg_mr_iova(struct ibv_pd *pd, void *addr, size_t length, uint64_t iova, int access)
{
    return ibv_reg_mr_iova2(pd, addr, length, iova, (unsigned)access);
}

int ibv_dereg_mr(struct ibv_mr *base)
{
    struct fake_mr *mr = FAKE_OF(base, struct fake_mr, base);
    fake_enter();
    if (mr->queued)
        fake_die("deregistration of memory that %u queued work requests name", mr->queued);
    struct fake_qp *qp;
    LIST_FOREACH(qp, &fake.qps, link)
    {
        fake_place(&qp->withheld, mr);
        fake_place(&qp->reads, mr);
    }
    fake_cqs_place(mr);
    LIST_REMOVE(mr, link);
    FAKE_OF(base->pd, struct fake_pd, base)->users--;
    fake.pinned -= base->length;
    fake.living.mrs--;
    int err = fake.removed ? EIO : 0;
    fake_leave();
    free(mr);
    return err;
}

struct fake_mr *fake_mr_by_lkey(uint32_t lkey)
{
    struct fake_mr *mr;
    LIST_FOREACH(mr, &fake.mrs, link)
    {
        if (mr->base.lkey == lkey)
            return mr;
    }
    return NULL;
}

struct fake_mr *fake_mr_by_rkey(uint32_t rkey)
{
    struct fake_mr *mr;
    LIST_FOREACH(mr, &fake.mrs, link)
    {
        if (rkey && mr->base.rkey == rkey)
            return mr;
    }
    return NULL;
}

uint8_t *fake_mr_at(const struct fake_mr *mr, uint64_t at, uint64_t size)
{
    uint64_t offset = at - mr->iova;
    if (at < mr->iova || offset > mr->base.length || size > mr->base.length - offset)
        return NULL;
    return (uint8_t *)mr->base.addr + offset;
}

struct fake_placement *fake_place_later(struct fake_placements *list, struct fake_mr *mr, uint8_t *to,
                                        const void *bytes, size_t size)
{
    struct fake_placement *placement = malloc(sizeof *placement + size);
    if (!placement)
        fake_die("no memory");
    placement->mr = mr;
    placement->to = to;
    placement->size = size;
    if (bytes)
        memcpy(placement->bytes, bytes, size);
    STAILQ_INSERT_TAIL(list, placement, link);
    return placement;
}

void fake_place_shuffle(struct fake_placements *list, struct fake_placement *last)
{
    struct fake_placement *before = NULL, *placement;
    uint64_t seen = 1;
    STAILQ_FOREACH(placement, list, link)
    {
        if (!fake_random(++seen))
            before = placement;
    }
    if (before == last)
        return;
    STAILQ_REMOVE(list, last, fake_placement, link);
    if (before)
        STAILQ_INSERT_AFTER(list, before, last, link);
    else
        STAILQ_INSERT_HEAD(list, last, link);
}

void fake_place(struct fake_placements *list, const struct fake_mr *mr)
{
    struct fake_placements left = STAILQ_HEAD_INITIALIZER(left);
    struct fake_placement *placement;
    while ((placement = STAILQ_FIRST(list))) {
        STAILQ_REMOVE_HEAD(list, link);
        if (mr && placement->mr != mr) {
            STAILQ_INSERT_TAIL(&left, placement, link);
            continue;
        }
        memcpy(placement->to, placement->bytes, placement->size);
        free(placement);
    }
    STAILQ_CONCAT(list, &left);
}

void fake_place_drop(struct fake_placements *list)
{
    struct fake_placement *placement;
    while ((placement = STAILQ_FIRST(list))) {
        STAILQ_REMOVE_HEAD(list, link);
        free(placement);
    }
}
