/*
 * Both dirty trackers under threads, for ThreadSanitizer: Criterion does not start under it. Guest memory is a race by
 * nature, so here it is read and written in relaxed atomics; what is left to find are races of the tracker itself.
 *
 *   tracker_stress [ROUNDS]    exit 0: nothing was wrong; a tracker that this system does not have is skipped
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <godwit/tracker.h>

enum { ROUNDS = 20, SYNCS = 500, WRITERS = 3, PAGES = 1024, WORDS = PAGES / 64, PAGE_WORDS = 512 };

struct writer {
    pthread_t thread;
    _Atomic uint64_t *memory;
    const _Atomic bool *quit;
    unsigned lane; /* every writer writes every page, at a word of its own */
    uint64_t last[PAGES];
};

static void *write_all(void *argument)
{
    struct writer *writer = argument;
    uint64_t random = writer->lane + 1;
    for (uint64_t number = 1; !atomic_load_explicit(writer->quit, memory_order_relaxed); number++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned page = (unsigned)(random >> 33) % PAGES;
        atomic_store_explicit(&writer->memory[page * PAGE_WORDS + writer->lane], number, memory_order_relaxed);
        writer->last[page] = number;
    }
    return NULL;
}

static bool sync_into(struct godwit_tracker *tracker, _Atomic uint64_t *memory, uint64_t copy[PAGES][WRITERS])
{
    uint64_t bitmap[WORDS] = {0};
    struct godwit_error error;
    if (godwit_tracker_sync(tracker, memory, PAGES * 4096ul, bitmap, &error)) {
        fprintf(stderr, "sync: %s\n", error.text);
        return false;
    }
    for (unsigned page = 0; page < PAGES; page++)
        for (unsigned lane = 0; bitmap[page / 64] >> page % 64 & 1 && lane < WRITERS; lane++)
            copy[page][lane] = atomic_load_explicit(&memory[page * PAGE_WORDS + lane], memory_order_relaxed);
    return true;
}

/* Writers come and go while the tracker is started; what was reported must add up to what was written. */
static bool run_round(struct godwit_tracker *tracker, _Atomic uint64_t *memory)
{
    static struct writer writers[WRITERS];
    static uint64_t copy[PAGES][WRITERS];
    _Atomic bool quit = false;
    struct godwit_error error;
    if (godwit_tracker_start(tracker, &error)) {
        fprintf(stderr, "start: %s\n", error.text);
        return false;
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.memory = memory, .quit = &quit, .lane = i};
        if (pthread_create(&writers[i].thread, NULL, write_all, &writers[i]))
            abort();
    }
    bool good = true;
    for (unsigned page = 0; page < PAGES; page++)
        for (unsigned lane = 0; lane < WRITERS; lane++)
            copy[page][lane] = 0;
    for (unsigned i = 0; i < SYNCS && good; i++)
        good = sync_into(tracker, memory, copy);
    atomic_store(&quit, true);
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
    good = good && sync_into(tracker, memory, copy);
    for (unsigned page = 0; page < PAGES && good; page++)
        for (unsigned lane = 0; lane < WRITERS && good; lane++)
            good = copy[page][lane] == writers[lane].last[page];
    godwit_tracker_stop(tracker);
    return good;
}

static bool run_kind(enum godwit_tracker_kind kind, bool shared, unsigned rounds)
{
    const char *name = godwit_tracker_kind_name(kind);
    bool good = true;
    for (unsigned round = 0; round < rounds && good; round++) {
        struct godwit_tracker *tracker;
        struct godwit_error error;
        if (godwit_tracker_new_kind(kind, &tracker, &error)) {
            printf("%s: skipped: %s\n", name, error.text);
            return true;
        }
        void *memory = mmap(NULL, PAGES * 4096ul, PROT_READ | PROT_WRITE,
                            (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED || godwit_tracker_add(tracker, memory, PAGES * 4096ul, &error))
            abort();
        good = run_round(tracker, memory);
        godwit_tracker_free(tracker);
        munmap(memory, PAGES * 4096ul);
    }
    printf("%s, %s memory: %s\n", name, shared ? "shared" : "private", good ? "good" : "a write was lost");
    return good;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : ROUNDS;
    bool good = true;
    for (unsigned shared = 0; shared < 2; shared++) {
        good = run_kind(GODWIT_TRACKER_SCAN, shared, rounds) && good;
        good = run_kind(GODWIT_TRACKER_FAULT, shared, rounds) && good;
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
