/*
 * One thread accepts; one short-lived thread per connection at the door does the hello, so that this code stays linear
 * also where a TLS handshake comes first.
 *
 * A place at the door is free, busy, or done (its thread can be joined). Only the accepting thread frees places. The
 * channel of a place belongs to its door thread, but under the lock the accepting thread may shut it down: a door
 * thread takes the channel out of the place, under the lock, before it hands it over or frees it, so a channel is never
 * shut down after it left.
 */
#include "session/admission.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "transport/clock.h"
#include "transport/error.h"

enum place_state { PLACE_FREE, PLACE_BUSY, PLACE_DONE };

struct place {
    struct admission *admission;
    _Atomic enum place_state state; /* free <-> busy by the accepting thread, busy -> done by the door thread */
    struct channel *channel; /* under lock; NULL once its door thread has taken it out */
    uint64_t since_ms;
    pthread_t thread;
};

struct admission {
    struct admission_config config;
    pthread_t acceptor;
    atomic_bool stopping;
    pthread_mutex_t lock;
    struct place places[ADMISSION_PLACES];
};

unsigned admission_backlog(unsigned channels)
{
    unsigned data = channels > 0 ? channels : 255;
    return data + 1 /* control */ + 1 /* urgent */ + data / 4 + 8 /* retries, and strangers */;
}

static struct channel *take_channel(struct place *place)
{
    pthread_mutex_lock(&place->admission->lock);
    struct channel *channel = place->channel;
    place->channel = NULL;
    pthread_mutex_unlock(&place->admission->lock);
    return channel;
}

static void greet(struct place *place, struct channel *channel)
{
    const struct admission_config *config = &place->admission->config;
    struct hello hello;
    struct godwit_error error = {0};
    enum godwit_err err = channel_handshake(channel, config->handshake_ms, &error);
    if (err != GODWIT_OK) {
        if (!atomic_load(&place->admission->stopping)) /* else it is we who leave */
            config->turned_away(config->opaque, channel_name(channel), &error);
        channel_free(take_channel(place));
        return;
    }
    err = hello_receive(channel, &hello, config->handshake_ms, &error);
    if (err == GODWIT_OK && config->roles != 0 && (config->roles & 1u << hello.role) == 0)
        err = error_set(&error, GODWIT_ERR_NOT_ADMITTED, "connections of role %u do not come in here", hello.role);
    else if (err == GODWIT_OK)
        err = config->reserve(config->opaque, &hello, &error);
    else if (err == GODWIT_ERR_MISMATCH)
        config->turned_away(config->opaque, channel_name(channel), &error);
    else
        err = GODWIT_ERR_CLOSED; /* no hello: nobody who would understand an answer */
    if (err == GODWIT_ERR_CLOSED) {
        channel_free(take_channel(place));
        return;
    }
    if (err != GODWIT_OK) {
        hello_reply(channel, err, error.text, config->handshake_ms);
        channel_free(take_channel(place));
        return;
    }
    if (hello_reply(channel, GODWIT_OK, "", config->handshake_ms) != GODWIT_OK) {
        channel_free(take_channel(place)); /* first: what is given back may be taken at once */
        config->release(config->opaque, &hello);
        return;
    }
    config->attach(config->opaque, &hello, take_channel(place));
}

static void *door_main(void *opaque)
{
    struct place *place = opaque;
    pthread_setname_np(pthread_self(), "mig_door");
    greet(place, place->channel);
    place->state = PLACE_DONE;
    return NULL;
}

/* Shuts down whoever stands at the door, so that its thread ends soon. */
static void show_out(struct place *place)
{
    pthread_mutex_lock(&place->admission->lock);
    if (place->channel != NULL)
        channel_shutdown(place->channel);
    pthread_mutex_unlock(&place->admission->lock);
}

static void free_place(struct place *place)
{
    pthread_join(place->thread, NULL);
    place->state = PLACE_FREE;
}

/* Joins those who are done, and shows out those who dribble their hello byte by byte. */
static void tidy_door(struct admission *admission)
{
    uint64_t now = clock_now_ms();
    for (unsigned i = 0; i < ADMISSION_PLACES; i++) {
        struct place *place = &admission->places[i];
        if (place->state == PLACE_DONE)
            free_place(place);
        else if (place->state == PLACE_BUSY && now - place->since_ms > (uint64_t)admission->config.handshake_ms)
            show_out(place);
    }
}

static struct place *find_place(struct admission *admission)
{
    struct place *oldest = &admission->places[0];
    tidy_door(admission);
    for (unsigned i = 0; i < ADMISSION_PLACES; i++) {
        struct place *place = &admission->places[i];
        if (place->state == PLACE_FREE)
            return place;
        if (place->since_ms < oldest->since_ms)
            oldest = place;
    }
    show_out(oldest);
    free_place(oldest);
    return oldest;
}

static void let_in(struct admission *admission, struct channel *channel)
{
    struct place *place = find_place(admission);
    place->admission = admission;
    place->channel = channel;
    place->since_ms = clock_now_ms();
    place->state = PLACE_BUSY;
    if (pthread_create(&place->thread, NULL, door_main, place) != 0) {
        place->state = PLACE_FREE;
        place->channel = NULL;
        channel_free(channel);
    }
}

static void *acceptor_main(void *opaque)
{
    struct admission *admission = opaque;
    pthread_setname_np(pthread_self(), "mig_listen");
    while (!atomic_load(&admission->stopping)) {
        struct channel *channel;
        enum godwit_err err = listener_accept(admission->config.listener, 1000, &channel, NULL);
        if (err == GODWIT_OK)
            let_in(admission, channel);
        else if (err == GODWIT_ERR_CLOSED)
            break;
        else if (err != GODWIT_ERR_TIMEOUT) /* out of descriptors, say: it passes, and must not spin meanwhile */
            poll(NULL, 0, 50);
        tidy_door(admission);
    }
    return NULL;
}

enum godwit_err admission_start(const struct admission_config *config, struct admission **out,
                                struct godwit_error *error)
{
    struct admission *admission = calloc(1, sizeof *admission);
    if (admission == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to listen");
    admission->config = *config;
    pthread_mutex_init(&admission->lock, NULL);
    if (pthread_create(&admission->acceptor, NULL, acceptor_main, admission) != 0) {
        pthread_mutex_destroy(&admission->lock);
        free(admission);
        return error_set(error, GODWIT_ERR_NO_MEMORY, "cannot start the listening thread");
    }
    *out = admission;
    return GODWIT_OK;
}

void admission_free(struct admission *admission)
{
    if (admission == NULL)
        return;
    atomic_store(&admission->stopping, true);
    listener_shutdown(admission->config.listener);
    pthread_join(admission->acceptor, NULL);
    for (unsigned i = 0; i < ADMISSION_PLACES; i++)
        if (admission->places[i].state != PLACE_FREE) {
            show_out(&admission->places[i]);
            free_place(&admission->places[i]);
        }
    listener_free(admission->config.listener);
    pthread_mutex_destroy(&admission->lock);
    free(admission);
}
