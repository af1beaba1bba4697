#include "cli/help.h"

#include <inttypes.h>
#include <string.h>

enum { HELP_COLUMNS = 100, HELP_INDENT = 32, HELP_SYNOPSIS_INDENT = 7, HELP_TEXT_MAX = 1024 };

/* A word ends at a space, but "[--dump FILE | --discard]" is one. */
static size_t word_length(const char *text)
{
    int depth = 0;
    size_t length = 0;
    for (; text[length] && (depth > 0 || text[length] != ' '); length++)
        depth += (text[length] == '[') - (text[length] == ']');
    return length;
}

/* Writes text from column `at` on, breaks lines between words, and begins further lines at column `indent`. */
static void put_wrapped(FILE *out, const char *text, unsigned at, unsigned indent)
{
    unsigned column = at;
    const char *gap = "";
    while (*text) {
        size_t word = word_length(text);
        if (column > indent && column + strlen(gap) + word > HELP_COLUMNS) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            gap = "";
        }
        column += (unsigned)fprintf(out, "%s%.*s", gap, (int)word, text);
        text += word;
        text += strspn(text, " ");
        gap = " ";
    }
    fputc('\n', out);
}

static void put_entry(FILE *out, const char *name, const char *value, const char *text)
{
    int width = fprintf(out, "  --%s%s%s", name, *value && *value != '[' ? " " : "", value);
    if (width >= HELP_INDENT) {
        fputc('\n', out);
        width = 0;
    }
    fprintf(out, "%*s", HELP_INDENT - width, "");
    put_wrapped(out, text, HELP_INDENT, HELP_INDENT);
}

static void join(const char *const *names, const char *separator, char *text, size_t size)
{
    text[0] = '\0';
    for (unsigned i = 0; names[i]; i++) {
        size_t used = strlen(text);
        snprintf(text + used, size - used, "%s%s", i ? separator : "", names[i]);
    }
}

static void put_spec(FILE *out, const struct arg_spec *spec)
{
    char value[HELP_TEXT_MAX] = "", text[HELP_TEXT_MAX];
    if (spec->kind == ARG_CHOICE)
        join(spec->choices, "|", text, sizeof text);
    if (spec->kind == ARG_CHOICE)
        snprintf(value, sizeof value, spec->implied ? "[=%.200s]" : "%.200s", text);
    else if (spec->kind != ARG_FLAG)
        snprintf(value, sizeof value, "%s", spec->value);
    snprintf(text, sizeof text, spec->standard ? "%s (default %s)" : "%s", spec->summary, spec->standard);
    put_entry(out, spec->name, value, text);
}

/* A rate or size in the largest binary unit that shows it exactly; other kinds as they are. */
static void put_number(const struct godwit_option *option, uint64_t n, char *text, size_t size)
{
    static const char suffix[] = {'\0', 'K', 'M', 'G', 'T'};
    unsigned unit = 0;
    bool binary = option->kind == GODWIT_OPTION_RATE || option->kind == GODWIT_OPTION_SIZE;
    while (binary && n && n % 1024 == 0 && unit + 1 < sizeof suffix) {
        n /= 1024;
        unit++;
    }
    snprintf(text, size, "%" PRIu64 "%.1s", n, &suffix[unit]);
}

/* The option's range in its own unit, with an open upper end where the table has none. */
static void describe_range(const struct godwit_option *option, char *text, size_t size)
{
    char low[32], high[32], standard[32];
    put_number(option, option->min, low, sizeof low);
    put_number(option, option->max, high, sizeof high);
    put_number(option, option->standard, standard, sizeof standard);
    const char *unit = option->kind == GODWIT_OPTION_MS     ? " ms"
                       : option->kind == GODWIT_OPTION_RATE ? " bytes/s"
                       : option->kind == GODWIT_OPTION_SIZE ? " bytes"
                                                            : "";
    if (option->max >= INT64_MAX)
        snprintf(text, size, "From %s%s, default %s", low, unit, standard);
    else
        snprintf(text, size, "Range %s to %s%s, default %s", low, high, unit, standard);
}

static const char *value_name(const struct godwit_option *option)
{
    switch (option->kind) {
    case GODWIT_OPTION_MS:
        return "MS";
    case GODWIT_OPTION_RATE:
        return "BYTES/s";
    case GODWIT_OPTION_SIZE:
        return "BYTES";
    case GODWIT_OPTION_ENUM:
        return "NAME";
    case GODWIT_OPTION_TEXT:
        return "TEXT";
    case GODWIT_OPTION_COUNT:
        break;
    }
    return "N";
}

static void describe_values(const struct godwit_option *option, char *text, size_t size)
{
    char names[HELP_TEXT_MAX];
    switch (option->kind) {
    case GODWIT_OPTION_ENUM:
        join(option->values, ", ", names, sizeof names);
        snprintf(text, size, "One of %.700s; default %s", names, option->values[option->standard]);
        break;
    case GODWIT_OPTION_TEXT:
        snprintf(text, size, "Default %s", *option->standard_text ? option->standard_text : "none");
        break;
    default:
        describe_range(option, text, size);
    }
}

static void put_option(FILE *out, const struct godwit_option *option)
{
    char range[HELP_TEXT_MAX], text[HELP_TEXT_MAX];
    describe_values(option, range, sizeof range);
    bool has_alias = strcmp(option->name, args_option_name("channels")) == 0;
    snprintf(text, sizeof text, "%.400s. %.560s%s", option->summary, range, has_alias ? "; short: --channels" : "");
    put_entry(out, option->name, value_name(option), text);
}

static bool is_unstable(const struct godwit_option *option)
{
    return strncmp(option->name, "x-", 2) == 0;
}

static void put_options(FILE *out, const char *title, enum godwit_option_side asked, enum godwit_option_side side,
                        bool unstable)
{
    unsigned count;
    const struct godwit_option *table = godwit_option_table(&count);
    bool any = false;
    for (unsigned i = 0; i < count; i++) {
        if (!(table[i].side & asked) || is_unstable(&table[i]) != unstable)
            continue;
        if (!unstable && table[i].side != side)
            continue;
        if (!any)
            fprintf(out, "\n%s\n", title);
        any = true;
        put_option(out, &table[i]);
    }
}

static void put_synopsis(FILE *out, const struct arg_command *command, const char *lead)
{
    fprintf(out, "%-*sgodwit %s ", HELP_SYNOPSIS_INDENT, lead, command->name);
    unsigned indent = HELP_SYNOPSIS_INDENT + (unsigned)strlen("godwit ") + (unsigned)strlen(command->name) + 1;
    put_wrapped(out, command->synopsis, indent, indent);
}

void help_command(FILE *out, const struct arg_command *command)
{
    put_synopsis(out, command, "usage:");
    fputc('\n', out);
    put_wrapped(out, command->summary, 0, 0);
    for (unsigned g = 0; g < command->group_count; g++) {
        fprintf(out, "\n%s\n", command->groups[g].title);
        for (unsigned i = 0; i < command->groups[g].count; i++)
            put_spec(out, &command->groups[g].specs[i]);
    }
    put_options(out, "Migration, both sides:", command->side, GODWIT_SIDE_BOTH, false);
    put_options(out, "Migration, source:", command->side, GODWIT_SIDE_SOURCE, false);
    put_options(out, "Migration, destination:", command->side, GODWIT_SIDE_DESTINATION, false);
    put_options(out, "Unstable and for tests:", command->side, GODWIT_SIDE_BOTH, true);
    if (!command->side)
        return;
    fputs("\nSizes and rates take K, M, G, T (binary), times take ms or s, an empty TEXT is the default.\n"
          "Names, units, ranges and defaults are QEMU's where QEMU has the option.\n",
          out);
}

void help_all(FILE *out, const struct arg_command *const commands[], unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        put_synopsis(out, commands[i], i ? "" : "usage:");
    fputs("       godwit COMMAND --help | --version\n\n"
          "Moves the memory of a running guest to another host while the guest runs.\n\n",
          out);
    for (unsigned i = 0; i < count; i++) {
        fprintf(out, "  %-8s", commands[i]->name);
        put_wrapped(out, commands[i]->summary, 10, 10);
    }
    fputs("\nURIs: tcp:HOST:PORT, unix:PATH, rdma:HOST:PORT\n"
          "Exit codes: 0 done; 1 failed, the guest is safe on the source; 2 usage; 3 outcome unknown\n",
          out);
}
