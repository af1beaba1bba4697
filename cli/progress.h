/*
 * What the user sees while a migration runs, on stderr. A terminal gets one line that is updated in place; anything
 * else gets a plain line per second. progress_say() prints whole lines that the updated line never cuts.
 *
 * Any thread may call; a mutex keeps lines whole. Output errors are ignored: a migration does not fail for them.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>

#include <godwit/info.h>

enum progress_side { PROGRESS_SOURCE, PROGRESS_DESTINATION };

struct progress {
    enum progress_side side;
    bool terminal;
    pthread_mutex_t lock;
    bool drawn; /* the updated line is on the screen */
};

void progress_init(struct progress *progress, enum progress_side side);
void progress_fini(struct progress *progress);

/* How often to look. */
int progress_interval_ms(const struct progress *progress);

/* One look at the migration: prints it, unless it is not under way. */
void progress_look(struct progress *progress, const struct godwit_info *info);

/* Between one migration and the next: removes the updated line. */
void progress_reset(struct progress *progress);

/* One line, newline added. */
__attribute__((format(printf, 2, 3))) void progress_say(struct progress *progress, const char *format, ...);

#endif
