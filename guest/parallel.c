/*
 * Slices in threads. The caller's thread does the first slice itself, so one slice costs no thread at all.
 */
#include "guest/parallel.h"

#include <pthread.h>
#include <stdbool.h>
#include <unistd.h>

enum { PARALLEL_MAX = 64 };

struct parallel_slice {
    parallel_fn *fn;
    void *context;
    uint64_t first;
    uint64_t end;
    enum godwit_err err;
    struct godwit_error error;
    pthread_t thread;
    bool threaded;
};

static void *parallel_slice_main(void *argument)
{
    struct parallel_slice *slice = argument;
    slice->err = slice->fn(slice->context, slice->first, slice->end, &slice->error);
    return NULL;
}

enum godwit_err parallel_run(uint64_t items, uint64_t align, unsigned threads, parallel_fn *fn, void *context,
                             struct godwit_error *error)
{
    struct parallel_slice slices[PARALLEL_MAX] = {0};
    long online = threads ? (long)threads : sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t count = online < 1 ? 1 : online > PARALLEL_MAX ? PARALLEL_MAX : (uint64_t)online;
    uint64_t units = (items + align - 1) / align;
    count = units < count ? (units ? units : 1) : count;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t end = units * (i + 1) / count * align;
        slices[i] = (struct parallel_slice){
            .fn = fn, .context = context, .first = units * i / count * align, .end = end < items ? end : items};
    }
    for (uint64_t i = 1; i < count; i++)
        slices[i].threaded = pthread_create(&slices[i].thread, NULL, parallel_slice_main, &slices[i]) == 0;
    for (uint64_t i = 0; i < count; i++)
        if (!slices[i].threaded)
            parallel_slice_main(&slices[i]);
    for (uint64_t i = 1; i < count; i++)
        if (slices[i].threaded)
            pthread_join(slices[i].thread, NULL);
    for (uint64_t i = 0; i < count; i++) {
        if (!slices[i].err)
            continue;
        if (error)
            *error = slices[i].error;
        return slices[i].err;
    }
    return GODWIT_OK;
}
