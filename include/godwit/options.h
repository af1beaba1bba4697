/*
 * Options: one table with the name, kind, unit, range and default of everything that can be set. Validation, --help,
 * the monitor and the documentation are made from it. Names, units, ranges and defaults are QEMU's
 * (qapi/migration.json) where QEMU has the option; the table's summary says where a default differs, and why.
 */
#ifndef GODWIT_OPTIONS_H
#define GODWIT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/api.h>
#include <godwit/error.h>

GODWIT_BEGIN

enum godwit_option_kind {
    GODWIT_OPTION_COUNT, /* a plain number */
    GODWIT_OPTION_MS,    /* milliseconds; text may end in ms or s */
    GODWIT_OPTION_RATE,  /* bytes per second; text may end in K, M, G, T (binary) */
    GODWIT_OPTION_SIZE,  /* bytes; text may end in K, M, G, T (binary) */
    GODWIT_OPTION_ENUM,  /* one of values[]; the number is its index */
    GODWIT_OPTION_TEXT,  /* any text without control characters; NULL or "" puts the default back */
};

enum godwit_option_when {
    GODWIT_SET_BEFORE, /* before listen on the destination, before migrate on the source */
    GODWIT_SET_LIVE,   /* any time; takes effect within a second */
};

enum godwit_option_side { GODWIT_SIDE_SOURCE = 1, GODWIT_SIDE_DESTINATION = 2, GODWIT_SIDE_BOTH = 3 };

struct godwit_option {
    const char *name;
    enum godwit_option_kind kind;
    enum godwit_option_when when;
    enum godwit_option_side side;
    uint64_t min, max, standard; /* inclusive range and default; of a text: bytes, and 0 */
    const char *const *values;   /* GODWIT_OPTION_ENUM: names, NULL terminated; else NULL */
    const char *standard_text;   /* GODWIT_OPTION_TEXT: the default, mostly "", which is off; else NULL */
    const char *summary;         /* one line for --help */
};

/* The table, in the order of --help; static storage. Names that begin with x- are unstable or for tests. */
GODWIT_API const struct godwit_option *godwit_option_table(unsigned *count);

/* Parses "10", "10M", "1.5G": a number with an optional binary suffix K, M, G, T (also KiB, MiB, ... spelled out). */
GODWIT_API enum godwit_err godwit_parse_size(const char *text, uint64_t *out, struct godwit_error *error);

struct godwit_options;

/* All at their defaults. NULL when memory is out. Owned by the caller. Not thread safe by itself. */
GODWIT_API struct godwit_options *godwit_options_new(void);
GODWIT_API void godwit_options_free(struct godwit_options *options); /* NULL allowed */

/* INVALID for an unknown name, a value that does not parse or is out of range (the text gives the range), or that
 * conflicts with what is set; NO_MEMORY; nothing has changed then. value is copied. It may be NULL for a text, where
 * that means the same as "": the default, as null and "" do in QEMU. */
GODWIT_API enum godwit_err godwit_options_set(struct godwit_options *options, const char *name, const char *value,
                                              struct godwit_error *error);
/* The value in the table's unit (ms, bytes per second, bytes, index). The name must be in the table, and no text. */
GODWIT_API uint64_t godwit_options_get(const struct godwit_options *options, const char *name);
/* Of a text: never NULL. Belongs to options, and lives until this option is set again. */
GODWIT_API const char *godwit_options_get_text(const struct godwit_options *options, const char *name);
/* Was it set, rather than left at its default? */
GODWIT_API bool godwit_options_is_set(const struct godwit_options *options, const char *name);

GODWIT_END

#endif
