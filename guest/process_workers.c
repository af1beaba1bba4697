/*
 * The worker threads.
 *
 * Happy path: each worker writes the pages that are due in short batches, looks for a pause between batches, and sleeps
 * on the condition variable when nothing is due, at most a slice; so a pause is seen at once by sleepers and within a
 * batch by writers. Park returns when every worker has counted itself parked under the lock: what they wrote happens
 * before.
 *
 * stop joins before it destroys the lock and the conditions, and park/unpark are called by the same thread as stop, so
 * nobody can be inside them then.
 */
#include "guest/process_workers.h"

#include <time.h>

#include "guest/guest_error.h"
#include "guest/process_pace.h"
#include "guest/process_stamp.h"

enum {
    WORKERS_BATCH = 16,       /* pages between two looks: some 30 us when every write is a first write */
    WORKERS_TICK_NS = 500000, /* worker 0: the clock is to tick at least once a millisecond */
    WORKERS_SLICE_NS = 1000000,
};

uint64_t process_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool worker_called(const struct process_workers *workers)
{
    return atomic_load_explicit(&workers->pause, memory_order_relaxed) ||
           atomic_load_explicit(&workers->quit, memory_order_relaxed);
}

static void worker_write(struct process_worker *worker, uint64_t pages)
{
    struct process_workers *workers = worker->all;
    uint64_t step = atomic_load_explicit(&worker->steps, memory_order_relaxed);
    for (uint64_t end = step + pages; step < end; step++) {
        uint64_t page = process_order_page(&worker->order, step);
        process_stamp_write(workers->memory + page * GODWIT_PAGE_SIZE, workers->plan.seed, page, step);
    }
    /* Relaxed: readers who need it exact come after park, which synchronises by the lock. */
    atomic_store_explicit(&worker->steps, step, memory_order_relaxed);
}

/* Sleeps until deadline, or until it is called. */
static void worker_sleep(struct process_workers *workers, uint64_t deadline)
{
    struct timespec until = {(time_t)(deadline / 1000000000), (long)(deadline % 1000000000)};
    pthread_mutex_lock(&workers->lock);
    if (!worker_called(workers))
        pthread_cond_timedwait(&workers->wake, &workers->lock, &until);
    pthread_mutex_unlock(&workers->lock);
}

/* Waits out a pause; false: quit. */
static bool worker_park(struct process_workers *workers)
{
    pthread_mutex_lock(&workers->lock);
    workers->parked_count++;
    pthread_cond_signal(&workers->parked);
    while (workers->pause && !workers->quit)
        pthread_cond_wait(&workers->wake, &workers->lock);
    workers->parked_count--;
    bool go_on = !workers->quit;
    pthread_mutex_unlock(&workers->lock);
    return go_on;
}

static void worker_tick(struct process_workers *workers, uint64_t now)
{
    process_clock_tick(workers->clock, now);
    if (!workers->witness || !witness_due(workers->witness, now))
        return;
    uint64_t steps = 0;
    for (unsigned i = 0; i < workers->plan.threads; i++)
        steps += atomic_load_explicit(&workers->worker[i].steps, memory_order_relaxed);
    struct godwit_error ignored; /* a tick that is missing accuses nobody */
    witness_note(workers->witness, WITNESS_TICK, atomic_load_explicit(&workers->clock->ticks, memory_order_relaxed),
                 steps, &ignored);
}

static void *worker_main(void *argument)
{
    struct process_worker *worker = argument;
    struct process_workers *workers = worker->all;
    uint64_t slice = worker->index == 0 ? WORKERS_TICK_NS : WORKERS_SLICE_NS;
    struct process_pace pace;
    process_pace_init(&pace, process_order_empty(&worker->order) ? 0 : worker->rate, process_now());
    for (;;) {
        if (worker_called(workers) && !worker_park(workers))
            return NULL;
        uint64_t now = process_now();
        if (worker->index == 0)
            worker_tick(workers, now);
        uint64_t due = process_pace_due(&pace, now);
        uint64_t pages = due < WORKERS_BATCH ? due : WORKERS_BATCH;
        if (pages == 0) {
            worker_sleep(workers, now + slice);
            continue;
        }
        worker_write(worker, pages);
        process_pace_account(&pace, pages);
    }
}

static void workers_prepare(struct process_workers *workers, void *memory, const struct process_counters *plan,
                            struct process_clock *clock, struct witness *witness)
{
    *workers = (struct process_workers){.memory = memory, .plan = *plan, .clock = clock, .witness = witness};
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->wake, &monotonic);
    pthread_cond_init(&workers->parked, NULL);
    pthread_condattr_destroy(&monotonic);
    for (unsigned i = 0; i < plan->threads; i++) {
        struct process_worker *worker = &workers->worker[i];
        worker->all = workers;
        worker->index = i;
        worker->rate = plan->rate * (i + 1) / plan->threads - plan->rate * i / plan->threads;
        atomic_store_explicit(&worker->steps, plan->steps[i], memory_order_relaxed);
        process_order_init(&worker->order, plan->pages, plan->hot_pages, plan->threads, i);
    }
}

enum godwit_err process_workers_start(struct process_workers *workers, void *memory,
                                      const struct process_counters *plan, struct process_clock *clock,
                                      struct witness *witness, struct godwit_error *error)
{
    workers_prepare(workers, memory, plan, clock, witness);
    workers->pause = true; /* all or none: who runs already would have written by the time the next one is refused */
    for (unsigned i = 0; i < plan->threads; i++) {
        int cause = pthread_create(&workers->worker[i].thread, NULL, worker_main, &workers->worker[i]);
        if (cause) {
            enum godwit_err err = guest_fail_sys(error, GODWIT_ERR_NO_MEMORY, cause,
                                                 "cannot start worker thread %u of the guest", i);
            process_workers_stop(workers);
            return err;
        }
        workers->running++;
    }
    return GODWIT_OK;
}

static void workers_call(struct process_workers *workers, bool pause, bool quit)
{
    pthread_mutex_lock(&workers->lock);
    atomic_store_explicit(&workers->pause, pause, memory_order_relaxed);
    atomic_store_explicit(&workers->quit, quit, memory_order_relaxed);
    pthread_cond_broadcast(&workers->wake);
    pthread_mutex_unlock(&workers->lock);
}

void process_workers_stop(struct process_workers *workers)
{
    if (!workers->clock)
        return;
    workers_call(workers, true, true);
    for (unsigned i = 0; i < workers->running; i++)
        pthread_join(workers->worker[i].thread, NULL);
    workers->running = 0;
    workers->clock = NULL;
    pthread_cond_destroy(&workers->parked);
    pthread_cond_destroy(&workers->wake);
    pthread_mutex_destroy(&workers->lock);
}

bool process_workers_started(const struct process_workers *workers)
{
    return workers->running > 0;
}

void process_workers_park(struct process_workers *workers)
{
    if (!process_workers_started(workers))
        return;
    workers_call(workers, true, false);
    pthread_mutex_lock(&workers->lock);
    while (workers->parked_count < workers->running)
        pthread_cond_wait(&workers->parked, &workers->lock);
    pthread_mutex_unlock(&workers->lock);
}

void process_workers_unpark(struct process_workers *workers)
{
    if (process_workers_started(workers))
        workers_call(workers, false, false);
}

void process_workers_counters(const struct process_workers *workers, struct process_counters *out)
{
    *out = workers->plan;
    for (unsigned i = 0; i < out->threads; i++)
        out->steps[i] = atomic_load_explicit(&workers->worker[i].steps, memory_order_relaxed);
}
