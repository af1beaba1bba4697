/* Whole migrations in which data channels go on by other connections: every few pages, and with one that goes wrong. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <sched.h>
#include <stdio.h>

#include "engine/destination.h"
#include "engine/source.h"
#include "tests/engine/expect.h"

TestSuite(replace, .timeout = 60);

enum { CHANNELS = 2, FIRST_REPLACEMENT = 1 + CHANNELS /* number of that connection */ };

static void init(struct scene *scene, enum scene_net net, const char *lifetime)
{
    scene_init(scene, net, 7, 8);
    scene_set_source(scene, "x-channel-lifetime", lifetime);
    scene_set_source(scene, "max-bandwidth", "50M"); /* so batches are small, and there are many */
    test_guest_start_writer(&scene->from);
}

static uint64_t replacements(const struct godwit_info *info)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < info->channel_count; i++)
        sum += info->channels[i].replacements;
    return sum;
}

struct row {
    enum scene_net net;
    unsigned channels;
    bool small; /* lifetimes of a few pages */
};

ParameterizedTestParameters(replace, guest_arrives_as_it_was_over_many_connections)
{
    static struct row rows[18];
    size_t count = 0;
    for (enum scene_net net = SCENE_LOOP; net < SCENE_NETS; net++)
        for (unsigned i = 0; i < 6; i++)
            rows[count++] = (struct row){net, 1u << i / 2, i % 2};
    return cr_make_param_array(struct row, rows, count);
}

ParameterizedTest(struct row *row, replace, guest_arrives_as_it_was_over_many_connections)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    char channels[8];
    struct scene scene;
    init(&scene, row->net, row->small ? "32K" : "1M");
    snprintf(channels, sizeof channels, "%u", row->channels);
    scene_set_source(&scene, "multifd-channels", channels);
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    const struct godwit_ram_info *sent = &scene.source_info.ram, *received = &scene.destination_info.ram;
    cr_assert_gt(replacements(&scene.source_info), row->small ? 20 : 2);
    cr_assert_eq(replacements(&scene.destination_info), replacements(&scene.source_info));
    cr_assert_eq(received->multifd_bytes, sent->multifd_bytes);
    cr_assert_eq(received->normal, sent->normal);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

/* No keys wear out there, and a queue pair that waits for its turn could write memory after all others have ended. */
Test(replace, queue_pairs_stay_whatever_the_option_says)
{
    struct scene scene;
    init(&scene, SCENE_RDMA, "32K");
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_eq(scene.rdma.made, CHANNELS);
    cr_assert_eq(replacements(&scene.source_info), 0);
    scene_close(&scene);
}

/* ---- connections that are not let in ---- */

struct usurper {
    struct channel *taken;
    enum godwit_err replayed, ahead, twice_ahead;
    struct godwit_error error[3];
    atomic_bool done;
};

static enum godwit_err knock(struct scene *scene, const struct hello *hello, struct channel **out,
                             struct godwit_error *error)
{
    struct address address;
    struct channel *channel;
    cr_assert_eq(address_parse(scene->uri, &address, NULL), GODWIT_OK);
    cr_assert_eq(transport_connect(scene->destination_tap.inner, &address, NULL, 2000, NULL, &channel, error),
                 GODWIT_OK);
    enum godwit_err err = hello_greet(channel, hello, 2000, NULL, error);
    if (err == GODWIT_OK)
        *out = channel;
    else
        channel_free(channel);
    return err;
}

static void next_hello(struct hello *hello)
{
    struct token token = {.role = hello->role, .channel = hello->channel, .epoch = hello->epoch};
    memcpy(token.bytes, hello->token, TOKEN_SIZE);
    token_next(&token, hello->session, &token);
    hello->epoch = token.epoch;
    memcpy(hello->token, token.bytes, TOKEN_SIZE);
}

/* One who knows the source's token is quicker than the source; or comes with its old hello, or too far ahead. */
static enum tap_verdict usurp(void *opaque, const struct tap_event *event)
{
    struct scene *scene = opaque;
    struct usurper *usurper = scene->opaque;
    if (event->hello.role != HELLO_DATA || event->hello.channel != 0 || atomic_exchange(&usurper->done, true))
        return TAP_PASS;
    struct hello hello = event->hello;
    struct channel *none;
    usurper->replayed = knock(scene, &hello, &none, &usurper->error[0]);
    next_hello(&hello);
    usurper->ahead = knock(scene, &hello, &usurper->taken, &usurper->error[1]);
    next_hello(&hello);
    usurper->twice_ahead = knock(scene, &hello, &none, &usurper->error[2]);
    return TAP_PASS;
}

ParameterizedTestParameters(replace, only_the_next_connection_is_let_in_and_only_once)
{
    static enum scene_net nets[] = {SCENE_LOOP, SCENE_TCP, SCENE_UNIX};
    return cr_make_param_array(enum scene_net, nets, 3);
}

ParameterizedTest(enum scene_net *net, replace, only_the_next_connection_is_let_in_and_only_once)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct usurper usurper = {.taken = NULL};
    struct scene scene;
    init(&scene, *net, "64K");
    scene.rule = usurp;
    scene.opaque = &usurper;
    scene_open(&scene);
    scene_run(&scene);
    cr_assert_eq(usurper.replayed, GODWIT_ERR_NOT_ADMITTED);
    cr_assert(strstr(usurper.error[0].text, "used before"), "%s", usurper.error[0].text);
    cr_assert_eq(usurper.ahead, GODWIT_OK, "%s", usurper.error[1].text);
    cr_assert_eq(usurper.twice_ahead, GODWIT_ERR_NOT_ADMITTED);
    cr_assert(strstr(usurper.error[2].text, "expects no other connection"), "%s", usurper.error[2].text);
    expect_stayed(&scene);
    cr_assert_eq(scene.source_err, GODWIT_ERR_NOT_ADMITTED, "%s", scene.source_error.text);
    cr_assert(strstr(scene.source_error.text, "data channel 0: cannot be replaced") &&
                  strstr(scene.source_error.text, "used before"),
              "%s", scene.source_error.text);
    channel_free(usurper.taken);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

static enum tap_verdict leave(void *opaque, const struct tap_event *event)
{
    struct scene *scene = opaque;
    if (event->hello.role == HELLO_DATA)
        atomic_store(&scene->tap.refuse, true);
    return TAP_PASS;
}

Test(replace, nobody_who_listens_any_more_fails_the_migration)
{
    struct scene scene;
    init(&scene, SCENE_TCP, "64K");
    scene.rule = leave;
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert_eq(scene.source_err, GODWIT_ERR_REFUSED, "%s", scene.source_error.text);
    cr_assert(strstr(scene.source_error.text, "cannot be replaced"), "%s", scene.source_error.text);
    scene_close(&scene);
}

Test(replace, a_hello_that_is_damaged_on_its_way_is_said_again)
{
    for (enum scene_net net = SCENE_TCP; net <= SCENE_UNIX; net++) {
        struct scene scene;
        init(&scene, net, "64K");
        scene.only = FIRST_REPLACEMENT;
        scene.plan.flip_sent = 50 * 8; /* in the token: the checksum does not fit */
        scene_open(&scene);
        scene_run(&scene);
        expect_completed(&scene);
        cr_assert_gt(replacements(&scene.source_info), 0);
        scene_close(&scene);
    }
}

/* ---- the end of the old connection ---- */

struct ending {
    enum scene_net net;
    enum tap_verdict verdict;  /* of the first end of a connection */
    bool cancels, destination; /* at that moment; which side */
};

struct ending_now {
    const struct ending *ending;
    atomic_bool done;
};

static enum tap_verdict meddle(void *opaque, const struct tap_event *event)
{
    struct scene *scene = opaque;
    struct ending_now *now = scene->opaque;
    if (event->hello.role != HELLO_DATA || event->type != PACKET_END || atomic_exchange(&now->done, true))
        return TAP_PASS;
    if (now->ending->cancels && now->ending->destination)
        godwit_destination_cancel(scene->destination);
    else if (now->ending->cancels)
        godwit_source_cancel(scene->source);
    return now->ending->verdict;
}

ParameterizedTestParameters(replace, an_end_that_is_lost_or_cut_or_cancelled_leaves_the_guest_with_the_source)
{
    static struct ending rows[24];
    size_t count = 0;
    for (enum scene_net net = SCENE_LOOP; net < SCENE_NETS; net++) {
        rows[count++] = (struct ending){net, TAP_SWALLOW, false, false};
        rows[count++] = (struct ending){net, TAP_CUT, false, false};
        rows[count++] = (struct ending){net, TAP_CUT_AFTER, false, false};
        rows[count++] = (struct ending){net, TAP_SWALLOW, true, false};
        rows[count++] = (struct ending){net, TAP_SWALLOW, true, true};
    }
    return cr_make_param_array(struct ending, rows, count);
}

ParameterizedTest(struct ending *ending, replace,
                  an_end_that_is_lost_or_cut_or_cancelled_leaves_the_guest_with_the_source)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct ending_now now = {.ending = ending};
    struct scene scene;
    init(&scene, ending->net, "64K");
    scene_hurry(&scene);
    scene.rule = meddle;
    scene.opaque = &now;
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert(atomic_load(&now.done));
    if (ending->cancels)
        cr_assert_eq(scene.source_err, GODWIT_ERR_CANCELLED, "%s", scene.source_error.text);
    else if (ending->verdict == TAP_SWALLOW)
        cr_assert_eq(scene.source_err, GODWIT_ERR_STALLED, "%s", scene.source_error.text);
    cr_assert_leq(scene.source_info.total_time_ms, ending->cancels ? 1500 : 4000);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

/* ---- cancels while the next connection is being made ---- */

struct connecting {
    atomic_uint made;
    bool fails; /* instead of a cancel, the migration fails by another cause */
};

static void hold_up(void *opaque, const atomic_bool *cancel)
{
    struct scene *scene = opaque;
    struct connecting *connecting = scene->opaque;
    if (atomic_fetch_add(&connecting->made, 1) < FIRST_REPLACEMENT)
        return;
    if (connecting->fails)
        godwit_destination_cancel(scene->destination);
    else
        godwit_source_cancel(scene->source);
    while (!atomic_load(cancel))
        sched_yield();
}

Test(replace, connecting_ends_when_either_side_gives_up)
{
    for (unsigned i = 0; i < 2; i++) {
        struct connecting connecting = {.fails = i};
        struct scene scene;
        init(&scene, SCENE_TCP, "64K");
        scene.opaque = &connecting;
        scene_open(&scene);
        scene.tap.before_connect = hold_up;
        scene_run(&scene);
        expect_stayed(&scene);
        cr_assert_eq(scene.source_err, GODWIT_ERR_CANCELLED, "%s", scene.source_error.text);
        cr_assert_leq(scene.source_info.total_time_ms, 3000);
        scene_close(&scene);
    }
}
