/*
 * The command line: what a command accepts is one table of switches of its own plus, where it migrates, the library's
 * option table. args_parse() stores every value where the table says; nothing is converted a second time later.
 *
 * Happy path: --NAME VALUE and --NAME=VALUE are the same; the one positional argument is the URI. Failure modes: all
 * are GODWIT_ERR_INVALID with one line that names the remedy (the range, the choices, the nearest name).
 */
#ifndef CLI_ARGS_H
#define CLI_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <godwit/godwit.h>

enum arg_kind {
    ARG_FLAG,   /* bool */
    ARG_TEXT,   /* const char *, not empty */
    ARG_SIZE,   /* uint64_t bytes, a multiple of .multiple */
    ARG_COUNT,  /* uint64_t, .min to .max */
    ARG_CHOICE, /* unsigned, index into .choices */
};

struct arg_spec {
    const char *name; /* without dashes */
    enum arg_kind kind;
    size_t offset;              /* of the field within the group's settings; its type follows from kind */
    const char *const *choices; /* ARG_CHOICE: NULL terminated */
    uint64_t min, multiple;     /* ARG_SIZE; multiple 0 means any */
    uint64_t max;               /* ARG_COUNT */
    const char *implied;        /* ARG_CHOICE: what the name alone means; another one is attached, --NAME=VALUE. NULL: none */
    const char *value;          /* --help: what stands for the value; NULL where the choices say it */
    const char *standard;       /* --help: the default; NULL for none */
    const char *summary;        /* --help: one line */
};

struct arg_group {
    const char *title; /* --help: heading */
    const struct arg_spec *specs;
    unsigned count;
    void *settings; /* specs' offsets are into this */
};

enum { ARGS_GROUPS_MAX = 4 };

struct arg_command {
    const char *name;
    const char *synopsis; /* after the name; what stands in brackets is not broken */
    const char *summary;
    struct arg_group groups[ARGS_GROUPS_MAX];
    unsigned group_count;
    bool takes_uri;                /* exactly one positional argument, else none: an address */
    bool takes_directory;          /* the same: a path */
    enum godwit_option_side side;  /* which of the library's options belong here; 0: none */
    const char *other_side;        /* the command that takes the rest of them; NULL when this one takes all */
    struct godwit_options *options; /* receives them; borrowed */
};

struct args_result {
    bool help;       /* --help was given; nothing else is meaningful then */
    const char *uri; /* NULL unless the command takes one */
    const char *directory; /* likewise; not empty */
};

/* argv[0] is the first argument after the command's name. Strings in settings and result point into argv. */
enum godwit_err args_parse(const struct arg_command *command, int argc, char *const argv[], struct args_result *result,
                           struct godwit_error *error);

/* "channels" is a short name for "multifd-channels"; every other name stands for itself. */
const char *args_option_name(const char *name);

/* Is this an address a command can use? The form only: names are resolved later. */
enum godwit_err args_check_uri(const char *uri, struct godwit_error *error);

#endif
