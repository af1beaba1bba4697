/*
 * What only TLS channels do: ends that nobody announced, bytes that were changed, peers that speak something else or
 * stop half-way, keys that change under way. The conformance list has the rest.
 */
#include <criterion/criterion.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tcp/stream.h"
#include "tcp/tcp.h"
#include "tcp/tls_private.h"
#include "tests/lib/pair.h"
#include "transport/clock.h"

TestSuite(tls_channel, .timeout = 60);

enum { SOON_MS = 5000, SHORT_MS = 200 };

static void open_pair(struct pair *pair)
{
    enum godwit_err err = pair_open(pair, PAIR_TLS_TCP);
    cr_assert_eq(err, GODWIT_OK, "%s", pair->error.text);
}

static void expect_words(const struct godwit_error *error, const char *words)
{
    cr_assert(strstr(error->text, words), "\"%s\" is not in \"%s\"", words, error->text);
}

static void expect_detail(const struct channel *channel, const char *words)
{
    cr_assert(strstr(channel_detail(channel), words), "\"%s\" is not in \"%s\"", words, channel_detail(channel));
}

Test(tls_channel, says_what_protects_it)
{
    struct pair pair;
    open_pair(&pair);
    const struct channel_security *security = channel_security(pair.a);
    cr_assert_str_eq(security->version, "TLS1.3");
    cr_assert_neq(security->cipher[0], '\0');
    cr_assert_str_eq(security->cipher, channel_security(pair.b)->cipher);
    cr_assert_not(security->kernel);
    cr_assert_str_eq(channel_security(pair.a->wrapped)->version, "", "what is inside is bare");
    pair_close(&pair);
}

/* A record is visible as one on the wire: nothing of what was said is. */
Test(tls_channel, what_is_said_does_not_travel_in_the_clear)
{
    struct pair pair;
    open_pair(&pair);
    static const char secret[] = "the guest's own memory";
    cr_assert_eq(channel_send(pair.a, secret, sizeof secret, NULL, 0, SOON_MS), GODWIT_OK);
    char wire[512];
    size_t got = 0;
    cr_assert_eq(channel_recv_some(pair.b->wrapped, wire, sizeof wire, SOON_MS, &got), GODWIT_OK);
    cr_assert_gt(got, sizeof secret);
    cr_assert_eq(wire[0], 23, "a record of application data");
    cr_assert_null(memmem(wire, got, secret, sizeof secret - 1));
    pair_close(&pair);
}

Test(tls_channel, the_largest_records_are_full)
{
    struct pair pair;
    open_pair(&pair);
    enum { SIZE = 4 * TLS_PLAIN_MAX };
    uint8_t *memory = calloc(1, SIZE), *wire = malloc(2 * SIZE);
    struct iovec pages[SIZE / 4096];
    for (unsigned i = 0; i < SIZE / 4096; i++)
        pages[i] = (struct iovec){memory + i * 4096, 4096};
    cr_assert_eq(channel_send(pair.a, NULL, 0, pages, SIZE / 4096, SOON_MS), GODWIT_OK);
    unsigned records = 0;
    for (size_t at = 0, plain = 0; plain < SIZE; records++) {
        cr_assert_eq(channel_recv_exact(pair.b->wrapped, wire, TLS_HEADER, SOON_MS), GODWIT_OK);
        at = (size_t)wire[3] << 8 | wire[4];
        cr_assert_eq(channel_recv_exact(pair.b->wrapped, wire, at, SOON_MS), GODWIT_OK);
        plain += at - 16 /* tag */ - 1 /* type */;
    }
    cr_assert_eq(records, SIZE / TLS_PLAIN_MAX, "16 pages, 4 records: %u", records);
    free(memory);
    free(wire);
    pair_close(&pair);
}

Test(tls_channel, a_cut_is_no_end)
{
    struct pair pair;
    open_pair(&pair);
    channel_shutdown(pair.a->wrapped); /* as a network would: TLS said nothing */
    char byte;
    cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, SOON_MS), GODWIT_ERR_RESET);
    expect_detail(pair.b, "without TLS's closing notify");
    pair_close(&pair);
}

Test(tls_channel, a_changed_bit_is_found)
{
    struct fault_plan plan = fault_plan_none();
    plan.flip_sent = 8 * 3000; /* behind the handshake of a pre-shared key */
    struct pair pair;
    cr_assert_eq(pair_listen_faulty(&pair, PAIR_TLS_TCP, &plan), GODWIT_OK, "%s", pair.error.text);
    cr_assert_eq(pair_connect(&pair), GODWIT_OK, "%s", pair.error.text);
    char memory[8192] = "";
    struct iovec iov = {memory, sizeof memory};
    cr_assert_eq(channel_send(pair.a, NULL, 0, &iov, 1, SOON_MS), GODWIT_OK);
    cr_assert_eq(channel_recv_exact(pair.b, memory, sizeof memory, SOON_MS), GODWIT_ERR_PROTOCOL);
    expect_detail(pair.b, "tampered with, or damaged");
    cr_assert_eq(channel_recv_exact(pair.b, memory, 1, SOON_MS), GODWIT_ERR_PROTOCOL, "and it stays broken");
    pair_close(&pair);
}

/* Batches of records leave in calls of their own; the caller knows of one message. */
static enum godwit_err send_stuck_at(unsigned batch)
{
    enum { SIZE = 20 * TLS_PLAIN_MAX, LATER = 1000 };
    struct fault_counts counts = {0};
    struct fault_plan plan = fault_plan_none();
    plan.counts = &counts;
    plan.fail_op = FAULT_SEND;
    plan.fail_at = LATER;
    plan.fail_code = GODWIT_ERR_TIMEOUT;
    struct pair pair;
    cr_assert_eq(pair_listen_faulty(&pair, PAIR_TLS_TCP, &plan), GODWIT_OK, "%s", pair.error.text);
    cr_assert_eq(pair_connect(&pair), GODWIT_OK, "%s", pair.error.text);
    atomic_store(&counts.calls[FAULT_SEND], LATER - batch);
    uint8_t *memory = calloc(1, SIZE);
    struct iovec iov = {memory, SIZE};
    enum godwit_err err = channel_send(pair.a, NULL, 0, &iov, 1, SOON_MS);
    free(memory);
    pair_close(&pair);
    return err;
}

Test(tls_channel, a_send_that_is_stuck_is_stalled_once_a_part_has_left)
{
    cr_assert_eq(send_stuck_at(0), GODWIT_ERR_TIMEOUT);
    for (unsigned batch = 1; batch < 3; batch++)
        cr_assert_eq(send_stuck_at(batch), GODWIT_ERR_STALLED, "batch %u", batch);
}

/* ---- strangers ---- */

static struct channel *knock_bare(struct pair *pair)
{
    struct channel *channel = NULL;
    struct godwit_error error;
    cr_assert_eq(transport_connect(&tcp_transport, &pair->address, NULL, SOON_MS, NULL, &channel, &error), GODWIT_OK,
                 "%s", error.text);
    return channel;
}

static void open_bare(struct pair *pair)
{
    cr_assert_eq(pair_listen(pair, PAIR_TLS_TCP), GODWIT_OK, "%s", pair->error.text);
    pair->a = knock_bare(pair);
    cr_assert_eq(listener_accept(pair->listener, SOON_MS, &pair->b, &pair->error), GODWIT_OK, "%s", pair->error.text);
}

Test(tls_channel, another_language_is_named_and_answered_with_an_alert)
{
    struct pair pair;
    open_bare(&pair);
    static const char words[] = "GET / HTTP/1.1\r\n\r\n";
    cr_assert_eq(channel_send(pair.a, words, sizeof words - 1, NULL, 0, SOON_MS), GODWIT_OK);
    cr_assert_eq(channel_handshake(pair.b, SOON_MS, &pair.error), GODWIT_ERR_PROTOCOL);
    expect_words(&pair.error, "does not speak TLS: set tls-creds");
    uint8_t alert[2];
    cr_assert_eq(channel_recv_exact(pair.a, alert, sizeof alert, SOON_MS), GODWIT_OK);
    cr_assert(alert[0] == 21 && alert[1] == 3, "%u %u", alert[0], alert[1]);
    pair_close(&pair);
}

/* A peer that has the key, and something else than godwit to say: it sends no ALPN at all. */
struct other_program {
    enum tls_side side;
    struct channel *channel; /* bare, and used up */
    pthread_t thread;
    int rc;
};

static int other_key(gnutls_session_t session, const char *user, gnutls_datum_t *key)
{
    (void)session, (void)user;
    key->data = gnutls_malloc(PAIR_KEY_SIZE);
    key->size = PAIR_KEY_SIZE;
    memcpy(key->data, pair_key, PAIR_KEY_SIZE);
    return 0;
}

static void *other_main(void *argument)
{
    struct other_program *other = argument;
    gnutls_session_t session;
    gnutls_psk_client_credentials_t client;
    gnutls_psk_server_credentials_t server;
    gnutls_datum_t key = {(unsigned char *)(uintptr_t)pair_key, PAIR_KEY_SIZE};
    gnutls_psk_allocate_client_credentials(&client);
    gnutls_psk_set_client_credentials(client, "qemu", &key, GNUTLS_PSK_KEY_RAW);
    gnutls_psk_allocate_server_credentials(&server);
    gnutls_psk_set_server_credentials_function(server, other_key);
    bool connects = other->side == TLS_CLIENT;
    gnutls_init(&session, (connects ? GNUTLS_CLIENT : GNUTLS_SERVER) | GNUTLS_NO_SIGNAL);
    gnutls_priority_set_direct(session, "NORMAL:-KX-ALL:+ECDHE-PSK", NULL);
    gnutls_credentials_set(session, GNUTLS_CRD_PSK, connects ? (void *)client : (void *)server);
    gnutls_transport_set_int(session, stream_socket(other->channel));
    gnutls_handshake_set_timeout(session, SOON_MS);
    do
        other->rc = gnutls_handshake(session);
    while (other->rc < 0 && !gnutls_error_is_fatal(other->rc));
    char byte;
    if (other->rc == 0) /* a client learns of the refusal later */
        other->rc = (int)gnutls_record_recv(session, &byte, 1);
    gnutls_deinit(session);
    gnutls_psk_free_client_credentials(client);
    gnutls_psk_free_server_credentials(server);
    channel_free(other->channel);
    return NULL;
}

Test(tls_channel, a_client_with_the_key_that_is_no_godwit_is_turned_away)
{
    struct pair pair;
    open_bare(&pair);
    struct other_program other = {.side = TLS_CLIENT, .channel = pair.a};
    pair.a = NULL;
    pthread_create(&other.thread, NULL, other_main, &other);
    enum godwit_err err = channel_handshake(pair.b, SOON_MS, &pair.error);
    channel_free(pair.b);
    pair.b = NULL;
    pthread_join(other.thread, NULL);
    cr_assert_eq(err, GODWIT_ERR_NOT_ADMITTED);
    expect_words(&pair.error, "something else than godwit");
    cr_assert_eq(other.rc, GNUTLS_E_FATAL_ALERT_RECEIVED, "%d", other.rc);
    pair_close(&pair);
}

Test(tls_channel, a_server_with_the_key_that_is_no_godwit_is_left)
{
    struct pair pair;
    cr_assert_eq(pair_listen(&pair, PAIR_TLS_TCP), GODWIT_OK, "%s", pair.error.text);
    struct address anywhere = pair.address;
    struct listener *listener;
    anywhere.port = 0;
    cr_assert_eq(transport_listen(&tcp_transport, &anywhere, 1, &listener, &(struct backlog_warning){0}, &pair.error),
                 GODWIT_OK, "%s", pair.error.text);
    pair.address = *listener_address(listener);
    struct pair_knocker knocker = {.pair = &pair, .timeout_ms = SOON_MS};
    pair_knocker_start(&knocker);
    struct other_program other = {.side = TLS_SERVER};
    cr_assert_eq(listener_accept(listener, SOON_MS, &other.channel, &pair.error), GODWIT_OK, "%s", pair.error.text);
    other_main(&other);
    cr_assert_eq(pair_knocker_join(&knocker), GODWIT_ERR_NOT_ADMITTED, "%s", knocker.error.text);
    expect_words(&knocker.error, "something else than godwit");
    listener_free(listener);
    pair_close(&pair);
}

Test(tls_channel, a_silent_peer_costs_no_more_than_the_deadline)
{
    struct pair pair;
    open_bare(&pair);
    uint64_t start = clock_now_ms();
    cr_assert_eq(channel_handshake(pair.b, SHORT_MS, &pair.error), GODWIT_ERR_TIMEOUT);
    cr_assert_lt(clock_now_ms() - start, SHORT_MS + 2000);
    expect_words(&pair.error, "did not complete the TLS handshake within 200 ms");
    pair_close(&pair);
}

static void *dribble(void *channel)
{
    /* The header of a ClientHello, and one byte of it every now and then: more often than the patience of one read. */
    static const uint8_t begin[] = {22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc};
    enum godwit_err err = channel_send(channel, begin, sizeof begin, NULL, 0, SOON_MS);
    for (unsigned i = 0; i < 100 && !err; i++) {
        struct timespec nap = {.tv_nsec = 20 * 1000000};
        nanosleep(&nap, NULL);
        err = channel_send(channel, "", 1, NULL, 0, SOON_MS);
    }
    return NULL;
}

Test(tls_channel, a_peer_that_dribbles_costs_no_more_than_the_deadline)
{
    struct pair pair;
    open_bare(&pair);
    pthread_t thread;
    pthread_create(&thread, NULL, dribble, pair.a);
    uint64_t start = clock_now_ms();
    cr_assert_eq(channel_handshake(pair.b, SHORT_MS, &pair.error), GODWIT_ERR_TIMEOUT);
    cr_assert_lt(clock_now_ms() - start, SHORT_MS + 1000);
    channel_free(pair.b);
    pair.b = NULL;
    pthread_join(thread, NULL);
    pair_close(&pair);
}

Test(tls_channel, a_peer_that_hangs_up_in_the_handshake_is_named)
{
    struct pair pair;
    open_bare(&pair);
    channel_free(pair.a);
    pair.a = NULL;
    cr_assert_eq(channel_handshake(pair.b, SOON_MS, &pair.error), GODWIT_ERR_PEER_CLOSED);
    expect_words(&pair.error, "hung up during the TLS handshake");
    pair_close(&pair);
}

Test(tls_channel, a_handshake_may_be_left_without_a_deadline)
{
    struct pair pair;
    cr_assert_eq(pair_listen(&pair, PAIR_TLS_TCP), GODWIT_OK, "%s", pair.error.text);
    struct pair_knocker knocker = {.pair = &pair, .timeout_ms = SOON_MS};
    pair_knocker_start(&knocker);
    cr_assert_eq(listener_accept(pair.listener, SOON_MS, &pair.b, &pair.error), GODWIT_OK, "%s", pair.error.text);
    cr_assert_eq(channel_handshake(pair.b, CHANNEL_FOREVER, &pair.error), GODWIT_OK, "%s", pair.error.text);
    cr_assert_eq(pair_knocker_join(&knocker), GODWIT_OK, "%s", knocker.error.text);
    pair.a = knocker.channel;
    pair_close(&pair);
}

static void *end_it(void *channel)
{
    struct timespec nap = {.tv_nsec = 50 * 1000000};
    nanosleep(&nap, NULL);
    channel_shutdown(channel);
    return NULL;
}

Test(tls_channel, shutdown_ends_a_handshake)
{
    struct pair pair;
    open_bare(&pair);
    pthread_t thread;
    pthread_create(&thread, NULL, end_it, pair.b);
    cr_assert_eq(channel_handshake(pair.b, 30000, &pair.error), GODWIT_ERR_CLOSED);
    pthread_join(thread, NULL);
    pair_close(&pair);
}

Test(tls_channel, connecting_to_one_who_never_answers_ends_in_time_and_by_cancel)
{
    struct pair pair;
    cr_assert_eq(pair_listen(&pair, PAIR_TLS_TCP), GODWIT_OK, "%s", pair.error.text); /* who accepts nobody */
    cr_assert_eq(pair_knock(&pair, SHORT_MS, NULL, &pair.a, &pair.error), GODWIT_ERR_UNREACHABLE);
    expect_words(&pair.error, "did not complete the TLS handshake");
    struct pair_knocker knocker = {.pair = &pair, .timeout_ms = 30000};
    pair_knocker_start(&knocker);
    struct timespec nap = {.tv_nsec = 50 * 1000000};
    nanosleep(&nap, NULL);
    atomic_store(&knocker.cancel, true);
    cr_assert_eq(pair_knocker_join(&knocker), GODWIT_ERR_CANCELLED, "%s", knocker.error.text);
    pair_close(&pair);
}

/* ---- keys that change ---- */

struct keys {
    unsigned char bytes[64];
    size_t size;
};

/* Of the sending direction. */
static struct keys keys_of(const struct tls_channel *channel)
{
    struct keys keys = {0};
    gnutls_datum_t mac, iv, key;
    unsigned char sequence[8];
    cr_assert_eq(gnutls_record_get_state(channel->session, 0, &mac, &iv, &key, sequence), 0);
    cr_assert_leq(key.size, sizeof keys.bytes);
    memcpy(keys.bytes, key.data, key.size);
    keys.size = key.size;
    return keys;
}

/* A kernel cannot follow new keys, and GnuTLS would change them by itself after 2^24 records. */
Test(tls_channel, fixed_keys_stay_the_same_however_much_is_sent)
{
    struct pair pair;
    open_pair(&pair);
    struct tls_channel *from = (struct tls_channel *)pair.a, *to = (struct tls_channel *)pair.b;
    static const unsigned char late[8] = {0, 0, 0, 0, 0, 0xff, 0xff, 0xf0};
    gnutls_record_set_state(from->session, 0, late);
    gnutls_record_set_state(to->session, 1, late);
    from->fixed_keys = true;
    struct keys before = keys_of(from);
    for (unsigned i = 0; i < 32; i++) {
        char byte = (char)i;
        cr_assert_eq(channel_send(pair.a, &byte, 1, NULL, 0, SOON_MS), GODWIT_OK);
        cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, SOON_MS), GODWIT_OK, "%s", channel_detail(pair.b));
    }
    struct keys after = keys_of(from);
    cr_assert_eq(after.size, before.size);
    cr_assert_arr_eq(after.bytes, before.bytes, before.size);
    pair_close(&pair);
}

/* The limit of a cipher is one of records, and small ones come to few bytes. */
Test(tls_channel, small_records_wear_keys_out_as_well)
{
    struct pair pair;
    open_pair(&pair);
    struct tls_channel *from = (struct tls_channel *)pair.a;
    from->sent_records = TLS_KEY_RECORDS - 2;
    from->renewed_ms = 0;
    struct keys before = keys_of(from), after;
    for (unsigned i = 0; i < 4; i++) {
        char byte = (char)i;
        after = keys_of(from);
        cr_assert_eq(memcmp(after.bytes, before.bytes, before.size) == 0, i < 3, "record %u", i);
        cr_assert_eq(channel_send(pair.a, &byte, 1, NULL, 0, SOON_MS), GODWIT_OK);
        cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, SOON_MS), GODWIT_OK, "%s", channel_detail(pair.b));
    }
    pair_close(&pair);
}

enum { FLOW_STEP = 64 << 10 };

struct flow {
    struct channel *channel;
    pthread_t thread;
    atomic_bool *end;
    uint64_t steps;
    enum godwit_err err;
};

static void *flow_out(void *argument)
{
    struct flow *flow = argument;
    uint8_t *memory = calloc(1, FLOW_STEP);
    struct iovec iov = {memory + 1, FLOW_STEP - 1};
    while (!flow->err && !atomic_load(flow->end)) {
        memset(memory, (int)flow->steps++, FLOW_STEP);
        flow->err = channel_send(flow->channel, memory, 1, &iov, 1, SOON_MS);
    }
    free(memory);
    return NULL;
}

static void *flow_in(void *argument)
{
    struct flow *flow = argument;
    uint8_t *memory = calloc(1, FLOW_STEP);
    for (;;) {
        flow->err = channel_recv_exact(flow->channel, memory, FLOW_STEP, SOON_MS);
        if (flow->err)
            break;
        cr_assert(memory[0] == (uint8_t)flow->steps && memory[FLOW_STEP - 1] == (uint8_t)flow->steps);
        flow->steps++;
    }
    free(memory);
    return NULL;
}

/* GnuTLS had deadlocks here: both directions busy, both changing keys. */
Test(tls_channel, keys_are_renewed_while_both_directions_are_busy)
{
    struct pair pair;
    open_pair(&pair);
    struct tls_channel *ends[2] = {(struct tls_channel *)pair.a, (struct tls_channel *)pair.b};
    uint64_t begun[2] = {ends[0]->renewed_ms, ends[1]->renewed_ms};
    for (unsigned i = 0; i < 2; i++)
        ((struct tls *)(uintptr_t)ends[i]->tls)->renew_bytes = 1 << 20;

    atomic_bool end = false;
    struct flow out[2], in[2];
    for (unsigned i = 0; i < 2; i++) {
        out[i] = (struct flow){.channel = &ends[i]->base, .end = &end};
        in[i] = (struct flow){.channel = &ends[i]->base};
        pthread_create(&out[i].thread, NULL, flow_out, &out[i]);
        pthread_create(&in[i].thread, NULL, flow_in, &in[i]);
    }
    struct timespec nap = {.tv_sec = 1};
    nanosleep(&nap, NULL);
    atomic_store(&end, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(out[i].thread, NULL);
    uint64_t ended[2] = {ends[0]->renewed_ms, ends[1]->renewed_ms};
    for (unsigned i = 0; i < 2; i++)
        channel_shutdown(&ends[i]->base);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(in[i].thread, NULL);
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(out[i].err, GODWIT_OK, "%s", godwit_err_text(out[i].err));
        cr_assert(in[i].err == GODWIT_ERR_PEER_CLOSED || in[i].err == GODWIT_ERR_CLOSED, "%s: %s",
                  godwit_err_text(in[i].err), channel_detail(in[i].channel));
        cr_assert_gt(ended[i], begun[i] + 500, "keys of direction %u changed to the end", i);
        cr_assert_gt(in[i].steps, 100);
    }
    pair_close(&pair);
}
