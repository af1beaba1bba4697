/*
 * The watcher: one thread beside a migration that shows its progress and turns SIGINT and SIGTERM into a cancel.
 *
 * The signals are blocked in every thread (watch_block_signals() runs before the first one is made) and read from a
 * descriptor, so no code ever runs in a signal handler. A signal that arrives before the migration can be cancelled is
 * not lost: from then on the watcher cancels again every 50 ms until it is stopped.
 */
#ifndef CLI_WATCH_H
#define CLI_WATCH_H

#include <stdbool.h>

#include <godwit/error.h>
#include <godwit/info.h>

#include "cli/progress.h"

/* What is watched. Both are called from the watcher's thread, between start and stop only. */
struct watch_subject {
    void (*query)(void *object, struct godwit_info *info);
    void (*cancel)(void *object);
    void *object;
};

/*
 * Blocks SIGINT and SIGTERM, ignores SIGPIPE, and returns a non-blocking descriptor that reads the two; -1 with errno.
 */
int watch_block_signals(void);

/* Waits up to timeout_ms for a signal; true when one came. Not while a watcher runs. */
bool watch_signalled(int signal_fd, int timeout_ms);

struct watch;

/* Borrows everything until stop. */
enum godwit_err watch_start(int signal_fd, struct progress *progress, const struct watch_subject *subject,
                            struct watch **out, struct godwit_error *error);

/* Joins the thread and frees the watcher. True: a signal has come. NULL allowed: false. */
bool watch_stop(struct watch *watch);

#endif
