/*
 * A few threads that register slices of guest memory, in the order in which they are queued, beside whatever else goes
 * on: pinning memory costs about as much as clearing it, and what is not registered yet travels inline.
 *
 * At the destination memory is populated first, so that running out of it is an error that names the block.
 */
#ifndef MULTIFD_REGISTRAR_H
#define MULTIFD_REGISTRAR_H

#include "multifd/ram.h"

enum { REGISTRAR_THREADS_MAX = 4 };

struct registrar;

struct registrar_config {
    struct ram *ram;       /* borrowed until free; cut into slices */
    struct domain *domain; /* borrowed */
    enum region_access access;
    bool populate;
    uint64_t max_pinned; /* bytes; what goes beyond stays unregistered. 0: no bound */
    /* Registrar thread: the slice is done with. slice->mr is its registration; NULL beyond max_pinned. Slices that were
     * queued one after the other are done at about the same time, in any order. */
    void (*done)(void *opaque, struct slice *slice);
    /* Registrar thread, once: the first that could not be registered. Nothing is taken from the queue any more. */
    void (*failed)(void *opaque, const struct godwit_error *error);
    void *opaque;
};

struct registrar_info {
    uint64_t bytes;  /* registered */
    uint32_t slices; /* registered */
    uint32_t done;   /* in all; grows while anything gets done */
};

enum godwit_err registrar_start(const struct registrar_config *config, struct registrar **out,
                                struct godwit_error *error);

/*
 * One thread at a time. Never blocks. A slice that is registered already is simply done once more, and may be queued
 * again when it has been. False: it will be done without a registration, since it is beyond max_pinned.
 */
bool registrar_queue(struct registrar *registrar, struct slice *slice);

/* Waits until all that was queued is done, at most timeout_ms. False: it is not, or never will be. */
bool registrar_wait(struct registrar *registrar, int timeout_ms);

/* Joins the threads: nothing is registered or reported after it returns. A registration under way is waited for, what
 * is only queued is dropped. Not from a registrar thread. */
void registrar_stop(struct registrar *registrar);
void registrar_free(struct registrar *registrar); /* stops; registrations stay, with the slices. NULL allowed */

/* Any thread. */
struct registrar_info registrar_info(struct registrar *registrar);

#endif
