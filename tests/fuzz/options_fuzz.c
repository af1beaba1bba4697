/* Sizes, and options by name: "NAME=VALUE" lines; a text without '=' is a size. */
#include <string.h>

#include <godwit/options.h>

#include "tests/fuzz/fuzz.h"

static void check_text(const struct godwit_options *options, const struct godwit_option *option)
{
    const char *text = godwit_options_get_text(options, option->name);
    fuzz_require(strlen(text) <= option->max, "a text is within its range");
    for (; *text != 0; text++)
        fuzz_require((unsigned char)*text >= ' ' && *text != 0x7f, "a text has no control characters");
}

static void check(const struct godwit_options *options)
{
    unsigned count;
    const struct godwit_option *table = godwit_option_table(&count);
    for (unsigned i = 0; i < count; i++) {
        if (table[i].kind == GODWIT_OPTION_TEXT) {
            check_text(options, &table[i]);
            continue;
        }
        uint64_t value = godwit_options_get(options, table[i].name);
        fuzz_require(value >= table[i].min && value <= table[i].max, "a value is within its range");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), *save = NULL;
    struct godwit_options *options = godwit_options_new();
    fuzz_require(text != NULL && options != NULL, "no memory");
    memcpy(text, data, size);
    text[size] = 0;
    struct godwit_error error;
    for (char *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        char *value = strchr(line, '=');
        uint64_t number;
        if (value == NULL) {
            godwit_parse_size(line, &number, &error);
            continue;
        }
        *value++ = 0;
        godwit_options_set(options, line, value, &error);
    }
    check(options);
    godwit_options_free(options);
    free(text);
    return 0;
}
