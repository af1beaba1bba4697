/*
 * Guest RAM.
 *
 * Happy path: a memfd mapped shared, so that holes are known to SEEK_DATA and a second mapping is possible; anonymous
 * memory and huge pages on request. Failure modes, each worded with its remedy: address space limits, no free huge
 * pages, not enough memory while populating.
 */
#include "guest/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <godwit/guest.h>

#include "guest/guest_error.h"
#include "guest/parallel.h"
#include "guest/uffd_abi.h"

enum { RAM_SCRATCH_MAPS = 4096 }; /* well below vm.max_map_count's 65530 */
enum { RAM_POPULATE_STEP = 64 << 20 }; /* bytes per call: long enough to be cheap, short enough to stay killable */

bool memory_backing_parse(const char *name, enum memory_backing *out)
{
    static const char *const names[] = {[MEMORY_MEMFD] = "memfd", [MEMORY_ANON] = "anon", [MEMORY_HUGETLB] = "hugetlb"};
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum memory_backing)i;
            return true;
        }
    }
    return false;
}

static enum godwit_err ram_map_error(int cause, enum memory_backing backing, uint64_t size, struct godwit_error *error)
{
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    (void)getrlimit(RLIMIT_AS, &limit);
    if (cause == ENOMEM && backing == MEMORY_HUGETLB)
        return guest_fail_sys(error, GODWIT_ERR_NO_MEMORY, cause,
                              "not enough free huge pages for %" PRIu64 " bytes of guest memory; reserve %" PRIu64
                              " more with sysctl vm.nr_hugepages",
                              size, size / RAM_HUGE_PAGE);
    if (cause == ENOMEM && limit.rlim_cur != RLIM_INFINITY)
        return guest_fail_sys(error, GODWIT_ERR_NO_MEMORY, cause,
                              "cannot map %" PRIu64 " bytes of guest memory under an address space limit of %" PRIu64
                              " bytes; raise it with ulimit -v",
                              size, (uint64_t)limit.rlim_cur);
    if (cause == ENOMEM)
        return guest_fail_sys(error, GODWIT_ERR_NO_MEMORY, cause,
                              "cannot map %" PRIu64 " bytes of guest memory; see vm.overcommit_memory", size);
    return guest_fail_sys(error, GODWIT_ERR_SYSTEM, cause, "cannot map %" PRIu64 " bytes of guest memory", size);
}

static enum godwit_err ram_open(struct memory *ram, enum memory_backing backing, struct godwit_error *error)
{
    if (backing == MEMORY_ANON)
        return GODWIT_OK;
    ram->fd = memfd_create("godwit-ram", MFD_CLOEXEC | (backing == MEMORY_HUGETLB ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
    if (ram->fd < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot create a memfd%s for guest memory",
                              backing == MEMORY_HUGETLB ? " on 2 MiB huge pages" : "");
    if (ftruncate(ram->fd, (off_t)ram->size) < 0)
        return ram_map_error(errno, backing, ram->size, error);
    return GODWIT_OK;
}

static enum godwit_err ram_map(struct memory *ram, enum memory_backing backing, struct godwit_error *error)
{
    /* Huge pages are reserved here, so that running out is this error and not a SIGBUS at the first touch. */
    int flags = backing == MEMORY_HUGETLB ? MAP_SHARED
                : backing == MEMORY_MEMFD ? MAP_SHARED | MAP_NORESERVE
                                       : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    void *addr = mmap(NULL, ram->size, PROT_READ | PROT_WRITE, flags, ram->fd, 0);
    if (addr == MAP_FAILED)
        return ram_map_error(errno, backing, ram->size, error);
    ram->addr = addr;
    if (backing == MEMORY_ANON)
        (void)madvise(addr, ram->size, MADV_HUGEPAGE); /* a wish: kernels without it serve 4 KiB pages */
    return GODWIT_OK;
}

enum godwit_err memory_alloc(struct memory *out, enum memory_backing backing, uint64_t size, bool prealloc,
                          struct godwit_error *error)
{
    uint32_t page_size = backing == MEMORY_HUGETLB ? RAM_HUGE_PAGE : GODWIT_PAGE_SIZE;
    if (!size || size % page_size)
        return guest_fail(error, GODWIT_ERR_INVALID,
                          "guest memory of %" PRIu64 " bytes: the size must be a multiple of %" PRIu32 " bytes%s", size,
                          page_size, backing == MEMORY_HUGETLB ? " on huge pages" : "");
    if (size > RAM_SIZE_MAX)
        return guest_fail(error, GODWIT_ERR_TOO_BIG, "guest memory of %" PRIu64 " bytes is more than %llu", size,
                          RAM_SIZE_MAX);
    struct memory ram = {.size = size, .fd = -1, .page_size = page_size};
    enum godwit_err err = ram_open(&ram, backing, error);
    if (!err)
        err = ram_map(&ram, backing, error);
    if (!err && prealloc)
        err = memory_populate(ram.addr, ram.size, error);
    if (err)
        memory_free(&ram);
    else
        *out = ram;
    return err;
}

enum godwit_err memory_private_view(struct memory *out, const struct memory *ram, struct godwit_error *error)
{
    if (ram->fd < 0)
        return guest_fail(error, GODWIT_ERR_UNSUPPORTED, "anonymous memory has no second view; use memfd backing");
    void *addr = mmap(NULL, ram->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, ram->fd, 0);
    if (addr == MAP_FAILED)
        return ram_map_error(errno, MEMORY_MEMFD, ram->size, error);
    *out = (struct memory){.addr = addr, .size = ram->size, .fd = -1, .page_size = ram->page_size};
    return GODWIT_OK;
}

/* Maps the window behind fd again and again over [addr, addr + size), which is reserved already. */
static enum godwit_err scratch_map(char *addr, uint64_t size, int fd, uint64_t window, struct godwit_error *error)
{
    for (uint64_t at = 0; at < size; at += window) {
        uint64_t part = size - at < window ? size - at : window;
        if (mmap(addr + at, part, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            return ram_map_error(errno, MEMORY_MEMFD, size, error);
    }
    return GODWIT_OK;
}

enum godwit_err memory_scratch(struct memory *out, uint64_t size, struct godwit_error *error)
{
    uint64_t window = RAM_HUGE_PAGE;
    while (size / window >= RAM_SCRATCH_MAPS)
        window *= 2;
    void *addr = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (addr == MAP_FAILED)
        return ram_map_error(errno, MEMORY_ANON, size, error);
    struct memory ram = {.addr = addr, .size = size, .fd = -1, .page_size = GODWIT_PAGE_SIZE};
    struct memory shared = {.size = window, .fd = -1};
    enum godwit_err err = ram_open(&shared, MEMORY_MEMFD, error);
    if (!err)
        err = scratch_map(addr, size, shared.fd, window, error);
    memory_free(&shared); /* the mappings keep the window */
    if (err)
        memory_free(&ram);
    else
        *out = ram;
    return err;
}

void memory_free(struct memory *ram)
{
    if (ram->addr)
        munmap(ram->addr, ram->size);
    if (ram->size && ram->fd >= 0)
        close(ram->fd);
    *ram = (struct memory){.fd = -1};
}

/* Kernels before 5.14: writing what is read keeps the content and needs no other call; a shortage is a signal there. */
static void ram_touch(char *start, uint64_t size)
{
    for (uint64_t at = 0; at < size; at += GODWIT_PAGE_SIZE) {
        volatile char *byte = start + at;
        *byte = *byte;
    }
}

static enum godwit_err ram_populate_slice(void *context, uint64_t first, uint64_t end, struct godwit_error *error)
{
    char *base = context;
    for (uint64_t at = first; at < end;) {
        uint64_t step = end - at < RAM_POPULATE_STEP ? end - at : RAM_POPULATE_STEP;
        int cause = madvise(base + at, step, MADV_POPULATE_WRITE) < 0 ? errno : 0;
        if (cause == EINTR || cause == EAGAIN)
            continue;
        if (cause == EINVAL)
            ram_touch(base + at, step);
        else if (cause)
            return guest_fail_sys(error, cause == EACCES ? GODWIT_ERR_SYSTEM : GODWIT_ERR_NO_MEMORY, cause,
                                  "cannot populate guest memory, %" PRIu64
                                  " bytes into it (not enough memory, huge pages "
                                  "or space in the filesystem behind it)",
                                  at);
        at += step;
    }
    return GODWIT_OK;
}

enum godwit_err memory_populate(void *addr, uint64_t size, struct godwit_error *error)
{
    return parallel_run(size, RAM_HUGE_PAGE, 0, ram_populate_slice, addr, error);
}
