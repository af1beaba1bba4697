/* See rate.h. One mutex, taken once per batch: batches are a few thousand a second at the most. */
#include "multifd/rate.h"

#include <pthread.h>
#include <stdlib.h>

#include "multifd/ram.h"
#include "transport/clock.h"

struct migration_rate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t limit;      /* bytes per second, 0 unlimited */
    uint64_t booked_ns;  /* all bookings so far have run out by this time */
    uint64_t generation; /* of the limit: a change makes waiters book anew */
    bool ended;
};

struct migration_rate *migration_rate_new(void)
{
    struct migration_rate *rate = calloc(1, sizeof *rate);
    if (rate == NULL)
        return NULL;
    pthread_mutex_init(&rate->lock, NULL);
    pthread_cond_init(&rate->changed, NULL);
    return rate;
}

void migration_rate_free(struct migration_rate *rate)
{
    if (rate == NULL)
        return;
    pthread_cond_destroy(&rate->changed);
    pthread_mutex_destroy(&rate->lock);
    free(rate);
}

static void forget_bookings(struct migration_rate *rate)
{
    rate->booked_ns = 0;
    rate->generation++;
    pthread_cond_broadcast(&rate->changed);
}

void migration_rate_set(struct migration_rate *rate, uint64_t bytes_per_second)
{
    pthread_mutex_lock(&rate->lock);
    rate->limit = bytes_per_second;
    forget_bookings(rate);
    pthread_mutex_unlock(&rate->lock);
}

uint64_t migration_rate_get(struct migration_rate *rate)
{
    pthread_mutex_lock(&rate->lock);
    uint64_t limit = rate->limit;
    pthread_mutex_unlock(&rate->lock);
    return limit;
}

static uint64_t book(struct migration_rate *rate, uint64_t bytes, uint64_t now_ns)
{
    if (rate->limit == 0)
        return now_ns;
    uint64_t oldest = now_ns > RATE_SLACK_NS ? now_ns - RATE_SLACK_NS : 0;
    uint64_t start = rate->booked_ns > oldest ? rate->booked_ns : oldest;
    rate->booked_ns = start + (uint64_t)((double)bytes * 1e9 / (double)rate->limit);
    return start;
}

uint64_t migration_rate_account(struct migration_rate *rate, uint64_t bytes, uint64_t now_ns)
{
    pthread_mutex_lock(&rate->lock);
    uint64_t start = book(rate, bytes, now_ns);
    pthread_mutex_unlock(&rate->lock);
    return start;
}

bool migration_rate_exceeded(struct migration_rate *rate, uint64_t now_ns)
{
    pthread_mutex_lock(&rate->lock);
    bool exceeded = rate->limit != 0 && rate->booked_ns > now_ns;
    pthread_mutex_unlock(&rate->lock);
    return exceeded;
}

void migration_rate_reset(struct migration_rate *rate, uint64_t now_ns)
{
    pthread_mutex_lock(&rate->lock);
    forget_bookings(rate);
    rate->booked_ns = now_ns;
    pthread_mutex_unlock(&rate->lock);
}

uint64_t migration_rate_wait(struct migration_rate *rate, uint64_t bytes)
{
    pthread_mutex_lock(&rate->lock);
    uint64_t generation = rate->generation;
    if (rate->ended || rate->limit == 0) {
        pthread_mutex_unlock(&rate->lock);
        return 0;
    }
    uint64_t came = clock_now_ns(), now = came, start = book(rate, bytes, now);
    while (!rate->ended && start > now) {
        struct timespec until = clock_timespec(start);
        pthread_cond_clockwait(&rate->changed, &rate->lock, CLOCK_MONOTONIC, &until);
        now = clock_now_ns();
        if (rate->generation == generation)
            continue;
        generation = rate->generation;
        start = book(rate, bytes, now);
    }
    pthread_mutex_unlock(&rate->lock);
    return now - came;
}

void migration_rate_end(struct migration_rate *rate)
{
    pthread_mutex_lock(&rate->lock);
    rate->ended = true;
    pthread_cond_broadcast(&rate->changed);
    pthread_mutex_unlock(&rate->lock);
}

unsigned migration_rate_batch_pages(struct migration_rate *rate, unsigned most)
{
    uint64_t limit = migration_rate_get(rate);
    uint64_t pages = limit / 200 / PAGE_SIZE;
    if (limit == 0 || pages >= most)
        return most;
    return pages > 0 ? (unsigned)pages : 1;
}
