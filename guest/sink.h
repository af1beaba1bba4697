/*
 * The destination guest of `godwit recv`: takes any blocks and any device state, and keeps the memory, in a file or
 * not.
 */
#ifndef GUEST_SINK_H
#define GUEST_SINK_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/guest.h>

#include "guest/memory.h"

struct sink_guest;

enum sink_mode {
    SINK_MEMORY, /* plain memory, given back by discard or free */
    SINK_DISCARD, /* nothing is kept: for measuring a link */
    SINK_DUMP,   /* one sparse file, blocks one after another in the source's order */
};

struct sink_guest_config {
    enum sink_mode mode;
    const char *dump;         /* SINK_DUMP: the file; written as <dump>.partial until sink_guest_commit */
    const char *memory_from;  /* initial content, at most as large as the blocks together; NULL: zeros */
    enum memory_backing backing; /* SINK_MEMORY */
    bool prealloc;            /* memory is populated, a dump's disk space allocated, before accept returns */
};

/* Memory, memfd. */
void sink_guest_config_init(struct sink_guest_config *config);

/* Strings are copied. INVALID when a dump has no name or is not a regular file. */
enum godwit_err sink_guest_new(struct sink_guest **out, const struct sink_guest_config *config,
                               struct godwit_error *error);

/* No blocks (it accepts them), no streams (it loads any). Valid until sink_guest_free. */
const struct godwit_guest *sink_guest_interface(const struct sink_guest *guest);

/*
 * After a migration that succeeded: makes the dump durable and gives it its name. Blocks for as long as the disk takes.
 * On failure the partial file stays, for it holds the only copy. Nothing to do in memory mode. INVALID when nothing was
 * received.
 */
enum godwit_err sink_guest_commit(struct sink_guest *guest, struct godwit_error *error);

/* Bytes of device state loaded so far. */
uint64_t sink_guest_state_bytes(const struct sink_guest *guest);

/* Block i as accepted; NULL beyond the last. */
const struct godwit_block *sink_guest_block(const struct sink_guest *guest, unsigned i);

/* An uncommitted dump that never ran (no resume) is removed. NULL is allowed. Not while a migration runs. */
void sink_guest_free(struct sink_guest *guest);

#endif
