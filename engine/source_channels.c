/*
 * The data channels, connected several at a time: each takes handshakes of several round trips (the transport's, TLS,
 * the hello), which would add up if one channel waited for the other. Short-lived threads take one channel after the
 * other until there is none left. The engine's thread waits for them, and looks at cancel and at what comes in on the
 * control connection meanwhile.
 *
 * Failure modes: the first failure of a channel, a cancel, or the destination's own words set `stop`, which whoever
 * connects or greets looks at every 50 ms; the rest ends by it and is not heard. connect-timeout is for all channels
 * together. No thread is left when source_connect_channels() returns. Channels that were being greeted stay open as
 * well: the destination may have let them in, and would give their end as the reason.
 *
 * AT_ONCE: 255 channels take 16 rounds of handshakes then, and no more of them crowd the listener's backlog, which on
 * RDMA drops what it cannot hold. Rejected: a thread for each channel, which gains nothing more where handshakes cost
 * processor time, as those of TLS do.
 */
#include <string.h>

#include "engine/source.h"
#include "transport/clock.h"
#include "transport/error.h"

enum { AT_ONCE = 16 };

struct connecting {
    struct godwit_source *source;
    uint64_t deadline_ms;
    atomic_bool stop; /* given to all that waits as its cancel */

    pthread_mutex_t lock;
    pthread_cond_t ended; /* a thread did */
    /* under lock */
    unsigned next;    /* channel that no thread has taken yet */
    unsigned running; /* threads */
    struct godwit_error failure; /* the first; code 0: none */
};

static void note_failure(struct connecting *all, const struct godwit_error *error)
{
    pthread_mutex_lock(&all->lock);
    if (all->failure.code == GODWIT_OK)
        all->failure = *error;
    pthread_mutex_unlock(&all->lock);
    atomic_store(&all->stop, true);
}

static bool take_next(struct connecting *all, unsigned *index)
{
    pthread_mutex_lock(&all->lock);
    *index = all->next;
    bool taken = all->failure.code == GODWIT_OK && all->next < all->source->channel_count;
    all->next += taken;
    pthread_mutex_unlock(&all->lock);
    return taken;
}

static void *connect_main(void *opaque)
{
    struct connecting *all = opaque;
    struct godwit_error error = {0};
    pthread_setname_np(pthread_self(), "mig_connect");
    for (unsigned index; take_next(all, &index);)
        if (source_connect_data(all->source, &all->source->acceptance.tokens[index], clock_left_ms(all->deadline_ms),
                                &all->stop, &all->source->channels[index], &error) != GODWIT_OK) {
            error_prefix(&error, "data channel %u", index);
            note_failure(all, &error);
        }
    pthread_mutex_lock(&all->lock);
    all->running--;
    pthread_cond_signal(&all->ended);
    pthread_mutex_unlock(&all->lock);
    return NULL;
}

static unsigned start_threads(struct connecting *all, pthread_t threads[AT_ONCE])
{
    struct godwit_error error;
    unsigned count = all->source->channel_count < AT_ONCE ? all->source->channel_count : AT_ONCE, started = 0;
    pthread_mutex_lock(&all->lock);
    while (started < count && pthread_create(&threads[started], NULL, connect_main, all) == 0)
        started++;
    all->running = started;
    pthread_mutex_unlock(&all->lock);
    if (started < count) {
        error_set(&error, GODWIT_ERR_NO_MEMORY, "cannot start a thread to connect data channels");
        note_failure(all, &error);
    }
    return started;
}

static void wait_for_threads(struct connecting *all)
{
    struct godwit_error error;
    pthread_mutex_lock(&all->lock);
    while (all->running > 0) {
        struct timespec until = clock_timespec(clock_now_ns() + SOURCE_TICK_MS * UINT64_C(1000000));
        pthread_cond_clockwait(&all->ended, &all->lock, CLOCK_MONOTONIC, &until);
        pthread_mutex_unlock(&all->lock);
        if (source_check(all->source, &error) != GODWIT_OK)
            note_failure(all, &error);
        pthread_mutex_lock(&all->lock);
    }
    pthread_mutex_unlock(&all->lock);
}

enum godwit_err source_connect_channels(struct godwit_source *source, struct godwit_error *error)
{
    pthread_t threads[AT_ONCE];
    struct connecting all = {
        .source = source,
        .deadline_ms = clock_now_ms() + source_option(source, "connect-timeout"),
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .ended = PTHREAD_COND_INITIALIZER,
    };
    memset(source->channels, 0, sizeof source->channels);
    source->channel_count = source->offer.channels;
    unsigned started = start_threads(&all, threads);
    wait_for_threads(&all);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    pthread_cond_destroy(&all.ended);
    pthread_mutex_destroy(&all.lock);

    /* A refusal is often the consequence of what the destination says on the control connection. */
    enum godwit_err err = source_check(source, error);
    if (err == GODWIT_OK && all.failure.code != GODWIT_OK) {
        *error = all.failure;
        err = error->code;
    }
    return err;
}
