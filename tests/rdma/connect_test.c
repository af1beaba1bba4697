/*
 * Making RDMA connections on the fake: every answer of the connection manager at every step, every call that fails,
 * tickets, deadlines and cancels. Whatever happens, one clear error comes out, the listener goes on, and nothing is
 * left. Long, because each of them is a case here.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "rdma/cm.h"
#include "tests/lib/census.h"
#include "tests/lib/pair.h"
#include "tests/rdma/fake_scene.h"
#include "transport/clock.h"
#include "transport/error.h"

TestSuite(rdma_connect, .timeout = 240);

static struct pair pair;

static void begin_with(const struct fake_setup *setup)
{
    pair_use_fabric(&fabric);
    if (setup)
        fake_verbs_start(setup);
    cr_assert_eq(pair_listen(&pair, PAIR_RDMA), GODWIT_OK, "%s", pair.error.text);
}

static void begin(void)
{
    begin_with(NULL);
}

static void end(void)
{
    pair_close(&pair);
}

/* Whatever went before, the listener takes the next one. */
static void expect_a_good_connection(void)
{
    cr_assert_eq(pair_connect(&pair), GODWIT_OK, "%s", pair.error.text);
    cr_assert_eq(channel_send(pair.a, "!", 1, NULL, 0, 1000), GODWIT_OK);
    char byte;
    cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, 1000), GODWIT_OK);
    channel_free(pair.a);
    channel_free(pair.b);
    pair.a = pair.b = NULL;
}

static void expect_failure(int timeout_ms, enum godwit_err expected, const char *words)
{
    struct godwit_error error = {0};
    struct channel *channel = NULL;
    char address[ADDRESS_TEXT_MAX];
    enum godwit_err err = pair_knock(&pair, timeout_ms, NULL, &channel, &error);
    cr_assert_eq(err, expected, "%s instead of %s: %s", godwit_err_text(err), godwit_err_text(expected), error.text);
    cr_assert_eq(error.code, expected);
    cr_assert(strstr(error.text, words), "\"%s\" has no \"%s\"", error.text, words);
    address_format(&pair.address, address);
    cr_assert(strstr(error.text, address), "\"%s\" has no \"%s\"", error.text, address);
    cr_assert_null(channel);
}

/* --- answers --- */

static const struct {
    enum fake_step step;
    enum rdma_cm_event_type event;
    int status;
    enum godwit_err err;
    const char *words;
} answers[] = {
    {FAKE_STEP_ADDR, RDMA_CM_EVENT_ADDR_ERROR, -ENODEV, GODWIT_ERR_UNREACHABLE, "has no RDMA device"},
    {FAKE_STEP_ADDR, RDMA_CM_EVENT_ADDR_ERROR, -ETIMEDOUT, GODWIT_ERR_UNREACHABLE, "ARP or ND"},
    {FAKE_STEP_ADDR, RDMA_CM_EVENT_ADDR_ERROR, -ENETUNREACH, GODWIT_ERR_UNREACHABLE, "Network is unreachable"},
    {FAKE_STEP_ADDR, RDMA_CM_EVENT_DEVICE_REMOVAL, 0, GODWIT_ERR_RESET, "was removed"},
    {FAKE_STEP_ROUTE, RDMA_CM_EVENT_ROUTE_ERROR, -ENODEV, GODWIT_ERR_UNREACHABLE, "cannot find a path"},
    {FAKE_STEP_ROUTE, RDMA_CM_EVENT_ROUTE_ERROR, -EINVAL, GODWIT_ERR_UNREACHABLE, "MTU"},
    {FAKE_STEP_ROUTE, RDMA_CM_EVENT_DEVICE_REMOVAL, 0, GODWIT_ERR_RESET, "was removed"},
    {FAKE_STEP_CONNECT, RDMA_CM_EVENT_REJECTED, 3, GODWIT_ERR_UNREACHABLE, "out of resources"},
    {FAKE_STEP_CONNECT, RDMA_CM_EVENT_REJECTED, 26, GODWIT_ERR_UNREACHABLE, "MTU"},
    {FAKE_STEP_CONNECT, RDMA_CM_EVENT_REJECTED, 28, GODWIT_ERR_NOT_ADMITTED, "without a reason"},
    {FAKE_STEP_CONNECT, RDMA_CM_EVENT_REJECTED, 99, GODWIT_ERR_UNREACHABLE, "reason 99"},
    {FAKE_STEP_CONNECT, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT, GODWIT_ERR_UNREACHABLE, "UDP port 4791"},
    {FAKE_STEP_CONNECT, RDMA_CM_EVENT_CONNECT_ERROR, -ECONNRESET, GODWIT_ERR_UNREACHABLE, "Connection reset"},
    {FAKE_STEP_CONNECT, RDMA_CM_EVENT_DISCONNECTED, 0, GODWIT_ERR_RESET, "while it was made"},
    {FAKE_STEP_CONNECT, RDMA_CM_EVENT_DEVICE_REMOVAL, 0, GODWIT_ERR_RESET, "was removed"},
    {FAKE_STEP_CONNECT, RDMA_CM_EVENT_MULTICAST_ERROR, 0, GODWIT_ERR_PROTOCOL, "RDMA_CM_EVENT_MULTICAST_ERROR"},
};

Test(rdma_connect, every_answer_at_every_step_is_one_clear_error)
{
    for (unsigned i = 0; i < sizeof answers / sizeof *answers; i++) {
        begin();
        fake_answer_step(answers[i].step, answers[i].event, answers[i].status, NULL, 0);
        uint64_t start = clock_now_ms();
        expect_failure(5000, answers[i].err, answers[i].words);
        cr_assert_lt(clock_now_ms() - start, 1000, "answer %u is not worth another try", i);
        expect_a_good_connection();
        end();
    }
}

Test(rdma_connect, an_older_connection_in_the_peers_memory_is_tried_past)
{
    begin();
    fake_answer_step(FAKE_STEP_CONNECT, RDMA_CM_EVENT_REJECTED, 10, NULL, 0);
    expect_a_good_connection();
    end();
}

Test(rdma_connect, no_listener_is_tried_past_until_time_is_up)
{
    begin();
    fake_answer_step(FAKE_STEP_CONNECT, RDMA_CM_EVENT_REJECTED, 8, NULL, 0);
    expect_a_good_connection();
    listener_free(pair.listener);
    pair.listener = NULL;
    uint64_t start = clock_now_ms();
    expect_failure(300, GODWIT_ERR_REFUSED, "nothing listens there");
    cr_assert_geq(clock_now_ms() - start, 250);
    end();
}

Test(rdma_connect, an_attempt_that_the_deadline_cuts_short_does_not_hide_the_cause)
{
    begin();
    listener_free(pair.listener);
    pair.listener = NULL;
    struct pair_knocker knocker = {.pair = &pair, .timeout_ms = 500};
    pair_knocker_start(&knocker);
    while (!fake_calls(FAKE_CALL_CONNECT)) /* the first attempt, which is refused */
        poll(NULL, 0, 1);
    fake_answer_step(FAKE_STEP_ADDR, FAKE_NO_EVENT, 0, NULL, 0);
    cr_assert_eq(pair_knocker_join(&knocker), GODWIT_ERR_REFUSED, "%s", knocker.error.text);
    cr_assert(strstr(knocker.error.text, "nothing listens there"), "%s", knocker.error.text);
    end();
}

Test(rdma_connect, no_answer_ends_with_the_deadline_and_says_at_which_step)
{
    static const char *const words[] = {"resolving the address", "resolving the route", "connecting"};
    for (enum fake_step step = FAKE_STEP_ADDR; step <= FAKE_STEP_CONNECT; step++) {
        begin();
        fake_answer_step(step, FAKE_NO_EVENT, 0, NULL, 0);
        uint64_t start = clock_now_ms();
        expect_failure(500, GODWIT_ERR_UNREACHABLE, words[step]);
        uint64_t took = clock_now_ms() - start;
        cr_assert(took >= 490 && took < 3000, "%llu ms", (unsigned long long)took);
        expect_a_good_connection();
        end();
    }
}

Test(rdma_connect, cancel_ends_any_step)
{
    static const enum fake_call calls[] = {FAKE_CALL_RESOLVE_ADDR, FAKE_CALL_RESOLVE_ROUTE, FAKE_CALL_CONNECT};
    for (enum fake_step step = FAKE_STEP_ADDR; step <= FAKE_STEP_CONNECT; step++) {
        begin();
        fake_answer_step(step, FAKE_NO_EVENT, 0, NULL, 0);
        struct pair_knocker knocker = {.pair = &pair, .timeout_ms = 10000};
        pair_knocker_start(&knocker);
        while (!fake_calls(calls[step]))
            poll(NULL, 0, 1);
        uint64_t start = clock_now_ms();
        atomic_store(&knocker.cancel, true);
        cr_assert_eq(pair_knocker_join(&knocker), GODWIT_ERR_CANCELLED, "%s", knocker.error.text);
        cr_assert_lt(clock_now_ms() - start, 1000);
        cr_assert_null(knocker.channel);
        expect_a_good_connection();
        end();
    }
}

Test(rdma_connect, a_silent_network_is_unreachable)
{
    begin();
    fake_cm_silent(true);
    expect_failure(200, GODWIT_ERR_UNREACHABLE, "UDP port 4791");
    fake_cm_silent(false);
    expect_a_good_connection();
    end();
}

/* --- tickets --- */

Test(rdma_connect, a_wrong_ticket_is_refused_in_the_owners_words)
{
    begin();
    struct introduction wrong = pair.introduction;
    wrong.ticket[TICKET_SIZE - 1]++;
    struct pair other = pair;
    other.introduction = wrong;
    struct pair_knocker knocker = {.pair = &other, .timeout_ms = 5000};
    pair_knocker_start(&knocker);
    cr_assert_eq(listener_accept(pair.listener, 300, &pair.b, NULL), GODWIT_ERR_TIMEOUT, "nobody was let in");
    cr_assert_eq(pair_knocker_join(&knocker), GODWIT_ERR_NOT_ADMITTED, "%s", knocker.error.text);
    cr_assert(strstr(knocker.error.text, "not the pair's ticket"), "%s", knocker.error.text);
    expect_a_good_connection();
    end();
}

static enum godwit_err refuse_at_length(void *opaque, const uint8_t ticket[TICKET_SIZE], struct domain **domain,
                                        struct godwit_error *error)
{
    return error_set(error, *(enum godwit_err *)opaque, "%0200d\n\033[31mend", 7);
}

static enum godwit_err knock_and_be_refused(enum godwit_err code, struct godwit_error *error)
{
    struct pair_knocker knocker = {.pair = &pair, .timeout_ms = 400};
    listener_check_tickets(pair.listener, &(struct ticket_check){refuse_at_length, &code});
    pair_knocker_start(&knocker);
    cr_assert_eq(listener_accept(pair.listener, 700, &pair.b, NULL), GODWIT_ERR_TIMEOUT);
    pair_knocker_join(&knocker);
    *error = knocker.error;
    return knocker.err;
}

Test(rdma_connect, the_words_of_a_refusal_are_cut_and_the_code_is_kept_or_softened)
{
    struct godwit_error error;
    begin();
    cr_assert_eq(knock_and_be_refused(GODWIT_ERR_PROTOCOL, &error), GODWIT_ERR_NOT_ADMITTED);
    cr_assert_null(strstr(error.text, "end"));
    char zeros[TICKET_TEXT_MAX + 1];
    memset(zeros, '0', sizeof zeros);
    zeros[TICKET_TEXT_MAX] = '\0';
    cr_assert(strstr(error.text, zeros), "%s", error.text);
    cr_assert_eq(knock_and_be_refused(GODWIT_ERR_BUSY, &error), GODWIT_ERR_UNREACHABLE, "tried again until time is up");
    cr_assert(strstr(error.text, zeros), "%s", error.text);
    end();
}

/* A request with these bytes, made with plain verbs; the reject's status, and whether it had words. */
static int knock_plainly(const void *data, uint8_t size, bool *words)
{
    struct scene s = {.address = {.sin_family = AF_INET,
                                  .sin_port = htons(pair.address.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    struct rdma_conn_param param = {.private_data = data, .private_data_len = size, .retry_count = 6};
    scene_resolve(&s);
    scene_queues(&s.a);
    cr_assert_eq(rdma_connect(s.a.id, &param), 0);
    cr_assert_eq(listener_accept(pair.listener, 100, &pair.b, NULL), GODWIT_ERR_TIMEOUT);
    struct rdma_cm_event *event = scene_event(s.a.events);
    cr_assert_eq(event->event, RDMA_CM_EVENT_REJECTED);
    int status = event->status;
    struct cm_refusal refusal;
    *words = cm_refusal_decode(event->param.conn.private_data, event->param.conn.private_data_len, &refusal);
    rdma_ack_cm_event(event);
    scene_end_fini(&s.a);
    return status;
}

Test(rdma_connect, strangers_are_rejected_without_a_word)
{
    uint8_t request[CM_REQUEST_SIZE];
    bool words;
    begin();
    cr_assert_eq(knock_plainly(NULL, 0, &words), 28);
    cr_assert_not(words);
    cm_request_encode(pair.introduction.ticket, request);
    for (unsigned byte = 0; byte < 8; byte++) { /* magic, version, reserved */
        request[byte] ^= 1;
        cr_assert_eq(knock_plainly(request, sizeof request, &words), 28);
        cr_assert_not(words, "byte %u", byte);
        request[byte] ^= 1;
    }
    request[8] ^= 1;
    cr_assert_eq(knock_plainly(request, sizeof request, &words), 28);
    cr_assert(words, "who speaks our language is told");
    expect_a_good_connection();
    end();
}

/* However many knock, a caller of accept gets its turn when its time is over. */
Test(rdma_connect, strangers_do_not_keep_a_listener_beyond_its_deadline)
{
    enum { STRANGERS = 5 };
    struct scene strangers[STRANGERS];
    struct rdma_conn_param param = {.retry_count = 6};
    struct godwit_error error;
    begin();
    for (unsigned i = 0; i < STRANGERS; i++) {
        strangers[i] = (struct scene){.address = {.sin_family = AF_INET,
                                                  .sin_port = htons(pair.address.port),
                                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
        scene_resolve(&strangers[i]);
        scene_queues(&strangers[i].a);
        cr_assert_eq(rdma_connect(strangers[i].a.id, &param), 0);
    }
    poll(NULL, 0, 100); /* they are all there */
    cr_assert_eq(listener_accept(pair.listener, 0, &pair.b, &error), GODWIT_ERR_TIMEOUT);
    cr_assert(strstr(error.text, "nobody was let in"), "%s", error.text);
    cr_assert_eq(fake_calls(FAKE_CALL_REJECT), 1);
    cr_assert_eq(listener_accept(pair.listener, 300, &pair.b, &error), GODWIT_ERR_TIMEOUT);
    cr_assert_eq(fake_calls(FAKE_CALL_REJECT), STRANGERS, "the others are not forgotten");
    for (unsigned i = 0; i < STRANGERS; i++)
        scene_end_fini(&strangers[i].a);
    expect_a_good_connection();
    end();
}

Test(rdma_connect, a_listener_without_a_check_lets_nobody_in)
{
    begin();
    listener_free(pair.listener);
    cr_assert_eq(transport_listen(pair.transport, &pair.address, 4, &pair.listener, NULL, NULL), GODWIT_OK);
    struct pair_knocker knocker = {.pair = &pair, .timeout_ms = 2000};
    pair_knocker_start(&knocker);
    cr_assert_eq(listener_accept(pair.listener, 200, &pair.b, NULL), GODWIT_ERR_TIMEOUT);
    cr_assert_eq(pair_knocker_join(&knocker), GODWIT_ERR_NOT_ADMITTED);
    cr_assert(strstr(knocker.error.text, "nobody is expected"), "%s", knocker.error.text);
    end();
}

Test(rdma_connect, it_takes_a_domain_a_host_and_a_port)
{
    begin();
    struct pair wrong = pair;
    struct godwit_error error;
    wrong.introduction.domain = NULL;
    cr_assert_eq(pair_knock(&wrong, 100, NULL, &wrong.a, &error), GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, "domain"), "%s", error.text);
    wrong = pair;
    wrong.address.port = 0;
    cr_assert_eq(pair_knock(&wrong, 100, NULL, &wrong.a, &error), GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, "port"), "%s", error.text);
    wrong = pair;
    wrong.address.host[0] = '\0';
    cr_assert_eq(pair_knock(&wrong, 100, NULL, &wrong.a, &error), GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, "host"), "%s", error.text);
    end();
}

/* --- two devices --- */

static struct fake_setup two_devices(void)
{
    struct fake_setup setup;
    fake_setup_init(&setup);
    setup.devices[1] = (struct fake_device_setup){
        .name = "fake1", .addresses = {"127.0.0.2"}, .mtu = IBV_MTU_4096, .state = IBV_PORT_ACTIVE};
    return setup;
}

static struct domain *other_domain(void)
{
    struct address address;
    struct domain *domain;
    cr_assert_eq(address_parse("rdma:127.0.0.2:1", &address, NULL), GODWIT_OK);
    cr_assert_eq(transport_domain(pair.transport, &address, &domain, NULL), GODWIT_OK);
    return domain;
}

Test(rdma_connect, a_domain_of_another_device_does_not_lead_there)
{
    struct fake_setup setup = two_devices();
    begin_with(&setup);
    struct domain *other = other_domain();
    pair.introduction.domain = other;
    expect_failure(2000, GODWIT_ERR_UNREACHABLE, "another RDMA device");
    domain_free(other);
    end();
}

Test(rdma_connect, a_request_that_arrives_at_another_device_is_refused)
{
    struct fake_setup setup = two_devices();
    begin_with(&setup);
    struct domain *own = pair.domain_b;
    pair.domain_b = other_domain();
    struct pair_knocker knocker = {.pair = &pair, .timeout_ms = 2000};
    pair_knocker_start(&knocker);
    cr_assert_eq(listener_accept(pair.listener, 200, &pair.b, NULL), GODWIT_ERR_TIMEOUT);
    cr_assert_eq(pair_knocker_join(&knocker), GODWIT_ERR_NOT_ADMITTED);
    cr_assert(strstr(knocker.error.text, "fake0") && strstr(knocker.error.text, "fake1"), "%s", knocker.error.text);
    domain_free(pair.domain_b);
    pair.domain_b = own;
    expect_a_good_connection();
    end();
}

Test(rdma_connect, a_wildcard_listens_on_every_device_and_in_both_families)
{
    static const char *const hosts[] = {"127.0.0.1", "127.0.0.2", "::1"};
    struct fake_setup setup = two_devices();
    begin_with(&setup);
    listener_free(pair.listener);
    pair.address.host[0] = '\0';
    cr_assert_eq(pair_listen_again(&pair), GODWIT_OK, "%s", pair.error.text);
    pair.address = *listener_address(pair.listener);
    for (unsigned i = 0; i < 3; i++) {
        struct domain *own_a = pair.domain_a, *own_b = pair.domain_b;
        snprintf(pair.address.host, sizeof pair.address.host, "%s", hosts[i]);
        cr_assert_eq(transport_domain(pair.transport, &pair.address, &pair.domain_a, NULL), GODWIT_OK);
        cr_assert_eq(transport_domain(pair.transport, &pair.address, &pair.domain_b, NULL), GODWIT_OK);
        pair.introduction.domain = pair.domain_a;
        expect_a_good_connection();
        domain_free(pair.domain_a);
        domain_free(pair.domain_b);
        pair.domain_a = own_a;
        pair.domain_b = own_b;
    }
    end();
}

/* --- the other side changes its mind --- */

Test(rdma_connect, a_request_that_was_withdrawn_does_not_hold_up_the_next)
{
    begin();
    struct pair_knocker knocker = {.pair = &pair, .timeout_ms = 10000};
    pair_knocker_start(&knocker);
    poll(NULL, 0, 100);
    atomic_store(&knocker.cancel, true);
    cr_assert_eq(pair_knocker_join(&knocker), GODWIT_ERR_CANCELLED);
    poll(NULL, 0, 20);
    expect_a_good_connection();
    end();
}

Test(rdma_connect, a_peer_that_goes_after_it_was_accepted_is_a_reset)
{
    begin();
    fake_answer_step(FAKE_STEP_ACCEPT, RDMA_CM_EVENT_REJECTED, 4, NULL, 0);
    struct pair_knocker knocker = {.pair = &pair, .timeout_ms = 300};
    pair_knocker_start(&knocker);
    cr_assert_eq(listener_accept(pair.listener, 2000, &pair.b, NULL), GODWIT_OK);
    char byte;
    cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, 2000), GODWIT_ERR_RESET);
    cr_assert_neq(channel_detail(pair.b)[0], '\0');
    cr_assert_eq(pair_knocker_join(&knocker), GODWIT_ERR_UNREACHABLE);
    end();
}

/* --- calls that fail --- */

/* One attempt on both sides; whatever comes of it is freed. True: it worked. */
static bool attempt(void)
{
    struct pair_knocker knocker = {.pair = &pair, .timeout_ms = 400};
    struct godwit_error error = {0};
    pair_knocker_start(&knocker);
    enum godwit_err err = listener_accept(pair.listener, 500, &pair.b, &error);
    pair_knocker_join(&knocker);
    if (knocker.err)
        cr_assert_neq(knocker.error.text[0], '\0');
    if (err)
        cr_assert_neq(error.text[0], '\0');
    channel_free(knocker.channel);
    channel_free(pair.b);
    pair.b = NULL;
    return !err && !knocker.err;
}

Test(rdma_connect, every_call_may_fail_once_without_a_trace)
{
    static const enum fake_call calls[] = {
        FAKE_CALL_QUERY_DEVICE, FAKE_CALL_REG_MR,    FAKE_CALL_CREATE_COMP_CHANNEL, FAKE_CALL_CREATE_CQ,
        FAKE_CALL_CREATE_QP,    FAKE_CALL_MODIFY_QP, FAKE_CALL_POST_RECV,           FAKE_CALL_CREATE_EVENT_CHANNEL,
        FAKE_CALL_CREATE_ID,    FAKE_CALL_CONNECT,   FAKE_CALL_RESOLVE_ADDR,        FAKE_CALL_RESOLVE_ROUTE,
        FAKE_CALL_ACCEPT,       FAKE_CALL_MIGRATE,   FAKE_CALL_SET_OPTION,          FAKE_CALL_POLL_CQ,
        FAKE_CALL_DISCONNECT,   FAKE_CALL_POST_SEND, FAKE_CALL_REQ_NOTIFY,
    };
    begin();
    cr_assert(attempt());
    unsigned fds = census_fds();
    unsigned living = fake_verbs_living_total();
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (unsigned skip = 0; skip < 3; skip++) {
            fake_fail_call(calls[i], skip, 1, ENOMEM);
            attempt();
            fake_fail_call(calls[i], 0, 0, 0);
            cr_assert_eq(fake_verbs_living_total(), living, "call %u, skip %u", calls[i], skip);
            cr_assert_eq(census_fds(), fds, "call %u, skip %u", calls[i], skip);
            cr_assert(attempt(), "call %u, skip %u: and the next connection works", calls[i], skip);
        }
    }
    end();
}

static const struct {
    enum fake_call call;
    int error;
    enum godwit_err err;
    const char *words;
} refusals[] = {
    {FAKE_CALL_CREATE_EVENT_CHANNEL, ENOENT, GODWIT_ERR_UNSUPPORTED, "rdma_ucm"},
    {FAKE_CALL_CREATE_EVENT_CHANNEL, ENODEV, GODWIT_ERR_UNSUPPORTED, "rdma_ucm"},
    {FAKE_CALL_CREATE_EVENT_CHANNEL, EACCES, GODWIT_ERR_SYSTEM, "/dev/infiniband/rdma_cm"},
    {FAKE_CALL_CREATE_ID, ENOMEM, GODWIT_ERR_NO_MEMORY, "identifier"},
    {FAKE_CALL_ALLOC_PD, ENOMEM, GODWIT_ERR_NO_MEMORY, "protection domain"},
};

Test(rdma_connect, a_domain_that_cannot_be_had_says_why)
{
    for (unsigned i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct domain *domain = NULL;
        struct godwit_error error;
        begin();
        fake_fail_call(refusals[i].call, 0, 1, refusals[i].error);
        cr_assert_eq(transport_domain(pair.transport, &pair.address, &domain, &error), refusals[i].err, "%s",
                     error.text);
        cr_assert(strstr(error.text, refusals[i].words), "%s", error.text);
        cr_assert_null(domain);
        end();
    }
}

Test(rdma_connect, a_way_without_a_device_has_no_domain)
{
    struct address address;
    struct domain *domain = NULL;
    struct godwit_error error;
    begin();
    address_parse("rdma:192.0.2.1:4444", &address, NULL);
    cr_assert_eq(transport_domain(pair.transport, &address, &domain, &error), GODWIT_ERR_UNREACHABLE);
    cr_assert(strstr(error.text, "has no RDMA device"), "%s", error.text);
    fake_answer_step(FAKE_STEP_ADDR, RDMA_CM_EVENT_ADDR_ERROR, -ETIMEDOUT, NULL, 0);
    cr_assert_eq(transport_domain(pair.transport, &address, &domain, &error), GODWIT_ERR_UNREACHABLE);
    cr_assert(strstr(error.text, "ARP or ND"), "%s", error.text);
    cr_assert_null(domain);
    end();
}

Test(rdma_connect, memory_that_cannot_be_registered_says_why)
{
    static const struct {
        int error;
        enum godwit_err err;
        const char *words;
    } causes[] = {
        {ENOMEM, GODWIT_ERR_NO_MEMORY, "register memory"},
        {EFAULT, GODWIT_ERR_INVALID, "mapped for reading only"},
        {EOPNOTSUPP, GODWIT_ERR_UNSUPPORTED, "cannot be pinned"},
        {EINVAL, GODWIT_ERR_SYSTEM, "Invalid argument"},
    };
    static uint8_t memory[4096];
    begin();
    for (unsigned i = 0; i < sizeof causes / sizeof *causes; i++) {
        struct region region = {.addr = memory, .size = sizeof memory, .fd = -1};
        struct mr *mr = NULL;
        struct godwit_error error;
        fake_fail_call(FAKE_CALL_REG_MR, 0, 1, causes[i].error);
        cr_assert_eq(domain_register(pair.domain_a, &region, REGION_LOCAL, &mr, &error), causes[i].err);
        cr_assert(strstr(error.text, causes[i].words), "%s", error.text);
        cr_assert(strstr(error.text, "4 KiB"), "%s", error.text);
        cr_assert_null(mr);
    }
    end();
}

/* --- listening --- */

Test(rdma_connect, a_listener_that_cannot_be_had_says_why)
{
    struct listener *listener = NULL;
    struct godwit_error error;
    struct address address;
    begin();
    address_parse("rdma:192.0.2.1:4444", &address, NULL);
    cr_assert_eq(transport_listen(pair.transport, &address, 4, &listener, NULL, &error), GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, "no RDMA device of this host"), "%s", error.text);
    address_parse("rdma:127.0.0.1:4444", &address, NULL);
    fake_fail_call(FAKE_CALL_LISTEN, 0, 1, ENOMEM);
    cr_assert_eq(transport_listen(pair.transport, &address, 4, &listener, NULL, &error), GODWIT_ERR_SYSTEM);
    fake_fail_call(FAKE_CALL_CREATE_EVENT_CHANNEL, 0, 1, ENOENT);
    cr_assert_eq(transport_listen(pair.transport, &address, 4, &listener, NULL, &error), GODWIT_ERR_UNSUPPORTED);
    cr_assert_null(listener);
    end();
}

Test(rdma_connect, a_backlog_that_cannot_be_had_is_a_warning_with_the_remedy)
{
    struct backlog_warning warning = {{0}};
    begin();
    listener_free(pair.listener);
    pair.listener = NULL;
    cr_assert_eq(transport_listen(pair.transport, &pair.address, 10, &pair.listener, &warning, NULL), GODWIT_OK);
    cr_assert_str_eq(warning.text, "");
    listener_free(pair.listener);
    pair.listener = NULL;
    cr_assert_eq(transport_listen(pair.transport, &pair.address, 100000, &pair.listener, &warning, NULL), GODWIT_OK);
    cr_assert(strstr(warning.text, "sysctl net.rdma_ucm.max_backlog=200000"), "%s", warning.text);
    end();
}

Test(rdma_connect, twice_as_many_may_knock_at_once_as_the_listener_expects)
{
    enum { MANY = 32 };
    struct pair_knocker knockers[MANY];
    struct channel *accepted[MANY] = {0};
    begin(); /* a backlog of 16 */
    for (unsigned i = 0; i < MANY; i++) {
        knockers[i] = (struct pair_knocker){.pair = &pair, .timeout_ms = 10000};
        pair_knocker_start(&knockers[i]);
    }
    poll(NULL, 0, 150);
    uint64_t start = clock_now_ms();
    for (unsigned i = 0; i < MANY; i++)
        cr_assert_eq(listener_accept(pair.listener, 5000, &accepted[i], NULL), GODWIT_OK);
    for (unsigned i = 0; i < MANY; i++)
        cr_assert_eq(pair_knocker_join(&knockers[i]), GODWIT_OK, "%s", knockers[i].error.text);
    cr_assert_lt(clock_now_ms() - start, 4000, "none was dropped: the manager would ask again after seconds");
    for (unsigned i = 0; i < MANY; i++) {
        channel_free(accepted[i]);
        channel_free(knockers[i].channel);
    }
    end();
}
