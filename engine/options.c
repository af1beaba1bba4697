/*
 * The option table and its values. Everything that parses, checks, lists or documents an option reads this table;
 * nothing else knows a name, a range or a default.
 */
#include "engine/options.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/sabotage.h"
#include "transport/error.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

static const char *const zero_page_detection[] = {"none", "multifd", NULL};
static const char *const off_on[] = {"off", "on", NULL};

enum { OPTION_TEXT_MAX = 4096 /* bytes */ };

static const struct godwit_option table[] = {
    {"multifd-channels", GODWIT_OPTION_COUNT, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 1, 255, 2, NULL, NULL,
     "data channels; a destination that sets none adopts the source's number"},
    {"max-bandwidth", GODWIT_OPTION_RATE, GODWIT_SET_LIVE, GODWIT_SIDE_SOURCE, 0, UINT64_MAX, 0, NULL, NULL,
     "limit over all channels while the guest runs; 0: none (QEMU's default of 128M is its users' first trap)"},
    {"downtime-limit", GODWIT_OPTION_MS, GODWIT_SET_LIVE, GODWIT_SIDE_SOURCE, 0, 2000000, 300, NULL, NULL,
     "the guest is stopped when the rest is expected to take no longer"},
    {"avail-switchover-bandwidth", GODWIT_OPTION_RATE, GODWIT_SET_LIVE, GODWIT_SIDE_SOURCE, 0, UINT64_MAX, 0, NULL,
     NULL, "bandwidth to expect for the rest; 0: as measured"},
    {"switchover-timeout", GODWIT_OPTION_MS, GODWIT_SET_LIVE, GODWIT_SIDE_SOURCE, 0, 2000000, 5000, NULL, NULL,
     "a stop phase that takes longer fails and the guest runs on at the source; 0: no limit"},
    {"zero-page-detection", GODWIT_OPTION_ENUM, GODWIT_SET_BEFORE, GODWIT_SIDE_SOURCE, 0, 1, 1, zero_page_detection,
     NULL, "multifd: the sender threads look for pages of zeros; none: nobody does"},
    {"rdma-pin-all", GODWIT_OPTION_ENUM, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 0, 1, 0, off_on, NULL,
     "on: all of the memory of this side is pinned before the first page moves, not what is used, as it is used"},
    {"max-pinned", GODWIT_OPTION_SIZE, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 0, UINT64_MAX, 0, NULL, NULL,
     "memory of this side that is pinned at most, pages beyond it are copied; 0: no limit"},
    {"tls-creds", GODWIT_OPTION_TEXT, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 0, OPTION_TEXT_MAX, 0, NULL, "",
     "turns TLS on: directory with the certificates of this side, or with keys.psk"},
    {"tls-hostname", GODWIT_OPTION_TEXT, GODWIT_SET_BEFORE, GODWIT_SIDE_SOURCE, 0, OPTION_TEXT_MAX, 0, NULL, "",
     "name that the destination's certificate must bear; none: the host of the URI"},
    {"tls-authz", GODWIT_OPTION_TEXT, GODWIT_SET_BEFORE, GODWIT_SIDE_DESTINATION, 0, OPTION_TEXT_MAX, 0, NULL, "",
     "distinguished names of the sources that may come in; none: whoever shows a valid certificate"},
    {"tls-priority", GODWIT_OPTION_TEXT, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 0, OPTION_TEXT_MAX, 0, NULL, "",
     "GnuTLS priority string; none: TLS 1.3 with its authenticated ciphers"},
    {"tls-username", GODWIT_OPTION_TEXT, GODWIT_SET_BEFORE, GODWIT_SIDE_SOURCE, 0, OPTION_TEXT_MAX, 0, NULL, "qemu",
     "whose key of keys.psk is used"},
    {"tls-verify-peer", GODWIT_OPTION_ENUM, GODWIT_SET_BEFORE, GODWIT_SIDE_DESTINATION, 0, 1, 1, off_on, NULL,
     "off: sources need no certificate"},
    {"tls-required", GODWIT_OPTION_ENUM, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 0, 1, 0, off_on, NULL,
     "on: a migration that would not encrypt its pages is refused: one without tls-creds, or over rdma:"},
    {"tls-kernel", GODWIT_OPTION_ENUM, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 0, 1, 1, off_on, NULL,
     "on: the kernel encrypts where it and GnuTLS can"},
    {"connect-timeout", GODWIT_OPTION_MS, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 1, 2000000, 10000, NULL, NULL,
     "to connect all channels, tries while nothing listens yet included"},
    {"handshake-timeout", GODWIT_OPTION_MS, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 1, 2000000, 5000, NULL, NULL,
     "for the hello of each connection, TLS's handshake before it included"},
    {"setup-timeout", GODWIT_OPTION_MS, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 1, 2000000, 120000, NULL, NULL,
     "for the other side to prepare its memory"},
    {"heartbeat-interval", GODWIT_OPTION_MS, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 10, 2000000, 1000, NULL, NULL,
     "how often a side shows that it lives"},
    {"peer-timeout", GODWIT_OPTION_MS, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 100, 2000000, 5000, NULL, NULL,
     "silence after which the other side counts as dead; about 20s under emulation"},
    {"progress-timeout", GODWIT_OPTION_MS, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 100, 2000000, 10000, NULL, NULL,
     "data that does not move for so long fails the migration"},
    {"x-channel-lifetime", GODWIT_OPTION_SIZE, GODWIT_SET_BEFORE, GODWIT_SIDE_SOURCE, 0, UINT64_MAX, 0, NULL, NULL,
     "bytes after which another connection takes the place of a data channel's, for tests; 0: when its keys wear out"},
    {"x-fault", GODWIT_OPTION_ENUM, GODWIT_SET_BEFORE, GODWIT_SIDE_SOURCE, 0, SABOTAGE_KINDS - 1, 0, sabotage_names,
     NULL, "damages the migration on purpose, to show that verification finds it"},
    {"x-tls-renew", GODWIT_OPTION_SIZE, GODWIT_SET_BEFORE, GODWIT_SIDE_BOTH, 0, UINT64_MAX, 0, NULL, NULL,
     "TLS keys of a direction are renewed after so many bytes; 0: when the cipher asks for it"},
};

struct godwit_options {
    uint64_t values[COUNT_OF(table)];
    char *texts[COUNT_OF(table)]; /* GODWIT_OPTION_TEXT: owned; NULL: the default */
    bool set[COUNT_OF(table)];
};

const struct godwit_option *godwit_option_table(unsigned *count)
{
    *count = COUNT_OF(table);
    return table;
}

const struct godwit_option *options_find(const char *name)
{
    for (unsigned i = 0; i < COUNT_OF(table); i++)
        if (strcmp(table[i].name, name) == 0)
            return &table[i];
    return NULL;
}

/* 1024^n for a suffix K, M, G or T, alone or spelled KiB; 1 for none; 0 for anything else. */
static uint64_t suffix_factor(const char *suffix)
{
    static const char letters[] = "kmgt";
    if (*suffix == 0)
        return 1;
    const char *at = strchr(letters, tolower((unsigned char)*suffix));
    if (at == NULL || (suffix[1] != 0 && strcasecmp(suffix + 1, "iB") != 0))
        return 0;
    return UINT64_C(1) << (10 * (at - letters + 1));
}

enum godwit_err godwit_parse_size(const char *text, uint64_t *out, struct godwit_error *error)
{
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return error_set(error, GODWIT_ERR_INVALID, "'%s' is not a size; write a number with K, M, G or T", text);
    errno = 0;
    unsigned long long whole = strtoull(text, &end, 10);
    uint64_t factor = *end == '.' ? 0 : suffix_factor(end);
    if (factor != 0 && errno == 0 && whole <= UINT64_MAX / factor) {
        *out = whole * factor;
        return GODWIT_OK;
    }
    double value = strtod(text, &end);
    factor = suffix_factor(end);
    if (factor == 0 || !isfinite(value) || value * (double)factor >= 18446744073709551615.0)
        return error_set(error, GODWIT_ERR_INVALID, "'%s' is not a size; write a number with K, M, G or T", text);
    *out = (uint64_t)(value * (double)factor);
    return GODWIT_OK;
}

static enum godwit_err parse_ms(const struct godwit_option *option, const char *text, uint64_t *out,
                                struct godwit_error *error)
{
    char *end;
    errno = 0;
    double value = isdigit((unsigned char)text[0]) ? strtod(text, &end) : NAN;
    if (!isnan(value) && strcmp(end, "s") == 0)
        value *= 1000;
    else if (isnan(value) || (*end != 0 && strcmp(end, "ms") != 0))
        return error_set(error, GODWIT_ERR_INVALID, "%s: '%s' is not a time; write 300, 300ms or 5s", option->name,
                         text);
    *out = value < 1e15 ? (uint64_t)value : UINT64_MAX;
    return GODWIT_OK;
}

static enum godwit_err parse_count(const struct godwit_option *option, const char *text, uint64_t *out,
                                   struct godwit_error *error)
{
    char *end;
    errno = 0;
    unsigned long long value = isdigit((unsigned char)text[0]) ? strtoull(text, &end, 10) : 0;
    if (!isdigit((unsigned char)text[0]) || *end != 0)
        return error_set(error, GODWIT_ERR_INVALID, "%s: '%s' is not a plain number", option->name, text);
    *out = value; /* beyond the range of the type it is the greatest there is */
    return GODWIT_OK;
}

static enum godwit_err parse_enum(const struct godwit_option *option, const char *text, uint64_t *out,
                                  struct godwit_error *error)
{
    char names[256] = "";
    for (uint64_t i = 0; option->values[i] != NULL; i++) {
        if (strcmp(option->values[i], text) == 0) {
            *out = i;
            return GODWIT_OK;
        }
        strncat(names, i > 0 ? ", " : "", sizeof names - strlen(names) - 1);
        strncat(names, option->values[i], sizeof names - strlen(names) - 1);
    }
    return error_set(error, GODWIT_ERR_INVALID, "%s: '%s' is none of %s", option->name, text, names);
}

static enum godwit_err parse(const struct godwit_option *option, const char *text, uint64_t *out,
                             struct godwit_error *error)
{
    enum godwit_err err;
    switch (option->kind) {
    case GODWIT_OPTION_ENUM:
        return parse_enum(option, text, out, error);
    case GODWIT_OPTION_MS:
        err = parse_ms(option, text, out, error);
        break;
    case GODWIT_OPTION_COUNT:
        err = parse_count(option, text, out, error);
        break;
    default:
        err = godwit_parse_size(text, out, error);
        if (err != GODWIT_OK)
            error_prefix(error, "%s", option->name);
    }
    if (err != GODWIT_OK)
        return err;
    if (*out < option->min || *out > option->max)
        return error_set(error, GODWIT_ERR_INVALID, "%s: %s is outside the range %llu to %llu", option->name, text,
                         (unsigned long long)option->min, (unsigned long long)option->max);
    return GODWIT_OK;
}

struct godwit_options *godwit_options_new(void)
{
    struct godwit_options *options = calloc(1, sizeof *options);
    if (options == NULL)
        return NULL;
    for (unsigned i = 0; i < COUNT_OF(table); i++)
        options->values[i] = table[i].standard;
    return options;
}

struct godwit_options *options_copy(const struct godwit_options *options)
{
    struct godwit_options *copy = godwit_options_new();
    if (copy == NULL || options == NULL)
        return copy;
    memcpy(copy->values, options->values, sizeof copy->values);
    memcpy(copy->set, options->set, sizeof copy->set);
    for (unsigned i = 0; i < COUNT_OF(table); i++)
        if (options->texts[i] != NULL && (copy->texts[i] = strdup(options->texts[i])) == NULL) {
            godwit_options_free(copy);
            return NULL;
        }
    return copy;
}

void godwit_options_free(struct godwit_options *options)
{
    if (options == NULL)
        return;
    for (unsigned i = 0; i < COUNT_OF(table); i++)
        free(options->texts[i]);
    free(options);
}

/* What is refused is not repeated in the message: it may be long, or move the cursor of whoever reads it. */
static enum godwit_err check_text(const struct godwit_option *option, const char *text, struct godwit_error *error)
{
    size_t size = strlen(text);
    if (size < option->min || size > option->max)
        return error_set(error, GODWIT_ERR_INVALID, "%s: a text of %zu bytes is outside the range %llu to %llu",
                         option->name, size, (unsigned long long)option->min, (unsigned long long)option->max);
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return error_set(error, GODWIT_ERR_INVALID,
                             "%s: byte %zu of the text is a control character (0x%02x): write it in one line",
                             option->name, i + 1, (unsigned char)text[i]);
    return GODWIT_OK;
}

static enum godwit_err set_text(char **out, const struct godwit_option *option, const char *text,
                                struct godwit_error *error)
{
    enum godwit_err err = check_text(option, text, error);
    if (err != GODWIT_OK)
        return err;
    char *copy = NULL;
    if (text[0] != '\0' && (copy = strdup(text)) == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for %s", option->name);
    free(*out);
    *out = copy;
    return GODWIT_OK;
}

enum godwit_err godwit_options_set(struct godwit_options *options, const char *name, const char *value,
                                   struct godwit_error *error)
{
    const struct godwit_option *option = options_find(name);
    if (option == NULL)
        return error_set(error, GODWIT_ERR_INVALID, "there is no option called %s", name);
    bool text = option->kind == GODWIT_OPTION_TEXT;
    if (value == NULL && !text)
        return error_set(error, GODWIT_ERR_INVALID, "%s needs a value: only a text can be none", name);
    uint64_t number = 0;
    enum godwit_err err = text ? set_text(&options->texts[option - table], option, value != NULL ? value : "", error)
                               : parse(option, value, &number, error);
    if (err != GODWIT_OK)
        return err;
    options->values[option - table] = number;
    options->set[option - table] = true;
    return GODWIT_OK;
}

uint64_t godwit_options_get(const struct godwit_options *options, const char *name)
{
    const struct godwit_option *option = options_find(name);
    assert(option != NULL && option->kind != GODWIT_OPTION_TEXT && "callers name options of the table, by their kind");
    return options->values[option - table];
}

const char *godwit_options_get_text(const struct godwit_options *options, const char *name)
{
    const struct godwit_option *option = options_find(name);
    assert(option != NULL && option->kind == GODWIT_OPTION_TEXT && "callers name options of the table, by their kind");
    const char *text = options->texts[option - table];
    return text != NULL ? text : option->standard_text;
}

bool godwit_options_is_set(const struct godwit_options *options, const char *name)
{
    const struct godwit_option *option = options_find(name);
    assert(option != NULL && "callers name options of the table");
    return options->set[option - table];
}
