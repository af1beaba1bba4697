#include <criterion/criterion.h>
#include <stdlib.h>

#include "engine/ledger.h"

TestSuite(ledger, .timeout = 30);

static const uint64_t MS = 1000000, SECOND = 1000000000;

Test(ledger, counts_epochs_from_one)
{
    struct ledger ledger;
    ledger_init(&ledger);
    cr_assert(ledger_may_open(&ledger));
    ledger_open(&ledger, SECOND);
    cr_assert_eq(ledger.open, 1);
    cr_assert_eq(ledger.closed, 0);
    ledger_close(&ledger);
    cr_assert_eq(ledger.closed, 1);
    cr_assert_eq(ledger.acked, 0);
}

Test(ledger, lets_one_epoch_be_unacknowledged_beside_the_open_one)
{
    struct ledger ledger;
    ledger_init(&ledger);
    ledger_open(&ledger, 1);
    ledger_close(&ledger);
    cr_assert(ledger_may_open(&ledger), "epoch 2 beside 1");
    ledger_open(&ledger, 2);
    ledger_close(&ledger);
    cr_assert_not(ledger_may_open(&ledger), "epoch 3 would reuse the map of 1");
    cr_assert(ledger_ack(&ledger, 1, 100, 3));
    cr_assert(ledger_may_open(&ledger));
}

Test(ledger, refuses_acknowledgements_of_what_was_not_asked_or_is_known)
{
    struct ledger ledger;
    ledger_init(&ledger);
    cr_assert_not(ledger_ack(&ledger, 0, 0, 1));
    cr_assert_not(ledger_ack(&ledger, 1, 0, 1), "nothing was opened");
    ledger_open(&ledger, 1);
    cr_assert_not(ledger_ack(&ledger, 1, 0, 2), "open, not closed");
    ledger_close(&ledger);
    cr_assert_not(ledger_ack(&ledger, 2, 0, 2), "never opened");
    cr_assert_not(ledger_ack(&ledger, UINT32_MAX, 0, 2));
    cr_assert(ledger_ack(&ledger, 1, 50, 3));
    cr_assert_not(ledger_ack(&ledger, 1, 50, 4), "twice");
    ledger_open(&ledger, 5);
    ledger_close(&ledger);
    cr_assert_not(ledger_ack(&ledger, 2, 49, 6), "fewer bytes than before");
    cr_assert_eq(ledger.acked, 1);
    cr_assert(ledger_ack(&ledger, 2, 50, 6));
}

Test(ledger, an_epoch_is_due_by_age_or_by_size)
{
    struct ledger ledger;
    ledger_init(&ledger);
    ledger_open(&ledger, 5 * SECOND);
    cr_assert_not(ledger_due(&ledger, 5 * SECOND));
    cr_assert_not(ledger_due(&ledger, 6 * SECOND - 1));
    cr_assert(ledger_due(&ledger, 6 * SECOND));
    ledger.pages[1] = LEDGER_EPOCH_MAX_BYTES / 4096 - 1;
    cr_assert_not(ledger_due(&ledger, 5 * SECOND));
    ledger.pages[1]++;
    cr_assert(ledger_due(&ledger, 5 * SECOND));
}

/* A model that remembers every epoch by itself. */
struct model {
    uint64_t pages[2000];
    uint32_t open, closed, acked;
};

static uint64_t model_unacked(const struct model *model)
{
    uint64_t pages = 0;
    for (uint32_t i = model->acked + 1; i <= model->open; i++)
        pages += model->pages[i];
    return pages;
}

Test(ledger, random_walks_agree_with_a_naive_model)
{
    for (unsigned seed = 1; seed <= 200; seed++) {
        struct model *model = calloc(1, sizeof *model);
        struct ledger ledger;
        uint64_t now = 1, arrived = 0;
        ledger_init(&ledger);
        srand(seed);
        for (unsigned step = 0; step < 2000 && model->open < 1990; step++) {
            now += (uint64_t)(rand() % 1000);
            bool is_open = model->open > model->closed;
            bool may = model->acked + 2 >= model->open + 1;
            if (!is_open)
                cr_assert_eq(ledger_may_open(&ledger), may);
            switch (rand() % 4) {
            case 0:
                if (is_open || !may)
                    break;
                ledger_open(&ledger, now);
                model->open++;
                break;
            case 1:
                if (!is_open)
                    break;
                unsigned pages = (unsigned)rand() % 1000;
                ledger.pages[ledger.open % 2] += pages;
                model->pages[model->open] += pages;
                break;
            case 2:
                if (!is_open)
                    break;
                ledger_close(&ledger);
                model->closed = model->open;
                break;
            case 3: {
                uint32_t epoch = model->acked + (uint32_t)(rand() % 4);
                bool good = epoch > model->acked && epoch <= model->closed;
                arrived += good ? (uint64_t)rand() : 0;
                cr_assert_eq(ledger_ack(&ledger, epoch, arrived, now), good);
                if (good)
                    model->acked = epoch;
                break;
            }
            }
            cr_assert_eq(ledger.open, model->open);
            cr_assert_eq(ledger.closed, model->closed);
            cr_assert_eq(ledger.acked, model->acked);
            cr_assert_eq(ledger_unacked_pages(&ledger), model_unacked(model));
        }
        free(model);
    }
}

/* One epoch of this many bytes that takes this long, after idling. */
static void feed(struct ledger *ledger, uint64_t *now, uint64_t idle, uint64_t bytes, uint64_t takes)
{
    *now += idle;
    ledger_open(ledger, *now);
    ledger_close(ledger);
    *now += takes;
    cr_assert(ledger_ack(ledger, ledger->closed, ledger->arrived + bytes, *now));
}

static void assert_near(double is, double should)
{
    cr_assert(is > should * 0.99 && is < should * 1.01, "%.0f is not %.0f", is, should);
}

Test(ledger, a_known_feed_gives_the_known_bandwidth)
{
    struct ledger ledger;
    uint64_t now = SECOND;
    ledger_init(&ledger);
    cr_assert_eq(ledger.bandwidth, 0);
    for (unsigned i = 0; i < 20; i++)
        feed(&ledger, &now, 0, 100 << 20, SECOND);
    assert_near(ledger.bandwidth, 100 << 20);
    for (unsigned i = 0; i < 20; i++)
        feed(&ledger, &now, 0, 100 << 20, SECOND / 4);
    assert_near(ledger.bandwidth, 400 << 20);
}

Test(ledger, time_in_which_nothing_was_sent_does_not_count)
{
    struct ledger ledger;
    uint64_t now = SECOND;
    ledger_init(&ledger);
    for (unsigned i = 0; i < 20; i++)
        feed(&ledger, &now, 30 * SECOND, 100 << 20, SECOND);
    assert_near(ledger.bandwidth, 100 << 20);
}

Test(ledger, overlapping_epochs_count_their_time_once)
{
    struct ledger ledger;
    ledger_init(&ledger);
    uint64_t now = SECOND, arrived = 0;
    ledger_open(&ledger, now);
    ledger_close(&ledger);
    for (uint32_t epoch = 1; epoch < 20; epoch++) {
        ledger_open(&ledger, now); /* while the one before is on its way */
        ledger_close(&ledger);
        now += SECOND / 10;
        cr_assert(ledger_ack(&ledger, epoch, arrived += 50 << 20, now));
    }
    assert_near(ledger.bandwidth, 500 << 20);
}

Test(ledger, small_samples_do_not_spoil_a_good_estimate)
{
    struct ledger ledger;
    uint64_t now = SECOND;
    ledger_init(&ledger);
    feed(&ledger, &now, 0, 100 << 20, SECOND);
    for (unsigned i = 0; i < 20; i++)
        feed(&ledger, &now, 0, 100, 10 * MS);
    assert_near(ledger.bandwidth, 100 << 20);
}

Test(ledger, what_small_samples_show_is_a_lower_bound)
{
    struct ledger ledger;
    uint64_t now = SECOND;
    ledger_init(&ledger);
    feed(&ledger, &now, 0, 64, MS); /* two markers: latency and nothing else */
    cr_assert_gt(ledger.bandwidth, 0);
    feed(&ledger, &now, 0, 256 << 10, MS);
    assert_near(ledger.bandwidth, (256 << 10) * 1000.0);
    feed(&ledger, &now, 0, 64, MS);
    assert_near(ledger.bandwidth, (256 << 10) * 1000.0);
}

Test(ledger, the_first_real_sample_replaces_what_small_ones_showed)
{
    struct ledger ledger;
    uint64_t now = SECOND;
    ledger_init(&ledger);
    feed(&ledger, &now, 0, 64, MS);
    feed(&ledger, &now, 0, 100 << 20, SECOND);
    assert_near(ledger.bandwidth, 100 << 20);
}

Test(ledger, acknowledgements_without_bytes_or_time_change_nothing)
{
    struct ledger ledger;
    uint64_t now = SECOND;
    ledger_init(&ledger);
    feed(&ledger, &now, 0, 0, MS);
    cr_assert_eq(ledger.bandwidth, 0);
    feed(&ledger, &now, 0, 100 << 20, SECOND);
    feed(&ledger, &now, 0, 100 << 20, 0);
    assert_near(ledger.bandwidth, 100 << 20);
}
