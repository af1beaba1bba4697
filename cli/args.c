#include "cli/args.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/nearest.h"
#include "engine/transports.h"
#include "transport/address.h"
#include "transport/error.h"

enum { SWITCH_NAME_MAX = 63 };

/* One switch as typed: --NAME, --NAME=VALUE, or --NAME VALUE. */
struct typed {
    char name[SWITCH_NAME_MAX + 1];
    const char *value; /* after '=' or the next argument; NULL: there is none */
    bool attached;     /* after '=' */
};

#define wrong(error, ...) error_set((error), GODWIT_ERR_INVALID, __VA_ARGS__)

const char *args_option_name(const char *name)
{
    return strcmp(name, "channels") == 0 ? "multifd-channels" : name;
}

static const struct godwit_option *find_option(const char *name)
{
    unsigned count;
    const struct godwit_option *table = godwit_option_table(&count);
    for (unsigned i = 0; i < count; i++)
        if (strcmp(table[i].name, args_option_name(name)) == 0)
            return &table[i];
    return NULL;
}

static const struct arg_spec *find_spec(const struct arg_command *command, const char *name, void **settings)
{
    for (unsigned g = 0; g < command->group_count; g++) {
        const struct arg_group *group = &command->groups[g];
        for (unsigned i = 0; i < group->count; i++) {
            if (strcmp(group->specs[i].name, name) != 0)
                continue;
            *settings = group->settings;
            return &group->specs[i];
        }
    }
    return NULL;
}

static enum godwit_err unknown(const struct arg_command *command, const char *name, struct godwit_error *error)
{
    struct nearest nearest;
    nearest_init(&nearest, name);
    for (unsigned g = 0; g < command->group_count; g++)
        for (unsigned i = 0; i < command->groups[g].count; i++)
            nearest_offer(&nearest, command->groups[g].specs[i].name);

    unsigned count;
    const struct godwit_option *table = godwit_option_table(&count);
    if (command->side)
        nearest_offer(&nearest, "channels");
    nearest_offer(&nearest, "help");
    for (unsigned i = 0; i < count; i++)
        if (table[i].side & command->side)
            nearest_offer(&nearest, table[i].name);

    if (nearest.best)
        return wrong(error, "unknown option --%s: did you mean --%s?", name, nearest.best);
    return wrong(error, "unknown option --%s: godwit %s --help lists the options", name, command->name);
}

static enum godwit_err store_choice(const struct arg_spec *spec, const char *value, unsigned *out,
                                    struct godwit_error *error)
{
    char known[256] = "";
    for (unsigned i = 0; spec->choices[i]; i++) {
        if (strcmp(spec->choices[i], value) == 0) {
            *out = i;
            return GODWIT_OK;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", spec->choices[i]);
    }
    return wrong(error, "--%s knows no '%s': use one of %s", spec->name, value, known);
}

static enum godwit_err store_size(const struct arg_spec *spec, const char *value, uint64_t *out,
                                  struct godwit_error *error)
{
    uint64_t size;
    if (godwit_parse_size(value, &size, error))
        return error_prefix(error, "--%s", spec->name);
    if (size < spec->min)
        return wrong(error, "--%s %s is too small: use at least %" PRIu64 " bytes", spec->name, value, spec->min);
    if (spec->multiple && size % spec->multiple)
        return wrong(error, "--%s %s is not a multiple of %" PRIu64 " bytes: use %" PRIu64, spec->name, value,
                     spec->multiple, size / spec->multiple * spec->multiple + spec->multiple);
    *out = size;
    return GODWIT_OK;
}

static enum godwit_err store_count(const struct arg_spec *spec, const char *value, uint64_t *out,
                                   struct godwit_error *error)
{
    char *end = NULL;
    errno = 0;
    unsigned long long count = strtoull(value, &end, 10);
    if (value[strspn(value, "0123456789")] || *end || errno || count < spec->min || count > spec->max)
        return wrong(error, "--%s %s: use a number from %" PRIu64 " to %" PRIu64, spec->name, value, spec->min,
                     spec->max);
    *out = count;
    return GODWIT_OK;
}

static enum godwit_err store(const struct arg_spec *spec, void *settings, const struct typed *typed,
                             struct godwit_error *error)
{
    void *field = (char *)settings + spec->offset;
    if (spec->kind == ARG_FLAG) {
        if (typed->attached)
            return wrong(error, "--%s takes no value: write --%s alone", spec->name, spec->name);
        *(bool *)field = true;
        return GODWIT_OK;
    }
    if (spec->implied && !typed->attached)
        return store_choice(spec, spec->implied, field, error);
    if (!typed->value || !*typed->value)
        return wrong(error, "--%s needs a value: --%s %s", spec->name, spec->name, spec->value ? spec->value : "NAME");
    if (spec->kind == ARG_CHOICE)
        return store_choice(spec, typed->value, field, error);
    if (spec->kind == ARG_SIZE)
        return store_size(spec, typed->value, field, error);
    if (spec->kind == ARG_COUNT)
        return store_count(spec, typed->value, field, error);
    *(const char **)field = typed->value;
    return GODWIT_OK;
}

static enum godwit_err set_option(const struct arg_command *command, const struct godwit_option *option,
                                  const struct typed *typed, struct godwit_error *error)
{
    if (!(option->side & command->side))
        return wrong(error, "--%s is no option of godwit %s: give it to godwit %s", typed->name, command->name,
                     command->other_side);
    bool may_be_empty = option->kind == GODWIT_OPTION_TEXT;
    if (!typed->value || (!*typed->value && !may_be_empty))
        return wrong(error, "--%s needs a value: --%s VALUE (godwit %s --help shows its range)", typed->name,
                     typed->name, command->name);
    enum godwit_err err = godwit_options_set(command->options, option->name, typed->value, error);
    if (err == GODWIT_ERR_INVALID && !strstr(error->text, option->name))
        return error_prefix(error, "--%s", typed->name);
    return err;
}

/* Splits argv[*at]; a value that does not begin with "--" may be the next argument, which only the caller consumes. */
static enum godwit_err split(int argc, char *const argv[], int at, struct typed *typed, struct godwit_error *error)
{
    const char *name = argv[at] + 2;
    size_t length = strcspn(name, "=");
    if (length == 0 || length > SWITCH_NAME_MAX)
        return wrong(error, "%s is no option: --help lists the options", argv[at]);
    memcpy(typed->name, name, length);
    typed->name[length] = '\0';
    typed->attached = name[length] == '=';
    typed->value = NULL;
    if (typed->attached)
        typed->value = name + length + 1;
    else if (at + 1 < argc && strncmp(argv[at + 1], "--", 2) != 0)
        typed->value = argv[at + 1];
    return GODWIT_OK;
}

static enum godwit_err parse_switch(const struct arg_command *command, const struct typed *typed, bool *consumed,
                                    struct godwit_error *error)
{
    void *settings = NULL;
    const struct arg_spec *spec = find_spec(command, typed->name, &settings);
    if (spec) {
        *consumed = spec->kind != ARG_FLAG && !spec->implied && !typed->attached;
        return store(spec, settings, typed, error);
    }
    const struct godwit_option *option = find_option(typed->name);
    if (!option || !command->side)
        return unknown(command, typed->name, error);
    *consumed = !typed->attached;
    return set_option(command, option, typed, error);
}

static enum godwit_err parse_positional(const struct arg_command *command, const char *text,
                                        struct args_result *result, struct godwit_error *error)
{
    if (text[0] == '-' && text[1])
        return wrong(error, "%s is no option: options begin with --, see godwit %s --help", text, command->name);
    if (!command->takes_uri && !command->takes_directory)
        return wrong(error, "godwit %s takes no argument '%s': options begin with --", command->name, text);
    const char **operand = command->takes_uri ? &result->uri : &result->directory;
    if (*operand)
        return wrong(error, "one %s is enough: '%s' follows '%s'", command->takes_uri ? "URI" : "directory", text,
                     *operand);
    *operand = text;
    return command->takes_uri ? args_check_uri(text, error) : GODWIT_OK;
}

enum godwit_err args_parse(const struct arg_command *command, int argc, char *const argv[], struct args_result *result,
                           struct godwit_error *error)
{
    *result = (struct args_result){0};
    for (int at = 0; at < argc; at++)
        if (strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0) {
            result->help = true;
            return GODWIT_OK;
        }

    for (int at = 0; at < argc; at++) {
        enum godwit_err err;
        if (strncmp(argv[at], "--", 2) != 0) {
            err = parse_positional(command, argv[at], result, error);
        } else {
            struct typed typed;
            bool consumed = false;
            err = split(argc, argv, at, &typed, error);
            if (!err)
                err = parse_switch(command, &typed, &consumed, error);
            at += consumed;
        }
        if (err)
            return err;
    }
    if (command->takes_uri && !result->uri)
        return wrong(error, "godwit %s needs a URI: tcp:HOST:PORT, unix:PATH or rdma:HOST:PORT", command->name);
    if (command->takes_directory && (!result->directory || !*result->directory))
        return wrong(error, "godwit %s needs a directory", command->name);
    return GODWIT_OK;
}

enum godwit_err args_check_uri(const char *uri, struct godwit_error *error)
{
    struct address address;
    enum godwit_err err = address_parse(uri, &address, error);
    struct transports transports;
    return err ? err : transports_find(&address, &transports, error);
}
