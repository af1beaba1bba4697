#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/conformance/cases.h"
#include "transport/clock.h"

static void nap_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static void refused_when_nobody_listens(struct pair *pair)
{
    listener_free(pair->listener);
    pair->listener = NULL;
    struct godwit_error error;
    uint64_t start = clock_now_ms();
    enum godwit_err err = pair_knock(pair, 150, NULL, &pair->a, &error);
    cr_assert_eq(err, GODWIT_ERR_REFUSED, "%s", error.text);
    cr_assert_null(pair->a);
    uint64_t took = clock_now_ms() - start;
    cr_assert(took >= 149 && took < 3000, "it kept trying, and not for ever: %llu ms", (unsigned long long)took);
    char address[ADDRESS_TEXT_MAX];
    address_format(&pair->address, address);
    cr_assert(strstr(error.text, address), "%s", error.text);
    cr_assert(strstr(error.text, "nothing listens there"), "%s", error.text);
}

static void connect_in_no_time_works_or_times_out(struct pair *pair)
{
    enum godwit_err err = pair_knock(pair, 0, NULL, &pair->a, NULL);
    cr_assert(!err || err == GODWIT_ERR_UNREACHABLE);
}

static void connect_waits_for_a_listener(struct pair *pair)
{
    listener_free(pair->listener);
    pair->listener = NULL;
    struct pair_knocker knocker = {.pair = pair, .timeout_ms = 10000};
    uint64_t start = clock_now_ms();
    pair_knocker_start(&knocker);
    nap_ms(30);
    enum godwit_err err = pair_listen_again(pair), accepted = err;
    if (!err)
        accepted = pair_accept(pair, 5000, &pair->b, NULL);
    if (accepted)
        atomic_store(&knocker.cancel, true);
    cr_assert_eq(pair_knocker_join(&knocker), GODWIT_OK, "%s", knocker.error.text);
    pair->a = knocker.channel;
    cr_assert_eq(err, GODWIT_OK, "%s", pair->error.text);
    cr_assert_eq(accepted, GODWIT_OK);
    cr_assert_lt(clock_now_ms() - start, 8000, "soon after it listened"); /* emulated processors take 4 s */
}

static void cancel_ends_connect(struct pair *pair)
{
    listener_free(pair->listener);
    pair->listener = NULL;
    struct pair_knocker knocker = {.pair = pair, .timeout_ms = 10000};
    pair_knocker_start(&knocker);
    nap_ms(20);
    uint64_t start = clock_now_ms();
    atomic_store(&knocker.cancel, true);
    cr_assert_eq(pair_knocker_join(&knocker), GODWIT_ERR_CANCELLED);
    cr_assert_lt(clock_now_ms() - start, 2000);
}

static void accept_times_out(struct pair *pair)
{
    struct godwit_error error;
    cr_assert_eq(listener_accept(pair->listener, 0, &pair->b, &error), GODWIT_ERR_TIMEOUT);
    cr_assert_eq(listener_accept(pair->listener, 20, &pair->b, &error), GODWIT_ERR_TIMEOUT, "%s", error.text);
    cr_assert_eq(error.code, GODWIT_ERR_TIMEOUT);
    cr_assert_null(pair->b);
    cr_assert_eq(pair_connect(pair), GODWIT_OK, "and the listener works on: %s", pair->error.text);
}

static void *shutdown_listener_thread(void *listener)
{
    nap_ms(20);
    listener_shutdown(listener);
    return NULL;
}

static void shutdown_ends_accept(struct pair *pair)
{
    pthread_t thread;
    pthread_create(&thread, NULL, shutdown_listener_thread, pair->listener);
    enum godwit_err err = listener_accept(pair->listener, CHANNEL_FOREVER, &pair->b, NULL);
    pthread_join(thread, NULL);
    cr_assert_eq(err, GODWIT_ERR_CLOSED);
    cr_assert_eq(listener_accept(pair->listener, CHANNEL_FOREVER, &pair->b, NULL), GODWIT_ERR_CLOSED, "later ones too");
}

static void second_listener_is_busy(struct pair *pair)
{
    struct listener *second = NULL;
    struct godwit_error error;
    enum godwit_err err = transport_listen(pair->transport, &pair->address, 1, &second, NULL, &error);
    cr_assert_eq(err, GODWIT_ERR_BUSY, "%s", error.text);
    char address[ADDRESS_TEXT_MAX];
    address_format(&pair->address, address);
    cr_assert(strstr(error.text, address) && strstr(error.text, "already in use"), "%s", error.text);
}

static void foreign_scheme_is_refused(struct pair *pair)
{
    struct address address;
    struct godwit_error error;
    const char *foreign = strcmp(pair->address.scheme, "tcp") ? "tcp" : "rdma";
    char text[32];
    snprintf(text, sizeof text, "%s:127.0.0.1:1", foreign);
    cr_assert_eq(address_parse(text, &address, NULL), GODWIT_OK);
    enum godwit_err err = transport_connect(pair->transport, &address, &pair->introduction, 1000, NULL, &pair->a,
                                            &error);
    cr_assert_eq(err, GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, foreign), "%s", error.text);
}

/* Knocks, and ends the listener nap later; REFUSED: the knock had not come by then. */
static enum godwit_err knock_at_a_listener_that_ends(struct pair *pair, unsigned nap)
{
    struct pair_knocker knocker = {.pair = pair, .timeout_ms = 10 * (int)nap};
    pair_knocker_start(&knocker);
    nap_ms(nap);
    listener_free(pair->listener);
    pair->listener = NULL;
    enum godwit_err err = pair_knocker_join(&knocker);
    pair->a = knocker.channel;
    return err;
}

/* As connections, or as requests to connect where these wait for an answer. */
static void unaccepted_connections_are_closed(struct pair *pair)
{
    enum godwit_err err = GODWIT_ERR_REFUSED;
    for (unsigned nap = 100; nap <= 1600 && err == GODWIT_ERR_REFUSED; nap *= 4) {
        if (pair->listener == NULL)
            cr_assert_eq(pair_listen_again(pair), GODWIT_OK);
        err = knock_at_a_listener_that_ends(pair, nap);
    }
    char byte;
    if (!err)
        err = channel_recv_exact(pair->a, &byte, 1, 5000);
    cr_assert(err == GODWIT_ERR_PEER_CLOSED || err == GODWIT_ERR_RESET || err == GODWIT_ERR_NOT_ADMITTED, "%s",
              godwit_err_text(err));
    cr_assert(err != GODWIT_ERR_NOT_ADMITTED || !pair->a);
}

static void many_connections_queue_up(struct pair *pair)
{
    enum { MANY = 8 };
    struct pair_knocker knockers[MANY];
    struct channel *accepted[MANY] = {0};
    for (unsigned i = 0; i < MANY; i++) {
        knockers[i] = (struct pair_knocker){.pair = pair, .timeout_ms = 5000};
        pair_knocker_start(&knockers[i]);
    }
    nap_ms(50);
    for (unsigned i = 0; i < MANY; i++)
        cr_assert_eq(pair_accept(pair, 5000, &accepted[i], NULL), GODWIT_OK);
    for (unsigned i = 0; i < MANY; i++) {
        cr_assert_eq(pair_knocker_join(&knockers[i]), GODWIT_OK, "%s", knockers[i].error.text);
        channel_free(knockers[i].channel);
        channel_free(accepted[i]);
    }
}

const struct conformance_case connect_cases[] = {
    {"refused when nobody listens", refused_when_nobody_listens, CASE_LISTENING},
    {"connect in no time works or times out", connect_in_no_time_works_or_times_out, CASE_LISTENING},
    {"connect waits for a listener", connect_waits_for_a_listener, CASE_LISTENING},
    {"cancel ends connect", cancel_ends_connect, CASE_LISTENING},
    {"accept times out", accept_times_out, CASE_LISTENING},
    {"shutdown ends accept", shutdown_ends_accept, CASE_LISTENING},
    {"a second listener is busy", second_listener_is_busy, CASE_LISTENING},
    {"a foreign scheme is refused", foreign_scheme_is_refused, CASE_LISTENING},
    {"unaccepted connections are closed", unaccepted_connections_are_closed, CASE_LISTENING},
    {"many connections queue up", many_connections_queue_up, CASE_LISTENING},
    {0},
};
