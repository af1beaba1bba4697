/* Which slices may be placed, and how long a sender waits for one. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <time.h>

#include "multifd/placement.h"
#include "transport/clock.h"

static struct placement *placement;
enum { SLICES = 24 };

static struct slice slices[SLICES];
/* Never looked into. */
static struct mr *const mr = (struct mr *)0x1000;
static struct remote *const key = (struct remote *)0x2000;

static void open_all(void)
{
    placement = placement_new(PLACEMENT_PATIENCE_MS);
    cr_assert_not_null(placement);
}

static void close_all(void)
{
    placement_free(placement);
}

TestSuite(placement, .init = open_all, .fini = close_all, .timeout = 30);

static void registered(struct slice *slice)
{
    atomic_store(&slice->mr, mr);
    placement_registered(placement, slice);
}

static bool ask(struct slice *slice, uint64_t *waited_ns)
{
    struct placed placed = {0};
    *waited_ns = 0;
    bool ready = placement_ask(placement, slice, &placed, waited_ns);
    if (ready)
        cr_assert(placed.mr == mr && placed.remote == key);
    return ready;
}

static const uint64_t PATIENCE_NS = PLACEMENT_PATIENCE_MS * UINT64_C(1000000);

/* A tenth of the patience. */
static void pause_a_little(void)
{
    nanosleep(&(struct timespec){.tv_nsec = PLACEMENT_PATIENCE_MS * 100000L}, NULL);
}

Test(placement, a_slice_with_registration_and_key_is_ready_whichever_comes_first)
{
    uint64_t waited;
    placement_announce(placement, &slices[0]);
    registered(&slices[0]);
    cr_assert(placement_take_key(placement, &slices[0], key));
    cr_assert(ask(&slices[0], &waited));
    registered(&slices[1]); /* before it was announced: memory that cannot be mapped twice */
    placement_announce(placement, &slices[1]);
    cr_assert(placement_take_key(placement, &slices[1], key));
    cr_assert(ask(&slices[1], &waited));
    placement_announce(placement, &slices[2]);
    cr_assert(placement_take_key(placement, &slices[2], key));
    registered(&slices[2]);
    cr_assert(ask(&slices[2], &waited));
    cr_assert_eq(waited, 0);
}

Test(placement, nobody_waits_for_a_slice_that_was_not_announced_or_will_not_be_registered)
{
    uint64_t waited;
    cr_assert_not(ask(&slices[0], &waited));
    cr_assert_eq(waited, 0);
    placement_announce(placement, &slices[1]);
    placement_registered(placement, &slices[1]); /* without a registration */
    cr_assert_not(ask(&slices[1], &waited));
    cr_assert_eq(waited, 0);
    placement_announce(placement, &slices[2]);
    registered(&slices[2]);
    cr_assert(placement_take_key(placement, &slices[2], NULL), "a KEY without a key");
    cr_assert_not(ask(&slices[2], &waited));
    cr_assert_eq(waited, 0);
}

Test(placement, keys_are_taken_once_and_only_where_they_are_due)
{
    cr_assert_not(placement_take_key(placement, &slices[0], key), "not announced");
    placement_announce(placement, &slices[0]);
    cr_assert(placement_take_key(placement, &slices[0], NULL));
    cr_assert_not(placement_take_key(placement, &slices[0], key), "again");
    cr_assert_null(slices[0].remote);
}

Test(placement, a_destination_that_sends_no_key_costs_the_patience_once)
{
    uint64_t waited, start = clock_now_ns();
    for (unsigned i = 0; i < 3; i++) {
        placement_announce(placement, &slices[i]);
        registered(&slices[i]);
    }
    for (unsigned i = 0; i < 3; i++)
        cr_assert_not(ask(&slices[i], &waited));
    cr_assert_geq(clock_now_ns() - start, PATIENCE_NS);
    placement_announce(placement, &slices[3]); /* others are due: nothing begins anew */
    registered(&slices[3]);
    cr_assert_not(ask(&slices[3], &waited));
    cr_assert_lt(waited, PATIENCE_NS / 2);
}

/* Keys for twice the patience and more; what is waited for comes last. */
static void *late_keys(void *opaque)
{
    for (unsigned i = 1; i < SLICES; i++) {
        pause_a_little();
        cr_assert(placement_take_key(placement, &slices[i], key));
    }
    cr_assert(placement_take_key(placement, &slices[0], key));
    return NULL;
}

Test(placement, one_waits_for_as_long_as_keys_come)
{
    pthread_t thread;
    uint64_t waited;
    for (unsigned i = 0; i < SLICES; i++)
        placement_announce(placement, &slices[i]);
    registered(&slices[0]);
    pthread_create(&thread, NULL, late_keys, NULL);
    cr_assert(ask(&slices[0], &waited), "after %llu us", (unsigned long long)waited / 1000);
    cr_assert_gt(waited, PATIENCE_NS);
    pthread_join(thread, NULL);
}

/* Registrations of our own, while it is a key that is missing. */
static void *late_registrations(void *opaque)
{
    for (unsigned i = 1; i < SLICES; i++) {
        pause_a_little();
        registered(&slices[i]);
    }
    return NULL;
}

Test(placement, one_does_not_wait_for_the_side_that_is_done)
{
    pthread_t thread;
    uint64_t waited;
    for (unsigned i = 0; i < SLICES; i++)
        placement_announce(placement, &slices[i]);
    registered(&slices[0]);
    pthread_create(&thread, NULL, late_registrations, NULL);
    cr_assert_not(ask(&slices[0], &waited));
    cr_assert_null(slices[SLICES - 1].mr, "it was long before the last registration");
    pthread_join(thread, NULL);
}

static void *hurry(void *opaque)
{
    pause_a_little();
    placement_hurry(placement);
    return NULL;
}

Test(placement, hurry_ends_every_wait_now_and_later)
{
    pthread_t thread;
    uint64_t waited;
    placement_announce(placement, &slices[0]);
    pthread_create(&thread, NULL, hurry, NULL);
    cr_assert_not(ask(&slices[0], &waited));
    cr_assert_lt(waited, PATIENCE_NS);
    pthread_join(thread, NULL);
    placement_announce(placement, &slices[1]);
    cr_assert_not(ask(&slices[1], &waited));
    cr_assert_lt(waited, PATIENCE_NS / 2);
    registered(&slices[1]);
    cr_assert(placement_take_key(placement, &slices[1], key));
    cr_assert(ask(&slices[1], &waited), "what is ready is placed all the same");
}
