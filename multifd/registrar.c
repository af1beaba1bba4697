/*
 * See registrar.h. The queue is a ring with a place for every slice, so it cannot overflow: a slice is queued again
 * only after it was done.
 *
 * Failure modes: memory that cannot be had or pinned ends the work of all threads; the first of them reports. A call
 * into the transport that does not return holds up stop, and nobody else.
 *
 * Teardown: stop ends the queue and joins. Afterwards nobody holds the registrar; the slices own the registrations.
 */
#include "multifd/registrar.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "multifd/store.h"
#include "transport/clock.h"
#include "transport/error.h"

/* Registering outruns sending, and where both want one processor it had better wait: a sender without a processor is a
 * link that idles. */
enum { NICE = 5 };

struct registrar {
    struct registrar_config config;
    pthread_t threads[REGISTRAR_THREADS_MAX];
    unsigned thread_count;
    uint64_t promised; /* by whoever queues: bytes that are or will be registered */

    pthread_mutex_t lock;
    pthread_cond_t work; /* threads: something was queued, or the end */
    pthread_cond_t idle; /* waiters: all is done, or the end */
    /* under lock */
    struct slice **ring;
    uint64_t queued, taken, done;
    bool ended;    /* nothing is taken any more */
    bool reported; /* and why has been told: nobody need wait */
    struct registrar_info info;
};

static uint64_t bytes_of(const struct registrar *registrar, const struct slice *slice)
{
    return slice_pages(registrar->config.ram, slice) << PAGE_SHIFT;
}

static enum godwit_err register_slice(struct registrar *registrar, struct slice *slice, struct godwit_error *error)
{
    const struct registrar_config *config = &registrar->config;
    struct ram_block *block = &config->ram->blocks[slice->block];
    struct extent pages = {.first = slice_first(config->ram, slice),
                           .pages = (uint32_t)slice_pages(config->ram, slice),
                           .block = slice->block,
                           .kind = EXTENT_NORMAL};
    uint64_t offset = pages.first << PAGE_SHIFT;
    struct region region = {
        .addr = ram_content(block, pages.first),
        .size = (uint64_t)pages.pages << PAGE_SHIFT,
        .fd = block->fd,
        .fd_offset = block->fd_offset + offset,
    };
    struct mr *mr;
    enum godwit_err err = config->populate ? store_populate(block, &pages, error) : GODWIT_OK;
    if (err != GODWIT_OK)
        return err;
    err = domain_register(config->domain, &region, config->access, &mr, error);
    if (err != GODWIT_OK)
        return error_prefix(error, "cannot register %llu bytes of block %s at offset %llu",
                            (unsigned long long)region.size, block->id, (unsigned long long)offset);
    atomic_store_explicit(&slice->mr, mr, memory_order_release); /* pairs with whoever puts, or exports it */
    return GODWIT_OK;
}

static void note_done(struct registrar *registrar, uint64_t bytes)
{
    pthread_mutex_lock(&registrar->lock);
    registrar->info.bytes += bytes;
    registrar->info.slices += bytes > 0;
    registrar->info.done++;
    registrar->done++;
    if (registrar->done == registrar->queued)
        pthread_cond_broadcast(&registrar->idle);
    pthread_mutex_unlock(&registrar->lock);
}

/* True for the first to end it. */
static bool end(struct registrar *registrar)
{
    pthread_mutex_lock(&registrar->lock);
    bool first = !registrar->ended;
    registrar->ended = true;
    pthread_cond_broadcast(&registrar->work);
    pthread_mutex_unlock(&registrar->lock);
    return first;
}

static void wake_waiters(struct registrar *registrar)
{
    pthread_mutex_lock(&registrar->lock);
    registrar->reported = true;
    pthread_cond_broadcast(&registrar->idle);
    pthread_mutex_unlock(&registrar->lock);
}

static void fail(struct registrar *registrar, const struct godwit_error *error)
{
    if (!end(registrar))
        return;
    registrar->config.failed(registrar->config.opaque, error);
    wake_waiters(registrar); /* so that they find the reason */
}

/* NULL: the end. */
static struct slice *take(struct registrar *registrar)
{
    pthread_mutex_lock(&registrar->lock);
    while (!registrar->ended && registrar->taken == registrar->queued)
        pthread_cond_wait(&registrar->work, &registrar->lock);
    struct slice *slice = registrar->ended ? NULL
                                           : registrar->ring[registrar->taken++ % registrar->config.ram->slice_count];
    pthread_mutex_unlock(&registrar->lock);
    return slice;
}

static void *registrar_main(void *opaque)
{
    struct registrar *registrar = opaque;
    const struct registrar_config *config = &registrar->config;
    struct slice *slice;
    pthread_setname_np(pthread_self(), "mig_register");
    /* The calling thread's on Linux, though POSIX has processes. */
    setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + NICE);
    while ((slice = take(registrar)) != NULL) {
        struct godwit_error error = {0};
        uint64_t bytes = 0;
        if (!slice->barred && slice->mr == NULL) {
            if (register_slice(registrar, slice, &error) != GODWIT_OK) {
                fail(registrar, &error);
                return NULL;
            }
            bytes = bytes_of(registrar, slice);
        }
        config->done(config->opaque, slice);
        note_done(registrar, bytes);
    }
    return NULL;
}

static unsigned thread_count(void)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : online < REGISTRAR_THREADS_MAX ? (unsigned)online : REGISTRAR_THREADS_MAX;
}

enum godwit_err registrar_start(const struct registrar_config *config, struct registrar **out,
                                struct godwit_error *error)
{
    assert(config->ram->slice_count > 0 && "memory is cut into slices before it is registered");
    struct registrar *registrar = calloc(1, sizeof *registrar);
    if (registrar == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to register memory");
    registrar->config = *config;
    pthread_mutex_init(&registrar->lock, NULL);
    pthread_cond_init(&registrar->work, NULL);
    pthread_cond_init(&registrar->idle, NULL);
    registrar->ring = calloc(config->ram->slice_count, sizeof *registrar->ring);
    unsigned wanted = registrar->ring != NULL ? thread_count() : 0;
    while (registrar->thread_count < wanted &&
           pthread_create(&registrar->threads[registrar->thread_count], NULL, registrar_main, registrar) == 0)
        registrar->thread_count++;
    if (registrar->thread_count == 0) {
        registrar_free(registrar);
        return error_set(error, GODWIT_ERR_NO_MEMORY, "cannot start a thread to register memory");
    }
    *out = registrar;
    return GODWIT_OK;
}

bool registrar_queue(struct registrar *registrar, struct slice *slice)
{
    const struct registrar_config *config = &registrar->config;
    uint64_t bytes = bytes_of(registrar, slice);
    if (!slice->queued) {
        slice->queued = true;
        slice->barred = config->max_pinned != 0 && bytes > config->max_pinned - registrar->promised;
        registrar->promised += slice->barred ? 0 : bytes;
    }
    bool barred = slice->barred; /* before it can be taken: whoever took it may queue it again */
    pthread_mutex_lock(&registrar->lock);
    assert(registrar->queued - registrar->taken < config->ram->slice_count && "queued again before it was done");
    registrar->ring[registrar->queued++ % config->ram->slice_count] = slice;
    pthread_cond_signal(&registrar->work);
    pthread_mutex_unlock(&registrar->lock);
    return !barred;
}

bool registrar_wait(struct registrar *registrar, int timeout_ms)
{
    struct timespec until = clock_timespec(clock_now_ns() + (uint64_t)timeout_ms * 1000000u);
    int waited = 0;
    pthread_mutex_lock(&registrar->lock);
    while (!registrar->reported && registrar->done < registrar->queued && waited == 0)
        waited = pthread_cond_clockwait(&registrar->idle, &registrar->lock, CLOCK_MONOTONIC, &until);
    bool all = !registrar->ended && registrar->done == registrar->queued;
    pthread_mutex_unlock(&registrar->lock);
    return all;
}

void registrar_stop(struct registrar *registrar)
{
    end(registrar);
    wake_waiters(registrar);
    for (unsigned i = 0; i < registrar->thread_count; i++)
        pthread_join(registrar->threads[i], NULL);
    registrar->thread_count = 0;
}

void registrar_free(struct registrar *registrar)
{
    if (registrar == NULL)
        return;
    registrar_stop(registrar);
    pthread_cond_destroy(&registrar->idle);
    pthread_cond_destroy(&registrar->work);
    pthread_mutex_destroy(&registrar->lock);
    free(registrar->ring);
    free(registrar);
}

struct registrar_info registrar_info(struct registrar *registrar)
{
    pthread_mutex_lock(&registrar->lock);
    struct registrar_info info = registrar->info;
    pthread_mutex_unlock(&registrar->lock);
    return info;
}
