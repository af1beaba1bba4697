/*
 * Lists of distinguished names: a byte (odd: the list is in a file), the list up to a zero byte, a name. A single pattern
 * is compared with what a second matcher says, which is slow and plain.
 */
#include <ctype.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tcp/tls_authz.h"
#include "tests/fuzz/fuzz.h"

enum { PLAIN_MAX = 64 }; /* bytes of pattern and of name that the second matcher takes */

/* possible[j]: the pattern so far can have taken j bytes of the name. */
static bool matches(const char *pattern, const char *name)
{
    size_t size = strlen(name);
    bool possible[PLAIN_MAX + 1] = {true};
    for (; *pattern != 0; pattern++) {
        bool next[PLAIN_MAX + 1] = {false};
        for (size_t j = 0; j <= size; j++) {
            if (*pattern == '*')
                next[j] = possible[j] || (j > 0 && next[j - 1]);
            else if (j > 0)
                next[j] = possible[j - 1] && (*pattern == '?' || *pattern == name[j - 1]);
        }
        memcpy(possible, next, sizeof possible);
    }
    return possible[size];
}

static bool is_one_pattern(const char *text)
{
    if (strncmp(text, "file:", 5) == 0 || *text == '#')
        return false;
    for (; *text != 0; text++) {
        if (*text == ';' || *text == '\\' || isspace((unsigned char)*text))
            return false;
    }
    return true;
}

static enum godwit_err load_file(const char *text, struct tls_authz **authz, struct godwit_error *error)
{
    char path[64];
    int fd = memfd_create("authz", 0);
    fuzz_require(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "a file in memory");
    snprintf(path, sizeof path, "file:/proc/self/fd/%d", fd);
    enum godwit_err err = tls_authz_load(path, authz, error);
    close(fd);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    char *text = calloc(1, size + 1);
    fuzz_require(text != NULL, "no memory");
    memcpy(text, data + 1, size - 1);
    const char *name = text + strlen(text) + (strlen(text) < size - 1);
    struct tls_authz *authz = NULL;
    struct godwit_error error = {0};
    enum godwit_err err = data[0] & 1 ? load_file(text, &authz, &error) : tls_authz_load(text, &authz, &error);
    if (err != GODWIT_OK) {
        fuzz_require(authz == NULL && error.text[0] != 0, "a refusal has words and no list");
    } else {
        bool allowed = tls_authz_allows(authz, name);
        if (*text != 0 && is_one_pattern(text) && strlen(text) <= PLAIN_MAX && strlen(name) <= PLAIN_MAX)
            fuzz_require(allowed == matches(text, name), "both matchers agree");
    }
    tls_authz_free(authz);
    free(text);
    return 0;
}
