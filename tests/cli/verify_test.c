/* The judge of the demo: what it lets pass, and how it words what it does not. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "cli/verify.h"

TestSuite(verify, .timeout = 10);

enum { PAGES = 4 };

/* A demo that went well. */
struct good {
    uint64_t here[PAGES], there[PAGES];
    struct verify_prints mine, theirs;
    struct process_counters counters;
    struct verify_truth truth;
    struct verify_claim claim;
};

static void good_init(struct good *good)
{
    *good = (struct good){
        .here = {11, 12, 13, 14},
        .there = {11, 12, 13, 14},
        .mine = {.fd = -1, .pages = PAGES},
        .theirs = {.fd = -1, .pages = PAGES},
        .counters = {.pages = PAGES, .rate = 1, .seed = 1, .threads = 3, .steps = {5, 6, 7}},
        .truth = {.who = "worker"},
        .claim = {.has_counters = true, .checks = true, .check_text = "page 1 is wrong", .runs_on = true},
    };
    good->mine.values = good->here;
    good->theirs.values = good->there;
    good->truth.counters = &good->counters;
    good->claim.loaded = good->counters;
}

/* words NULL: verified. */
static void expect(const struct good *good, const char *words)
{
    struct verify_verdict verdict;
    verify_judge(&good->claim, &good->mine, &good->theirs, &good->truth, &verdict);
    cr_expect_eq(verdict.verified, words == NULL, "%s", verdict.text);
    cr_expect(strstr(verdict.text, words ? words : "all 4 pages identical"), "no \"%s\" in: %s", words, verdict.text);
}

Test(verify, what_is_equal_passes)
{
    struct good good;
    good_init(&good);
    expect(&good, NULL);
    good.truth.counters = NULL; /* an idle guest */
    good.claim.has_counters = false;
    expect(&good, NULL);
}

Test(verify, pages_that_differ_are_counted)
{
    struct good good;
    good_init(&good);
    good.there[1] = good.there[3] = 0;
    expect(&good, "2 of 4 pages differ, the first is page 1");
    good.theirs.pages = 3;
    expect(&good, "the source has 4 pages and the destination 3");
    good.mine.pages = good.theirs.pages = 0;
    expect(&good, "the source has 0 pages and the destination 0");
}

Test(verify, a_counter_that_differs_is_named_as_the_guest_names_it)
{
    struct good good;
    good_init(&good);
    good.claim.loaded.steps[1] = 4;
    expect(&good, "1 of 3 counters of the device state differ, worker 1 was loaded at step 4 and stopped at 6");
    good.truth.who = "processor";
    good.claim.loaded.steps[2] = 4;
    expect(&good, "2 of 3 counters of the device state differ, processor 1 was loaded at step 4");
}

Test(verify, state_that_is_another_guests_or_none_is_told)
{
    struct good good;
    good_init(&good);
    good.claim.loaded.seed = 2;
    expect(&good, "not the source's");
    good.claim.has_counters = false;
    expect(&good, "loaded no device state");
}

Test(verify, a_guest_that_fails_its_check_or_stands_still_is_told)
{
    struct good good;
    good_init(&good);
    good.claim.checks = false;
    expect(&good, "page 1 is wrong");
    good.claim.runs_on = false;
    expect(&good, "page 1 is wrong; the guest does not run on");
}
