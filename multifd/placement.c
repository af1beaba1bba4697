/*
 * See placement.h. Readers look at two pointers, without the lock; all changes are made under it, so that one who waits
 * misses none. A pointer that was set stays until ram_free().
 */
#include "multifd/placement.h"

#include <pthread.h>
#include <stdlib.h>

#include "transport/clock.h"

/* Of what is missing of the slices that were announced. */
struct awaited {
    uint32_t due;
    uint64_t moved_ns; /* the last that came; or when something became due and nothing was */
};

struct placement {
    uint64_t patience_ns; /* constant */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under lock */
    struct awaited own, keys;
    bool hurried;
};

struct placement *placement_new(unsigned patience_ms)
{
    struct placement *placement = calloc(1, sizeof *placement);
    if (placement == NULL)
        return NULL;
    placement->patience_ns = patience_ms * UINT64_C(1000000);
    pthread_mutex_init(&placement->lock, NULL);
    pthread_cond_init(&placement->changed, NULL);
    return placement;
}

void placement_free(struct placement *placement)
{
    if (placement == NULL)
        return;
    pthread_cond_destroy(&placement->changed);
    pthread_mutex_destroy(&placement->lock);
    free(placement);
}

static void await_one(struct awaited *awaited)
{
    if (awaited->due++ == 0)
        awaited->moved_ns = clock_now_ns();
}

static void came(struct placement *placement, struct awaited *awaited)
{
    awaited->due--;
    awaited->moved_ns = clock_now_ns();
    pthread_cond_broadcast(&placement->changed);
}

void placement_announce(struct placement *placement, struct slice *slice)
{
    pthread_mutex_lock(&placement->lock);
    slice->announced = true;
    await_one(&placement->keys);
    if (!slice->settled)
        await_one(&placement->own);
    atomic_store(&slice->awaited, true);
    pthread_mutex_unlock(&placement->lock);
}

void placement_registered(struct placement *placement, struct slice *slice)
{
    pthread_mutex_lock(&placement->lock);
    slice->settled = true;
    if (slice->announced)
        came(placement, &placement->own);
    if (atomic_load(&slice->mr) == NULL)
        atomic_store(&slice->awaited, false);
    pthread_mutex_unlock(&placement->lock);
}

bool placement_take_key(struct placement *placement, struct slice *slice, struct remote *key)
{
    pthread_mutex_lock(&placement->lock);
    bool due = slice->announced && !slice->keyed;
    if (due) {
        slice->keyed = true;
        atomic_store_explicit(&slice->remote, key, memory_order_release); /* pairs with placement_look() */
        if (key == NULL)
            atomic_store(&slice->awaited, false);
        came(placement, &placement->keys);
    }
    pthread_mutex_unlock(&placement->lock);
    return due;
}

bool placement_look(struct slice *slice, struct placed *out)
{
    /* acquire: pairs with the registrar's release of mr, and that of remote in placement_take_key() */
    out->mr = atomic_load_explicit(&slice->mr, memory_order_acquire);
    out->remote = atomic_load_explicit(&slice->remote, memory_order_acquire);
    return out->mr != NULL && out->remote != NULL;
}

/* Under the lock. */
static bool await(struct placement *placement, struct slice *slice, struct placed *out)
{
    while (!placement_look(slice, out)) {
        if (placement->hurried || !atomic_load(&slice->awaited))
            return false;
        const struct awaited *missing = out->mr == NULL ? &placement->own : &placement->keys;
        uint64_t deadline = missing->moved_ns + placement->patience_ns;
        if (clock_now_ns() >= deadline)
            return false;
        struct timespec until = clock_timespec(deadline);
        pthread_cond_clockwait(&placement->changed, &placement->lock, CLOCK_MONOTONIC, &until);
    }
    return true;
}

bool placement_ask(struct placement *placement, struct slice *slice, struct placed *out, uint64_t *waited_ns)
{
    if (placement_look(slice, out))
        return true;
    if (!atomic_load_explicit(&slice->awaited, memory_order_relaxed))
        return false;
    uint64_t start = clock_now_ns();
    pthread_mutex_lock(&placement->lock);
    bool ready = await(placement, slice, out);
    pthread_mutex_unlock(&placement->lock);
    *waited_ns += clock_now_ns() - start;
    return ready;
}

void placement_hurry(struct placement *placement)
{
    pthread_mutex_lock(&placement->lock);
    placement->hurried = true;
    pthread_cond_broadcast(&placement->changed);
    pthread_mutex_unlock(&placement->lock);
}
