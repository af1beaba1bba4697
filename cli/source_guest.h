/* The guest that `send` and `demo` make and give away, of any type. */
#ifndef CLI_SOURCE_GUEST_H
#define CLI_SOURCE_GUEST_H

#include <stdbool.h>

#include <godwit/guest.h>

#include "cli/guest_options.h"
#include "guest/process.h"

struct source_guest;

/* Allocates and fills the memory, which may block for long, and lets the guest run. */
enum godwit_err source_guest_new(const struct guest_options *options, struct source_guest **out,
                                 struct godwit_error *error);
void source_guest_free(struct source_guest *guest); /* NULL allowed; not while a migration runs */

const struct godwit_guest *source_guest_interface(const struct source_guest *guest);

/*
 * The name of what tracks its writes, "auto" before a migration has chosen; NULL: nothing does. NULL is allowed.
 */
const char *source_guest_tracker(const struct source_guest *guest);

/* Does it run? Waits for it to do something, for at most timeout_ms; an idle guest does nothing and always passes. */
bool source_guest_runs(const struct source_guest *guest, int timeout_ms);

/* After a failed migration: looks whether the guest runs, and says so as the end of a sentence. "" for NULL. */
const char *source_guest_fate(const struct source_guest *guest);

/* --check of a guest that stayed here: does it run, and is its memory what its counters say? It is stopped then. */
enum godwit_err source_guest_check(struct source_guest *guest, struct report_check *out, struct godwit_error *error);

/* The counters, exact while the guest is stopped; false for a guest that has none. */
bool source_guest_counters(const struct source_guest *guest, struct process_counters *out);

/* Steps of all workers, or processors, together. */
uint64_t source_guest_steps(const struct process_counters *counters);

#endif
