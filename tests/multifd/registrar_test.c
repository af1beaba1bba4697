/* Registering slices beside everything else: order, bound, failure, and its end. */
#include <criterion/criterion.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "multifd/registrar.h"
#include "tests/lib/census.h"
#include "tests/lib/gate.h"
#include "tests/lib/watched_domain.h"
#include "transport/clock.h"
#include "transport/error.h"
#include "transport/loop.h"

TestSuite(registrar, .timeout = 60);

enum { SLICES = 40, PAGES = SLICES * 512 - 100, SOON_MS = 20000 };

struct bench {
    struct loop_net *net;
    struct domain *domain;
    struct ram *ram;
    struct registrar *registrar;
    struct registrar_config config;
    uint8_t *memory;
    int fd;
    struct gate done, failed;
    atomic_uint begun, asked; /* registrations */
    atomic_bool held;         /* they do not go on */
    unsigned fail_at;         /* which of them is refused */
    uint64_t order[SLICES];   /* slices, in the order in which they began */
    uint64_t bytes;
    atomic_int nice; /* of whoever registers */
    pthread_mutex_t lock;
};

static void note_done(void *opaque, struct slice *slice)
{
    struct bench *bench = opaque;
    bench->nice = getpriority(PRIO_PROCESS, 0); /* this thread's */
    gate_note(&bench->done, NULL);
}

static void note_failed(void *opaque, const struct godwit_error *error)
{
    gate_note(&((struct bench *)opaque)->failed, error);
}

static enum godwit_err watch(void *opaque, const struct region *region, enum region_access access,
                             struct godwit_error *error)
{
    struct bench *bench = opaque;
    bench->order[atomic_fetch_add(&bench->begun, 1)] = (uint64_t)((uint8_t *)region->addr - bench->memory) /
                                                       SLICE_SIZE_MIN;
    while (atomic_load(&bench->held))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    pthread_mutex_lock(&bench->lock);
    unsigned n = atomic_fetch_add(&bench->asked, 1);
    cr_assert_eq(region->fd_offset, (uint64_t)((uint8_t *)region->addr - bench->memory));
    bench->bytes += region->size;
    pthread_mutex_unlock(&bench->lock);
    return n == bench->fail_at ? error_set(error, GODWIT_ERR_NO_MEMORY, "no more for number %u", n) : GODWIT_OK;
}

static void bench_open(struct bench *bench)
{
    *bench = (struct bench){
        .done = GATE_INIT, .failed = GATE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER, .fail_at = UINT_MAX};
    struct address address;
    struct domain *inner;
    bench->net = loop_net_new(1);
    cr_assert_eq(address_parse("loop:a", &address, NULL), GODWIT_OK);
    cr_assert_eq(transport_domain(loop_net_transport(bench->net), &address, &inner, NULL), GODWIT_OK);
    bench->domain = watched_domain_new(inner, watch, bench);
    bench->fd = memfd_create("registrar", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(bench->fd, (off_t)PAGES * PAGE_SIZE), 0);
    bench->memory = mmap(NULL, (size_t)PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, bench->fd, 0);
    struct godwit_block block = {
        .id = "ram", .addr = bench->memory, .size = (uint64_t)PAGES * PAGE_SIZE, .fd = bench->fd};
    bench->ram = ram_new(&block, 1, true);
    cr_assert(ram_cut(bench->ram, SLICE_SIZE_MIN));
    bench->config = (struct registrar_config){.ram = bench->ram,
                                              .domain = bench->domain,
                                              .access = REGION_REMOTE_WRITE,
                                              .done = note_done,
                                              .failed = note_failed,
                                              .opaque = bench};
}

static void bench_start(struct bench *bench)
{
    cr_assert_eq(registrar_start(&bench->config, &bench->registrar, NULL), GODWIT_OK);
}

static void bench_close(struct bench *bench)
{
    registrar_free(bench->registrar);
    ram_free(bench->ram);
    domain_free(bench->domain);
    loop_net_free(bench->net); /* asserts that no registration is left */
    munmap(bench->memory, (size_t)PAGES * PAGE_SIZE);
    close(bench->fd);
}

static uint64_t allocated(const struct bench *bench)
{
    struct stat stat;
    cr_assert_eq(fstat(bench->fd, &stat), 0);
    return (uint64_t)stat.st_blocks * 512;
}

/* The most slices that began in the order of their place in the queue. */
static unsigned in_order(const struct bench *bench, const unsigned place[SLICES])
{
    unsigned most = 0, longest[SLICES];
    for (unsigned i = 0; i < SLICES; i++) {
        longest[i] = 1;
        for (unsigned k = 0; k < i; k++)
            if (place[bench->order[k]] < place[bench->order[i]] && longest[k] >= longest[i])
                longest[i] = longest[k] + 1;
        most = longest[i] > most ? longest[i] : most;
    }
    return most;
}

Test(registrar, slices_are_registered_in_the_order_in_which_they_were_queued)
{
    unsigned place[SLICES];
    struct bench bench;
    bench_open(&bench);
    atomic_store(&bench.held, true);
    bench_start(&bench);
    for (unsigned i = 0; i < SLICES; i++) {
        place[(i * 7) % SLICES] = i;
        cr_assert(registrar_queue(bench.registrar, &bench.ram->slices[(i * 7) % SLICES]));
    }
    cr_assert_not(registrar_wait(bench.registrar, 1));
    atomic_store(&bench.held, false);
    cr_assert(registrar_wait(bench.registrar, SOON_MS));
    cr_assert_eq(gate_count(&bench.done), SLICES);
    for (unsigned i = 0; i < SLICES; i++) {
        cr_assert_not_null(bench.ram->slices[i].mr);
        cr_assert_eq(mr_size(bench.ram->slices[i].mr), slice_pages(bench.ram, &bench.ram->slices[i]) << PAGE_SHIFT);
    }
    /* A thread may be overtaken by the others. By chance it would be a third. */
    cr_assert_geq(in_order(&bench, place), SLICES * 3 / 4);
    struct registrar_info info = registrar_info(bench.registrar);
    cr_assert_eq(info.slices, SLICES);
    cr_assert_eq(info.bytes, (uint64_t)PAGES << PAGE_SHIFT);
    cr_assert_eq(bench.bytes, info.bytes);
    bench_close(&bench);
}

Test(registrar, who_registers_gives_way_to_senders)
{
    struct bench bench;
    bench_open(&bench);
    bench_start(&bench);
    registrar_queue(bench.registrar, &bench.ram->slices[0]);
    cr_assert(registrar_wait(bench.registrar, SOON_MS));
    int own = getpriority(PRIO_PROCESS, 0);
    cr_assert(atomic_load(&bench.nice) > own || own == 19, "%d", atomic_load(&bench.nice));
    bench_close(&bench);
}

Test(registrar, memory_is_populated_slice_by_slice_at_a_destination_only)
{
    for (unsigned populate = 0; populate < 2; populate++) {
        struct bench bench;
        bench_open(&bench);
        bench.config.populate = populate;
        bench_start(&bench);
        registrar_queue(bench.registrar, &bench.ram->slices[3]);
        registrar_queue(bench.registrar, &bench.ram->slices[SLICES - 1]);
        cr_assert(registrar_wait(bench.registrar, SOON_MS));
        cr_assert_eq(allocated(&bench), populate ? 2 * (uint64_t)SLICE_SIZE_MIN - 100 * PAGE_SIZE : 0);
        bench_close(&bench);
    }
}

Test(registrar, memory_that_cannot_be_had_names_the_block)
{
    struct bench bench;
    bench_open(&bench);
    bench.config.populate = true;
    cr_assert_eq(ftruncate(bench.fd, 5 * SLICE_SIZE_MIN), 0); /* beyond it there is nothing */
    bench_start(&bench);
    for (unsigned i = 0; i < 10; i++)
        registrar_queue(bench.registrar, &bench.ram->slices[i]);
    cr_assert(gate_wait(&bench.failed, 1, SOON_MS));
    cr_assert_eq(bench.failed.last.code, GODWIT_ERR_NO_MEMORY);
    cr_assert_not_null(strstr(bench.failed.last.text, "block ram"), "%s", bench.failed.last.text);
    bench_close(&bench);
}

Test(registrar, what_goes_beyond_the_bound_is_done_without_a_registration)
{
    struct bench bench;
    bench_open(&bench);
    bench.config.max_pinned = 5 * (uint64_t)SLICE_SIZE_MIN + 1;
    bench_start(&bench);
    for (unsigned i = 0; i < SLICES; i++)
        cr_assert_eq(registrar_queue(bench.registrar, &bench.ram->slices[i]), i < 5, "slice %u", i);
    cr_assert(registrar_wait(bench.registrar, SOON_MS));
    cr_assert_eq(gate_count(&bench.done), SLICES);
    for (unsigned i = 0; i < SLICES; i++)
        cr_assert_eq(bench.ram->slices[i].mr != NULL, i < 5);
    cr_assert_eq(registrar_info(bench.registrar).bytes, 5 * (uint64_t)SLICE_SIZE_MIN);
    bench_close(&bench);
}

Test(registrar, a_slice_queued_again_is_done_again_and_registered_once)
{
    struct bench bench;
    bench_open(&bench);
    bench_start(&bench);
    for (unsigned round = 1; round <= 3; round++) {
        for (unsigned i = 0; i < SLICES; i++)
            registrar_queue(bench.registrar, &bench.ram->slices[i]);
        cr_assert(registrar_wait(bench.registrar, SOON_MS));
        cr_assert_eq(gate_count(&bench.done), round * SLICES);
        cr_assert_eq(bench.asked, SLICES);
        cr_assert_eq(registrar_info(bench.registrar).bytes, (uint64_t)PAGES << PAGE_SHIFT);
    }
    bench_close(&bench);
}

Test(registrar, the_first_failure_is_reported_once_and_ends_the_work)
{
    for (unsigned n = 0; n < SLICES; n += 3) {
        unsigned threads = census_threads(UINT_MAX);
        struct bench bench;
        bench_open(&bench);
        bench.fail_at = n;
        bench_start(&bench);
        for (unsigned i = 0; i < SLICES; i++)
            registrar_queue(bench.registrar, &bench.ram->slices[i]);
        uint64_t start = clock_now_ms();
        cr_assert_not(registrar_wait(bench.registrar, SOON_MS));
        cr_assert_lt(clock_now_ms() - start, SOON_MS / 2, "nobody waits for what will not come");
        cr_assert_eq(gate_count(&bench.failed), 1, "told before the waiters go on");
        cr_assert_eq(bench.failed.last.code, GODWIT_ERR_NO_MEMORY);
        cr_assert_not_null(strstr(bench.failed.last.text, "no more for number"), "%s", bench.failed.last.text);
        cr_assert_not_null(strstr(bench.failed.last.text, "block ram"), "%s", bench.failed.last.text);
        unsigned asked = bench.asked;
        registrar_stop(bench.registrar);
        cr_assert_leq(bench.asked, asked + REGISTRAR_THREADS_MAX, "nothing more is begun");
        cr_assert_eq(gate_count(&bench.failed), 1);
        bench_close(&bench);
        cr_assert_eq(census_threads(threads), threads);
    }
}

static void *let_go(void *opaque)
{
    struct bench *bench = opaque;
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    cr_assert_eq(gate_count(&bench->done), 0);
    atomic_store(&bench->held, false);
    return NULL;
}

Test(registrar, stop_waits_for_what_is_under_way_and_drops_the_rest)
{
    struct bench bench;
    pthread_t thread;
    bench_open(&bench);
    atomic_store(&bench.held, true);
    bench_start(&bench);
    for (unsigned i = 0; i < SLICES; i++)
        registrar_queue(bench.registrar, &bench.ram->slices[i]);
    while (atomic_load(&bench.begun) == 0)
        sched_yield();
    pthread_create(&thread, NULL, let_go, &bench);
    registrar_stop(bench.registrar);
    pthread_join(thread, NULL);
    cr_assert(bench.asked > 0 && bench.asked <= REGISTRAR_THREADS_MAX, "%u", bench.asked);
    cr_assert_eq(gate_count(&bench.done), bench.asked);
    cr_assert_eq(gate_count(&bench.failed), 0);
    cr_assert_not(registrar_wait(bench.registrar, 0), "what was dropped is never done");
    bench_close(&bench);
}
