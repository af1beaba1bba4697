/*
 * Who is let in: the first control connection of a session while serve() waits for one, the data channels of the
 * session in progress by their tickets and tokens, one ahead of each included, and at any time a source that asks what
 * became of its session. Everybody else gets a refusal in words and disturbs nobody.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/destination.h"
#include "transport/clock.h"
#include "transport/error.h"

enum {
    TURNED_AWAY_PAUSE_MS = 1000, /* between two warnings: strangers may come by the thousand */
    PATIENCE_MS = 1000, /* with a source that is quicker than this side's threads */
};

struct session *session_new(struct godwit_destination *destination, const uint8_t id[SESSION_ID_SIZE])
{
    struct session *session = calloc(1, sizeof *session);
    if (session == NULL)
        return NULL;
    session->destination = destination;
    session->start_ms = clock_now_ms();
    memcpy(session->id, id, sizeof session->id);
    pthread_mutex_init(&session->ack_lock, NULL);
    return session;
}

void session_free(struct session *session)
{
    channel_free(session->channel);
    state_set_clear(&session->states);
    pthread_mutex_destroy(&session->ack_lock);
    free(session);
}

void past_add(struct godwit_destination *destination, struct session *session, const struct token *token)
{
    struct past *past = &destination->past[destination->past_count++ % DESTINATION_PAST];
    memcpy(past->session, session->id, sizeof past->session);
    memcpy(past->token, token->bytes, sizeof past->token);
    past->fate = FATE_UNDECIDED;
    session->past = past;
    destination->last = past;
}

static struct past *past_find(struct godwit_destination *destination, const struct hello *hello)
{
    unsigned count = destination->past_count < DESTINATION_PAST ? destination->past_count : DESTINATION_PAST;
    for (unsigned i = 0; i < count; i++) {
        struct past *past = &destination->past[i];
        if (memcmp(past->session, hello->session, SESSION_ID_SIZE) != 0)
            continue;
        /* The right to ask is not used up by asking: an answer may be lost too. */
        struct token token = {.role = HELLO_CONTROL, .channel = 0, .epoch = 1, .state = TOKEN_ISSUED};
        struct token *found;
        memcpy(token.bytes, past->token, sizeof token.bytes);
        return token_reserve(&token, 1, hello, &found, NULL) == GODWIT_OK ? past : NULL;
    }
    return NULL;
}

static bool in_progress(const struct godwit_destination *destination, const struct hello *hello)
{
    return destination->session != NULL && memcmp(destination->session->id, hello->session, SESSION_ID_SIZE) == 0;
}

/* ---- under the lock ---- */

static enum godwit_err reserve_control(struct godwit_destination *destination, const struct hello *hello,
                                       struct godwit_error *error)
{
    if (hello->epoch > 0)
        return past_find(destination, hello) != NULL
                   ? GODWIT_OK
                   : error_set(error, GODWIT_ERR_NOT_ADMITTED, "this destination knows of no such migration");
    /* The embedder may be about to call serve() */
    uint64_t deadline = clock_now_ms() + PATIENCE_MS;
    struct timespec until = clock_timespec(deadline * 1000000u);
    while (!destination->waiting && destination->session == NULL && clock_left_ms(deadline) > 0)
        pthread_cond_clockwait(&destination->changed, &destination->lock, CLOCK_MONOTONIC, &until);
    if (destination->session != NULL)
        return error_set(error, GODWIT_ERR_BUSY, "another migration is in progress");
    if (!destination->waiting)
        return error_set(error, GODWIT_ERR_BUSY, "this destination expects no migration now");
    destination->session = session_new(destination, hello->session);
    if (destination->session == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a migration");
    return GODWIT_OK;
}

/*
 * A source that has the answer to its hello may come with the next connection of the channel before the door thread of
 * the one before has attached it. That takes no time, or the source is lost anyway.
 */
static void await_attached(struct godwit_destination *destination, const struct hello *hello)
{
    uint64_t deadline = clock_now_ms() + PATIENCE_MS;
    struct timespec until = clock_timespec(deadline * 1000000u);
    while (in_progress(destination, hello) && hello->channel < destination->session->offer.channels &&
           hello->epoch == destination->session->acceptance.tokens[hello->channel].epoch + 1 &&
           destination->session->acceptance.tokens[hello->channel].state == TOKEN_RESERVED &&
           clock_left_ms(deadline) > 0)
        pthread_cond_clockwait(&destination->changed, &destination->lock, CLOCK_MONOTONIC, &until);
}

static enum godwit_err reserve_data(struct godwit_destination *destination, const struct hello *hello,
                                    struct godwit_error *error)
{
    struct token *token;
    await_attached(destination, hello);
    struct session *session = in_progress(destination, hello) ? destination->session : NULL;
    if (session == NULL || session->recv == NULL)
        return error_set(error, GODWIT_ERR_NOT_ADMITTED, "no such migration is in progress");
    enum godwit_err err = token_reserve(session->acceptance.tokens, session->offer.channels, hello, &token, error);
    if (err != GODWIT_OK || multifd_recv_expects(session->recv, hello->channel))
        return err;
    token->state = TOKEN_ISSUED;
    return error_set(error, GODWIT_ERR_NOT_ADMITTED, "data channel %u expects no other connection now", hello->channel);
}

void door_turned_away(void *opaque, const char *name, const struct godwit_error *error)
{
    struct godwit_destination *destination = opaque;
    uint64_t now = clock_now_ms();
    pthread_mutex_lock(&destination->lock);
    bool quiet = destination->turned_away > 0 && now - destination->turned_away_ms < TURNED_AWAY_PAUSE_MS;
    unsigned others = destination->turned_away;
    destination->turned_away = quiet ? others + 1 : 1;
    if (!quiet)
        destination->turned_away_ms = now;
    pthread_mutex_unlock(&destination->lock);
    if (quiet)
        return;
    char text[GODWIT_ERROR_TEXT + 2 * ADDRESS_TEXT_MAX], more[48] = "";
    if (others > 1)
        snprintf(more, sizeof more, " (and %u more before it)", others - 1);
    snprintf(text, sizeof text, "turned away %s%s: %s", name, more, error->text);
    destination_warn(destination, text);
}

enum godwit_err door_reserve(void *opaque, const struct hello *hello, struct godwit_error *error)
{
    struct godwit_destination *destination = opaque;
    enum godwit_err err;
    pthread_mutex_lock(&destination->lock);
    if (hello->role == HELLO_CONTROL)
        err = reserve_control(destination, hello, error);
    else if (hello->role == HELLO_DATA)
        err = reserve_data(destination, hello, error);
    else
        err = error_set(error, GODWIT_ERR_NOT_ADMITTED, "connections of role %u are not supported", hello->role);
    pthread_mutex_unlock(&destination->lock);
    return err;
}

enum godwit_err door_check_ticket(void *opaque, const uint8_t ticket[TICKET_SIZE], struct domain **domain,
                                  struct godwit_error *error)
{
    struct godwit_destination *destination = opaque;
    enum godwit_err err;
    pthread_mutex_lock(&destination->lock);
    struct session *session = destination->session;
    if (session == NULL || memcmp(session->id, ticket, SESSION_ID_SIZE) != 0 || session->recv == NULL ||
        session->domain == NULL)
        err = error_set(error, GODWIT_ERR_NOT_ADMITTED, "no such migration is in progress");
    else
        err = token_show(session->acceptance.tokens, session->offer.channels, session->id, ticket, error);
    if (err == GODWIT_OK) {
        *domain = session->domain;
        domain_hold(*domain); /* the session may end before the connection says hello */
    }
    pthread_mutex_unlock(&destination->lock);
    return err;
}

void door_release(void *opaque, const struct hello *hello)
{
    struct godwit_destination *destination = opaque;
    pthread_mutex_lock(&destination->lock);
    if (in_progress(destination, hello) && hello->role == HELLO_DATA) {
        struct token *token = &destination->session->acceptance.tokens[hello->channel];
        token->state = TOKEN_ISSUED;
        token->shown = false;
    } else if (in_progress(destination, hello) && hello->epoch == 0) {
        session_free(destination->session);
        destination->session = NULL;
    }
    pthread_mutex_unlock(&destination->lock);
}

/*
 * The decision, if there was none: a source that asks has lost the connection, so RUN can no longer come by it, and it
 * is promised that it will not be obeyed. A RUN that was taken is being carried out: wait for what comes of it.
 */
static enum godwit_outcome decide_locked(struct godwit_destination *destination, struct past *past,
                                         uint64_t deadline_ms)
{
    if (past->fate == FATE_UNDECIDED) {
        past->fate = FATE_NEVER;
        if (destination->session != NULL && destination->session->past == past &&
            destination->session->failure.code == GODWIT_OK)
            error_set(&destination->session->failure, GODWIT_ERR_PEER_FAILED,
                      "the source lost the connection and was told that the guest does not run here");
        pthread_cond_broadcast(&destination->changed);
    }
    struct timespec until = clock_timespec(deadline_ms * 1000000u);
    while (past->fate == FATE_RUN_TAKEN && clock_left_ms(deadline_ms) > 0)
        pthread_cond_clockwait(&destination->changed, &destination->lock, CLOCK_MONOTONIC, &until);
    enum fate fate = past->fate; /* a slot is reused by the 16th session after it: not while one is being resumed */
    return fate == FATE_RUNNING ? GODWIT_OUTCOME_RUNNING
           : fate == FATE_NEVER ? GODWIT_OUTCOME_NEVER
                                : GODWIT_OUTCOME_UNKNOWN;
}

static void answer_outcome(struct godwit_destination *destination, const struct hello *hello, struct channel *channel)
{
    int timeout = (int)destination_option(destination, "handshake-timeout");
    struct record_header header;
    uint8_t bytes[RECORD_HEADER_SIZE];
    enum godwit_err err = channel_recv_exact(channel, bytes, sizeof bytes, timeout);
    if (err == GODWIT_OK)
        err = record_header_decode(bytes, &header, NULL);
    if (err != GODWIT_OK || header.type != RECORD_OUTCOME_ASK || header.size != 0 ||
        record_check(bytes, &header, NULL, 0, NULL) != GODWIT_OK)
        return;
    pthread_mutex_lock(&destination->lock);
    struct past *past = past_find(destination, hello);
    bool last = past != NULL && past == destination->last;
    uint8_t outcome = past == NULL ? GODWIT_OUTCOME_UNKNOWN
                                   : (uint8_t)decide_locked(destination, past, clock_now_ms() + (uint64_t)timeout);
    pthread_mutex_unlock(&destination->lock);
    struct iovec body = {&outcome, 1};
    if (record_send(channel, RECORD_OUTCOME, 0, &body, 1, timeout) != GODWIT_OK)
        return;
    /* Its last word, told to the source of the last session, is as good as a BYE. */
    pthread_mutex_lock(&destination->lock);
    if (outcome != GODWIT_OUTCOME_UNKNOWN && last)
        destination->goodbye = true;
    pthread_cond_broadcast(&destination->changed);
    pthread_mutex_unlock(&destination->lock);
    channel_recv_exact(channel, bytes, 1,
                       timeout); /* until the source hangs up: our answer is not cut off by a reset */
}

/*
 * Takes the channel. Under the lock. The token of the next connection is good from now on, but not where data channels
 * are queue pairs: one that waits for its turn could write memory when all others are gone.
 */
static void attach_data(struct session *session, const struct hello *hello, struct channel *channel)
{
    struct token *token = &session->acceptance.tokens[hello->channel];
    token->state = TOKEN_CONSUMED;
    if ((session->acceptance.features & FEATURE_RDMA) == 0)
        token_next(token, session->id, token);
    struct godwit_error error;
    if (multifd_recv_attach(session->recv, hello->channel, channel, &error) == GODWIT_OK)
        session->attached += hello->epoch == 0;
    else if (session->failure.code == GODWIT_OK)
        session->failure = error;
}

void door_attach(void *opaque, const struct hello *hello, struct channel *channel)
{
    struct godwit_destination *destination = opaque;
    if (hello->role == HELLO_CONTROL && hello->epoch > 0) {
        answer_outcome(destination, hello, channel);
        channel_free(channel);
        return;
    }
    bool taken = false;
    pthread_mutex_lock(&destination->lock);
    struct session *session = in_progress(destination, hello) ? destination->session : NULL;
    if (session != NULL && hello->role == HELLO_DATA && session->recv != NULL) {
        attach_data(session, hello, channel);
        taken = true;
    } else if (session != NULL && hello->role == HELLO_CONTROL) {
        session->channel = channel;
        taken = true;
    }
    pthread_cond_broadcast(&destination->changed);
    pthread_mutex_unlock(&destination->lock);
    if (!taken)
        channel_free(channel);
}
