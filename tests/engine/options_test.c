#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/options.h"

TestSuite(options, .timeout = 20);
TestSuite(sizes, .timeout = 20);

static struct godwit_options *options;

static void make_options(void)
{
    options = godwit_options_new();
    cr_assert_not_null(options);
}

static void free_options(void)
{
    godwit_options_free(options);
}

TestSuite(option_values, .init = make_options, .fini = free_options, .timeout = 20);
TestSuite(option_texts, .init = make_options, .fini = free_options, .timeout = 20);

static bool has_default(const struct godwit_options *of, const struct godwit_option *option)
{
    return option->kind == GODWIT_OPTION_TEXT
               ? strcmp(godwit_options_get_text(of, option->name), option->standard_text) == 0
               : godwit_options_get(of, option->name) == option->standard;
}

Test(options, names_are_unique_and_lines_for_help_are_there)
{
    unsigned count;
    const struct godwit_option *table = godwit_option_table(&count);
    cr_assert_gt(count, 5);
    for (unsigned i = 0; i < count; i++) {
        cr_assert_gt(strlen(table[i].name), 0);
        cr_assert_gt(strlen(table[i].summary), 0);
        cr_assert_eq(options_find(table[i].name), &table[i]);
        for (unsigned k = 0; k < i; k++)
            cr_assert_str_neq(table[i].name, table[k].name);
    }
}

Test(options, defaults_and_enum_names_fit_the_ranges)
{
    unsigned count;
    const struct godwit_option *table = godwit_option_table(&count);
    for (unsigned i = 0; i < count; i++) {
        cr_expect_leq(table[i].min, table[i].standard, "%s", table[i].name);
        cr_expect_leq(table[i].standard, table[i].max, "%s", table[i].name);
        cr_expect_eq(table[i].values != NULL, table[i].kind == GODWIT_OPTION_ENUM, "%s", table[i].name);
        cr_expect_eq(table[i].standard_text != NULL, table[i].kind == GODWIT_OPTION_TEXT, "%s", table[i].name);
        uint64_t names = 0;
        while (table[i].values != NULL && table[i].values[names] != NULL)
            names++;
        if (table[i].values != NULL)
            cr_expect_eq(names, table[i].max + 1, "%s", table[i].name);
        cr_expect(table[i].side >= GODWIT_SIDE_SOURCE && table[i].side <= GODWIT_SIDE_BOTH);
    }
}

Test(options, every_default_is_accepted_as_text)
{
    unsigned count;
    const struct godwit_option *table = godwit_option_table(&count);
    struct godwit_options *all = godwit_options_new();
    for (unsigned i = 0; i < count; i++) {
        char text[32];
        struct godwit_error error = {0};
        if (table[i].kind == GODWIT_OPTION_ENUM)
            snprintf(text, sizeof text, "%s", table[i].values[table[i].standard]);
        else if (table[i].kind == GODWIT_OPTION_TEXT)
            snprintf(text, sizeof text, "%s", table[i].standard_text);
        else
            snprintf(text, sizeof text, "%llu", (unsigned long long)table[i].standard);
        cr_expect_eq(godwit_options_set(all, table[i].name, text, &error), GODWIT_OK, "%s", error.text);
        cr_expect(has_default(all, &table[i]), "%s", table[i].name);
    }
    godwit_options_free(all);
}

Test(options, bounds_of_every_range_are_accepted_and_their_neighbours_are_not)
{
    unsigned count;
    const struct godwit_option *table = godwit_option_table(&count);
    struct godwit_options *all = godwit_options_new();
    for (unsigned i = 0; i < count; i++) {
        char text[32];
        if (table[i].kind == GODWIT_OPTION_ENUM || table[i].kind == GODWIT_OPTION_TEXT)
            continue;
        snprintf(text, sizeof text, "%llu", (unsigned long long)table[i].max);
        cr_expect_eq(godwit_options_set(all, table[i].name, text, NULL), GODWIT_OK, "%s", table[i].name);
        cr_expect_eq(godwit_options_get(all, table[i].name), table[i].max);
        snprintf(text, sizeof text, "%llu", (unsigned long long)table[i].min);
        cr_expect_eq(godwit_options_set(all, table[i].name, text, NULL), GODWIT_OK, "%s", table[i].name);
        cr_expect_eq(godwit_options_get(all, table[i].name), table[i].min);
        if (table[i].max < UINT64_MAX) {
            snprintf(text, sizeof text, "%llu", (unsigned long long)table[i].max + 1);
            cr_expect_eq(godwit_options_set(all, table[i].name, text, NULL), GODWIT_ERR_INVALID, "%s", table[i].name);
        }
        if (table[i].min > 0) {
            snprintf(text, sizeof text, "%llu", (unsigned long long)table[i].min - 1);
            cr_expect_eq(godwit_options_set(all, table[i].name, text, NULL), GODWIT_ERR_INVALID, "%s", table[i].name);
        }
    }
    godwit_options_free(all);
}

/* ---- values; rows are copied between processes: arrays, no pointers ---- */

struct row {
    char name[32], text[40];
    uint64_t value;
};

ParameterizedTestParameters(option_values, good_text_gives_the_value_in_the_units_of_the_table)
{
    static struct row rows[] = {
        {"multifd-channels", "7", 7},
        {"multifd-channels", "255", 255},
        {"max-bandwidth", "0", 0},
        {"max-bandwidth", "10M", 10 << 20},
        {"max-bandwidth", "1.5G", UINT64_C(3) << 29},
        {"max-bandwidth", "512KiB", 512 << 10},
        {"downtime-limit", "300", 300},
        {"downtime-limit", "300ms", 300},
        {"downtime-limit", "5s", 5000},
        {"downtime-limit", "0.5s", 500},
        {"zero-page-detection", "none", 0},
        {"zero-page-detection", "multifd", 1},
    };
    return cr_make_param_array(struct row, rows, sizeof rows / sizeof rows[0]);
}

ParameterizedTest(struct row *row, option_values, good_text_gives_the_value_in_the_units_of_the_table)
{
    struct godwit_error error = {0};
    cr_assert_eq(godwit_options_set(options, row->name, row->text, &error), GODWIT_OK, "%s", error.text);
    cr_assert_eq(godwit_options_get(options, row->name), row->value, "%s=%s", row->name, row->text);
    cr_assert(godwit_options_is_set(options, row->name));
}

ParameterizedTestParameters(option_values, bad_text_is_refused_and_changes_nothing)
{
    static struct row rows[] = {
        {"multifd-channels", "", 0},        {"multifd-channels", "0", 0},     {"multifd-channels", "256", 0},
        {"multifd-channels", "-1", 0},      {"multifd-channels", "1.5", 0},   {"multifd-channels", "four", 0},
        {"multifd-channels", "0.1K", 0},    {"multifd-channels", " 4", 0},    {"multifd-channels", "4 ", 0},
        {"max-bandwidth", "10X", 0},        {"max-bandwidth", "10MM", 0},     {"max-bandwidth", "M", 0},
        {"max-bandwidth", "-1M", 0},        {"max-bandwidth", "inf", 0},      {"max-bandwidth", "nan", 0},
        {"max-bandwidth", "16777216T", 0},  {"max-bandwidth", "1e30", 0},     {"max-bandwidth", "10Mi", 0},
        {"downtime-limit", "300m", 0},      {"downtime-limit", "5 s", 0},     {"downtime-limit", "s", 0},
        {"downtime-limit", "2000001", 0},   {"downtime-limit", "1e300s", 0},  {"downtime-limit", "-5", 0},
        {"zero-page-detection", "", 0},     {"zero-page-detection", "1", 0},  {"zero-page-detection", "None", 0},
        {"tls-required", "", 0},            {"tls-creds", "a\nb", 0},         {"tls-creds", "\x7f", 0},
        {"tls-hostname", "\x1b[2J", 0},     {"tls-authz", "CN=a\t", 0},       {"tls-creds ", "/etc/pki", 0},
        {"no-such-option", "1", 0},         {"", "1", 0},                     {"max-bandwidth ", "1", 0},
    };
    return cr_make_param_array(struct row, rows, sizeof rows / sizeof rows[0]);
}

ParameterizedTest(struct row *row, option_values, bad_text_is_refused_and_changes_nothing)
{
    unsigned count;
    const struct godwit_option *table = godwit_option_table(&count);
    struct godwit_error error = {0};
    cr_assert_eq(godwit_options_set(options, "max-bandwidth", "77", NULL), GODWIT_OK);
    cr_assert_eq(godwit_options_set(options, row->name, row->text, &error), GODWIT_ERR_INVALID, "%s=%s was taken",
                 row->name, row->text);
    cr_assert_eq(error.code, GODWIT_ERR_INVALID);
    cr_assert_not_null(strstr(error.text, row->name), "'%s' does not name %s", error.text, row->name);
    for (unsigned i = 0; i < count; i++) {
        bool limit = strcmp(table[i].name, "max-bandwidth") == 0;
        cr_expect(limit ? godwit_options_get(options, table[i].name) == 77 : has_default(options, &table[i]), "%s",
                  table[i].name);
        cr_expect_eq(godwit_options_is_set(options, table[i].name), limit);
    }
}

Test(option_values, text_of_a_range_error_gives_the_range)
{
    struct godwit_error error = {0};
    godwit_options_set(options, "multifd-channels", "1000", &error);
    cr_assert_not_null(strstr(error.text, "1 to 255"), "%s", error.text);
    godwit_options_set(options, "zero-page-detection", "fast", &error);
    cr_assert_not_null(strstr(error.text, "none, multifd"), "%s", error.text);
    godwit_options_set(options, "downtime-limit", "soon", &error);
    cr_assert_not_null(strstr(error.text, "300ms"), "%s", error.text);
}

Test(option_values, set_to_the_default_counts_as_set)
{
    cr_assert_not(godwit_options_is_set(options, "multifd-channels"));
    cr_assert_eq(godwit_options_set(options, "multifd-channels", "2", NULL), GODWIT_OK);
    cr_assert(godwit_options_is_set(options, "multifd-channels"));
}

Test(option_values, a_copy_is_independent_and_keeps_what_is_set)
{
    cr_assert_eq(godwit_options_set(options, "downtime-limit", "1s", NULL), GODWIT_OK);
    struct godwit_options *copy = options_copy(options);
    cr_assert_eq(godwit_options_set(options, "downtime-limit", "2s", NULL), GODWIT_OK);
    cr_assert_eq(godwit_options_get(copy, "downtime-limit"), 1000);
    cr_assert(godwit_options_is_set(copy, "downtime-limit"));
    cr_assert_not(godwit_options_is_set(copy, "max-bandwidth"));
    godwit_options_free(copy);
    copy = options_copy(NULL);
    cr_assert_eq(godwit_options_get(copy, "downtime-limit"), 300);
    godwit_options_free(copy);
}

Test(option_values, none_at_all_is_no_value_but_of_a_text)
{
    unsigned count;
    const struct godwit_option *table = godwit_option_table(&count);
    for (unsigned i = 0; i < count; i++) {
        struct godwit_error error = {0};
        bool text = table[i].kind == GODWIT_OPTION_TEXT;
        cr_expect_eq(godwit_options_set(options, table[i].name, NULL, &error), text ? GODWIT_OK : GODWIT_ERR_INVALID,
                     "%s", table[i].name);
        cr_expect(text || strstr(error.text, table[i].name) != NULL, "%s", error.text);
        cr_expect(has_default(options, &table[i]));
    }
    cr_assert_eq(godwit_options_set(options, "no-such-option", NULL, NULL), GODWIT_ERR_INVALID);
}

/* ---- texts ---- */

/* Runs before the real one wherever this program, and the library in it, copies a string. */
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);

static unsigned copies_left = UINT_MAX; /* then memory is out */

char *__wrap_strdup(const char *text)
{
    if (copies_left == 0)
        return NULL;
    copies_left--;
    return __real_strdup(text);
}

static const char *text_of(const struct godwit_options *of, const char *name)
{
    return godwit_options_get_text(of, name);
}

Test(option_texts, a_text_is_copied_and_can_be_replaced)
{
    char directory[] = "/etc/pki/g\xc3\xb6 dwit = \"here\"";
    cr_assert_str_eq(text_of(options, "tls-creds"), "");
    cr_assert_eq(godwit_options_set(options, "tls-creds", directory, NULL), GODWIT_OK);
    memset(directory, 'x', sizeof directory - 1);
    cr_assert_str_eq(text_of(options, "tls-creds"), "/etc/pki/g\xc3\xb6 dwit = \"here\"");
    cr_assert_eq(godwit_options_set(options, "tls-creds", text_of(options, "tls-creds"), NULL), GODWIT_OK);
    cr_assert_str_eq(text_of(options, "tls-creds"), "/etc/pki/g\xc3\xb6 dwit = \"here\"", "its own value");
    cr_assert(godwit_options_is_set(options, "tls-creds"));
    cr_assert_str_eq(text_of(options, "tls-hostname"), "");
    cr_assert_not(godwit_options_is_set(options, "tls-hostname"));
}

Test(option_texts, null_and_empty_put_the_default_back)
{
    static const char *const nothing[] = {NULL, ""};
    unsigned count;
    const struct godwit_option *table = godwit_option_table(&count);
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = 0; i < count; i++) {
            if (table[i].kind != GODWIT_OPTION_TEXT)
                continue;
            cr_assert_eq(godwit_options_set(options, table[i].name, "something", NULL), GODWIT_OK);
            cr_assert_str_eq(text_of(options, table[i].name), "something");
            cr_assert_eq(godwit_options_set(options, table[i].name, nothing[k], NULL), GODWIT_OK);
            cr_assert_str_eq(text_of(options, table[i].name), table[i].standard_text);
        }
    cr_assert_str_eq(text_of(options, "tls-creds"), "");
    cr_assert_str_eq(text_of(options, "tls-username"), "qemu");
}

Test(option_texts, what_is_refused_leaves_the_text_before_and_is_not_repeated)
{
    char longest[4096 + 2];
    struct godwit_error error = {0};
    memset(longest, 'a', sizeof longest);
    longest[4096] = 0;
    cr_assert_eq(godwit_options_set(options, "tls-authz", longest, &error), GODWIT_OK, "%s", error.text);
    cr_assert_str_eq(text_of(options, "tls-authz"), longest);
    longest[4096] = 'a';
    longest[4097] = 0;
    cr_assert_eq(godwit_options_set(options, "tls-authz", longest, &error), GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, "tls-authz") && strstr(error.text, "0 to 4096"), "%s", error.text);
    cr_assert_eq(godwit_options_set(options, "tls-authz", "CN=\x1b[2J", &error), GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, "byte 4") && strstr(error.text, "0x1b"), "%s", error.text);
    cr_assert_null(strchr(error.text, '\x1b'));
    cr_assert_eq(strlen(text_of(options, "tls-authz")), 4096);
}

Test(option_texts, a_copy_has_texts_of_its_own)
{
    cr_assert_eq(godwit_options_set(options, "tls-creds", "/one", NULL), GODWIT_OK);
    cr_assert_eq(godwit_options_set(options, "tls-authz", "CN=*", NULL), GODWIT_OK);
    struct godwit_options *copy = options_copy(options);
    cr_assert_eq(godwit_options_set(options, "tls-creds", "/two", NULL), GODWIT_OK);
    cr_assert_eq(godwit_options_set(copy, "tls-authz", NULL, NULL), GODWIT_OK);
    cr_assert_str_eq(text_of(copy, "tls-creds"), "/one");
    cr_assert_str_eq(text_of(copy, "tls-username"), "qemu");
    cr_assert_str_eq(text_of(options, "tls-authz"), "CN=*");
    cr_assert(godwit_options_is_set(copy, "tls-creds"));
    godwit_options_free(options);
    options = NULL;
    cr_assert_str_eq(text_of(copy, "tls-creds"), "/one");
    godwit_options_free(copy);
}

Test(option_texts, without_memory_for_a_text_nothing_changes_and_there_is_no_copy)
{
    struct godwit_error error = {0};
    cr_assert_eq(godwit_options_set(options, "tls-creds", "/one", NULL), GODWIT_OK);
    cr_assert_eq(godwit_options_set(options, "tls-authz", "CN=*", NULL), GODWIT_OK);
    copies_left = 0;
    cr_assert_eq(godwit_options_set(options, "tls-creds", "/two", &error), GODWIT_ERR_NO_MEMORY);
    cr_assert_not_null(strstr(error.text, "tls-creds"), "%s", error.text);
    cr_assert_str_eq(text_of(options, "tls-creds"), "/one");
    cr_assert_eq(godwit_options_set(options, "tls-hostname", "name", NULL), GODWIT_ERR_NO_MEMORY);
    cr_assert_not(godwit_options_is_set(options, "tls-hostname"));
    cr_assert_eq(godwit_options_set(options, "tls-creds", "", NULL), GODWIT_OK, "off needs no memory");
    copies_left = UINT_MAX;
    cr_assert_eq(godwit_options_set(options, "tls-creds", "/one", NULL), GODWIT_OK);
    struct godwit_options *copy = NULL;
    unsigned n = 0;
    for (; copy == NULL && n < 10; n++) {
        copies_left = n;
        copy = options_copy(options);
    }
    copies_left = UINT_MAX;
    cr_assert_eq(n, 3, "two texts: the third try has memory for both");
    godwit_options_free(copy);
}

/* ---- godwit_parse_size ---- */

struct size_row {
    char text[40];
    uint64_t value;
};

ParameterizedTestParameters(sizes, numbers_with_suffix_and_fraction_are_understood)
{
    static struct size_row rows[] = {
        {"0", 0}, {"1", 1}, {"10", 10}, {"1K", 1024}, {"1k", 1024}, {"3KiB", 3072}, {"3kib", 3072}, {"2M", 2 << 20},
        {"1G", 1 << 30}, {"2T", UINT64_C(2) << 40}, {"2TiB", UINT64_C(2) << 40}, {"1.5G", UINT64_C(3) << 29},
        {"0.5K", 512}, {"1.25M", 5 << 18}, {"9007199254740993", UINT64_C(9007199254740993)},
        {"18446744073709551615", UINT64_MAX}, {"16777215T", UINT64_C(16777215) << 40},
    };
    return cr_make_param_array(struct size_row, rows, sizeof rows / sizeof rows[0]);
}

ParameterizedTest(struct size_row *row, sizes, numbers_with_suffix_and_fraction_are_understood)
{
    uint64_t value = 12345;
    cr_assert_eq(godwit_parse_size(row->text, &value, NULL), GODWIT_OK, "%s", row->text);
    cr_assert_eq(value, row->value, "%s gave %llu", row->text, (unsigned long long)value);
}

ParameterizedTestParameters(sizes, anything_else_is_refused_and_leaves_the_output_alone)
{
    static struct size_row rows[] = {
        {"", 0}, {"K", 0}, {"-1", 0}, {"+1", 0}, {" 1", 0}, {"1 K", 0}, {"1KB", 0}, {"1Ki", 0}, {"1P", 0}, {"1.K.", 0},
        {"18446744073709551616", 0}, {"16777216T", 0}, {"99999999999999999999999", 0}, {"20000000.5T", 0}, {".5G", 0},
        {"1iB", 0}, {"1MiBB", 0},
    };
    return cr_make_param_array(struct size_row, rows, sizeof rows / sizeof rows[0]);
}

ParameterizedTest(struct size_row *row, sizes, anything_else_is_refused_and_leaves_the_output_alone)
{
    uint64_t value = 12345;
    struct godwit_error error = {0};
    cr_assert_eq(godwit_parse_size(row->text, &value, &error), GODWIT_ERR_INVALID, "'%s' gave %llu", row->text,
                 (unsigned long long)value);
    cr_assert_eq(value, 12345);
    cr_assert_gt(strlen(error.text), 0);
}
