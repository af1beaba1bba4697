/*
 * A small guest for tests of whole migrations: blocks of odd sizes with holes on memfds, a writer thread, an exact
 * dirty log of its own (one flag per page), device state in streams of 0, 1, 600 KiB and one that is saved while the
 * guest runs. It notes the order of all calls, fails the n-th call of an operation on demand, keeps a copy of its
 * memory as of stop, and compares on resume. Plain C: the stress program uses it too.
 */
#ifndef TESTS_ENGINE_TEST_GUEST_H
#define TESTS_ENGINE_TEST_GUEST_H

#include <pthread.h>
#include <stdatomic.h>

#include <godwit/guest.h>

enum { TEST_BLOCKS = 4, TEST_STREAMS = 4, TEST_ORDER = 4096 };

enum guest_op {
    OP_NONE,
    OP_DIRTY_START,
    OP_DIRTY_SYNC,
    OP_DIRTY_CLEAR,
    OP_DIRTY_STOP,
    OP_NEXT_DATA,
    OP_STOP,
    OP_RESUME,
    OP_SAVE_SOME,
    OP_SAVE_REST,
    OP_RELEASE,
    OP_RECLAIM,
    OP_ACCEPT,
    OP_LOAD,
    OP_DISCARD,
    GUEST_OPS
};

const char *guest_op_name(enum guest_op op);

/* Shared by the two guests of a migration: does it ever run on both sides? */
struct test_sides {
    atomic_int running;
    atomic_bool both;
};

struct test_guest {
    struct godwit_guest guest; /* what the library gets */
    struct godwit_guest_ops ops;
    struct godwit_block blocks[TEST_BLOCKS];
    int fds[TEST_BLOCKS]; /* of the blocks, shown to the library or not */
    const char *streams[TEST_STREAMS];
    uint8_t *state[TEST_STREAMS];
    size_t state_size[TEST_STREAMS], state_saved[TEST_STREAMS];

    _Atomic uint8_t *flags[TEST_BLOCKS]; /* 0 clean, 1 dirty, 2 reported and not cleared (lazy clearing only) */
    bool lazy; /* has dirty_clear */
    uint8_t *at_stop[TEST_BLOCKS];

    /* set by tests before the migration */
    enum guest_op fail_op;
    unsigned fail_at;  /* which call of it, from 0 */
    bool fail_mute;    /* returns the code and leaves the error as it is */
    void (*hook)(void *opaque, enum guest_op op); /* at the beginning of each operation */
    void *hook_opaque;
    bool not_ready;
    const struct test_guest *original; /* destination: compared with on load and resume */

    /* noted */
    unsigned calls[GUEST_OPS];
    char order[TEST_ORDER]; /* one letter per call of those that change something, see test_guest.c */
    bool memory_equal, state_equal;
    unsigned loaded;

    struct test_sides *sides;
    atomic_bool running, quit;
    pthread_mutex_t gate; /* held by the writer while it writes */
    pthread_t writer;
    bool has_writer;
    uint64_t random;
};

/* scale: how many pages there are, about 500 per step. */
void test_guest_init(struct test_guest *guest, struct test_sides *sides, uint64_t seed, unsigned scale);
void test_guest_fini(struct test_guest *guest);

/* Source: fills some of the memory, leaves the rest holes; it runs from here on. */
void test_guest_boot(struct test_guest *guest);
void test_guest_start_writer(struct test_guest *guest);
/* Writes one page now, as the guest. */
void test_guest_write(struct test_guest *guest, unsigned block, uint64_t page, uint64_t value);

/* Source: a range of a block becomes a hole. */
void test_guest_empty(struct test_guest *guest, unsigned block, uint64_t first, uint64_t pages);
/* The library sees no descriptors, as if the memory were private. */
void test_guest_hide_descriptors(struct test_guest *guest);

/* Destination: junk in all memory, and says so. */
void test_guest_use_up(struct test_guest *guest);
/* Destination: without an accept of its own. */
void test_guest_accept_by_default(struct test_guest *guest);
/* Source: sync does not re-arm, clear does. */
void test_guest_clear_lazily(struct test_guest *guest);

/* Does memory equal the copy that original made when it was stopped? */
bool test_guest_equals_stopped(const struct test_guest *guest, const struct test_guest *original);

#endif
