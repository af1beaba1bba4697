/* Receivers alone: records made by hand, legal and not, and memory that cannot be had. Long: each is a case here. */
#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "multifd/bitmap.h"
#include "multifd/packet.h"
#include "multifd/recv.h"
#include "tests/lib/census.h"
#include "tests/lib/gate.h"
#include "tests/lib/pair.h"
#include "transport/clock.h"

TestSuite(recv, .timeout = 60);

enum { PAGES = 64, SOON_MS = 10000 };

/* One receiver with one block; records are sent into pair.a. */
struct bench {
    struct pair pair;
    struct ram *ram;
    struct multifd_recv *recv;
    struct gate failed, markers;
    uint32_t last_marker;
    uint8_t *memory;
};

static void note_marker(void *opaque, unsigned channel, uint32_t epoch)
{
    struct bench *bench = opaque;
    bench->last_marker = epoch;
    gate_note(&bench->markers, NULL);
}

static void note_failed(void *opaque, const struct godwit_error *error)
{
    gate_note(&((struct bench *)opaque)->failed, error);
}

struct setup {
    enum pair_kind kind;
    bool used, placed;
    int progress_ms; /* 0: long */
    int fd;          /* of the memory; 0: anonymous */
};

static void bench_open(struct bench *bench, struct setup setup)
{
    *bench = (struct bench){.failed = GATE_INIT, .markers = GATE_INIT};
    cr_assert_eq(pair_open(&bench->pair, setup.kind), GODWIT_OK, "%s", bench->pair.error.text);
    int flags = setup.fd ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    bench->memory = mmap(NULL, PAGES << PAGE_SHIFT, PROT_READ | PROT_WRITE, flags, setup.fd ? setup.fd : -1, 0);
    cr_assert_neq(bench->memory, MAP_FAILED);
    struct godwit_block block = {.id = "ram",
                                 .addr = bench->memory,
                                 .size = PAGES << PAGE_SHIFT,
                                 .fd = -1,
                                 .content = setup.used ? GODWIT_BLOCK_USED : GODWIT_BLOCK_FRESH};
    bench->ram = ram_new(&block, 1, true);
    struct multifd_recv_config config = {
        .ram = bench->ram,
        .count = 1,
        .placed = setup.placed,
        .progress_ms = setup.progress_ms ? setup.progress_ms : SOON_MS,
        .marker = note_marker,
        .failed = note_failed,
        .opaque = bench,
    };
    bench->recv = multifd_recv_new(&config);
    cr_assert_eq(multifd_recv_attach(bench->recv, 0, bench->pair.b, NULL), GODWIT_OK);
    bench->pair.b = NULL;
}

static void bench_close(struct bench *bench)
{
    multifd_recv_free(bench->recv);
    cr_assert_leq(gate_count(&bench->failed), 1, "at most once");
    ram_free(bench->ram);
    munmap(bench->memory, PAGES << PAGE_SHIFT);
    pair_close(&bench->pair);
}

/* A record, head and payload: of one extent, and content of one byte throughout. */
struct record {
    uint8_t bytes[PACKET_HEADER_SIZE + PACKET_EXTENT_SIZE + PAGES * PAGE_SIZE];
    size_t head, size;
};

static struct record *pages_record(struct packet packet, struct extent extent, int content)
{
    static struct record record;
    packet.type = PACKET_PAGES;
    packet.extents = 1;
    bool has_payload = extent.kind == EXTENT_NORMAL && (packet.flags & PACKET_PLACED) == 0;
    if (has_payload && packet.payload == 0)
        packet.payload = extent.pages * PAGE_SIZE;
    record.head = packet_encode(&packet, &extent, record.bytes);
    record.size = record.head + (has_payload ? extent.pages * PAGE_SIZE : 0);
    memset(record.bytes + record.head, content, record.size - record.head);
    return &record;
}

static struct extent normal(uint64_t first, uint32_t pages)
{
    return (struct extent){.first = first, .pages = pages, .kind = EXTENT_NORMAL};
}

static struct extent zero(uint64_t first, uint32_t pages)
{
    return (struct extent){.first = first, .pages = pages, .kind = EXTENT_ZERO};
}

static struct record *marker_record(uint32_t epoch, uint32_t sequence)
{
    static struct record record;
    struct packet packet = {.type = PACKET_MARKER, .epoch = epoch, .sequence = sequence};
    record.head = record.size = packet_encode(&packet, NULL, record.bytes);
    return &record;
}

static struct record *end_record(uint32_t epoch, uint32_t sequence)
{
    static struct record record;
    struct packet packet = {.type = PACKET_END, .epoch = epoch, .sequence = sequence};
    record.head = record.size = packet_encode(&packet, NULL, record.bytes);
    return &record;
}

static void feed(struct bench *bench, const void *bytes, size_t size)
{
    cr_assert_eq(channel_send(bench->pair.a, bytes, size, NULL, 0, SOON_MS), GODWIT_OK);
}

static void feed_record(struct bench *bench, const struct record *record)
{
    feed(bench, record->bytes, record->size);
}

static void expect_failure(struct bench *bench, enum godwit_err code, const char *words)
{
    cr_assert(gate_wait(&bench->failed, 1, SOON_MS), "it has not failed");
    cr_assert_eq(bench->failed.last.code, code, "%s", bench->failed.last.text);
    cr_assert(strstr(bench->failed.last.text, words), "%s", bench->failed.last.text);
}

static void expect_untouched(const struct bench *bench)
{
    cr_assert_not(bitmap_any_atomic(bench->ram->blocks[0].received, 0, PAGES), "nothing was announced");
    for (size_t i = 0; i < (size_t)PAGES << PAGE_SHIFT; i++)
        cr_assert_eq(bench->memory[i], 0, "byte %zu", i);
}

Test(recv, records_are_stored_and_marked)
{
    struct bench bench;
    bench_open(&bench, (struct setup){.kind = PAIR_LOOP});
    feed_record(&bench, pages_record((struct packet){.epoch = 1}, normal(3, 5), 0x77));
    feed_record(&bench, marker_record(1, 1));
    cr_assert(gate_wait(&bench.markers, 1, SOON_MS), "%s", bench.failed.last.text);
    cr_assert_eq(bench.last_marker, 1);
    for (unsigned page = 0; page < PAGES; page++) {
        bool there = page >= 3 && page < 8;
        cr_assert_eq(bench.memory[page << PAGE_SHIFT], there ? 0x77 : 0);
        cr_assert_eq(bench.memory[(page << PAGE_SHIFT) + PAGE_SIZE - 1], there ? 0x77 : 0);
        cr_assert_eq(bitmap_any_atomic(bench.ram->blocks[0].received, page, 1), there);
    }
    bench_close(&bench);
}

static void expect_refused(struct setup setup, const struct record *record, const char *words)
{
    struct bench bench;
    bench_open(&bench, setup);
    feed_record(&bench, record);
    expect_failure(&bench, GODWIT_ERR_PROTOCOL, words);
    expect_untouched(&bench);
    bench_close(&bench);
}

Test(recv, hostile_records_are_protocol_errors_and_touch_nothing)
{
    struct setup plain = {.kind = PAIR_LOOP};
    expect_refused(plain, pages_record((struct packet){.epoch = 1, .sequence = 1}, normal(0, 1), 1),
                   "record 1 where 0 was due");
    expect_refused(plain, pages_record((struct packet){.epoch = 2}, normal(0, 1), 1), "epoch 2 where 1 is open");
    expect_refused(plain, pages_record((struct packet){.epoch = 0}, normal(0, 1), 1), "epoch 0 where 1 is open");
    expect_refused(plain, marker_record(2, 0), "epoch 2 where 1 is open");
    expect_refused(plain, pages_record((struct packet){.epoch = 1, .flags = PACKET_PLACED}, normal(0, 1), 0),
                   "not agreed on");
    expect_refused(plain, pages_record((struct packet){.epoch = 1, .payload = 2 * PAGE_SIZE}, normal(0, 1), 1),
                   "malformed");
    expect_refused(plain, pages_record((struct packet){.epoch = 1}, normal(PAGES, 1), 1), "leaves the guest's memory");
    expect_refused(plain, pages_record((struct packet){.epoch = 1}, normal(PAGES - 1, 2), 1),
                   "leaves the guest's memory");
    expect_refused(plain, pages_record((struct packet){.epoch = 1}, zero(0, PAGES + 1), 1),
                   "leaves the guest's memory");
    expect_refused(plain, pages_record((struct packet){.epoch = 1}, zero(0, 0), 1), "leaves the guest's memory");
    expect_refused(
        plain,
        pages_record((struct packet){.epoch = 1}, (struct extent){.block = 1, .pages = 1, .kind = EXTENT_ZERO}, 1),
        "leaves the guest's memory");
}

Test(recv, repeated_record_and_repeated_marker_are_protocol_errors)
{
    for (unsigned marker = 0; marker < 2; marker++) {
        struct bench bench;
        bench_open(&bench, (struct setup){.kind = PAIR_LOOP});
        for (unsigned i = 0; i < 2; i++)
            feed_record(&bench,
                        marker ? marker_record(1, 0) : pages_record((struct packet){.epoch = 1}, normal(0, 1), 1));
        expect_failure(&bench, GODWIT_ERR_PROTOCOL, "where 1 was due");
        cr_assert_eq(gate_count(&bench.markers), marker);
        bench_close(&bench);
    }
}

Test(recv, garbage_is_a_protocol_error)
{
    srand(1);
    for (unsigned round = 0; round < 200; round++) {
        struct record garbage = {.size = 4096};
        for (unsigned i = 0; i < garbage.size; i++)
            garbage.bytes[i] = (uint8_t)rand();
        expect_refused((struct setup){.kind = round % 20 ? PAIR_LOOP : PAIR_TCP4}, &garbage, "data record");
    }
}

Test(recv, every_flipped_bit_of_a_head_is_refused_and_nothing_is_touched)
{
    for (size_t bit = 0; bit < (PACKET_HEADER_SIZE + PACKET_EXTENT_SIZE) * 8; bit++) {
        struct record record = *pages_record((struct packet){.epoch = 1}, normal(7, 2), 0x77);
        struct bench bench;
        record.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        bench_open(&bench, (struct setup){.kind = PAIR_LOOP});
        feed_record(&bench, &record);
        /* A larger count of extents eats the payload for extents: then the checksum is wrong, or the stream ends. */
        channel_shutdown(bench.pair.a);
        cr_assert(gate_wait(&bench.failed, 1, SOON_MS));
        enum godwit_err code = bench.failed.last.code;
        cr_assert(code == GODWIT_ERR_PROTOCOL || code == GODWIT_ERR_RESET, "bit %zu: %s", bit, bench.failed.last.text);
        expect_untouched(&bench);
        bench_close(&bench);
    }
}

Test(recv, record_that_ends_early_is_an_error_at_every_length_of_its_head)
{
    struct record whole = *pages_record((struct packet){.epoch = 1}, normal(7, 2), 0x77);
    for (size_t size = 0; size < whole.size; size += size < whole.head + 2 ? 1 : 1021) {
        struct bench bench;
        bench_open(&bench, (struct setup){.kind = PAIR_LOOP});
        feed(&bench, whole.bytes, size);
        channel_shutdown(bench.pair.a);
        cr_assert(gate_wait(&bench.failed, 1, SOON_MS), "%zu bytes", size);
        enum godwit_err code = bench.failed.last.code;
        cr_assert(code == GODWIT_ERR_PEER_CLOSED || code == GODWIT_ERR_RESET, "%zu: %s", size, bench.failed.last.text);
        cr_assert_not(bitmap_any_atomic(bench.ram->blocks[0].received, 0, PAGES), "%zu bytes announce nothing", size);
        bench_close(&bench);
    }
}

Test(recv, record_that_stops_half_way_has_failed_in_time)
{
    static const size_t sizes[] = {1, 31, 32, 33, 47, 48, 49, 5000};
    for (unsigned i = 0; i < 16; i++) {
        struct bench bench;
        bench_open(&bench, (struct setup){.kind = i % 2 ? PAIR_TCP4 : PAIR_LOOP, .progress_ms = 100});
        feed(&bench, pages_record((struct packet){.epoch = 1}, normal(7, 2), 0x77)->bytes, sizes[i / 2]);
        cr_assert(gate_wait(&bench.failed, 1, 1200), "%zu bytes and silence", sizes[i / 2]);
        enum godwit_err code = bench.failed.last.code;
        cr_assert(code == GODWIT_ERR_STALLED || code == GODWIT_ERR_TIMEOUT, "%s", bench.failed.last.text);
        bench_close(&bench);
    }
}

Test(recv, silence_between_records_is_no_failure)
{
    struct bench bench;
    bench_open(&bench, (struct setup){.kind = PAIR_TCP4, .progress_ms = 30});
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_not(gate_wait(&bench.failed, 1, 150), "%s", bench.failed.last.text);
        feed_record(&bench, pages_record((struct packet){.epoch = i + 1, .sequence = 2 * i}, normal(i, 1), 1));
        feed_record(&bench, marker_record(i + 1, 2 * i + 1));
        cr_assert(gate_wait(&bench.markers, i + 1, SOON_MS), "%s", bench.failed.last.text);
    }
    bench_close(&bench);
}

Test(recv, stop_ends_those_who_wait_anywhere_and_reports_nothing)
{
    static const size_t sizes[] = {0, 1, 31, 32, 40, 48, 5000};
    for (unsigned i = 0; i < 14; i++) {
        struct bench bench;
        bench_open(&bench, (struct setup){.kind = i % 2 ? PAIR_TCP4 : PAIR_LOOP});
        feed(&bench, pages_record((struct packet){.epoch = 1}, normal(7, 2), 0x77)->bytes, sizes[i / 2]);
        uint64_t start = clock_now_ms();
        multifd_recv_stop(bench.recv);
        cr_assert_lt(clock_now_ms() - start, 1000);
        multifd_recv_stop(bench.recv);
        bench_close(&bench);
        cr_assert_eq(gate_count(&bench.failed), 0, "%s", bench.failed.last.text);
    }
}

Test(recv, one_that_never_got_its_channel_is_freed)
{
    struct godwit_block block = {.id = "ram", .size = PAGE_SIZE, .fd = -1};
    struct ram *ram = ram_new(&block, 1, true);
    struct multifd_recv_config config = {.ram = ram, .count = 4, .marker = note_marker, .failed = note_failed};
    struct multifd_recv *recv = multifd_recv_new(&config);
    multifd_recv_stop(recv);
    multifd_recv_free(recv);
    multifd_recv_free(NULL);
    ram_free(ram);
    ram_free(NULL);
}

/* ---- a channel that goes on by another connection ---- */

/* Another connection of the channel; returns its near end, and the far one in *far. */
static struct channel *connect_next(struct bench *bench, struct channel **far)
{
    struct channel *before = bench->pair.a;
    cr_assert_eq(pair_connect(&bench->pair), GODWIT_OK, "%s", bench->pair.error.text);
    struct channel *near = bench->pair.a;
    *far = bench->pair.b;
    bench->pair.a = before;
    bench->pair.b = NULL;
    return near;
}

static void attach_next(struct bench *bench, struct channel *far)
{
    struct godwit_error error = {0};
    cr_assert(multifd_recv_expects(bench->recv, 0));
    cr_assert_eq(multifd_recv_attach(bench->recv, 0, far, &error), GODWIT_OK, "%s", error.text);
}

static void expect_closed(struct channel *near)
{
    char byte;
    cr_assert_eq(channel_recv_exact(near, &byte, 1, SOON_MS), GODWIT_ERR_PEER_CLOSED);
}

static const enum pair_kind stream_kinds[] = {PAIR_LOOP, PAIR_TCP4, PAIR_UNIX};

/* early: it is attached before the end of the one before has come. Sequence and epochs go on. */
static void expect_to_go_on(enum pair_kind kind, bool early)
{
    struct bench bench;
    struct channel *far;
    struct godwit_channel_info info;
    bench_open(&bench, (struct setup){.kind = kind});
    for (uint32_t i = 0; i < 3; i++) {
        struct channel *next = connect_next(&bench, &far);
        if (early)
            attach_next(&bench, far);
        cr_assert_eq(multifd_recv_expects(bench.recv, 0), !early);
        feed_record(&bench, pages_record((struct packet){.epoch = i + 1, .sequence = 3 * i}, normal(i, 1), 1));
        feed_record(&bench, end_record(i + 1, 3 * i + 1));
        if (!early)
            attach_next(&bench, far);
        expect_closed(bench.pair.a);
        channel_free(bench.pair.a);
        bench.pair.a = next;
        feed_record(&bench, marker_record(i + 1, 3 * i + 2));
        cr_assert(gate_wait(&bench.markers, i + 1, SOON_MS), "%s", bench.failed.last.text);
    }
    multifd_recv_info(bench.recv, 0, &info);
    cr_assert_eq(info.replacements, 3);
    cr_assert_eq(info.bytes, 3 * (3 * PACKET_HEADER_SIZE + PACKET_EXTENT_SIZE + PAGE_SIZE));
    cr_assert(bitmap_all_atomic(bench.ram->blocks[0].received, 0, 3));
    cr_assert_eq(gate_count(&bench.failed), 0);
    bench_close(&bench);
}

Test(recv, channel_goes_on_by_another_connection_whichever_is_first_that_or_the_end)
{
    for (unsigned i = 0; i < 6; i++)
        expect_to_go_on(stream_kinds[i / 2], i % 2);
}

Test(recv, end_that_no_connection_follows_has_failed_in_time)
{
    for (unsigned k = 0; k < 3; k++) {
        struct bench bench;
        bench_open(&bench, (struct setup){.kind = stream_kinds[k], .progress_ms = 100});
        feed_record(&bench, end_record(1, 0));
        expect_failure(&bench, GODWIT_ERR_STALLED, "no connection followed within 100 ms");
        bench_close(&bench);
    }
}

Test(recv, connection_that_closes_without_an_end_is_an_error_though_another_one_is_there)
{
    for (unsigned k = 0; k < 3; k++) {
        struct bench bench;
        struct channel *far;
        bench_open(&bench, (struct setup){.kind = stream_kinds[k]});
        struct channel *next = connect_next(&bench, &far);
        attach_next(&bench, far);
        channel_shutdown(bench.pair.a);
        expect_failure(&bench, GODWIT_ERR_PEER_CLOSED, "data channel 0");
        bench_close(&bench);
        channel_free(next);
    }
}

Test(recv, only_one_connection_ahead_is_expected_and_others_are_closed)
{
    struct bench bench;
    struct channel *far;
    struct godwit_error error = {0};
    bench_open(&bench, (struct setup){.kind = PAIR_UNIX});
    struct channel *next = connect_next(&bench, &far);
    attach_next(&bench, far);
    cr_assert_not(multifd_recv_expects(bench.recv, 0));
    struct channel *third = connect_next(&bench, &far);
    cr_assert_eq(multifd_recv_attach(bench.recv, 0, far, &error), GODWIT_ERR_PROTOCOL);
    cr_assert(strstr(error.text, "data channel 0"), "%s", error.text);
    expect_closed(third);
    channel_free(third);
    feed_record(&bench, end_record(1, 0));
    expect_closed(bench.pair.a);
    cr_assert(multifd_recv_expects(bench.recv, 0), "the one that waited has its turn before the old one is closed");
    bench_close(&bench);
    channel_free(next);
}

Test(recv, after_stop_no_connection_is_expected_and_none_stays)
{
    struct bench bench;
    struct channel *far;
    bench_open(&bench, (struct setup){.kind = PAIR_TCP4});
    multifd_recv_stop(bench.recv);
    cr_assert_not(multifd_recv_expects(bench.recv, 0));
    struct channel *next = connect_next(&bench, &far);
    cr_assert_eq(multifd_recv_attach(bench.recv, 0, far, NULL), GODWIT_ERR_PROTOCOL);
    expect_closed(next);
    bench_close(&bench);
    channel_free(next);
}

Test(recv, stop_ends_one_that_waits_for_a_connection_and_one_that_waits_for_its_turn)
{
    for (unsigned i = 0; i < 2; i++) {
        unsigned fds = census_fds();
        struct bench bench;
        struct channel *far, *next = NULL;
        bench_open(&bench, (struct setup){.kind = PAIR_TCP4});
        if (i == 0) {
            feed_record(&bench, end_record(1, 0));
        } else {
            next = connect_next(&bench, &far);
            attach_next(&bench, far);
        }
        uint64_t start = clock_now_ms();
        multifd_recv_stop(bench.recv);
        cr_assert_lt(clock_now_ms() - start, 1000);
        bench_close(&bench);
        cr_assert_eq(gate_count(&bench.failed), 0, "%s", bench.failed.last.text);
        channel_free(next);
        cr_assert_eq(census_fds(), fds);
    }
}

Test(recv, end_is_counted_and_checked_like_every_record)
{
    static const struct {
        uint32_t epoch, sequence;
        const char *words;
    } rows[] = {{1, 1, "record 1 where 0 was due"}, {2, 0, "epoch 2 where 1 is open"}};
    for (unsigned i = 0; i < 2; i++) {
        struct bench bench;
        struct channel *far;
        bench_open(&bench, (struct setup){.kind = PAIR_LOOP});
        struct channel *next = connect_next(&bench, &far);
        attach_next(&bench, far);
        feed_record(&bench, end_record(rows[i].epoch, rows[i].sequence));
        expect_failure(&bench, GODWIT_ERR_PROTOCOL, rows[i].words);
        bench_close(&bench);
        channel_free(next);
    }
}

/* No thread can be had: no address space holds such a stack. */
static void make_threads_impossible(bool impossible)
{
    static size_t before;
    pthread_attr_t attr;
    pthread_getattr_default_np(&attr);
    if (impossible)
        pthread_attr_getstacksize(&attr, &before);
    pthread_attr_setstacksize(&attr, impossible ? (size_t)1 << 46 : before);
    cr_assert_eq(pthread_setattr_default_np(&attr), 0);
    pthread_attr_destroy(&attr);
}

Test(recv, channel_is_owned_also_when_its_thread_cannot_be_started)
{
    unsigned fds = census_fds();
    struct pair pair;
    struct godwit_error error;
    struct godwit_block block = {.id = "ram", .size = PAGE_SIZE, .fd = -1};
    struct ram *ram = ram_new(&block, 1, true);
    struct multifd_recv_config config = {.ram = ram, .count = 1, .marker = note_marker, .failed = note_failed};
    struct multifd_recv *recv = multifd_recv_new(&config);
    cr_assert_eq(pair_open(&pair, PAIR_TCP4), GODWIT_OK);
    make_threads_impossible(true);
    cr_assert_eq(multifd_recv_attach(recv, 0, pair.b, &error), GODWIT_ERR_NO_MEMORY);
    make_threads_impossible(false);
    cr_assert(strstr(error.text, "receiver thread 0"), "%s", error.text);
    pair.b = NULL;
    multifd_recv_free(recv);
    ram_free(ram);
    pair_close(&pair);
    cr_assert_eq(census_fds(), fds);
}

/*
 * Half of the block is not there: a store, or a load, would be SIGBUS, as on a full tmpfs. announced: the pages were
 * received as zeros before, which must not be taken for being there.
 */
static void expect_no_memory(enum pair_kind kind, bool used, bool announced, struct extent extent)
{
    struct bench bench;
    struct packet packet = {.epoch = 1};
    int fd = memfd_create("half", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(fd, (PAGES / 2) << PAGE_SHIFT), 0);
    bench_open(&bench, (struct setup){.kind = kind, .used = used, .fd = fd});
    if (announced) {
        feed_record(&bench, pages_record(packet, zero(0, PAGES), 0));
        packet.sequence++;
    }
    feed_record(&bench, pages_record(packet, extent, 0x77));
    expect_failure(&bench, GODWIT_ERR_NO_MEMORY, "block ram");
    bench_close(&bench);
    close(fd);
}

Test(recv, memory_that_cannot_be_had_is_an_error_and_no_signal)
{
    for (unsigned tcp = 0; tcp < 2; tcp++) {
        enum pair_kind kind = tcp ? PAIR_TCP4 : PAIR_LOOP;
        expect_no_memory(kind, false, false, normal(PAGES / 2 - 4, 8));
        expect_no_memory(kind, false, false, normal(PAGES - 1, 1));
        expect_no_memory(kind, true, false, normal(PAGES - 1, 1));
        expect_no_memory(kind, true, false, zero(PAGES - 1, 1));
        expect_no_memory(kind, true, false, zero(0, PAGES));
        expect_no_memory(kind, false, true, normal(PAGES - 1, 1));
    }
}

Test(recv, zeros_over_a_hole_that_was_announced_as_zeros_need_no_memory)
{
    struct bench bench;
    int fd = memfd_create("nothing", MFD_CLOEXEC);
    bench_open(&bench, (struct setup){.kind = PAIR_LOOP, .fd = fd});
    for (uint32_t i = 0; i < 3; i++)
        feed_record(&bench, pages_record((struct packet){.epoch = 1, .sequence = i}, zero(i, PAGES - i), 0));
    feed_record(&bench, marker_record(1, 3));
    cr_assert(gate_wait(&bench.markers, 1, SOON_MS), "%s", bench.failed.last.text);
    bench_close(&bench);
    close(fd);
}

/* A tmpfs of half the block's size, mounted where nobody else sees it; -1 where that is not allowed. */
static int full_tmpfs(void)
{
    char dir[] = "/tmp/godwit-recv-XXXXXX", path[64];
    if (mkdtemp(dir) == NULL)
        return -1;
    int fd = -1;
    bool apart = unshare(CLONE_NEWNS) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
    if (apart && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("none", dir, "tmpfs", 0, "size=128k") == 0) {
        snprintf(path, sizeof path, "%s/ram", dir);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        umount2(dir, MNT_DETACH);
    }
    rmdir(dir);
    return fd;
}

Test(recv, full_tmpfs_is_an_error_and_no_signal)
{
    for (unsigned i = 0; i < 4; i++) {
        struct bench bench;
        int fd = full_tmpfs();
        if (fd < 0)
            cr_skip_test("this user may not mount a tmpfs, not even in a namespace of its own");
        cr_assert_eq(ftruncate(fd, PAGES << PAGE_SHIFT), 0);
        bench_open(&bench, (struct setup){.kind = i % 2 ? PAIR_TCP4 : PAIR_LOOP, .used = i >= 2, .fd = fd});
        struct packet packet = {.epoch = 1};
        if (i >= 2) /* zeros over holes of a block of unknown content: even a load takes memory there */
            feed_record(&bench, pages_record(packet, zero(0, PAGES), 0));
        else
            for (; packet.sequence < PAGES / 8; packet.sequence++)
                feed_record(&bench, pages_record(packet, normal(8 * packet.sequence, 8), 0x77));
        expect_failure(&bench, GODWIT_ERR_NO_MEMORY, "is full");
        bench_close(&bench);
        close(fd);
    }
}
