/*
 * Who may come in. The list is one text; a pattern is a zero-terminated piece of it. A backslash keeps its place beside
 * the character after it, in the list as in a name: "\;" inside a name is no separator, so a name that a refusal
 * printed can be pasted as it is.
 *
 * Failure modes: a file that cannot be read or is no text, a list that lets nobody in.
 */
#include "tcp/tls_authz.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "tcp/tls_files.h"
#include "transport/error.h"

#define FILE_PREFIX "file:"

struct tls_authz {
    size_t count;
    const char **patterns; /* into text */
    char *text;
};

/* A pattern from start up to end, without the blanks around it; a blank that is escaped belongs to it. */
static char *trim(char *start, char *end)
{
    while (start < end && isspace((unsigned char)*start))
        start++;
    while (end > start && isspace((unsigned char)end[-1]) && !(end - start > 1 && end[-2] == '\\'))
        end--;
    *end = 0;
    return start;
}

/* The separator that ends the pattern at start, or the end of the text. */
static char *pattern_end(char *start, char separator)
{
    char *at = start;
    for (; *at != 0 && *at != separator; at++) {
        if (separator == ';' && *at == '\\' && at[1] != 0)
            at++;
    }
    return at;
}

static void split(struct tls_authz *authz, char separator)
{
    for (char *at = authz->text, *end; at != NULL; at = end) {
        char *stop = pattern_end(at, separator);
        end = *stop != 0 ? stop + 1 : NULL;
        char *pattern = trim(at, stop);
        if (*pattern == 0 || (separator == '\n' && *pattern == '#'))
            continue;
        authz->patterns[authz->count++] = pattern;
    }
}

/* Takes text over. */
static enum godwit_err make(char *text, char separator, struct tls_authz **out, struct godwit_error *error)
{
    size_t most = 1;
    for (const char *at = text; text != NULL && *at != 0; at++)
        most += *at == separator;
    struct tls_authz *authz = text != NULL ? calloc(1, sizeof *authz) : NULL;
    const char **patterns = authz != NULL ? calloc(most, sizeof *patterns) : NULL;
    if (patterns == NULL) {
        free(authz);
        free(text);
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for the patterns of tls-authz");
    }
    authz->text = text;
    authz->patterns = patterns;
    split(authz, separator);
    *out = authz;
    return GODWIT_OK;
}

static enum godwit_err load_file(const char *path, struct tls_authz **out, struct godwit_error *error)
{
    struct tls_file file;
    enum godwit_err err = tls_file_read(&file, NULL, path, TLS_FILE_PUBLIC, error);
    if (err == GODWIT_OK && memchr(file.data, 0, file.size) != NULL)
        err = error_set(error, GODWIT_ERR_INVALID, "%.256s is no text: expected a distinguished name on each line",
                        path);
    if (err == GODWIT_OK)
        err = make(strdup((const char *)file.data), '\n', out, error);
    tls_file_release(&file);
    return err;
}

enum godwit_err tls_authz_load(const char *text, struct tls_authz **out, struct godwit_error *error)
{
    struct tls_authz *authz = NULL;
    enum godwit_err err = GODWIT_OK;
    if (*text == 0) {
        *out = NULL;
        return GODWIT_OK;
    }
    if (strncmp(text, FILE_PREFIX, strlen(FILE_PREFIX)) == 0)
        err = load_file(text + strlen(FILE_PREFIX), &authz, error);
    else
        err = make(strdup(text), ';', &authz, error);
    if (err == GODWIT_OK && authz->count == 0)
        err = error_set(error, GODWIT_ERR_INVALID,
                        "\"%.256s\" names nobody who may come in: expected distinguished names such as "
                        "\"O=Example,CN=host1\", or \"\" for everybody with a valid certificate",
                        text);
    if (err != GODWIT_OK) {
        tls_authz_free(authz);
        return error_prefix(error, "tls-authz"), err;
    }
    *out = authz;
    return GODWIT_OK;
}

void tls_authz_free(struct tls_authz *authz)
{
    if (authz == NULL)
        return;
    free(authz->patterns);
    free(authz->text);
    free(authz);
}

/* Only the last star is gone back to: what an earlier one could take instead, the last one can take as well. So the time
 * is at most the product of the lengths. */
static bool matches(const char *pattern, const char *name)
{
    const char *star = NULL, *taken = NULL;
    while (*name != 0) {
        if (*pattern == '*') {
            star = ++pattern;
            taken = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++;
            name++;
        } else if (star != NULL) {
            pattern = star;
            name = ++taken;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == 0;
}

bool tls_authz_allows(const struct tls_authz *authz, const char *distinguished_name)
{
    if (authz == NULL)
        return true;
    for (size_t i = 0; i < authz->count; i++) {
        if (matches(authz->patterns[i], distinguished_name))
            return true;
    }
    return false;
}
