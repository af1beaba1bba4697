/* The dirty tracker under writers: every write is reported, by the next sync, and none is lost. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "tests/guest/tracker_case.h"

struct hammer {
    uint64_t *memory;
    unsigned first;
    unsigned end;
    _Atomic bool *quit;
};

static void *hammer_main(void *argument)
{
    const struct hammer *hammer = argument;
    uint64_t random = hammer->first + 1;
    while (!atomic_load(hammer->quit)) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned page = hammer->first + (unsigned)(random >> 33) % (hammer->end - hammer->first);
        volatile uint64_t *counter = &hammer->memory[page * PAGE_WORDS + (random >> 24) % PAGE_WORDS];
        *counter = *counter + 1;
    }
    return NULL;
}

/*
 * A page is never both written and unreported: each of two writers, at the same pages, stores a number that only grows
 * and then says so; after a sync the copy holds at least what had been said before it. Once they rest, nothing is left.
 */
struct teller {
    volatile uint64_t *memory;
    _Atomic uint64_t told[PAGES];
    _Atomic bool *quit;
    unsigned lane;
};

static void *teller_main(void *argument)
{
    struct teller *teller = argument;
    uint64_t random = teller->lane + 1;
    for (uint64_t number = 1; !atomic_load(teller->quit); number++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned page = (unsigned)(random >> 33) % (PAGES / 16);
        teller->memory[page * PAGE_WORDS + teller->lane] = number;
        atomic_store(&teller->told[page], number);
    }
    return NULL;
}

static void check_prompt_reports(enum godwit_tracker_kind kind, enum memory_backing backing)
{
    static struct teller tellers[2];
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(backing, PAGES), copy = get_ram(MEMORY_MEMFD, PAGES);
    _Atomic bool quit = false;
    pthread_t threads[2];
    uint64_t bitmap[WORDS], told[2][PAGES];
    unsigned late = 0;
    start(tracker, &ram);
    for (unsigned i = 0; i < 2; i++) {
        tellers[i] = (struct teller){.memory = ram.addr, .quit = &quit, .lane = i};
        cr_assert_eq(pthread_create(&threads[i], NULL, teller_main, &tellers[i]), 0);
    }
    for (unsigned round = 0; round < 1000; round++) {
        for (unsigned i = 0; i < 2 * PAGES; i++)
            told[i / PAGES][i % PAGES] = atomic_load(&tellers[i / PAGES].told[i % PAGES]);
        sync_count(tracker, &ram, bitmap);
        for (unsigned page = 0; page < PAGES; page++)
            if (has(bitmap, page))
                memcpy((char *)copy.addr + page * 4096, (char *)ram.addr + page * 4096, 4096);
        for (unsigned i = 0; i < 2 * PAGES; i++)
            late += ((uint64_t *)copy.addr)[i % PAGES * PAGE_WORDS + i / PAGES] < told[i / PAGES][i % PAGES];
    }
    cr_expect_eq(late, 0, "%u writes that were over before a sync are not in it", late);
    atomic_store(&quit, true);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    sync_count(tracker, &ram, bitmap);
    cr_expect_eq(sync_count(tracker, &ram, bitmap), 0, "none is reported twice");
    godwit_tracker_free(tracker);
    memory_free(&ram);
    memory_free(&copy);
}

TRACKER_TEST(reports_a_write_to_a_memfd_with_the_next_sync)
{
    check_prompt_reports(kind, MEMORY_MEMFD);
}
TRACKER_TEST(reports_a_write_to_anonymous_memory_with_the_next_sync)
{
    check_prompt_reports(kind, MEMORY_ANON);
}

TRACKER_TEST(starts_and_stops_under_writers)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(MEMORY_MEMFD, PAGES), holes = get_ram(MEMORY_ANON, PAGES);
    _Atomic bool quit = false;
    struct hammer hammers[2] = {{ram.addr, 0, PAGES, &quit}, {holes.addr, 0, PAGES, &quit}};
    pthread_t threads[2];
    uint64_t bitmap[WORDS];
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, hammer_main, &hammers[i]), 0);
    cr_assert_eq(godwit_tracker_add(tracker, holes.addr, holes.size, NULL), GODWIT_OK);
    cr_assert_eq(godwit_tracker_add(tracker, ram.addr, ram.size, NULL), GODWIT_OK);
    for (unsigned round = 0; round < 200; round++) {
        cr_assert_eq(godwit_tracker_start(tracker, NULL), GODWIT_OK);
        if (round % 2)
            sync_count(tracker, &ram, bitmap);
        godwit_tracker_stop(tracker);
        if (round % 10 == 0)
            madvise(holes.addr, holes.size, MADV_DONTNEED);
    }
    atomic_store(&quit, true);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    godwit_tracker_free(tracker);
    memory_free(&ram);
    memory_free(&holes);
}

/*
 * Pre-copy in small: copy what is reported while writers run, stop them, sync once more, and the copies must be equal.
 */
static void check_no_write_lost(enum godwit_tracker_kind kind, enum memory_backing backing)
{
    struct godwit_tracker *tracker = open_tracker(kind);
    struct memory ram = get_ram(backing, PAGES), copy = get_ram(MEMORY_MEMFD, PAGES);
    _Atomic bool quit = false;
    struct hammer hammers[2] = {{ram.addr, 0, PAGES / 2, &quit}, {ram.addr, PAGES / 2, PAGES - 64, &quit}};
    pthread_t threads[2];
    memset(ram.addr, 0, ram.size / 4); /* the rest are holes that get filled */
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, hammer_main, &hammers[i]), 0);
    start(tracker, &ram);
    memcpy(copy.addr, ram.addr, ram.size);
    uint64_t bitmap[WORDS];
    for (unsigned round = 0; round < 400; round++) {
        if (round == 399) {
            atomic_store(&quit, true);
            pthread_join(threads[0], NULL);
            pthread_join(threads[1], NULL);
        }
        sync_count(tracker, &ram, bitmap);
        for (unsigned page = 0; page < PAGES; page++)
            if (has(bitmap, page))
                memcpy((char *)copy.addr + page * 4096, (char *)ram.addr + page * 4096, 4096);
    }
    cr_expect_eq(memcmp(ram.addr, copy.addr, ram.size), 0);
    godwit_tracker_free(tracker);
    memory_free(&ram);
    memory_free(&copy);
}

TRACKER_TEST(loses_no_concurrent_write_to_a_memfd)
{
    check_no_write_lost(kind, MEMORY_MEMFD);
}
TRACKER_TEST(loses_no_concurrent_write_to_anonymous_memory)
{
    check_no_write_lost(kind, MEMORY_ANON);
}
