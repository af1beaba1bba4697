#include "cli/migration.h"

#include <stdlib.h>

#include "cli/watch.h"
#include "transport/error.h"

struct migration {
    struct godwit_source *source;
    struct progress *progress;
};

static void on_event(void *opaque, const struct godwit_event *event)
{
    struct migration *migration = opaque;
    if (event->kind == GODWIT_EVENT_WARNING)
        progress_say(migration->progress, "godwit: warning: %s", event->text);
}

enum godwit_err migration_new(const struct godwit_guest *guest, const struct godwit_options *options,
                              struct progress *progress, struct migration **out, struct godwit_error *error)
{
    struct migration *migration = malloc(sizeof *migration);
    if (!migration)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a migration");
    *migration = (struct migration){.progress = progress};
    enum godwit_err err = godwit_source_new(guest, options, on_event, migration, &migration->source, error);
    if (err) {
        free(migration);
        return err;
    }
    *out = migration;
    return GODWIT_OK;
}

void migration_free(struct migration *migration)
{
    if (!migration)
        return;
    godwit_source_free(migration->source);
    free(migration);
}

static void query(void *object, struct godwit_info *info)
{
    godwit_source_query(object, info);
}

static void cancel(void *object)
{
    godwit_source_cancel(object);
}

enum godwit_err migration_run(struct migration *migration, const char *uri, int signal_fd, struct godwit_error *error)
{
    struct watch_subject subject = {.query = query, .cancel = cancel, .object = migration->source};
    struct watch *watch;
    enum godwit_err err = watch_start(signal_fd, migration->progress, &subject, &watch, error);
    if (err)
        return err;
    err = godwit_source_migrate(migration->source, uri, error);
    watch_stop(watch);
    progress_reset(migration->progress); /* takes the updated line off the terminal */
    return err;
}

struct godwit_source *migration_source(const struct migration *migration)
{
    return migration->source;
}
