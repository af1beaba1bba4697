/*
 * The migration itself: a source that sends a running guest, and a destination that receives guests. Both block in the
 * caller's thread and own a few threads while they do; cancel, set and query may be called from any other thread.
 *
 * Exactly one side runs the guest. The source gives it up by one message, RUN; before that every failure, cancel or
 * timeout leaves (or puts) the guest running on the source; after it the source holds a stopped guest until it knows
 * (docs/protocol.md, "Exactly one side runs").
 */
#ifndef GODWIT_MIGRATION_H
#define GODWIT_MIGRATION_H

#include <godwit/api.h>
#include <godwit/error.h>
#include <godwit/guest.h>
#include <godwit/info.h>
#include <godwit/options.h>

GODWIT_BEGIN

/*
 * Events, under QEMU's names; called from a thread of the library, which waits for the return: be brief. A destination
 * warns of connections that it turned away from the threads that did so, at any time between listen and free, and so
 * perhaps while another event is being delivered.
 */
enum godwit_event_kind {
    GODWIT_EVENT_MIGRATION,      /* status changed: value is an enum godwit_status */
    GODWIT_EVENT_MIGRATION_PASS, /* a dirty bitmap sync: value is the pass, from 1 */
    GODWIT_EVENT_WARNING,        /* text says what; the migration goes on */
};

struct godwit_event {
    enum godwit_event_kind kind;
    uint64_t value;
    const char *text; /* valid during the call; NULL except for warnings */
};

typedef void godwit_event_fn(void *opaque, const struct godwit_event *event);

/* ---- source ---- */

struct godwit_source;

/* Borrows guest (and what it points to) until free; copies options. on_event may be NULL. */
GODWIT_API enum godwit_err godwit_source_new(const struct godwit_guest *guest, const struct godwit_options *options,
                                             godwit_event_fn *on_event, void *opaque, struct godwit_source **out,
                                             struct godwit_error *error);

/*
 * Migrates the guest to uri ("tcp:HOST:PORT", "unix:PATH", "rdma:HOST:PORT"). Blocks until the end:
 *   GODWIT_OK                    the guest runs on the destination; here it stays stopped
 *   GODWIT_ERR_OUTCOME_UNKNOWN   it is stopped here and may run there: godwit_source_outcome() asks again
 *   GODWIT_ERR_NOT_RESUMED       it is stopped here and runs nowhere: godwit_source_resume() tries again
 *   GODWIT_ERR_CANCELLED, other  it runs on here (status cancelled or failed)
 * Once per source object, again only after a failure that left the guest running here.
 */
GODWIT_API enum godwit_err godwit_source_migrate(struct godwit_source *source, const char *uri,
                                                 struct godwit_error *error);

/*
 * After GODWIT_ERR_OUTCOME_UNKNOWN: connects and asks the destination, for at most timeout_ms. RUNNING completes the
 * migration; NEVER resumes the guest here and fails it; UNKNOWN changes nothing, the guest stays stopped.
 */
GODWIT_API enum godwit_outcome godwit_source_outcome(struct godwit_source *source, int timeout_ms,
                                                     struct godwit_error *error);

/* Resumes a guest that a migration left stopped here: after GODWIT_ERR_NOT_RESUMED, or after
 * GODWIT_ERR_OUTCOME_UNKNOWN on a human's word that it does not run elsewhere. INVALID while a migration runs, or
 * when there is no such guest. */
GODWIT_API enum godwit_err godwit_source_resume(struct godwit_source *source, struct godwit_error *error);

/* Asks a running migration to end; it returns GODWIT_ERR_CANCELLED unless RUN was sent already. Async-signal-safe. */
GODWIT_API void godwit_source_cancel(struct godwit_source *source);

/* Changes an option that is GODWIT_SET_LIVE; BUSY for others while a migration runs. */
GODWIT_API enum godwit_err godwit_source_set(struct godwit_source *source, const char *name, const char *value,
                                             struct godwit_error *error);

/* Pages changed in a way the dirty log cannot see (discards, other mappings): they will be sent again. Any thread. */
GODWIT_API void godwit_source_mark(struct godwit_source *source, unsigned block, uint64_t first_page, uint64_t pages);

/* Never blocks for longer than a status change takes. */
GODWIT_API void godwit_source_query(struct godwit_source *source, struct godwit_info *info);

GODWIT_API void godwit_source_free(struct godwit_source *source); /* NULL allowed; not while migrate runs */

/* ---- destination ---- */

struct godwit_destination;

GODWIT_API enum godwit_err godwit_destination_new(const struct godwit_guest *guest,
                                                  const struct godwit_options *options, godwit_event_fn *on_event,
                                                  void *opaque, struct godwit_destination **out,
                                                  struct godwit_error *error);

/*
 * Starts to listen; connections are admitted and refused from here on. The listen backlog is sized from
 * multifd-channels where that was set; a clamped backlog gives a warning event. bound, if not NULL, receives the real
 * address as a URI (a port of 0 resolved), at most bound_size bytes.
 */
GODWIT_API enum godwit_err godwit_destination_listen(struct godwit_destination *destination, const char *uri,
                                                     char *bound, size_t bound_size, struct godwit_error *error);

/*
 * Serves one incoming migration from its first message to its end; blocks until a source has come.
 *   GODWIT_OK   the guest was resumed here
 *   other       the guest never ran here and never will; serve may be called for the next one
 * Garbage, port scans and refused connections do not end it; a migration that was refused in negotiation does.
 */
GODWIT_API enum godwit_err godwit_destination_serve(struct godwit_destination *destination, struct godwit_error *error);

/* Ends a running serve (GODWIT_ERR_CANCELLED) unless RUN has arrived. Async-signal-safe. */
GODWIT_API void godwit_destination_cancel(struct godwit_destination *destination);

/* Changes an option. After listen only those that are GODWIT_SET_LIVE, others are BUSY: multifd-channels sizes the
 * listen backlog, for one. */
GODWIT_API enum godwit_err godwit_destination_set(struct godwit_destination *destination, const char *name,
                                                  const char *value, struct godwit_error *error);

GODWIT_API void godwit_destination_query(struct godwit_destination *destination, struct godwit_info *info);

/*
 * Keeps answering a source that lost the connection around RUN until it has said goodbye, or for timeout_ms. A program
 * that exits after a migration calls this first, also after one that failed: a source whose RUN was lost holds its
 * guest until it is told that this side never ran it. True: nobody has a question any more. Returns at once when nobody
 * can have one, since the last migration did not get so far.
 */
GODWIT_API bool godwit_destination_linger(struct godwit_destination *destination, int timeout_ms);

/* Stops listening. What became of past migrations is forgotten: sources that ask later learn nothing. NULL allowed. */
GODWIT_API void godwit_destination_free(struct godwit_destination *destination);

GODWIT_END

#endif
