/*
 * The decision when to stop the guest: tables, and a simulator that drives the pure functions (switchover and ledger)
 * as engine/source_pass.c does, for thousands of random guests, with a clock of its own.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <math.h>

#include "engine/ledger.h"
#include "engine/switchover.h"

TestSuite(switchover, .timeout = 60);

static const uint64_t MIB = 1 << 20;

struct row {
    uint64_t remaining, unacked, state;
    double bandwidth;
    uint64_t avail, sync_ns, limit_ms;
    enum switchover_decision decision;
    uint64_t expected;
};

ParameterizedTestParameters(switchover, decisions_and_expectations_are_those_of_the_table)
{
    /* The limit of 300 ms has a reserve of 75, the one of 1000 a reserve of 100. */
    static struct row rows[] = {
        {0, 0, 0, 0, 0, 0, 300, SWITCHOVER_NOW, UINT64_MAX},
        {1, 0, 0, 0, 0, 0, 300, SWITCHOVER_NOT_YET, UINT64_MAX}, /* another pass will tell */
        {0, 1, 0, 0, 0, 0, 300, SWITCHOVER_DRAIN, UINT64_MAX},
        {0, 0, 1, 0, 0, 0, 300, SWITCHOVER_NOT_YET, UINT64_MAX},
        {0, 0, 0, 1e6, 0, 0, 300, SWITCHOVER_NOW, 0},
        {0, 0, 0, 1e6, 0, 900000000, 300, SWITCHOVER_NOW, 900}, /* nothing would be better later */
        {225000, 0, 0, 1e6, 0, 0, 300, SWITCHOVER_NOW, 225},
        {226000, 0, 0, 1e6, 0, 0, 300, SWITCHOVER_NOT_YET, 226},
        {125000, 100000, 0, 1e6, 0, 0, 300, SWITCHOVER_NOW, 225},
        {126000, 100000, 0, 1e6, 0, 0, 300, SWITCHOVER_DRAIN, 226},
        {226000, 100000, 0, 1e6, 0, 0, 300, SWITCHOVER_NOT_YET, 326},
        {0, 226000, 0, 1e6, 0, 0, 300, SWITCHOVER_DRAIN, 226},
        {125000, 0, 100000, 1e6, 0, 0, 300, SWITCHOVER_NOW, 225},
        {126000, 0, 100000, 1e6, 0, 0, 300, SWITCHOVER_NOT_YET, 226},
        {0, 0, 226000, 1e6, 0, 0, 300, SWITCHOVER_NOT_YET, 226}, /* save_some can still send it */
        {100000, 0, 0, 1e6, 0, 125000000, 300, SWITCHOVER_NOW, 225},
        {100000, 0, 0, 1e6, 0, 126000000, 300, SWITCHOVER_NOT_YET, 226},
        {900000, 0, 0, 1e6, 0, 0, 1000, SWITCHOVER_NOW, 900},
        {901000, 0, 0, 1e6, 0, 0, 1000, SWITCHOVER_NOT_YET, 901},
        {226000, 0, 0, 1e6, 2000000, 0, 300, SWITCHOVER_NOW, 113},
        {100000, 0, 0, 1e9, 100000, 0, 300, SWITCHOVER_NOT_YET, 1000},
        {1, 0, 0, 1e6, 0, 0, 0, SWITCHOVER_NOT_YET, 0},
        {0, 0, 0, 1e6, 0, 0, 0, SWITCHOVER_NOW, 0},
        {0, 1, 0, 1e6, 0, 0, 0, SWITCHOVER_DRAIN, 0},
    };
    return cr_make_param_array(struct row, rows, sizeof rows / sizeof rows[0]);
}

ParameterizedTest(struct row *row, switchover, decisions_and_expectations_are_those_of_the_table)
{
    struct switchover_inputs inputs = {row->remaining, row->unacked, row->state,   row->bandwidth,
                                       row->avail,     row->sync_ns, row->limit_ms};
    cr_expect_eq(switchover_decide(&inputs), row->decision, "%llu remaining, %llu unacked, %llu state",
                 (unsigned long long)row->remaining, (unsigned long long)row->unacked, (unsigned long long)row->state);
    cr_expect_eq(switchover_expected_ms(&inputs), row->expected);
}

/* ---- the simulator; times in seconds, sizes in bytes ---- */

static uint64_t random_state;

static double uniform(double from, double to)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return from + (to - from) * (double)(random_state >> 11) / (double)(UINT64_C(1) << 53);
}

static double log_uniform(double from, double to)
{
    return exp(uniform(log(from), log(to)));
}

struct guest_model {
    double ram, populated;
    double dirty_rate, hot; /* distinct bytes per second into a set of this size */
    double bandwidth, rtt, sync, buffer;
    double state, state_rate; /* iterative device state: there from the beginning, and grown per second */
    double load;              /* what stopping, loading and starting cost */
    uint64_t limit_ms;
};

struct simulation {
    const struct guest_model *guest;
    struct ledger ledger;
    double now;
    double line_free;     /* when all that was handed over has arrived */
    double arrived;       /* bytes of all acknowledged epochs */
    double sent;          /* bytes of all epochs, by end of epoch */
    double epoch_end[2], epoch_arrival[2];
    double dirty, synced; /* in the bitmap; time of the last sync */
    double state, state_at;
};

enum { CHANNELS_BYTES = 64 /* markers of two channels */, PASSES_MOST = 400 };

static uint64_t ns(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

static void take_acks(struct simulation *sim)
{
    struct ledger *ledger = &sim->ledger;
    while (ledger->acked < ledger->closed) {
        uint32_t next = ledger->acked + 1;
        double due = sim->epoch_arrival[next % 2] + sim->guest->rtt;
        if (due > sim->now)
            return;
        cr_assert(ledger_ack(ledger, next, (uint64_t)sim->epoch_end[next % 2], ns(due)));
    }
}

static void wait_acks(struct simulation *sim, uint32_t up_to)
{
    while (sim->ledger.acked < up_to) {
        double due = sim->epoch_arrival[(sim->ledger.acked + 1) % 2] + sim->guest->rtt;
        sim->now = fmax(sim->now, due + 1e-9);
        take_acks(sim);
    }
}

static void hand_over(struct simulation *sim, double bytes)
{
    const struct guest_model *guest = sim->guest;
    sim->line_free = fmax(sim->line_free, sim->now) + bytes / guest->bandwidth;
    sim->sent += bytes;
    sim->now = fmax(sim->now, sim->line_free - guest->buffer / guest->bandwidth);
    take_acks(sim);
}

static void pass(struct simulation *sim)
{
    if (sim->ledger.closed >= 2)
        wait_acks(sim, sim->ledger.closed - 1);
    cr_assert(ledger_may_open(&sim->ledger));
    ledger_open(&sim->ledger, ns(sim->now));
    uint32_t epoch = sim->ledger.open;
    sim->ledger.pages[epoch % 2] = (uint64_t)(sim->dirty / 4096);
    hand_over(sim, sim->dirty + CHANNELS_BYTES);
    sim->dirty = 0;
    sim->epoch_end[epoch % 2] = sim->sent;
    sim->epoch_arrival[epoch % 2] = sim->line_free;
    ledger_close(&sim->ledger);
    take_acks(sim);
}

static double pending_state(struct simulation *sim)
{
    sim->state += (sim->now - sim->state_at) * sim->guest->state_rate;
    sim->state_at = sim->now;
    return sim->state;
}

/* Nothing acknowledges device state: what is on its way of it (a record at most) is not known to the decision, and is
 * taken to have arrived here. */
static void save_some(struct simulation *sim)
{
    double most = fmin(pending_state(sim), 512 << 10);
    sim->state -= most;
    if (most > 0)
        sim->now = sim->line_free = fmax(sim->line_free, sim->now) + most / sim->guest->bandwidth;
    take_acks(sim);
}

static void sync_dirty(struct simulation *sim)
{
    const struct guest_model *guest = sim->guest;
    double written = guest->dirty_rate * (sim->now - sim->synced);
    double found = guest->hot > 0 ? guest->hot * (1 - exp(-written / guest->hot)) : 0;
    sim->dirty = fmin(guest->hot, sim->dirty + found);
    sim->synced = sim->now;
    sim->now += guest->sync;
    take_acks(sim);
}

static enum switchover_decision decide(struct simulation *sim, struct switchover_inputs *inputs)
{
    *inputs = (struct switchover_inputs){
        .remaining = (uint64_t)sim->dirty,
        .unacked = ledger_unacked_pages(&sim->ledger) * 4096,
        .state = (uint64_t)pending_state(sim),
        .bandwidth = sim->ledger.bandwidth,
        .sync_ns = ns(sim->guest->sync),
        .downtime_limit_ms = sim->guest->limit_ms,
    };
    return switchover_decide(inputs);
}

/* What the guest's users will see if it is stopped now. */
static double downtime_of(struct simulation *sim)
{
    const struct guest_model *guest = sim->guest;
    double start = sim->now;
    double on_its_way = fmax(0, sim->line_free - start);
    /* written since the decision's sync */
    double late = fmin(guest->hot, guest->dirty_rate * (start - sim->synced));
    return guest->sync + on_its_way + (sim->dirty + late + sim->state) / guest->bandwidth + guest->load;
}

/* Passes until the guest is stopped, 0 when that did not happen. */
static unsigned simulate(struct simulation *sim, const struct guest_model *guest)
{
    *sim = (struct simulation){.guest = guest, .now = 1, .synced = 1, .line_free = 1, .state_at = 1};
    ledger_init(&sim->ledger);
    sim->dirty = guest->populated;
    sim->state = guest->state;
    for (unsigned n = 1; n <= PASSES_MOST; n++) {
        double started = sim->now;
        pass(sim);
        save_some(sim);
        for (;;) {
            struct switchover_inputs inputs;
            sync_dirty(sim);
            enum switchover_decision decision = decide(sim, &inputs);
            if (decision == SWITCHOVER_NOW) {
                bool outstanding = inputs.remaining > 0 || inputs.unacked > 0 || inputs.state > 0;
                cr_assert(inputs.bandwidth > 0 || !outstanding, "stopped without knowing the bandwidth");
                return n;
            }
            if (decision == SWITCHOVER_NOT_YET)
                break;
            wait_acks(sim, sim->ledger.closed);
        }
        sim->now = fmax(sim->now, started + 0.010); /* PASS_PACE_MS */
        take_acks(sim);
    }
    return 0;
}

static double reserve_of(const struct guest_model *guest)
{
    return fmin((double)guest->limit_ms / 4, 100) / 1000;
}

static struct guest_model random_guest(void)
{
    struct guest_model guest = {
        .ram = log_uniform(1 << 20, 1e12),
        .bandwidth = log_uniform(1e6, 1e10),
        .rtt = log_uniform(1e-5, 0.02),
        .sync = log_uniform(1e-6, 0.02),
        .buffer = log_uniform(1e5, 1e7),
        .state = uniform(0, 1) < 0.5 ? 0 : log_uniform(1, 1e7),
        .limit_ms = (uint64_t)log_uniform(20, 5000),
    };
    guest.populated = uniform(0, 1) < 0.2 ? 0 : guest.ram * uniform(0, 1);
    guest.hot = fmin(guest.ram, log_uniform(4096, 1e11));
    guest.dirty_rate = uniform(0, 1) < 0.2 ? 0 : guest.bandwidth * log_uniform(1e-4, 10);
    guest.state_rate = guest.state > 0 ? guest.bandwidth * uniform(0, 0.01) : 0;
    guest.load = uniform(0, 1) * reserve_of(&guest) / 2;
    return guest;
}

Test(switchover, whenever_the_guest_is_stopped_the_downtime_keeps_the_limit)
{
    unsigned stopped = 0;
    random_state = 42;
    for (unsigned i = 0; i < 5000; i++) {
        struct guest_model guest = random_guest();
        struct simulation sim;
        if (!simulate(&sim, &guest))
            continue;
        stopped++;
        double downtime = downtime_of(&sim);
        /* Where nothing at all is left, waiting would not have made it shorter. What is written while the log is read
         * is within the reserve where the reserve can hold it. */
        double late = fmin(guest.hot, guest.dirty_rate * guest.sync) / guest.bandwidth;
        if (sim.dirty + sim.state == 0 || late > reserve_of(&guest) / 2)
            continue;
        cr_assert(downtime * 1000 <= (double)guest.limit_ms + 0.001,
                  "guest %u: %.3f ms, limit %llu (ram %.0f rate %.0f bandwidth %.0f estimated %.0f)", i,
                  downtime * 1000, (unsigned long long)guest.limit_ms, guest.ram, guest.dirty_rate, guest.bandwidth,
                  sim.ledger.bandwidth);
    }
    cr_assert_gt(stopped, 1500, "only %u guests were stopped: this tested little", stopped);
}

Test(switchover, guests_that_clearly_can_be_stopped_are)
{
    unsigned clear = 0;
    random_state = 7;
    for (unsigned i = 0; i < 20000; i++) {
        struct guest_model guest = random_guest();
        guest.state = guest.state_rate = 0;
        double rest = fmin(guest.hot, guest.dirty_rate * (0.020 + 4 * guest.rtt + 4 * guest.sync));
        double limit = (double)guest.limit_ms / 1000 - reserve_of(&guest);
        if (guest.dirty_rate > guest.bandwidth / 4 || rest / guest.bandwidth + 4 * guest.rtt + guest.sync > limit / 3)
            continue;
        clear++;
        struct simulation sim;
        cr_assert(simulate(&sim, &guest),
                  "guest %u: populated %.0f hot %.0f rate %.0f bandwidth %.0f (estimated %.0f) rtt %.6f limit %llu", i,
                  guest.populated, guest.hot, guest.dirty_rate, guest.bandwidth, sim.ledger.bandwidth, guest.rtt,
                  (unsigned long long)guest.limit_ms);
    }
    cr_assert_gt(clear, 3000, "only %u clear cases", clear);
}

Test(switchover, an_empty_guest_with_a_small_hot_set_is_stopped)
{
    /* Its first pass carries markers only: what they show is latency, and must not count as bandwidth for ever. */
    struct guest_model guest = {.ram = 1 << 30, .hot = 300 << 10, .dirty_rate = 2e9, .bandwidth = 1e9, .rtt = 5e-4,
                                .sync = 1e-5, .buffer = 1e6, .limit_ms = 300};
    struct simulation sim;
    cr_assert(simulate(&sim, &guest), "estimated %.0f bytes per second", sim.ledger.bandwidth);
}

Test(switchover, a_large_device_state_is_sent_while_the_guest_runs)
{
    struct guest_model guest = {.ram = 1 << 30, .populated = 1 << 28, .bandwidth = 1e8, .rtt = 1e-4, .sync = 1e-5,
                                .buffer = 1e6, .state = 2e8, .limit_ms = 300};
    struct simulation sim;
    cr_assert(simulate(&sim, &guest));
    cr_assert_lt(downtime_of(&sim), 0.3);
    cr_assert_lt(sim.state, 23 * MIB);
}

Test(switchover, nothing_known_and_something_outstanding_is_never_now)
{
    random_state = 3;
    for (unsigned i = 0; i < 100000; i++) {
        struct switchover_inputs inputs = {
            .remaining = (uint64_t)log_uniform(0.1, 1e12),
            .unacked = (uint64_t)log_uniform(0.1, 1e12),
            .state = (uint64_t)log_uniform(0.1, 1e9),
            .sync_ns = (uint64_t)log_uniform(1, 1e9),
            .downtime_limit_ms = (uint64_t)log_uniform(1, 2e6),
        };
        if (inputs.remaining + inputs.unacked + inputs.state > 0)
            cr_assert_neq(switchover_decide(&inputs), SWITCHOVER_NOW);
    }
}
