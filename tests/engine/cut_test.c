/*
 * The connection breaks, or a bit of it flips, anywhere: every run ends in time, in one of the legal ends, and leaves
 * nothing open behind.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>

#include "tests/engine/expect.h"

TestSuite(cut, .timeout = 180);

enum where { CUT_SENT, CUT_RECEIVED, FLIP_SENT, FLIP_RECEIVED, WHERES };

struct row {
    enum scene_net net;
    enum where where;
    unsigned connection; /* of the source, in the order of making: 0 the control connection, then data */
    bool worn;           /* data connections are replaced often: from 3 on it is such a one */
};

struct ends {
    unsigned completed, stayed, unknown;
};

static void run_once(const struct row *row, uint64_t n, struct ends *ends)
{
    struct scene scene;
    scene_init(&scene, row->net, n, 1);
    scene_hurry(&scene);
    if (row->worn) {
        scene_set_source(&scene, "x-channel-lifetime", "64K");
        scene_set_source(&scene, "max-bandwidth",
                         "50M"); /* many small batches, each of which may ask for a connection */
    }
    scene.only = row->connection;
    *(row->where == CUT_SENT       ? &scene.plan.cut_sent
      : row->where == CUT_RECEIVED ? &scene.plan.cut_received
      : row->where == FLIP_SENT    ? &scene.plan.flip_sent
                                   : &scene.plan.flip_received) = n;
    scene_open(&scene);
    scene_run(&scene);
    expect_one_end(&scene);
    cr_assert_leq(scene.source_info.total_time_ms, 4000, "n = %llu", (unsigned long long)n);
    ends->completed += scene.source_err == GODWIT_OK;
    ends->unknown += scene.source_err == GODWIT_ERR_OUTCOME_UNKNOWN;
    ends->stayed += scene.source_err != GODWIT_OK && scene.source_err != GODWIT_ERR_OUTCOME_UNKNOWN;
    scene_close(&scene);
}

/* Dense at the beginning, where headers are, then ever wider. */
static uint64_t next_of(uint64_t n, bool dense)
{
    if (dense)
        return n + 7;
    return n < 64 ? n + 9 : n + n / 6;
}

static struct row rows[20];

ParameterizedTestParameters(cut, anywhere_leaves_exactly_one_side_with_the_guest)
{
    size_t count = 0;
    for (unsigned connection = 0; connection < 3; connection++) {
        rows[count++] = (struct row){SCENE_LOOP, CUT_SENT, connection, false};
        rows[count++] = (struct row){SCENE_UNIX, CUT_SENT, connection, false};
        rows[count++] = (struct row){SCENE_LOOP, CUT_RECEIVED, connection, false};
    }
    rows[count++] = (struct row){SCENE_TCP, CUT_RECEIVED, 0, false};
    for (unsigned connection = 2; connection < 4; connection++) {
        rows[count++] = (struct row){SCENE_LOOP, CUT_SENT, connection, true};
        rows[count++] = (struct row){SCENE_UNIX, CUT_SENT, connection, true};
    }
    return cr_make_param_array(struct row, rows, count);
}

ParameterizedTest(struct row *row, cut, anywhere_leaves_exactly_one_side_with_the_guest)
{
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct ends ends = {0};
    bool data = row->connection > 0;
    uint64_t end = row->where == CUT_RECEIVED ? (data ? 64 : 700) : 3000000;
    for (uint64_t n = 0; n < end; n = next_of(n, row->where == CUT_RECEIVED))
        run_once(row, n, &ends);
    run_once(row, UINT64_C(1) << 40, &ends); /* beyond the end nothing is cut */
    cr_assert_gt(ends.stayed, 3, "%u %u %u", ends.completed, ends.stayed, ends.unknown);
    cr_assert_gt(ends.completed, 0);
    cr_assert_eq(ends.unknown, 0, "the destination was there to be asked");
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}

Test(cut, a_flipped_bit_of_a_control_connection_is_found_out)
{
    for (enum where where = FLIP_SENT; where <= FLIP_RECEIVED; where++) {
        struct row row = {SCENE_LOOP, where, 0, false};
        struct ends ends = {0};
        for (uint64_t n = 3; n < 96 * 8; n += 101)
            run_once(&row, n, &ends);
        for (uint64_t n = 96 * 8 + 5; n < 600 * 8; n += 211)
            run_once(&row, n, &ends);
        cr_assert_gt(ends.stayed, 10);
    }
}

Test(cut, a_flipped_bit_of_a_record_head_of_a_data_connection_is_found_out)
{
    struct row row = {SCENE_LOOP, FLIP_SENT, 1, false};
    struct ends ends = {0};
    for (uint64_t n = 96 * 8 + 1; n < 128 * 8; n += 13)
        run_once(&row, n, &ends);
    cr_assert_eq(ends.completed, 0);
}

struct failing_row {
    enum fault_op op;
    enum scene_net net;
};

ParameterizedTestParameters(cut, the_nth_call_that_fails_ends_the_migration_cleanly)
{
    static struct failing_row failing[] = {
        {FAULT_SEND, SCENE_LOOP},  {FAULT_RECV, SCENE_LOOP}, {FAULT_PUT, SCENE_LOOP},
        {FAULT_FLUSH, SCENE_LOOP}, {FAULT_SEND, SCENE_UNIX}, {FAULT_RECV, SCENE_UNIX},
    };
    return cr_make_param_array(struct failing_row, failing, 6);
}

ParameterizedTest(struct failing_row *row, cut, the_nth_call_that_fails_ends_the_migration_cleanly)
{
    unsigned descriptors = count_descriptors(), threads = count_threads(), failures = 0;
    for (uint64_t n = 0; n < 70; n += 1 + n / 20) {
        struct fault_counts counts = {0};
        struct scene scene;
        scene_init(&scene, row->net, n, 1);
        scene_hurry(&scene);
        /* All connections, numbered together. A flush that only seems to fail leaves memory referenced: of the guest,
         * on a data connection, it may be; a control connection's is gone, where a real failure would have broken the
         * channel. */
        scene.only = row->op == FAULT_FLUSH ? 1 : FAULT_NEVER;
        scene.plan.counts = &counts;
        scene.plan.fail_op = row->op;
        scene.plan.fail_at = n;
        scene.plan.fail_code = GODWIT_ERR_RESET;
        scene_open(&scene);
        scene_run(&scene);
        expect_one_end(&scene);
        failures += scene.source_err != GODWIT_OK;
        scene_close(&scene);
    }
    cr_assert_gt(failures, row->op == FAULT_PUT || row->op == FAULT_FLUSH ? 0 : 5);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
}
