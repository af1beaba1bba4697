/* One run of the source's engine with everything the tool puts around it: events, progress, Ctrl-C. */
#ifndef CLI_MIGRATION_H
#define CLI_MIGRATION_H

#include <godwit/godwit.h>

#include "cli/progress.h"

struct migration;

/* Borrows all until free. Warnings of the engine go to progress as lines. */
enum godwit_err migration_new(const struct godwit_guest *guest, const struct godwit_options *options,
                              struct progress *progress, struct migration **out, struct godwit_error *error);
void migration_free(struct migration *migration); /* NULL allowed */

/* Blocks as godwit_source_migrate() does; a signal cancels it. */
enum godwit_err migration_run(struct migration *migration, const char *uri, int signal_fd, struct godwit_error *error);

struct godwit_source *migration_source(const struct migration *migration);

#endif
