/*
 * The guest's clock. State that comes from a host with another boot id, or from the future, leaves the switchover gap
 * unknown: CLOCK_MONOTONIC of two machines, or of two boots, has no common zero.
 */
#include "guest/process_clock.h"

#include <fcntl.h>
#include <unistd.h>

#include "guest/guest_error.h"
#include "guest/state_codec.h"

enum { CLOCK_STATE_VERSION = 1 };

void process_clock_init(struct process_clock *clock)
{
    *clock = (struct process_clock){0};
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    char text[PROCESS_BOOT_ID];
    if (read(fd, text, sizeof text) == (ssize_t)sizeof text)
        memcpy(clock->boot_id, text, sizeof text);
    close(fd);
}

void process_clock_tick(struct process_clock *clock, uint64_t now_ns)
{
    uint64_t last = atomic_load_explicit(&clock->last_ns, memory_order_relaxed);
    uint64_t gap = last && now_ns > last ? now_ns - last : 0;
    if (gap > atomic_load_explicit(&clock->longest_ns, memory_order_relaxed))
        atomic_store_explicit(&clock->longest_ns, gap, memory_order_relaxed);
    if (atomic_load_explicit(&clock->arriving, memory_order_relaxed)) {
        atomic_store_explicit(&clock->arriving, false, memory_order_relaxed);
        atomic_store_explicit(&clock->switchover_ns, gap, memory_order_relaxed);
        /* Release: pairs with the acquire in process_clock_gap, so that who sees "known" sees the figure. */
        atomic_store_explicit(&clock->switchover_known, last != 0, memory_order_release);
    }
    atomic_store_explicit(&clock->last_ns, now_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&clock->ticks, 1, memory_order_relaxed);
}

void process_clock_gap(const struct process_clock *clock, struct process_gap *out)
{
    out->switchover_known = atomic_load_explicit(&clock->switchover_known, memory_order_acquire);
    out->switchover_ns = atomic_load_explicit(&clock->switchover_ns, memory_order_relaxed);
    out->longest_ns = atomic_load_explicit(&clock->longest_ns, memory_order_relaxed);
}

void process_clock_save(const struct process_clock *clock, uint8_t out[PROCESS_CLOCK_STATE])
{
    struct state_cursor cursor = {out, out + PROCESS_CLOCK_STATE, false};
    state_put(&cursor, CLOCK_STATE_VERSION, 4);
    state_put(&cursor, atomic_load_explicit(&clock->ticks, memory_order_relaxed), 8);
    state_put(&cursor, atomic_load_explicit(&clock->last_ns, memory_order_relaxed), 8);
    state_put(&cursor, atomic_load_explicit(&clock->longest_ns, memory_order_relaxed), 8);
    state_put_bytes(&cursor, clock->boot_id, sizeof clock->boot_id);
}

enum godwit_err process_clock_load(struct process_clock *clock, const void *data, size_t size, uint64_t now_ns,
                                   struct godwit_error *error)
{
    const char unknown[PROCESS_BOOT_ID] = {0};
    struct state_reader reader = {data, (const uint8_t *)data + size, false};
    uint64_t version = state_get(&reader, 4);
    uint64_t ticks = state_get(&reader, 8), last = state_get(&reader, 8), longest = state_get(&reader, 8);
    char boot_id[PROCESS_BOOT_ID];
    state_get_bytes(&reader, boot_id, sizeof boot_id);
    if (!state_done(&reader))
        return guest_fail(error, GODWIT_ERR_GUEST, "the guest's clock has %zu bytes of state instead of %d", size,
                          PROCESS_CLOCK_STATE);
    if (version != CLOCK_STATE_VERSION)
        return guest_fail(error, GODWIT_ERR_GUEST, "the guest's clock has state of version %u, this side knows %d",
                          (unsigned)version, CLOCK_STATE_VERSION);
    if ((ticks == 0 && last != 0) || last > INT64_MAX || longest > INT64_MAX)
        return guest_fail(error, GODWIT_ERR_GUEST, "the guest's clock has impossible state");
    bool comparable = memcmp(boot_id, clock->boot_id, sizeof boot_id) == 0 &&
                      memcmp(boot_id, unknown, sizeof unknown) != 0 && last <= now_ns;
    atomic_store_explicit(&clock->ticks, ticks, memory_order_relaxed);
    atomic_store_explicit(&clock->longest_ns, longest, memory_order_relaxed);
    atomic_store_explicit(&clock->last_ns, comparable ? last : 0, memory_order_relaxed);
    atomic_store_explicit(&clock->switchover_known, false, memory_order_relaxed);
    atomic_store_explicit(&clock->arriving, true, memory_order_relaxed);
    return GODWIT_OK;
}
