/*
 * What the user sees while a migration runs, on stderr. A terminal gets one line that is updated in place; anything
 * else gets a plain line per second and per pass. progress_say() prints whole lines that the updated line never cuts.
 *
 * Any thread may call; a mutex keeps lines whole. Output errors are ignored: a migration does not fail for them.
 */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <godwit/info.h>

enum progress_side { PROGRESS_SOURCE, PROGRESS_DESTINATION };

struct progress {
    enum progress_side side;
    bool terminal;
    pthread_mutex_t lock;
    bool drawn;          /* the updated line is on the screen */
    uint64_t last_ms;    /* of the last plain line */
    uint64_t last_pass;
};

void progress_init(struct progress *progress, enum progress_side side);
void progress_fini(struct progress *progress);

/* One look at the migration, about five times a second; prints when it is time. */
void progress_look(struct progress *progress, const struct godwit_info *info, uint64_t now_ms);

/* Forgets one migration before the next: its passes begin at zero again. Removes the updated line. */
void progress_reset(struct progress *progress);

/* One line, newline added. */
__attribute__((format(printf, 2, 3))) void progress_say(struct progress *progress, const char *format, ...);

#endif
