/* Two planes: control over TCP, data over a transport whose connections show tickets first. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/destination.h"
#include "engine/source.h"
#include "engine/transports.h"
#include "tcp/tcp.h"
#include "tests/engine/expect.h"

TestSuite(planes, .timeout = 60);

static void init(struct scene *scene, unsigned channels)
{
    char text[8];
    scene_init(scene, SCENE_RDMA, channels, 4);
    snprintf(text, sizeof text, "%u", channels);
    scene_set_source(scene, "multifd-channels", text);
    test_guest_start_writer(&scene->from);
}

ParameterizedTestParameters(planes, control_and_data_travel_by_different_transports)
{
    static unsigned rows[] = {1, 2, 7, 64};
    return cr_make_param_array(unsigned, rows, 4);
}

ParameterizedTest(unsigned *channels, planes, control_and_data_travel_by_different_transports)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct scene scene;
    init(&scene, *channels);
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_eq(scene.rdma.made, *channels, "one connection per channel");
    cr_assert_eq(scene.rdma.refused, 0);
    uint64_t placed = 0;
    bool seen[2][64] = {{false}};
    for (unsigned i = 0; i < *channels; i++) {
        const struct godwit_channel_info *sent = &scene.source_info.channels[i];
        const struct godwit_channel_info *received = &scene.destination_info.channels[i];
        placed += sent->placed_bytes;
        cr_assert_str_eq(sent->device, PRETEND_DEVICE);
        cr_assert_str_eq(received->device, PRETEND_DEVICE, "also of channels that are gone");
        cr_assert(sent->queue_pair >= 100 && sent->queue_pair < 100 + *channels);
        cr_assert(received->queue_pair >= 200 && received->queue_pair < 200 + *channels);
        cr_assert_not(seen[0][sent->queue_pair - 100] || seen[1][received->queue_pair - 200], "each has its own");
        seen[0][sent->queue_pair - 100] = seen[1][received->queue_pair - 200] = true;
    }
    cr_assert_gt(placed, 0);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

/* A name may have several addresses, and the destination listen at one of them. */
Test(planes, data_goes_to_the_address_that_control_found)
{
    struct scene scene;
    init(&scene, 2);
    scene_open(&scene);
    const char *port = strrchr(scene.uri, ':');
    char uri[sizeof scene.uri];
    snprintf(uri, sizeof uri, "tcp:localhost%s", port);
    strcpy(scene.uri, uri);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_str_eq(scene.rdma.sought, "127.0.0.1");
    scene_close(&scene);
}

Test(planes, one_destination_serves_one_migration_after_the_other)
{
    struct scene scene;
    init(&scene, 3);
    test_guest_use_up(&scene.to);
    scene.from.fail_op = OP_SAVE_REST; /* the first one comes to nothing */
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    scene.from.fail_op = OP_NONE;
    memset(scene.from.state_saved, 0, sizeof scene.from.state_saved);
    scene.to.calls[OP_DISCARD] = 0;
    scene.from.calls[OP_DIRTY_STOP] = 0;
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_eq(scene.rdma.made, 6);
    scene_close(&scene);
}

Test(planes, a_channel_that_broke_says_why_in_its_own_words)
{
    static const char words[] = "local protection error (completion 4): the memory was unmapped";
    struct scene scene;
    init(&scene, 2);
    scene.rdma.detail = words;
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert_not_null(strstr(scene.source_error.text, words), "%s", scene.source_error.text);
    cr_assert_not_null(strstr(scene.source_error.text, "data channel"), "%s", scene.source_error.text);
    cr_assert_not_null(strstr(scene.destination_error.text, words), "%s", scene.destination_error.text);
    scene_close(&scene);
}

/* ---- what the two sides have to agree on ---- */

static void expect_mismatch(struct scene *scene)
{
    scene_open(scene);
    scene_run(scene);
    expect_stayed(scene);
    cr_assert_eq(scene->source_err, GODWIT_ERR_MISMATCH, "%s", scene->source_error.text);
    cr_assert_eq(scene->destination_err, GODWIT_ERR_MISMATCH, "%s", scene->destination_error.text);
    for (unsigned side = 0; side < 2; side++) {
        const char *text = side ? scene->destination_error.text : scene->source_error.text;
        cr_assert(strstr(text, "rdma:") && strstr(text, "tcp:") && strstr(text, "both"), "%s", text);
    }
    cr_assert_eq(scene->rdma.made, 0);
    scene_close(scene);
}

Test(planes, rdma_to_a_destination_without_it_is_one_mismatch_on_both_sides)
{
    struct scene scene;
    init(&scene, 2);
    scene.destination_without_rdma = true;
    expect_mismatch(&scene);
}

Test(planes, a_source_without_rdma_is_one_mismatch_on_both_sides)
{
    struct scene scene;
    init(&scene, 2);
    scene.source_without_rdma = true;
    expect_mismatch(&scene);
}

/* ---- each listener has its roles ---- */

static enum godwit_err greet(struct scene *scene, enum hello_role role, struct godwit_error *error)
{
    struct address address;
    struct channel *channel;
    struct hello hello = {.version = PROTOCOL_VERSION, .oldest = PROTOCOL_OLDEST, .role = role};
    cr_assert_eq(address_parse(scene->uri, &address, NULL), GODWIT_OK);
    cr_assert_eq(transport_connect(&tcp_transport, &address, NULL, 1000, NULL, &channel, error), GODWIT_OK);
    enum godwit_err err = hello_greet(channel, &hello, 1000, NULL, error);
    channel_free(channel);
    return err;
}

Test(planes, data_channels_do_not_come_by_the_control_listener)
{
    struct godwit_error error;
    struct scene scene;
    init(&scene, 2);
    scene_open(&scene);
    cr_assert_eq(greet(&scene, HELLO_DATA, &error), GODWIT_ERR_NOT_ADMITTED);
    cr_assert_not_null(strstr(error.text, "do not come in here"), "%s", error.text);
    scene_run(&scene);
    expect_completed(&scene);
    scene_close(&scene);
}

/* ---- tickets ---- */

/* Connection `to` shows the ticket of connection `from`; equal: one bit of its own is wrong. */
struct forger_row {
    unsigned from, to;
};

struct forger {
    struct forger_row row;
    struct pretend_rdma *rdma;
    uint8_t seen[3][TICKET_SIZE];
};

/* Connections are tried at the same time: those before `to` are made first, those after it once it was judged. */
static void wait_turn(void *opaque, unsigned connection)
{
    const struct forger *forger = opaque;
    while (connection == forger->row.to && atomic_load(&forger->rdma->made) < connection)
        sched_yield();
    while (connection > forger->row.to && atomic_load(&forger->rdma->refused) == 0)
        sched_yield();
}

static void forge(void *opaque, unsigned connection, uint8_t ticket[TICKET_SIZE])
{
    struct forger *forger = opaque;
    unsigned from = forger->row.from, to = forger->row.to;
    memcpy(forger->seen[connection], ticket, TICKET_SIZE);
    if (connection != to)
        return;
    if (from == to)
        ticket[TICKET_SIZE - 1] ^= 1;
    else
        memcpy(ticket, forger->seen[from], TICKET_SIZE);
}

ParameterizedTestParameters(planes, a_wrong_or_used_ticket_opens_nothing)
{
    static struct forger_row rows[] = {{.from = 0, .to = 0}, {.from = 2, .to = 2}, {.from = 0, .to = 1},
                                       {.from = 0, .to = 2}};
    return cr_make_param_array(struct forger_row, rows, 4);
}

ParameterizedTest(struct forger_row *row, planes, a_wrong_or_used_ticket_opens_nothing)
{
    struct scene scene;
    struct forger forger = {.row = *row, .rdma = &scene.rdma};
    init(&scene, 3);
    scene_hurry(&scene);
    scene.rdma.wait_turn = wait_turn;
    scene.rdma.forge = forge;
    scene.rdma.opaque = &forger;
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert_eq(scene.source_err, GODWIT_ERR_NOT_ADMITTED, "%s", scene.source_error.text);
    const char *why = row->from == row->to ? "wrong ticket" : "used before";
    cr_assert_not_null(strstr(scene.source_error.text, why), "%s", scene.source_error.text);
    cr_assert_eq(scene.rdma.refused, 1);
    cr_assert(scene.rdma.made >= row->to && scene.rdma.made < 3, "%u", scene.rdma.made);
    scene_close(&scene);
}

static enum godwit_err check(struct scene *scene, const uint8_t ticket[TICKET_SIZE], struct domain **domain)
{
    struct godwit_error error = {0};
    enum godwit_err err = door_check_ticket(scene->destination, ticket, domain, &error);
    cr_assert_eq(err != GODWIT_OK, error.text[0] != 0);
    return err;
}

static void show_ticket(struct scene *scene, const struct godwit_event *event)
{
    struct domain *domain = NULL;
    uint8_t *ticket = scene->opaque;
    if (event->kind != GODWIT_EVENT_MIGRATION || event->value != GODWIT_STATUS_ACTIVE)
        return;
    token_ticket(&scene->destination->session->acceptance.tokens[0], scene->destination->session->id, ticket);
    cr_assert_eq(check(scene, ticket, &domain), GODWIT_ERR_NOT_ADMITTED, "it has opened its channel");
}

Test(planes, a_ticket_is_good_neither_again_nor_after_its_session)
{
    uint8_t ticket[TICKET_SIZE] = {0};
    struct domain *domain = NULL;
    struct scene scene;
    init(&scene, 1);
    scene.on_destination = show_ticket;
    scene.opaque = ticket;
    scene_open(&scene);
    cr_assert_eq(check(&scene, ticket, &domain), GODWIT_ERR_NOT_ADMITTED, "there is no session");
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_eq(check(&scene, ticket, &domain), GODWIT_ERR_NOT_ADMITTED, "there is none any more");
    cr_assert_null(domain);
    scene_close(&scene);
}

/* A connection that was let in by its ticket and says nothing: the session ends around it, its domain stays. */
static void shut_up(void *opaque, unsigned connection, uint8_t ticket[TICKET_SIZE])
{
    if (connection == 1)
        godwit_source_cancel(((struct scene *)opaque)->source);
}

Test(planes, a_domain_outlives_its_session_for_connections_at_the_door)
{
    struct scene scene;
    init(&scene, 2);
    scene.rdma.forge = shut_up;
    scene.rdma.opaque = &scene;
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert_eq(scene.source_err, GODWIT_ERR_CANCELLED, "%s", scene.source_error.text);
    scene_close(&scene);
}

/* ---- addresses ---- */

Test(planes, of_the_known_schemes_and_their_addresses)
{
    static const char *const one[] = {"tcp:host:4444", "unix:/run/socket"};
    struct transports found;
    struct address address;
    struct godwit_error error;
    for (unsigned i = 0; i < 2; i++) {
        cr_assert_eq(address_parse(one[i], &address, NULL), GODWIT_OK);
        cr_assert_eq(transports_find(&address, &found, &error), GODWIT_OK);
        cr_assert(!transports_split(&found) && !transports_rdma(&found));
        cr_assert_str_eq(found.control_address.scheme, address.scheme);
        cr_assert_str_eq(found.data_address.path, address.path);
    }
    struct scene scene;
    scene_init(&scene, SCENE_RDMA, 1, 1);
    cr_assert_eq(address_parse("rdma:192.0.2.1:7", &address, NULL), GODWIT_OK);
    transports_use(&tcp_transport, &scene.rdma.transport, &address, &found);
    cr_assert(transports_split(&found) && transports_rdma(&found));
    cr_assert_str_eq(found.control_address.scheme, "tcp");
    cr_assert_str_eq(found.data_address.scheme, "rdma");
    cr_assert_str_eq(found.control_address.host, "192.0.2.1");
    cr_assert_str_eq(found.data_address.host, "192.0.2.1");
    cr_assert(found.control_address.port == 7 && found.data_address.port == 7);
    scene_open(&scene);
    scene_close(&scene);
}
