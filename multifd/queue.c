/*
 * See queue.h. One mutex: it is taken twice per batch, which is up to 2 MiB of work for a sender. What costs is
 * sleeping and waking, and of that the producer, of whom there is but one, does as little as it can:
 *
 * - A push wakes a sender only if the queue was empty. Whoever takes a batch and leaves one wakes the next, so as long
 * as   there are batches either somebody is on his way to them or nobody sleeps.
 * - A producer that found no empty batch is woken when half of them are back. With two batches per sender or more no
 *   sender waits for that: while one is idle no full batch is left, the others have one each at most, and half are
 * back.
 */
#include "multifd/queue.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "transport/clock.h"

struct mark {
    uint64_t at; /* batches pushed before it */
    uint32_t epoch;
};

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t work;  /* senders: there is a batch or a mark */
    pthread_cond_t empty; /* producer: half of the batches have come back */
    bool ended;

    unsigned batches;
    struct batch *storage;
    struct batch **full; /* ring of batches places; taken..pushed are in it */
    uint64_t pushed, taken;
    struct batch **free; /* stack */
    unsigned free_count;

    struct mark marks[QUEUE_MARKS]; /* ring */
    uint64_t marked;
    unsigned senders;
    uint64_t *passed; /* per sender: marks passed */
    uint32_t *epochs; /* per sender: of the last one passed */
};

struct queue *queue_new(unsigned batches, unsigned senders)
{
    struct queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return NULL;
    queue->batches = batches;
    queue->storage = calloc(batches, sizeof *queue->storage);
    queue->full = calloc(batches, sizeof *queue->full);
    queue->free = calloc(batches, sizeof *queue->free);
    queue->senders = senders;
    queue->passed = calloc(senders, sizeof *queue->passed);
    queue->epochs = calloc(senders, sizeof *queue->epochs);
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->work, NULL);
    pthread_cond_init(&queue->empty, NULL);
    if (queue->storage == NULL || queue->full == NULL || queue->free == NULL || queue->passed == NULL ||
        queue->epochs == NULL) {
        queue_free(queue);
        return NULL;
    }
    for (unsigned i = 0; i < batches; i++)
        queue->free[queue->free_count++] = &queue->storage[i];
    return queue;
}

void queue_free(struct queue *queue)
{
    if (queue == NULL)
        return;
    pthread_cond_destroy(&queue->empty);
    pthread_cond_destroy(&queue->work);
    pthread_mutex_destroy(&queue->lock);
    free(queue->epochs);
    free(queue->passed);
    free(queue->free);
    free(queue->full);
    free(queue->storage);
    free(queue);
}

static void wait_empty_locked(struct queue *queue, int timeout_ms)
{
    struct timespec until = clock_timespec(clock_now_ns() + (uint64_t)timeout_ms * 1000000u);
    int waited = 0;
    while (queue->free_count == 0 && !queue->ended && waited == 0)
        waited = pthread_cond_clockwait(&queue->empty, &queue->lock, CLOCK_MONOTONIC, &until);
}

struct batch *queue_take_empty(struct queue *queue, int timeout_ms)
{
    pthread_mutex_lock(&queue->lock);
    if (queue->free_count == 0)
        wait_empty_locked(queue, timeout_ms);
    struct batch *batch = queue->ended || queue->free_count == 0 ? NULL : queue->free[--queue->free_count];
    pthread_mutex_unlock(&queue->lock);
    return batch;
}

void queue_push(struct queue *queue, struct batch *batch)
{
    pthread_mutex_lock(&queue->lock);
    bool first = queue->pushed == queue->taken;
    queue->full[queue->pushed++ % queue->batches] = batch;
    pthread_mutex_unlock(&queue->lock);
    if (first)
        pthread_cond_signal(&queue->work);
}

void queue_mark(struct queue *queue, uint32_t epoch)
{
    pthread_mutex_lock(&queue->lock);
    for (unsigned i = 0; i < queue->senders; i++)
        assert(queue->marked - queue->passed[i] < QUEUE_MARKS &&
               "the engine waits for acknowledgements before it marks again");
    queue->marks[queue->marked++ % QUEUE_MARKS] = (struct mark){.at = queue->pushed, .epoch = epoch};
    pthread_cond_broadcast(&queue->work);
    pthread_mutex_unlock(&queue->lock);
}

static enum queue_item next_locked(struct queue *queue, unsigned index, struct batch **batch, uint32_t *epoch)
{
    uint64_t *passed = &queue->passed[index];
    const struct mark *mark = &queue->marks[*passed % QUEUE_MARKS];
    if (*passed < queue->marked && queue->taken >= mark->at) {
        ++*passed;
        *epoch = queue->epochs[index] = mark->epoch;
        return QUEUE_MARK;
    }
    if (queue->taken < queue->pushed) {
        *batch = queue->full[queue->taken++ % queue->batches];
        /* The last batch before a mark sets free those who wait to pass it. */
        if (*passed < queue->marked && queue->taken == mark->at)
            pthread_cond_broadcast(&queue->work);
        else if (queue->taken < queue->pushed)
            pthread_cond_signal(&queue->work);
        return QUEUE_BATCH;
    }
    return QUEUE_END;
}

uint32_t queue_passed(struct queue *queue)
{
    uint32_t lowest = UINT32_MAX;
    pthread_mutex_lock(&queue->lock);
    for (unsigned i = 0; i < queue->senders; i++)
        lowest = queue->epochs[i] < lowest ? queue->epochs[i] : lowest;
    pthread_mutex_unlock(&queue->lock);
    return lowest;
}

enum queue_item queue_next(struct queue *queue, unsigned index, struct batch **batch, uint32_t *epoch)
{
    pthread_mutex_lock(&queue->lock);
    enum queue_item item = QUEUE_END;
    while (!queue->ended && (item = next_locked(queue, index, batch, epoch)) == QUEUE_END)
        pthread_cond_wait(&queue->work, &queue->lock);
    if (queue->ended)
        item = QUEUE_END;
    pthread_mutex_unlock(&queue->lock);
    return item;
}

void queue_recycle(struct queue *queue, struct batch *batch)
{
    pthread_mutex_lock(&queue->lock);
    queue->free[queue->free_count++] = batch;
    bool half = queue->free_count == (queue->batches + 1) / 2;
    pthread_mutex_unlock(&queue->lock);
    if (half)
        pthread_cond_signal(&queue->empty);
}

void queue_end(struct queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->ended = true;
    pthread_cond_broadcast(&queue->work);
    pthread_cond_broadcast(&queue->empty);
    pthread_mutex_unlock(&queue->lock);
}
