/* Whole migrations that go well, or are refused before they begin. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/source.h"
#include "tests/engine/expect.h"

TestSuite(migration, .timeout = 60);

struct row {
    enum scene_net net;
    unsigned seed, channels;
    bool used, lazy, own_accept, writer;
};

ParameterizedTestParameters(migration, memory_and_state_arrive_as_they_were_when_the_guest_stopped)
{
    enum { SEEDS = 24 };
    static struct row rows[SEEDS + 8];
    size_t count = 0;
    for (unsigned seed = 0; seed < SEEDS; seed++)
        rows[count++] =
            (struct row){SCENE_LOOP, seed, 1 + seed % 5, seed % 2, seed % 3 == 0, seed % 4 != 0, seed % 8 > 0};
    for (unsigned i = 0; i < 8; i++)
        rows[count++] =
            (struct row){i % 2 ? SCENE_TCP : SCENE_UNIX, i, i < 4 ? 2 : 5, i % 4 > 1, i % 3 == 0, true, true};
    return cr_make_param_array(struct row, rows, count);
}

ParameterizedTest(struct row *row, migration, memory_and_state_arrive_as_they_were_when_the_guest_stopped)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    char channels[16];
    struct scene scene;
    scene_init(&scene, row->net, row->seed, 1 + row->seed % 3);
    snprintf(channels, sizeof channels, "%u", row->channels);
    scene_set_source(&scene, "multifd-channels", channels);
    if (row->used)
        test_guest_use_up(&scene.to);
    if (row->lazy)
        test_guest_clear_lazily(&scene.from);
    if (!row->own_accept)
        test_guest_accept_by_default(&scene.to);
    if (row->writer)
        test_guest_start_writer(&scene.from);
    scene_open(&scene);
    scene_run(&scene);

    expect_completed(&scene);
    cr_assert_str_eq(scene.from.order, "[seeeel]");
    cr_assert_str_eq(scene.to.order, row->own_accept ? "aoooocr" : "oooocr");
    cr_assert_str_eq(scene.source_statuses, "SADC");
    cr_assert_str_eq(scene.destination_statuses, "SADC");
    cr_assert_eq(scene.source_info.channel_count, row->channels);
    cr_assert_eq(scene.source_info.outcome, GODWIT_OUTCOME_RUNNING);
    const struct godwit_ram_info *ram = &scene.source_info.ram;
    uint64_t total = 0, placed = 0, inlined = 0;
    for (unsigned b = 0; b < TEST_BLOCKS; b++)
        total += scene.from.blocks[b].size;
    for (unsigned i = 0; i < row->channels; i++) {
        placed += scene.source_info.channels[i].placed_bytes;
        inlined += scene.source_info.channels[i].inline_bytes;
    }
    cr_assert_eq(ram->total, total);
    cr_assert_eq(scene.destination_info.ram.total, total);
    cr_assert_geq((ram->normal + ram->duplicate) * 4096, total);
    cr_assert_eq(placed + inlined, ram->normal_bytes);
    cr_assert_eq(scene.destination_info.ram.multifd_bytes, ram->multifd_bytes);
    cr_assert_eq(ram->precopy_bytes + ram->downtime_bytes, ram->multifd_bytes);
    cr_assert_eq(scene.source_info.state_bytes, (600u << 10) + (700u << 10) + 1);
    cr_assert_geq(ram->dirty_sync_count, 2);
    cr_assert_eq(ram->remaining, 0);
    if (row->net != SCENE_LOOP) /* over a loop a guest this small can be through before the keys come */
        cr_assert_eq(placed, 0);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

Test(migration, once_the_keys_are_there_pages_are_placed)
{
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 3, 20);
    scene_set_source(&scene, "max-bandwidth", "50M"); /* the keys come long before the end of the first pass */
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    uint64_t placed = 0, inlined = 0;
    for (unsigned i = 0; i < scene.source_info.channel_count; i++) {
        placed += scene.source_info.channels[i].placed_bytes;
        inlined += scene.source_info.channels[i].inline_bytes;
    }
    cr_assert_gt(placed, 0);
    cr_assert_lt(inlined, placed / 4, "%llu inline, %llu placed", (unsigned long long)inlined,
                 (unsigned long long)placed);
    scene_close(&scene);
}

ParameterizedTestParameters(migration, any_number_of_channels_works)
{
    static unsigned counts[] = {1, 3, 16, 255};
    return cr_make_param_array(unsigned, counts, 4);
}

ParameterizedTest(unsigned *count, migration, any_number_of_channels_works)
{
    char text[16];
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, *count, 2);
    snprintf(text, sizeof text, "%u", *count);
    scene_set(&scene, "multifd-channels", text);
    test_guest_start_writer(&scene.from);
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_eq(scene.destination_info.channel_count, *count);
    scene_close(&scene);
}

Test(migration, a_destination_without_a_number_of_its_own_adopts_the_source_s)
{
    struct scene scene;
    scene_init(&scene, SCENE_TCP, 1, 1);
    scene_set_source(&scene, "multifd-channels", "7");
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_eq(scene.destination_info.channel_count, 7);
    scene_close(&scene);
}

Test(migration, numbers_of_channels_that_differ_are_refused_on_both_sides)
{
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, 1);
    scene_set_source(&scene, "multifd-channels", "3");
    scene_set_destination(&scene, "multifd-channels", "2");
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert_eq(scene.source_err, GODWIT_ERR_MISMATCH, "%s", scene.source_error.text);
    cr_assert_eq(scene.destination_err, GODWIT_ERR_MISMATCH);
    cr_assert(strstr(scene.source_error.text, "3") && strstr(scene.source_error.text, "2"));
    cr_assert(strstr(scene.destination_error.text, "3") && strstr(scene.destination_error.text, "2"));
    scene_close(&scene);
}

Test(migration, blocks_that_do_not_match_are_refused_on_both_sides)
{
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, 1);
    test_guest_accept_by_default(&scene.to);
    strcpy(scene.to.blocks[2].id, "other");
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert_eq(scene.source_err, GODWIT_ERR_MISMATCH, "%s", scene.source_error.text);
    cr_assert_eq(scene.destination_err, GODWIT_ERR_MISMATCH);
    cr_assert_not_null(strstr(scene.source_error.text, "block-2"), "%s", scene.source_error.text);
    cr_assert_not_null(strstr(scene.destination_error.text, "block-2"));
    scene_close(&scene);
}

/* ---- options while it runs ---- */

struct live {
    enum godwit_err live, before, unknown;
    struct godwit_error before_error;
};

static void set_things(struct scene *scene, const struct godwit_event *event)
{
    struct live *live = scene->opaque;
    if (event->kind != GODWIT_EVENT_MIGRATION || event->value != GODWIT_STATUS_ACTIVE)
        return;
    live->live = godwit_source_set(scene->source, "max-bandwidth", "0", NULL);
    live->before = godwit_source_set(scene->source, "zero-page-detection", "none", &live->before_error);
    live->unknown = godwit_source_set(scene->source, "no-such", "1", NULL);
}

Test(migration, live_options_change_while_it_runs_and_others_are_busy)
{
    struct live live = {GODWIT_ERR_SYSTEM, GODWIT_OK, GODWIT_OK, {0}};
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, 10);
    scene_set_source(&scene, "max-bandwidth", "1000"); /* would take hours */
    scene.on_source = set_things;
    scene.opaque = &live;
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_eq(live.live, GODWIT_OK);
    cr_assert_eq(live.before, GODWIT_ERR_BUSY);
    cr_assert_not_null(strstr(live.before_error.text, "zero-page-detection"));
    cr_assert_eq(live.unknown, GODWIT_ERR_INVALID);
    scene_close(&scene);
}

Test(migration, a_limit_on_bandwidth_is_kept_while_the_guest_runs)
{
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, 20);
    scene_set_source(&scene, "max-bandwidth", "100M");
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    uint64_t least = scene.source_info.ram.precopy_bytes * 1000 / (100 << 20);
    cr_assert_geq(scene.source_info.total_time_ms + 20, least);
    cr_assert_gt(least, 150, "too little to be limited");
    scene_close(&scene);
}

Test(migration, what_the_destination_may_not_change_after_listen_comes_with_the_remedy)
{
    struct scene scene;
    struct godwit_error error = {0};
    scene_init(&scene, SCENE_LOOP, 1, 1);
    scene_open(&scene);
    cr_assert_eq(godwit_destination_set(scene.destination, "multifd-channels", "4", &error), GODWIT_ERR_BUSY);
    cr_assert_not_null(strstr(error.text, "before"), "%s", error.text);
    cr_assert_eq(godwit_destination_set(scene.destination, "peer-timeout", "4000", &error), GODWIT_ERR_BUSY);
    cr_assert_eq(godwit_destination_set(scene.destination, "no-such", "1", &error), GODWIT_ERR_INVALID);
    cr_assert_eq(godwit_destination_listen(scene.destination, scene.uri, NULL, 0, &error), GODWIT_ERR_BUSY);
    scene_run(&scene);
    expect_completed(&scene);
    scene_close(&scene);
}

Test(migration, two_destinations_cannot_listen_on_one_address)
{
    for (enum scene_net net = SCENE_TCP; net < SCENE_NETS; net++) {
        struct scene scene;
        struct godwit_destination *other;
        struct godwit_error error = {0};
        scene_init(&scene, net, 1, 1);
        scene_open(&scene);
        cr_assert_eq(godwit_destination_new(&scene.to.guest, NULL, NULL, NULL, &other, &error), GODWIT_OK);
        cr_assert_eq(godwit_destination_serve(other, &error), GODWIT_ERR_INVALID);
        cr_assert_eq(godwit_destination_listen(other, scene.uri, NULL, 0, &error), GODWIT_ERR_BUSY, "%s", error.text);
        godwit_destination_free(other);
        scene_close(&scene);
    }
}

/* ---- marks ---- */

/* Changes a page behind the back of the dirty log, and says so. */
static void change_and_mark(struct scene *scene, const struct godwit_event *event)
{
    unsigned *changes = scene->opaque;
    if (event->kind != GODWIT_EVENT_MIGRATION_PASS || *changes == 3)
        return;
    ++*changes;
    volatile uint64_t *page = (void *)((uint8_t *)scene->from.blocks[3].addr + 3 * 4096);
    page[0] = 1000 + *changes;
    godwit_source_mark(scene->source, 3, 3, 1);
    godwit_source_mark(scene->source, 99, 0, 1);
    godwit_source_mark(scene->source, 3, UINT64_MAX, UINT64_MAX);
}

Test(migration, marked_pages_are_sent_again)
{
    unsigned changes = 0;
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, 1);
    scene_set_source(&scene, "max-bandwidth", "20M"); /* several passes */
    scene_set_source(&scene, "downtime-limit", "0");
    scene.on_source = change_and_mark;
    scene.opaque = &changes;
    test_guest_start_writer(&scene.from);
    scene_open(&scene);
    scene_serve(&scene);
    /* With a limit of 0 it ends only when nothing is dirty: stop the writer after a while by ending it. */
    atomic_store(&scene.from.quit, true);
    scene_migrate(&scene);
    scene_join(&scene);
    expect_completed(&scene);
    cr_assert_gt(changes, 0);
    const uint64_t *page = (const void *)((const uint8_t *)scene.to.blocks[3].addr + 3 * 4096);
    cr_assert_eq(page[0], 1000 + changes);
    scene_close(&scene);
}

/* ---- query ---- */

struct asker {
    struct scene *scene;
    atomic_bool quit;
    unsigned asked;
    bool wrong;
};

static void *ask(void *opaque)
{
    struct asker *asker = opaque;
    struct godwit_info *info = malloc(2 * sizeof *info);
    uint64_t before = 0;
    while (!atomic_load(&asker->quit)) {
        godwit_source_query(asker->scene->source, &info[0]);
        godwit_destination_query(asker->scene->destination, &info[1]);
        asker->wrong |= info[0].ram.multifd_bytes < before || info[0].ram.remaining > info[0].ram.total;
        before = info[0].ram.multifd_bytes;
        asker->asked++;
    }
    free(info);
    return NULL;
}

Test(migration, it_can_be_asked_about_all_along)
{
    struct scene scene;
    pthread_t thread;
    scene_init(&scene, SCENE_UNIX, 1, 10);
    test_guest_start_writer(&scene.from);
    scene_open(&scene);
    struct asker asker = {.scene = &scene};
    cr_assert_eq(pthread_create(&thread, NULL, ask, &asker), 0);
    scene_run(&scene);
    atomic_store(&asker.quit, true);
    pthread_join(thread, NULL);
    expect_completed(&scene);
    cr_assert_gt(asker.asked, 10);
    cr_assert_not(asker.wrong);
    scene_close(&scene);
}

/* ---- one after the other, and two at once ---- */

Test(migration, after_a_failure_the_same_objects_can_do_it_again)
{
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, 1);
    scene.to.fail_op = OP_LOAD;
    scene.to.fail_at = 1;
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    scene.to.fail_op = OP_NONE;
    test_guest_use_up(&scene.to); /* what is there now is not zeros */
    scene.to.loaded = 0;
    memset(scene.from.state_saved, 0, sizeof scene.from.state_saved);
    scene_run(&scene);
    cr_assert_eq(scene.source_err, GODWIT_OK, "%s", scene.source_error.text);
    cr_assert_eq(scene.destination_err, GODWIT_OK, "%s", scene.destination_error.text);
    cr_assert(scene.to.memory_equal && scene.to.state_equal);
    cr_assert_not(atomic_load(&scene.sides.both));
    cr_assert_str_eq(scene.source_statuses, "SADFSADC");
    cr_assert_eq(godwit_source_migrate(scene.source, scene.uri, NULL), GODWIT_ERR_BUSY);
    scene_close(&scene);
}

struct intruder {
    struct test_sides sides;
    struct test_guest guest;
    enum godwit_err err;
    struct godwit_error error;
};

static void intrude(struct scene *scene, const struct godwit_event *event)
{
    struct intruder *intruder = scene->opaque;
    if (event->kind != GODWIT_EVENT_MIGRATION || event->value != GODWIT_STATUS_ACTIVE)
        return;
    struct godwit_source *source = scene_another_source(scene, &intruder->guest.guest);
    intruder->err = godwit_source_migrate(source, scene->uri, &intruder->error);
    godwit_source_free(source);
}

Test(migration, a_second_source_is_told_busy_and_disturbs_nobody)
{
    for (enum scene_net net = SCENE_LOOP; net < SCENE_NETS; net++) {
        struct intruder intruder = {.err = GODWIT_OK};
        struct scene scene;
        test_guest_init(&intruder.guest, &intruder.sides, 9, 1);
        test_guest_boot(&intruder.guest);
        scene_init(&scene, net, 1, 1);
        scene.on_source = intrude;
        scene.opaque = &intruder;
        scene_open(&scene);
        scene_run(&scene);
        cr_assert_eq(intruder.err, GODWIT_ERR_BUSY, "%d: %s", intruder.err, intruder.error.text);
        cr_assert_not_null(strstr(intruder.error.text, "progress"), "%s", intruder.error.text);
        cr_assert(atomic_load(&intruder.guest.running));
        expect_completed(&scene);
        scene_close(&scene);
        test_guest_fini(&intruder.guest);
    }
}

Test(migration, a_source_that_comes_before_serve_is_told_so)
{
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, 1);
    scene_open(&scene);
    cr_assert_eq(scene_migrate(&scene), GODWIT_ERR_BUSY, "%s", scene.source_error.text);
    scene_run(&scene);
    expect_completed(&scene);
    scene_close(&scene);
}

Test(migration, uris_that_lead_nowhere_are_errors_and_the_guest_runs_on)
{
    struct test_sides sides = {0};
    struct test_guest guest;
    struct godwit_source *source;
    struct godwit_options *options = godwit_options_new();
    struct godwit_error error = {0};
    test_guest_init(&guest, &sides, 1, 1);
    test_guest_boot(&guest);
    godwit_options_set(options, "connect-timeout", "100", NULL);
    cr_assert_eq(godwit_source_new(&guest.guest, options, NULL, NULL, &source, NULL), GODWIT_OK);
    cr_assert_eq(godwit_source_migrate(source, "nonsense", &error), GODWIT_ERR_INVALID, "%s", error.text);
    cr_assert_eq(godwit_source_migrate(source, "loop:x", &error), GODWIT_ERR_UNSUPPORTED, "%s", error.text);
    cr_assert_eq(godwit_source_migrate(source, "unix:/tmp/godwit-nobody-is-here", &error), GODWIT_ERR_REFUSED, "%s",
                 error.text);
    cr_assert(atomic_load(&guest.running) && guest.order[0] == 0);
    godwit_source_free(source);
    godwit_options_free(options);
    test_guest_fini(&guest);
}

/* ---- the end of the data channels ---- */

static void note_load(void *opaque, enum guest_op op)
{
    struct scene *scene = opaque;
    if (op != OP_LOAD)
        return;
    atomic_store((atomic_bool *)scene->opaque, true);
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL); /* so that the sender's flush ends before RUN */
}

/* A sender that is slow to flush: the destination has meanwhile done with the data channels, if it can. */
static void flush_late(void *opaque, const struct hello *hello)
{
    const struct scene *scene = opaque;
    atomic_bool *loading = scene->opaque;
    for (unsigned i = 0; hello->role == HELLO_DATA && i < 100 && !atomic_load(loading); i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

Test(migration, a_sender_that_lags_behind_its_last_marker_does_not_fail_it)
{
    atomic_bool loading = false;
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, 1);
    scene.to.hook = note_load;
    scene.to.hook_opaque = &scene;
    scene.opaque = &loading;
    scene_open(&scene);
    scene.tap.before_flush = flush_late;
    scene_run(&scene);
    expect_completed(&scene);
    scene_close(&scene);
}

/* ---- holes ---- */

struct overtaking {
    atomic_bool second; /* a record of a later epoch with content has been sent */
    atomic_bool held;
};

/* Holds back the record that announces the holes of the first pass until a later epoch has sent pages, for a while. */
static enum tap_verdict hold_holes(void *opaque, const struct tap_event *event)
{
    struct scene *scene = opaque;
    struct overtaking *overtaking = scene->opaque;
    struct ram *ram = scene->source->ram;
    struct extent extents[BATCH_EXTENTS];
    if (event->hello.role != HELLO_DATA || event->type != PACKET_PAGES)
        return TAP_PASS;
    enum godwit_err err =
        packet_decode_extents(&event->packet, event->head, event->head + PACKET_HEADER_SIZE, ram, extents, NULL);
    cr_assert_eq(err, GODWIT_OK);
    if (event->packet.epoch > 1)
        atomic_store(&overtaking->second, true);
    if (event->packet.epoch != 1 || extents[0].kind != EXTENT_ZERO || atomic_exchange(&overtaking->held, true))
        return TAP_PASS;
    for (unsigned i = 0; i < 300 && !atomic_load(&overtaking->second); i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    /* what overtook it is on its way on another channel */
    for (unsigned i = 0; i < 20 && atomic_load(&overtaking->second); i++)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return TAP_PASS;
}

static void write_into_hole(struct scene *scene, const struct godwit_event *event)
{
    if (event->kind == GODWIT_EVENT_MIGRATION && event->value == GODWIT_STATUS_ACTIVE)
        test_guest_write(&scene->from, 2, 60, 4711); /* a hole when they were looked for */
}

Test(migration, a_page_written_into_a_hole_is_not_overtaken_by_the_hole)
{
    struct overtaking overtaking = {0};
    struct scene scene;
    scene_init(&scene, SCENE_UNIX, 1, 1);
    scene.rule = hold_holes;
    scene.on_source = write_into_hole;
    scene.opaque = &overtaking;
    /* Another pass at once as long as there is a dirty page; while no bandwidth is known or given it would wait. */
    scene_set_source(&scene, "downtime-limit", "0");
    scene_set_source(&scene, "avail-switchover-bandwidth", "1G");
    scene_open(&scene);
    scene_run(&scene);
    cr_assert(atomic_load(&overtaking.held));
    expect_completed(&scene);
    scene_close(&scene);
}
