/* Which memory is registered, when, and what becomes of a migration in which that fails; over the loop. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "engine/destination.h"
#include "engine/sabotage.h"
#include "engine/source.h"
#include "session/registration.h"
#include "tests/engine/register_case.h"
#include "transport/error.h"
#include "transport/wire.h"

TestSuite(registering, .timeout = 60);

Test(registering, only_slices_in_which_a_page_exists_are_registered_on_both_sides)
{
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, SCALE);
    uint64_t populated = make_sparse(&scene.from);
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_eq(scene.source_info.pinned_bytes, populated);
    cr_assert_leq(scene.destination_info.pinned_bytes, populated);
    cr_assert_gt(scene.destination_info.pinned_bytes, 0);
    scene_close(&scene);
}

/* ---- the order of registering and tracking ---- */

struct order {
    unsigned before, after; /* registrations before and after dirty_start */
    unsigned in_place;      /* through the guest's own mapping */
    pthread_mutex_t lock;
};

static enum godwit_err note_order(void *opaque, const struct region *region, enum region_access access,
                                  struct godwit_error *error)
{
    struct scene *scene = opaque;
    struct order *order = scene->opaque;
    pthread_mutex_lock(&order->lock);
    *(scene->from.calls[OP_DIRTY_START] ? &order->after : &order->before) += 1;
    for (unsigned b = 0; b < TEST_BLOCKS; b++) {
        uint8_t *block = scene->from.blocks[b].addr, *addr = region->addr;
        order->in_place += addr >= block && addr < block + scene->from.blocks[b].size;
    }
    pthread_mutex_unlock(&order->lock);
    return access == REGION_LOCAL ? GODWIT_OK : error_set(error, GODWIT_ERR_INVALID, "the peer needs no access");
}

/* Writes into a slice that was a hole, once the first pass is over (with rdma-pin-all, whose first sync comes before
 * it, then, too), and has it sent while the guest still runs. */
static void write_late(void *opaque, enum guest_op op)
{
    struct scene *scene = opaque;
    unsigned syncs = scene->from.calls[OP_DIRTY_SYNC];
    if (op == OP_DIRTY_SYNC && (syncs == 1 || syncs == TEST_BLOCKS + 1))
        test_guest_write(&scene->from, 2, 6 * SLICE_PAGES + 7, 4711 + syncs);
    scene->from.not_ready = syncs < 4 * TEST_BLOCKS;
}

ParameterizedTestParameters(registering, comes_after_tracking_where_memory_can_be_mapped_again_and_else_before)
{
    static bool rows[] = {false, true};
    return cr_make_param_array(bool, rows, 2);
}

ParameterizedTest(bool *hidden, registering, comes_after_tracking_where_memory_can_be_mapped_again_and_else_before)
{
    struct order order = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 2, SCALE);
    uint64_t populated = make_sparse(&scene.from);
    if (*hidden)
        test_guest_hide_descriptors(&scene.from);
    scene.watch_source = note_order;
    scene.from.hook = write_late;
    scene.from.hook_opaque = &scene;
    scene.opaque = &order;
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    unsigned slices = 2 + 3 + 2; /* of blocks 0 and 1, 2, 3 */
    cr_assert_eq(order.before, *hidden ? slices : 0);
    cr_assert_eq(order.after, *hidden ? 0 : slices + 1, "%u", order.after);
    cr_assert_eq(order.in_place, *hidden ? slices : 0);
    cr_assert_eq(scene.source_info.pinned_bytes, populated + (*hidden ? 0 : SLICE_SIZE_MIN));
    struct sums sums = sums_of(&scene);
    cr_assert_gt(sums.placed, 0);
    if (*hidden)
        cr_assert_geq(sums.inlined, PAGE_SIZE, "what comes into being later travels inline");
    scene_close(&scene);
}

ParameterizedTestParameters(registering, a_planted_fault_of_the_line_hurts_pages_that_are_placed)
{
    static enum sabotage_kind rows[] = {SABOTAGE_SWAP_PAGES, SABOTAGE_LOSE_EXTENT};
    return cr_make_param_array(enum sabotage_kind, rows, 2);
}

ParameterizedTest(enum sabotage_kind *kind, registering, a_planted_fault_of_the_line_hurts_pages_that_are_placed)
{
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 1, SCALE);
    scene_set(&scene, "rdma-pin-all", "on");
    scene_set_source(&scene, "x-fault", sabotage_names[*kind]);
    scene.from.hook = write_late; /* something for a second pass */
    scene.from.hook_opaque = &scene;
    scene_open(&scene);
    scene_run(&scene);
    cr_assert_eq(scene.source_err, GODWIT_OK, "%s", scene.source_error.text);
    cr_assert_gt(sums_of(&scene).placed, 0);
    cr_assert_eq(sums_of(&scene).inlined, 0);
    cr_assert_not(scene.to.memory_equal);
    scene_close(&scene);
}

/* ---- keys late, or never ---- */

static enum godwit_err register_slowly(void *opaque, const struct region *region, enum region_access access,
                                       struct godwit_error *error)
{
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    return GODWIT_OK;
}

Test(registering, keys_that_come_one_after_the_other_are_waited_for)
{
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 4, SCALE);
    scene.watch_destination = register_slowly;
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    struct sums sums = sums_of(&scene);
    cr_assert_lt(sums.inlined, sums.placed / 4, "%llu inline, %llu placed", (unsigned long long)sums.inlined,
                 (unsigned long long)sums.placed);
    scene_close(&scene);
}

struct hold {
    atomic_bool stopped; /* the guest, at the source */
    atomic_uint asked;
};

static enum godwit_err register_after_stop(void *opaque, const struct region *region, enum region_access access,
                                           struct godwit_error *error)
{
    struct hold *hold = ((struct scene *)opaque)->opaque;
    atomic_fetch_add(&hold->asked, 1);
    while (!atomic_load(&hold->stopped))
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return GODWIT_OK;
}

static void note_stop(void *opaque, enum guest_op op)
{
    struct hold *hold = ((struct scene *)opaque)->opaque;
    if (op == OP_STOP)
        atomic_store(&hold->stopped, true);
}

ParameterizedTestParameters(registering, a_destination_that_sends_no_key_gets_everything_inline_and_soon)
{
    static bool rows[] = {false, true}; /* is the progress-timeout no longer than the patience? */
    return cr_make_param_array(bool, rows, 2);
}

ParameterizedTest(bool *impatient, registering, a_destination_that_sends_no_key_gets_everything_inline_and_soon)
{
    struct hold hold = {false};
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 5, SCALE);
    if (*impatient)
        scene_set_source(&scene, "progress-timeout", "800ms");
    scene.watch_destination = register_after_stop;
    scene.from.hook = note_stop;
    scene.from.hook_opaque = &scene;
    scene.opaque = &hold;
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_gt(hold.asked, 0);
    cr_assert_eq(sums_of(&scene).placed, 0);
    cr_assert_lt(scene.source_info.total_time_ms, 5000);
    scene_close(&scene);
}

/* ---- the bound ---- */

Test(registering, beyond_the_bound_of_either_side_pages_go_inline)
{
    for (unsigned side = 0; side < 2; side++) {
        struct scene scene;
        scene_init(&scene, SCENE_LOOP, 6 + side, SCALE);
        (side ? scene_set_destination : scene_set_source)(&scene, "max-pinned", "9M");
        test_guest_start_writer(&scene.from);
        scene_open(&scene);
        scene_run(&scene);
        expect_completed(&scene);
        struct sums sums = sums_of(&scene);
        uint64_t bounded = side ? scene.destination_info.pinned_bytes : scene.source_info.pinned_bytes;
        cr_assert(bounded > 0 && bounded <= 9 << 20, "%llu", (unsigned long long)bounded);
        cr_assert_gt(sums.placed, 0);
        cr_assert_gt(sums.inlined, 0);
        if (side == 0)
            cr_assert_leq(scene.destination_info.pinned_bytes, bounded, "it is not told of what will not come");
        scene_close(&scene);
    }
}

/* ---- failure and cancel ---- */

struct trouble {
    atomic_uint asked;
    unsigned at;
};

static enum godwit_err fail_at(void *opaque, const struct region *region, enum region_access access,
                               struct godwit_error *error)
{
    struct trouble *trouble = ((struct scene *)opaque)->opaque;
    return atomic_fetch_add(&trouble->asked, 1) == trouble->at
               ? error_set(error, GODWIT_ERR_NO_MEMORY, "RLIMIT_MEMLOCK is too small")
               : GODWIT_OK;
}

struct failing {
    bool destination, pin_all, hidden;
    unsigned at;
};

ParameterizedTestParameters(registering, that_fails_is_an_error_of_the_migration_and_the_guest_runs_on)
{
    static struct failing rows[32];
    size_t count = 0;
    for (unsigned flags = 0; flags < 8; flags++)
        for (unsigned at = 0; at < 9; at += 4)
            if ((flags & 5) != 5) /* the destination does not track */
                rows[count++] = (struct failing){flags & 1, flags & 2, flags & 4, at};
    return cr_make_param_array(struct failing, rows, count);
}

ParameterizedTest(struct failing *row, registering, that_fails_is_an_error_of_the_migration_and_the_guest_runs_on)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct trouble trouble = {.at = row->at};
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, row->at, SCALE);
    scene_set_source(&scene, "max-bandwidth", "1M"); /* it is not over before */
    if (row->pin_all)
        scene_set(&scene, "rdma-pin-all", "on");
    if (row->hidden)
        test_guest_hide_descriptors(&scene.from);
    *(row->destination ? &scene.watch_destination : &scene.watch_source) = fail_at;
    scene.opaque = &trouble;
    test_guest_start_writer(&scene.from);
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert_eq(row->destination ? scene.destination_err : scene.source_err, GODWIT_ERR_NO_MEMORY);
    cr_assert_not_null(strstr(scene.source_error.text, "RLIMIT_MEMLOCK"), "%s", scene.source_error.text);
    cr_assert_not_null(strstr(scene.destination_error.text, "RLIMIT_MEMLOCK"), "%s", scene.destination_error.text);
    cr_assert_not_null(strstr(scene.source_error.text, "block-"), "%s", scene.source_error.text);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

static enum godwit_err cancel_source(void *opaque, const struct region *region, enum region_access access,
                                     struct godwit_error *error)
{
    godwit_source_cancel(((struct scene *)opaque)->source);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* under way while everything ends around it */
    return GODWIT_OK;
}

static enum godwit_err cancel_destination(void *opaque, const struct region *region, enum region_access access,
                                          struct godwit_error *error)
{
    godwit_destination_cancel(((struct scene *)opaque)->destination);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    return GODWIT_OK;
}

ParameterizedTestParameters(registering, may_be_cancelled_on_either_side)
{
    static struct failing rows[8];
    size_t count = 0;
    for (unsigned flags = 0; flags < 8; flags++)
        rows[count++] = (struct failing){flags & 1, flags & 2, flags & 4, 0};
    return cr_make_param_array(struct failing, rows, count);
}

ParameterizedTest(struct failing *row, registering, may_be_cancelled_on_either_side)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct scene scene;
    scene_init(&scene, SCENE_LOOP, 7, SCALE);
    scene_set_source(&scene, "max-bandwidth", "1M");
    if (row->pin_all)
        scene_set(&scene, "rdma-pin-all", "on");
    if (row->hidden)
        test_guest_hide_descriptors(&scene.from);
    if (row->destination)
        scene.watch_destination = cancel_destination;
    else
        scene.watch_source = cancel_source;
    scene_open(&scene);
    scene_run(&scene);
    expect_stayed(&scene);
    cr_assert_eq(scene.source_err, GODWIT_ERR_CANCELLED, "%s", scene.source_error.text);
    cr_assert_lt(scene.source_info.total_time_ms, 3000);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

/* ---- what a broken peer says ---- */

/* A session, or a source, as far as records about slices look into it. */
struct stage {
    struct loop_net *net;
    struct domain *domain;
    struct ram *ram;
    struct godwit_destination destination;
    struct session session;
    struct godwit_source source;
    struct registrar *registrar;
    uint8_t *memory;
};

static void nothing_done(void *opaque, struct slice *slice)
{
    (void)opaque, (void)slice;
}

static void nothing_failed(void *opaque, const struct godwit_error *error)
{
    (void)opaque, (void)error;
}

/* Two blocks: two slices and a page, one page. */
static void stage_open(struct stage *stage)
{
    memset(stage, 0, sizeof *stage);
    struct address address;
    stage->net = loop_net_new(1);
    cr_assert_eq(address_parse("loop:a", &address, NULL), GODWIT_OK);
    cr_assert_eq(transport_domain(loop_net_transport(stage->net), &address, &stage->domain, NULL), GODWIT_OK);
    stage->memory = aligned_alloc(PAGE_SIZE, 2 * SLICE_SIZE_MIN + 2 * PAGE_SIZE);
    struct godwit_block blocks[2] = {
        {.id = "a", .addr = stage->memory, .size = 2 * SLICE_SIZE_MIN + PAGE_SIZE, .fd = -1},
        {.id = "b", .addr = stage->memory + 2 * SLICE_SIZE_MIN + PAGE_SIZE, .size = PAGE_SIZE, .fd = -1}};
    stage->ram = ram_new(blocks, 2, true);
    cr_assert(ram_cut(stage->ram, SLICE_SIZE_MIN));
    struct registrar_config config = {.ram = stage->ram,
                                      .domain = stage->domain,
                                      .access = REGION_REMOTE_WRITE,
                                      .done = nothing_done,
                                      .failed = nothing_failed};
    cr_assert_eq(registrar_start(&config, &stage->registrar, NULL), GODWIT_OK);

    pthread_mutex_init(&stage->destination.lock, NULL);
    pthread_cond_init(&stage->destination.changed, NULL);
    stage->session.destination = &stage->destination;
    stage->session.ram = stage->ram;
    stage->session.registrar = stage->registrar;
    stage->session.recv = (struct multifd_recv *)&stage->session; /* never looked into here */
    stage->session.acceptance.features = FEATURE_PLACED;

    stage->source.ram = stage->ram;
    stage->source.domain = stage->domain;
    stage->source.placement = placement_new(PLACEMENT_PATIENCE_MS);
    stage->source.accepted = true;
    stage->source.acceptance.features = FEATURE_PLACED;
}

static void stage_close(struct stage *stage)
{
    registrar_free(stage->registrar);
    placement_free(stage->source.placement);
    ram_free(stage->ram);
    domain_free(stage->domain);
    loop_net_free(stage->net);
    pthread_cond_destroy(&stage->destination.changed);
    pthread_mutex_destroy(&stage->destination.lock);
    free(stage->memory);
}

static enum godwit_err ask_for(struct stage *stage, uint16_t block, uint32_t first, uint32_t slices)
{
    struct register_run run = {block, first, slices};
    struct godwit_error error = {0};
    uint8_t body[REGISTER_SIZE_MAX];
    struct record_header header = {.type = RECORD_REGISTER, .size = (uint32_t)register_encode(&run, 1, body)};
    enum godwit_err err = records_take(&stage->session, &header, body, &error);
    cr_assert_eq(err != GODWIT_OK, error.text[0] != 0);
    return err;
}

Test(registering, slices_that_there_are_not_or_that_were_asked_for_are_refused)
{
    static const uint32_t bad[][3] = {{0, 3, 1}, {0, 2, 2}, {0, 0, 4},          {1, 0, 2},         {1, 1, 1},
                                      {2, 0, 1}, {9, 9, 9}, {0, 1, UINT32_MAX}, {0, UINT32_MAX, 2}};
    struct stage stage;
    stage_open(&stage);
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_assert_eq(ask_for(&stage, (uint16_t)bad[i][0], bad[i][1], bad[i][2]), GODWIT_ERR_PROTOCOL, "row %u", i);
    cr_assert_eq(registrar_info(stage.registrar).done, 0, "and nothing of them is registered");
    cr_assert_eq(ask_for(&stage, 0, 1, 2), GODWIT_OK);
    cr_assert_eq(ask_for(&stage, 0, 1, 1), GODWIT_ERR_PROTOCOL, "again");
    cr_assert_eq(ask_for(&stage, 0, 0, 2), GODWIT_ERR_PROTOCOL, "one of them again");
    cr_assert_eq(ask_for(&stage, 1, 0, 1), GODWIT_OK);
    stage_close(&stage);
}

Test(registering, slices_are_asked_for_between_accept_and_commit_where_placing_was_agreed_on)
{
    struct stage stage;
    stage_open(&stage);
    stage.session.committed = true;
    cr_assert_eq(ask_for(&stage, 0, 0, 1), GODWIT_ERR_PROTOCOL, "after COMMIT");
    stage.session.committed = false;
    stage.session.recv = NULL;
    cr_assert_eq(ask_for(&stage, 0, 0, 1), GODWIT_ERR_PROTOCOL, "before ACCEPT");
    stage.session.recv = (struct multifd_recv *)&stage.session;
    stage.session.acceptance.features = 0;
    cr_assert_eq(ask_for(&stage, 0, 0, 1), GODWIT_ERR_PROTOCOL, "not agreed");
    stage.session.acceptance.features = FEATURE_PLACED;
    cr_assert_eq(ask_for(&stage, 0, 0, 1), GODWIT_OK);
    stage_close(&stage);
}

static enum godwit_err give(struct stage *stage, uint16_t block, uint32_t slice, const struct region_key *key)
{
    struct slice_key body = {.block = block, .slice = slice, .key = *key};
    struct godwit_error error = {0};
    uint8_t bytes[KEY_SIZE_MAX];
    uint32_t size = (uint32_t)slice_key_encode(&body, bytes);
    enum godwit_err err = source_take_key(&stage->source, bytes, size, &error);
    cr_assert_eq(err != GODWIT_OK, error.text[0] != 0);
    return err;
}

Test(registering, keys_are_good_once_for_what_was_asked_for_and_for_nothing_else)
{
    static const struct region_key none = {.size = 0};
    struct region_key whole, last;
    struct stage stage;
    stage_open(&stage);
    for (uint32_t i = 0; i < stage.ram->slice_count; i++)
        registrar_queue(stage.registrar, &stage.ram->slices[i]);
    cr_assert(registrar_wait(stage.registrar, 10000));
    mr_export(stage.ram->blocks[0].slices[0].mr, &whole);
    mr_export(stage.ram->blocks[0].slices[2].mr, &last);
    for (unsigned i = 0; i < 3; i++)
        placement_announce(stage.source.placement, &stage.ram->slices[i]);

    cr_assert_eq(give(&stage, 1, 0, &last), GODWIT_ERR_PROTOCOL, "not asked for");
    cr_assert_eq(give(&stage, 1, 0, &none), GODWIT_ERR_PROTOCOL, "not asked for");
    cr_assert_eq(give(&stage, 0, 3, &whole), GODWIT_ERR_PROTOCOL, "no such slice");
    cr_assert_eq(give(&stage, 2, 0, &whole), GODWIT_ERR_PROTOCOL, "no such block");
    cr_assert_eq(give(&stage, 0, 0, &last), GODWIT_ERR_PROTOCOL, "too small");
    cr_assert_eq(give(&stage, 0, 2, &whole), GODWIT_ERR_PROTOCOL, "too large");
    stage.source.accepted = false;
    cr_assert_eq(give(&stage, 0, 0, &whole), GODWIT_ERR_PROTOCOL, "before ACCEPT");
    stage.source.accepted = true;
    stage.source.acceptance.features = 0;
    cr_assert_eq(give(&stage, 0, 0, &whole), GODWIT_ERR_PROTOCOL, "not agreed");
    stage.source.acceptance.features = FEATURE_PLACED;

    cr_assert_eq(give(&stage, 0, 0, &whole), GODWIT_OK);
    cr_assert_eq(give(&stage, 0, 0, &whole), GODWIT_ERR_PROTOCOL, "again");
    cr_assert_eq(give(&stage, 0, 0, &none), GODWIT_ERR_PROTOCOL, "again");
    cr_assert_eq(give(&stage, 0, 1, &none), GODWIT_OK);
    cr_assert_eq(give(&stage, 0, 1, &whole), GODWIT_ERR_PROTOCOL, "it was said that there will be none");
    cr_assert_eq(give(&stage, 0, 2, &last), GODWIT_OK);
    cr_assert_not_null(stage.ram->blocks[0].slices[0].remote);
    cr_assert_null(stage.ram->blocks[0].slices[1].remote);
    stage_close(&stage);
}
