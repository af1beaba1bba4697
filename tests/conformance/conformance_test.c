/*
 * Runs every case for every kind of channel. A kind that the machine lacks is skipped with a reason; one-sided cases
 * run for one-sided kinds. With GODWIT_TEST_TLS_ALONE in the environment, the kinds that are inside TLS alone.
 */
#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <criterion/parameterized.h>
#include <signal.h>
#include <stdlib.h>

#include "tests/conformance/cases.h"

/* Copied between processes, so no pointers. */
struct run {
    unsigned list, index, kind;
};

static const struct conformance_case *list_of(unsigned list)
{
    return list == 0 ? connect_cases : list == 1 ? stream_cases : one_sided_cases;
}

static bool applies(const struct conformance_case *c, unsigned kind)
{
    if (fabric.alone && !pair_kind_is_rdma(kind))
        return false;
    if (getenv("GODWIT_TEST_TLS_ALONE") && !pair_kind_is_tls(kind))
        return false;
    if (c->needs == CASE_LOOP)
        return pair_kind_is_loop(kind);
    return c->needs != CASE_ONE_SIDED || pair_kind_is_one_sided(kind);
}

/* Fills runs, where not NULL, and counts them. */
static size_t enumerate(struct run *runs)
{
    size_t n = 0;
    for (unsigned list = 0; list < 3; list++) {
        for (unsigned i = 0; list_of(list)[i].name; i++) {
            for (unsigned kind = 0; kind < PAIR_KINDS; kind++) {
                if (!applies(&list_of(list)[i], kind))
                    continue;
                if (runs)
                    runs[n] = (struct run){list, i, kind};
                n++;
            }
        }
    }
    return n;
}

static void free_runs(struct criterion_test_params *params)
{
    cr_free(params->params);
}

TestSuite(conformance, .timeout = 60);

ParameterizedTestParameters(conformance, every_channel_keeps_the_contract)
{
    size_t count = enumerate(NULL);
    struct run *runs = cr_malloc(count * sizeof *runs);
    enumerate(runs);
    return cr_make_param_array(struct run, runs, count, free_runs);
}

ParameterizedTest(struct run *run, conformance, every_channel_keeps_the_contract)
{
    const struct conformance_case *c = &list_of(run->list)[run->index];
    pair_use_fabric(&fabric);
    cr_log_info("%s: %s", pair_kind_name(run->kind), c->name);
    if (!pair_kind_works(run->kind))
        cr_skip_test("%s: no address ::1 here, or none in GODWIT_TEST_RDMA_HOST", pair_kind_name(run->kind));
    /* As in any program that forgot to ignore it: the library must not raise it. */
    signal(SIGPIPE, SIG_DFL);
    struct pair pair;
    enum godwit_err err = c->needs == CASE_LISTENING ? pair_listen(&pair, run->kind) : pair_open(&pair, run->kind);
    cr_assert_eq(err, GODWIT_OK, "%s: %s: %s", pair_kind_name(run->kind), c->name, pair.error.text);
    c->run(&pair);
    pair_close(&pair);
}
