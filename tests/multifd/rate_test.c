/* Bookings are tried with a clock of our own; only what sleeps uses the real one. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "multifd/batch.h"
#include "multifd/packet.h"
#include "multifd/rate.h"
#include "tests/lib/gate.h"
#include "transport/clock.h"

TestSuite(rate, .timeout = 60);

enum { MS = 1000000, SENDERS = 16, SECONDS = 8 };
static const uint64_t second = UINT64_C(1000000000);

/* What went out: when, and how much. */
struct sending {
    uint64_t at, bytes;
};

struct history {
    struct sending *sent;
    size_t count, room;
};

static void note(struct history *history, uint64_t at, uint64_t bytes)
{
    if (history->count == history->room) {
        history->room = history->room ? 2 * history->room : 1024;
        history->sent = realloc(history->sent, history->room * sizeof *history->sent);
    }
    history->sent[history->count++] = (struct sending){at, bytes};
}

static int by_time(const void *a, const void *b)
{
    uint64_t left = ((const struct sending *)a)->at, right = ((const struct sending *)b)->at;
    return left < right ? -1 : left > right;
}

/* The most bytes of any window of one second. Sorts. */
static uint64_t fullest_second(struct history *history)
{
    uint64_t sum = 0, most = 0;
    qsort(history->sent, history->count, sizeof *history->sent, by_time);
    for (size_t first = 0, next = 0; next < history->count; next++) {
        sum += history->sent[next].bytes;
        while (history->sent[next].at - history->sent[first].at >= second)
            sum -= history->sent[first++].bytes;
        most = sum > most ? sum : most;
    }
    return most;
}

static uint64_t total(const struct history *history)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < history->count; i++)
        sum += history->sent[i].bytes;
    return sum;
}

/* A batch as the engine makes it: of any size up to what the limit allows, each page an extent of its own. */
static uint64_t batch_bytes(struct migration_rate *rate)
{
    unsigned pages = 1 + (unsigned)rand() % migration_rate_batch_pages(rate, BATCH_PAGES);
    return (uint64_t)pages * PAGE_SIZE + PACKET_HEADER_SIZE + (uint64_t)pages * PACKET_EXTENT_SIZE;
}

/*
 * Senders that always have work: each books, waits for its turn, oversleeps by up to late_ns, sends, and books again.
 * With idle_ms, all of them find no work for so long, now and then.
 */
static void simulate(struct migration_rate *rate, unsigned senders, uint64_t late_ns, uint64_t idle_ms, uint64_t from,
                     uint64_t until, struct history *history)
{
    uint64_t ready[SENDERS], bytes[SENDERS];
    uint64_t now = from, next_idle = from + second / 2;
    for (unsigned i = 0; i < senders; i++) {
        bytes[i] = batch_bytes(rate);
        ready[i] = migration_rate_account(rate, bytes[i], now);
    }
    for (;;) {
        unsigned first = 0;
        for (unsigned i = 1; i < senders; i++)
            first = ready[i] < ready[first] ? i : first;
        if (ready[first] > now)
            now = ready[first] + (late_ns ? (uint64_t)rand() % late_ns : 0);
        if (idle_ms && now >= next_idle) {
            now += idle_ms * MS;
            next_idle = now + second / 2;
        }
        if (now >= until)
            return;
        note(history, now, bytes[first]);
        bytes[first] = batch_bytes(rate);
        ready[first] = migration_rate_account(rate, bytes[first], now);
    }
}

static const uint64_t limits[] = {10000000, 25000000, 100000000, 300000000, 1000000000};
enum { LIMITS = sizeof limits / sizeof *limits };

Test(rate, no_second_exceeds_the_limit_and_the_average_reaches_it)
{
    srand(1);
    for (unsigned l = 0; l < LIMITS; l++) {
        for (unsigned senders = 1; senders <= SENDERS; senders *= 2) {
            for (uint64_t late = 0; late <= 5 * MS; late += 5 * MS) {
                struct migration_rate *rate = migration_rate_new();
                struct history history = {0};
                migration_rate_set(rate, limits[l]);
                simulate(rate, senders, late, 0, second, second + SECONDS * second, &history);
                double sum = (double)total(&history) / SECONDS, due = (double)limits[l];
                cr_assert(sum >= 0.98 * due && sum <= 1.02 * due, "%u senders, late %llu ns: %.0f instead of %.0f",
                          senders, (unsigned long long)late, sum, due);
                double most = (double)fullest_second(&history);
                cr_assert(most <= 1.02 * due, "%u senders, late %llu ns: %.0f in a second, limit %.0f", senders,
                          (unsigned long long)late, most, due);
                free(history.sent);
                migration_rate_free(rate);
            }
        }
    }
}

Test(rate, idle_time_does_not_become_a_burst)
{
    srand(2);
    for (unsigned l = 0; l < LIMITS; l++) {
        struct migration_rate *rate = migration_rate_new();
        struct history history = {0};
        migration_rate_set(rate, limits[l]);
        simulate(rate, 4, 0, 300, second, second + SECONDS * second, &history);
        cr_assert_leq((double)fullest_second(&history), 1.02 * (double)limits[l]);
        free(history.sent);
        migration_rate_free(rate);
    }
}

Test(rate, new_limit_counts_from_its_moment_on)
{
    srand(3);
    struct migration_rate *rate = migration_rate_new();
    for (unsigned round = 0; round < 20; round++) {
        struct history history = {0};
        uint64_t limit = limits[(unsigned)rand() % LIMITS], from = (round + 1) * 10 * second;
        migration_rate_set(rate, limit);
        cr_assert_eq(migration_rate_get(rate), limit);
        simulate(rate, 4, 0, 0, from, from + 2 * second, &history);
        double sum = (double)total(&history) / 2;
        cr_assert(sum >= 0.98 * (double)limit && sum <= 1.03 * (double)limit, "%.0f instead of %.0f", sum,
                  (double)limit);
        free(history.sent);
    }
    migration_rate_free(rate);
}

Test(rate, debts_of_a_low_limit_do_not_outlive_it)
{
    struct migration_rate *rate = migration_rate_new();
    migration_rate_set(rate, 1000);
    migration_rate_account(rate, 1000000, second); /* a thousand seconds */
    cr_assert(migration_rate_exceeded(rate, 500 * second));
    cr_assert_not(migration_rate_exceeded(rate, 1002 * second));
    migration_rate_set(rate, 1000000);
    cr_assert_not(migration_rate_exceeded(rate, second));
    cr_assert_leq(migration_rate_account(rate, 1, 2 * second), 2 * second);
    migration_rate_account(rate, 1000000000, 2 * second);
    migration_rate_reset(rate, 3 * second);
    cr_assert_not(migration_rate_exceeded(rate, 3 * second));
    cr_assert_leq(migration_rate_account(rate, 1, 3 * second), 3 * second);
    migration_rate_free(rate);
}

Test(rate, zero_is_unlimited)
{
    struct migration_rate *rate = migration_rate_new();
    cr_assert_eq(migration_rate_get(rate), 0);
    for (unsigned i = 0; i < 1000; i++) {
        cr_assert_leq(migration_rate_account(rate, UINT32_MAX, second), second);
        cr_assert_not(migration_rate_exceeded(rate, second));
    }
    cr_assert_eq(migration_rate_wait(rate, UINT64_MAX), 0);
    migration_rate_free(rate);
    migration_rate_free(NULL);
}

Test(rate, batch_takes_ten_milliseconds_of_the_budget_at_most)
{
    struct migration_rate *rate = migration_rate_new();
    cr_assert_eq(migration_rate_batch_pages(rate, BATCH_PAGES), BATCH_PAGES, "unlimited");
    for (uint64_t limit = 1; limit < UINT64_C(1) << 40; limit = limit * 3 / 2 + 1) {
        migration_rate_set(rate, limit);
        unsigned pages = migration_rate_batch_pages(rate, BATCH_PAGES);
        cr_assert(pages >= 1 && pages <= BATCH_PAGES);
        cr_assert(pages == 1 || (uint64_t)pages * PAGE_SIZE <= limit / 200);
        cr_assert(pages == BATCH_PAGES || (uint64_t)(pages + 1) * PAGE_SIZE > limit / 200);
    }
    migration_rate_free(rate);
}

struct waiter {
    struct migration_rate *rate;
    struct gate *through;
    pthread_t thread;
};

static void *wait_thread(void *opaque)
{
    struct waiter *waiter = opaque;
    migration_rate_wait(waiter->rate, 1000);
    gate_note(waiter->through, NULL);
    return NULL;
}

/* Sixteen who wait for hours, and what sets them free. */
static void expect_freed(void (*act)(struct migration_rate *))
{
    struct migration_rate *rate = migration_rate_new();
    struct gate through = GATE_INIT;
    struct waiter waiters[SENDERS];
    migration_rate_set(rate, 1000);
    migration_rate_account(rate, 100000000, clock_now_ns());
    for (unsigned i = 0; i < SENDERS; i++) {
        waiters[i] = (struct waiter){.rate = rate, .through = &through};
        pthread_create(&waiters[i].thread, NULL, wait_thread, &waiters[i]);
    }
    cr_assert_not(gate_wait(&through, 1, 50), "they wait");
    act(rate);
    cr_assert(gate_wait(&through, SENDERS, 5000), "%u of them wait still", SENDERS - gate_count(&through));
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(waiters[i].thread, NULL);
    migration_rate_free(rate);
}

static void make_unlimited(struct migration_rate *rate)
{
    migration_rate_set(rate, 0);
}

static void make_fast(struct migration_rate *rate)
{
    migration_rate_set(rate, 1000000000);
}

Test(rate, wait_ends_with_the_end)
{
    expect_freed(migration_rate_end);
}

Test(rate, wait_ends_when_the_limit_is_lifted)
{
    expect_freed(make_unlimited);
}

Test(rate, wait_ends_soon_when_the_limit_rises)
{
    expect_freed(make_fast);
}

Test(rate, nobody_waits_after_the_end)
{
    struct migration_rate *rate = migration_rate_new();
    migration_rate_set(rate, 1);
    migration_rate_end(rate);
    for (unsigned i = 0; i < 100; i++)
        cr_assert_eq(migration_rate_wait(rate, 1000000), 0);
    migration_rate_free(rate);
}

Test(rate, real_waits_keep_the_average)
{
    enum { LIMIT = 50000000, PIECE = 100000, PIECES = 250 }; /* half a second */
    struct migration_rate *rate = migration_rate_new();
    migration_rate_set(rate, LIMIT);
    uint64_t start = clock_now_ns();
    uint64_t waited = 0;
    for (unsigned i = 0; i < PIECES; i++)
        waited += migration_rate_wait(rate, PIECE);
    double told = (double)waited / (double)second;
    double took = (double)(clock_now_ns() - start) / (double)second;
    double due = (double)PIECES * PIECE / LIMIT;
    cr_assert(took > due * 0.95, "%.3f s, not %.3f", took, due);
    cr_assert(told > took * 0.8 && told <= took, "%.3f s waited of %.3f", told, took);
    migration_rate_free(rate);
}
