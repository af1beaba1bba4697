/*
 * The source's knowledge of which slices may be placed: those that this side has registered and the destination has
 * sent a key for. Senders ask it for each run of pages, and where a slice is on its way wait a little: a link that
 * idles for a millisecond until the first keys are there costs less than the copies of pages that go inline meanwhile.
 *
 * How long: as long as there is progress in what is missing, which is a registration of ours or a key of the
 * destination's, each within the patience of the one before (or of being asked for, where nothing was due). A
 * destination that never sends a key costs the patience once.
 */
#ifndef MULTIFD_PLACEMENT_H
#define MULTIFD_PLACEMENT_H

#include "multifd/ram.h"

enum { PLACEMENT_PATIENCE_MS = 1000 }; /* much longer than a slice of the largest size takes */

struct placement;

/* NULL when memory is out. patience_ms: PLACEMENT_PATIENCE_MS, or less where the owner cannot wait so long. */
struct placement *placement_new(unsigned patience_ms);
void placement_free(struct placement *placement); /* NULL allowed; nobody is inside a call */

/* Engine thread, before the destination is told: a key for this slice may come, and is waited for. */
void placement_announce(struct placement *placement, struct slice *slice);
/* Registrar thread: this side is done with the slice; slice->mr is NULL where it will not be registered. */
void placement_registered(struct placement *placement, struct slice *slice);
/* Control thread: the destination's answer; key NULL: it does not register the slice. Takes the key, or refuses it with
 * false: one that was not asked for, or has come before. */
bool placement_take_key(struct placement *placement, struct slice *slice, struct remote *key);

struct placed {
    const struct mr *mr;
    const struct remote *remote;
};

/* Sender threads. True: what a put into this slice needs. False: its pages go inline. Adds the time that was waited. */
bool placement_ask(struct placement *placement, struct slice *slice, struct placed *out, uint64_t *waited_ns);

/* Any thread: the same for a slice that was ready before, without asking for it. */
bool placement_look(struct slice *slice, struct placed *out);

/* Any thread, for ever: nobody waits any more, from the stop of the guest or the end of the senders on. */
void placement_hurry(struct placement *placement);

#endif
