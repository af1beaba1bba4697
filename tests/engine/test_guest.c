#include "tests/engine/test_guest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static const char letters[GUEST_OPS] = {
    [OP_DIRTY_START] = '[', [OP_DIRTY_STOP] = ']', [OP_STOP] = 's',   [OP_RESUME] = 'r', [OP_SAVE_REST] = 'e',
    [OP_RELEASE] = 'l',     [OP_RECLAIM] = 'c',    [OP_ACCEPT] = 'a', [OP_LOAD] = 'o',   [OP_DISCARD] = 'd',
};

const char *guest_op_name(enum guest_op op)
{
    static const char *const names[GUEST_OPS] = {
        "nothing",   "dirty_start", "dirty_sync", "dirty_clear", "dirty_stop", "next_data", "stop",    "resume",
        "save_some", "save_rest",   "release",    "reclaim",     "accept",     "load",      "discard",
    };
    return names[op];
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 20;
}

/* What every operation begins with. */
static enum godwit_err begin(struct test_guest *guest, enum guest_op op, struct godwit_error *error)
{
    size_t length = strlen(guest->order);
    if (letters[op] && length + 1 < sizeof guest->order)
        guest->order[length] = letters[op];
    unsigned call = guest->calls[op]++;
    if (guest->hook)
        guest->hook(guest->hook_opaque, op);
    if (op != guest->fail_op || call != guest->fail_at)
        return GODWIT_OK;
    if (!guest->fail_mute) {
        error->code = GODWIT_ERR_GUEST;
        snprintf(error->text, sizeof error->text, "injected failure of %s", guest_op_name(op));
    }
    return GODWIT_ERR_GUEST;
}

static enum godwit_err test_dirty_start(void *self, struct godwit_error *error)
{
    struct test_guest *guest = self;
    enum godwit_err err = begin(guest, OP_DIRTY_START, error);
    for (unsigned b = 0; b < TEST_BLOCKS && !err; b++)
        for (uint64_t i = 0; i < guest->blocks[b].size / 4096; i++)
            atomic_store(&guest->flags[b][i], 0);
    return err;
}

static enum godwit_err test_dirty_sync(void *self, unsigned block, uint64_t *bitmap, struct godwit_error *error)
{
    struct test_guest *guest = self;
    enum godwit_err err = begin(guest, OP_DIRTY_SYNC, error);
    for (uint64_t i = 0; i < guest->blocks[block].size / 4096 && !err; i++) {
        uint8_t dirty = 1;
        if (atomic_compare_exchange_strong(&guest->flags[block][i], &dirty, guest->lazy ? 2 : 0))
            bitmap[i / 64] |= UINT64_C(1) << (i % 64);
    }
    return err;
}

static enum godwit_err test_dirty_clear(void *self, unsigned block, uint64_t first, uint64_t pages,
                                        struct godwit_error *error)
{
    struct test_guest *guest = self;
    enum godwit_err err = begin(guest, OP_DIRTY_CLEAR, error);
    for (uint64_t i = first; i < first + pages && !err; i++)
        atomic_store(&guest->flags[block][i], 0);
    return err;
}

static void test_dirty_stop(void *self)
{
    begin(self, OP_DIRTY_STOP, NULL);
}

static enum godwit_err test_next_data(void *self, unsigned block, uint64_t from, uint64_t *first, uint64_t *pages,
                                      struct godwit_error *error)
{
    struct test_guest *guest = self;
    enum godwit_err err = begin(guest, OP_NEXT_DATA, error);
    off_t data = lseek(guest->fds[block], (off_t)(from * 4096), SEEK_DATA);
    *pages = 0;
    if (err || data < 0)
        return err;
    off_t hole = lseek(guest->fds[block], data, SEEK_HOLE);
    *first = (uint64_t)data / 4096;
    *pages = ((uint64_t)hole + 4095) / 4096 - *first;
    return GODWIT_OK;
}

static void start_running(struct test_guest *guest)
{
    if (atomic_exchange(&guest->running, true))
        return;
    if (atomic_fetch_add(&guest->sides->running, 1) != 0)
        atomic_store(&guest->sides->both, true);
}

static enum godwit_err test_stop(void *self, struct godwit_error *error)
{
    struct test_guest *guest = self;
    enum godwit_err err = begin(guest, OP_STOP, error);
    if (err)
        return err;
    if (atomic_exchange(&guest->running, false))
        atomic_fetch_sub(&guest->sides->running, 1);
    pthread_mutex_lock(&guest->gate); /* whoever writes has finished */
    for (unsigned b = 0; b < TEST_BLOCKS; b++)
        memcpy(guest->at_stop[b], guest->blocks[b].addr, guest->blocks[b].size);
    pthread_mutex_unlock(&guest->gate);
    return GODWIT_OK;
}

static enum godwit_err test_resume(void *self, struct godwit_error *error)
{
    struct test_guest *guest = self;
    enum godwit_err err = begin(guest, OP_RESUME, error);
    if (err)
        return err;
    if (guest->original)
        guest->memory_equal = test_guest_equals_stopped(guest, guest->original);
    start_running(guest);
    return GODWIT_OK;
}

enum { STREAM_ITERATIVE = 3, STREAM_TAIL = 1000 };

static uint64_t test_pending(void *self, unsigned stream)
{
    const struct test_guest *guest = self;
    size_t left = guest->state_size[stream] - guest->state_saved[stream];
    return stream == STREAM_ITERATIVE && left > STREAM_TAIL ? left - STREAM_TAIL : 0;
}

static enum godwit_err save(struct test_guest *guest, unsigned stream, size_t most, struct godwit_state_writer *writer)
{
    size_t left = guest->state_size[stream] - guest->state_saved[stream], size = left < most ? left : most;
    enum godwit_err err = godwit_state_write(writer, guest->state[stream] + guest->state_saved[stream], size);
    guest->state_saved[stream] += size;
    return err;
}

static enum godwit_err test_save_some(void *self, unsigned stream, uint64_t budget, struct godwit_state_writer *writer,
                                      struct godwit_error *error)
{
    struct test_guest *guest = self;
    enum godwit_err err = begin(guest, OP_SAVE_SOME, error);
    return err ? err : save(guest, stream, budget, writer);
}

static enum godwit_err test_save_rest(void *self, unsigned stream, struct godwit_state_writer *writer,
                                      struct godwit_error *error)
{
    struct test_guest *guest = self;
    enum godwit_err err = begin(guest, OP_SAVE_REST, error);
    return err ? err : save(guest, stream, SIZE_MAX, writer);
}

static bool test_ready(void *self)
{
    return !((struct test_guest *)self)->not_ready;
}

static enum godwit_err test_release(void *self, struct godwit_error *error)
{
    return begin(self, OP_RELEASE, error);
}

static enum godwit_err test_reclaim(void *self, struct godwit_error *error)
{
    return begin(self, OP_RECLAIM, error);
}

static enum godwit_err test_accept(void *self, const struct godwit_block *offered, unsigned count,
                                   struct godwit_block *mine, struct godwit_error *error)
{
    struct test_guest *guest = self;
    enum godwit_err err = begin(guest, OP_ACCEPT, error);
    for (unsigned i = 0; i < count && !err; i++)
        for (unsigned b = 0; b < TEST_BLOCKS; b++)
            if (strcmp(guest->blocks[b].id, offered[i].id) == 0)
                mine[i] = guest->blocks[b];
    return err;
}

static enum godwit_err test_load(void *self, const char *stream, const void *data, size_t size,
                                 struct godwit_error *error)
{
    struct test_guest *guest = self;
    enum godwit_err err = begin(guest, OP_LOAD, error);
    const struct test_guest *from = guest->original;
    if (err)
        return err;
    unsigned due = guest->loaded++;
    if (from && (due >= TEST_STREAMS || strcmp(from->streams[due], stream) != 0 || from->state_size[due] != size ||
                 (size > 0 && memcmp(from->state[due], data, size) != 0)))
        guest->state_equal = false;
    return GODWIT_OK;
}

static void test_discard(void *self)
{
    begin(self, OP_DISCARD, NULL);
}

static void init_block(struct test_guest *guest, unsigned index, uint64_t pages)
{
    struct godwit_block *block = &guest->blocks[index];
    *block = (struct godwit_block){.size = pages * 4096, .page_size = 4096};
    snprintf(block->id, sizeof block->id, "block-%u", index);
    block->fd = guest->fds[index] = memfd_create(block->id, MFD_CLOEXEC);
    if (block->fd < 0 || ftruncate(block->fd, (off_t)block->size) != 0)
        abort();
    block->addr = mmap(NULL, block->size, PROT_READ | PROT_WRITE, MAP_SHARED, block->fd, 0);
    if (block->addr == MAP_FAILED)
        abort();
    guest->flags[index] = calloc(pages, 1);
    guest->at_stop[index] = calloc(pages, 4096);
}

void test_guest_init(struct test_guest *guest, struct test_sides *sides, uint64_t seed, unsigned scale)
{
    static const uint64_t pages[TEST_BLOCKS] = {1, 37, 301, 165};
    static const size_t sizes[TEST_STREAMS] = {0, 1, 600 << 10, 700 << 10};
    static const char *const names[TEST_STREAMS] = {"nothing", "byte", "device", "iterative"};
    memset(guest, 0, sizeof *guest);
    guest->sides = sides;
    guest->random = seed;
    guest->state_equal = true;
    pthread_mutex_init(&guest->gate, NULL);
    for (unsigned b = 0; b < TEST_BLOCKS; b++)
        init_block(guest, b, b < 2 ? pages[b] : pages[b] * scale);
    for (unsigned s = 0; s < TEST_STREAMS; s++) {
        guest->streams[s] = names[s];
        guest->state_size[s] = sizes[s];
        guest->state[s] = malloc(sizes[s] + 1);
        for (size_t i = 0; i < sizes[s]; i++)
            guest->state[s][i] = (uint8_t)next_random(&guest->random);
    }
    guest->ops = (struct godwit_guest_ops){
        .dirty_start = test_dirty_start,
        .dirty_sync = test_dirty_sync,
        .dirty_stop = test_dirty_stop,
        .next_data = test_next_data,
        .stop = test_stop,
        .resume = test_resume,
        .state_pending = test_pending,
        .save_some = test_save_some,
        .save_rest = test_save_rest,
        .switchover_ready = test_ready,
        .release = test_release,
        .reclaim = test_reclaim,
        .accept = test_accept,
        .load = test_load,
        .discard = test_discard,
    };
    guest->guest = (struct godwit_guest){.ops = &guest->ops,
                                         .self = guest,
                                         .blocks = guest->blocks,
                                         .block_count = TEST_BLOCKS,
                                         .streams = guest->streams,
                                         .stream_count = TEST_STREAMS};
}

void test_guest_fini(struct test_guest *guest)
{
    atomic_store(&guest->quit, true);
    if (guest->has_writer)
        pthread_join(guest->writer, NULL);
    for (unsigned b = 0; b < TEST_BLOCKS; b++) {
        munmap(guest->blocks[b].addr, guest->blocks[b].size);
        close(guest->fds[b]);
        free(guest->flags[b]);
        free(guest->at_stop[b]);
    }
    for (unsigned s = 0; s < TEST_STREAMS; s++)
        free(guest->state[s]);
    pthread_mutex_destroy(&guest->gate);
}

/* A guest's writes race with whoever reads its memory, by design: the dirty log makes up for it. */
__attribute__((no_sanitize("thread"))) static void store_page(void *page, uint64_t value)
{
    volatile uint64_t *words = page;
    for (unsigned i = 0; i < 512; i += 64)
        words[i] = value ? value + i : 0;
}

static void write_page(struct test_guest *guest, unsigned block, uint64_t page, uint64_t value)
{
    store_page((uint8_t *)guest->blocks[block].addr + page * 4096, value);
    atomic_store(&guest->flags[block][page], 1); /* after the write: what is read before it comes again */
}

void test_guest_write(struct test_guest *guest, unsigned block, uint64_t page, uint64_t value)
{
    pthread_mutex_lock(&guest->gate);
    if (atomic_load(&guest->running))
        write_page(guest, block, page, value);
    pthread_mutex_unlock(&guest->gate);
}

void test_guest_boot(struct test_guest *guest)
{
    for (unsigned b = 0; b < TEST_BLOCKS; b++) {
        uint64_t pages = guest->blocks[b].size / 4096;
        for (uint64_t i = 0; i < pages; i++) {
            /* runs of data with zero pages among them, and holes */
            if (b != 0 && (i / 29) % 3 == 2)
                continue;
            store_page((uint8_t *)guest->blocks[b].addr + i * 4096, i % 5 == 4 ? 0 : next_random(&guest->random) | 1);
        }
    }
    start_running(guest);
}

static void *writer_main(void *opaque)
{
    struct test_guest *guest = opaque;
    uint64_t random = guest->random + 1;
    while (!atomic_load(&guest->quit)) {
        if (atomic_load(&guest->running)) {
            pthread_mutex_lock(&guest->gate);
            for (unsigned i = 0; i < 8 && atomic_load(&guest->running); i++) {
                unsigned block = next_random(&random) % 8 ? 2 : (unsigned)(next_random(&random) % TEST_BLOCKS);
                uint64_t pages = guest->blocks[block].size / 4096;
                uint64_t page = next_random(&random) % (next_random(&random) % 8 && pages > 40 ? 40 : pages);
                write_page(guest, block, page, next_random(&random) % 6 ? next_random(&random) | 1 : 0);
            }
            pthread_mutex_unlock(&guest->gate);
        }
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL); /* its dirty rate, no synchronisation */
    }
    return NULL;
}

void test_guest_start_writer(struct test_guest *guest)
{
    guest->has_writer = pthread_create(&guest->writer, NULL, writer_main, guest) == 0;
}

void test_guest_empty(struct test_guest *guest, unsigned block, uint64_t first, uint64_t pages)
{
    if (madvise((uint8_t *)guest->blocks[block].addr + first * 4096, pages * 4096, MADV_REMOVE) != 0)
        abort();
}

void test_guest_hide_descriptors(struct test_guest *guest)
{
    for (unsigned b = 0; b < TEST_BLOCKS; b++)
        guest->blocks[b].fd = -1;
}

void test_guest_use_up(struct test_guest *guest)
{
    for (unsigned b = 0; b < TEST_BLOCKS; b++) {
        memset(guest->blocks[b].addr, 0xa5, guest->blocks[b].size);
        guest->blocks[b].content = GODWIT_BLOCK_USED;
    }
}

void test_guest_accept_by_default(struct test_guest *guest)
{
    guest->ops.accept = NULL;
}

void test_guest_clear_lazily(struct test_guest *guest)
{
    guest->lazy = true;
    guest->ops.dirty_clear = test_dirty_clear;
}

bool test_guest_equals_stopped(const struct test_guest *guest, const struct test_guest *original)
{
    for (unsigned b = 0; b < TEST_BLOCKS; b++)
        if (memcmp(guest->blocks[b].addr, original->at_stop[b], original->blocks[b].size) != 0)
            return false;
    return true;
}
