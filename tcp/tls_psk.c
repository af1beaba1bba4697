/*
 * keys.psk, read once. Keys are decoded in place, in the one copy of the file that is kept, so there is one block to
 * overwrite at the end. Users are sorted by name: a user that stands there twice is found, and a search is short.
 *
 * Failure modes: a line that is no USER:KEY, a key that is too short to be one, a user with two keys, no user at all.
 */
#include "tcp/tls_psk.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "transport/error.h"

#define REMEDY "make one with psktool -u USER -p keys.psk"

struct tls_psk {
    unsigned char *text;
    size_t size;
    struct tls_psk_user *users;
    size_t count;
};

struct reader {
    struct tls_psk *psk;
    const char *path;
    unsigned line;
    struct godwit_error *error;
};

static int digit(unsigned char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Whether these are bytes in hexadecimal. */
static bool is_hex(const unsigned char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (digit(text[i]) < 0)
            return false;
    }
    return size > 0 && size % 2 == 0;
}

/* In place. Returns the number of bytes. */
static size_t decode(unsigned char *text, size_t size)
{
    for (size_t i = 0; i < size / 2; i++)
        text[i] = (unsigned char)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
    return size / 2;
}

static enum godwit_err refuse(const struct reader *reader, const char *what)
{
    return error_set(reader->error, GODWIT_ERR_INVALID, "%.256s, line %u: %s; " REMEDY, reader->path, reader->line,
                     what);
}

static enum godwit_err read_key(const struct reader *reader, unsigned char *key, size_t size, size_t *bytes)
{
    if (!is_hex(key, size))
        return refuse(reader, "the key is not an even number of hexadecimal digits");
    if (size / 2 < TLS_PSK_KEY_MIN)
        return refuse(reader, "the key is shorter than 16 bytes and could be guessed");
    if (size / 2 > TLS_PSK_KEY_MAX)
        return refuse(reader, "the key is longer than 512 bytes");
    *bytes = decode(key, size);
    return GODWIT_OK;
}

static bool is_blank(unsigned char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* line has no end of line. */
static enum godwit_err read_line(struct reader *reader, unsigned char *line, size_t size)
{
    while (size > 0 && is_blank(line[size - 1]))
        size--;
    if (size == 0)
        return GODWIT_OK;
    unsigned char *colon = memchr(line, ':', size);
    size_t name_size = colon != NULL ? (size_t)(colon - line) : 0;
    bool hash = line[0] == '#';
    if (hash && (colon == NULL || !is_hex(line + 1, name_size - 1)))
        return GODWIT_OK;
    if (name_size == 0)
        return refuse(reader, "expected USER:KEY");

    struct tls_psk_user user = {.name = line, .name_size = name_size, .key = colon + 1, .line = reader->line};
    enum godwit_err err = read_key(reader, colon + 1, size - name_size - 1, &user.key_size);
    if (err != GODWIT_OK)
        return err;
    if (hash) {
        user.name_size = decode(line + 1, name_size - 1);
        user.name = line + 1;
    }
    reader->psk->users[reader->psk->count++] = user;
    return GODWIT_OK;
}

static int compare_names(const void *a, const void *b)
{
    const struct tls_psk_user *one = a, *two = b;
    size_t size = one->name_size < two->name_size ? one->name_size : two->name_size;
    int order = memcmp(one->name, two->name, size);
    if (order == 0 && one->name_size != two->name_size)
        order = one->name_size < two->name_size ? -1 : 1;
    return order;
}

static int compare_users(const void *a, const void *b)
{
    const struct tls_psk_user *one = a, *two = b;
    int order = compare_names(a, b);
    return order != 0 || one->line == two->line ? order : one->line < two->line ? -1 : 1;
}

static enum godwit_err read_lines(struct reader *reader)
{
    unsigned char *at = reader->psk->text, *end = at + reader->psk->size;
    for (reader->line = 1; at < end; reader->line++) {
        unsigned char *stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop != NULL ? stop : end;
        enum godwit_err err = read_line(reader, at, (size_t)(stop - at));
        if (err != GODWIT_OK)
            return err;
        at = stop + (stop < end);
    }
    return GODWIT_OK;
}

static enum godwit_err judge_users(const struct reader *reader)
{
    struct tls_psk *psk = reader->psk;
    if (psk->count == 0)
        return error_set(reader->error, GODWIT_ERR_INVALID, "%.256s has no key: " REMEDY, reader->path);
    qsort(psk->users, psk->count, sizeof *psk->users, compare_users);
    for (size_t i = 1; i < psk->count; i++) {
        const struct tls_psk_user *user = &psk->users[i];
        if (compare_names(user - 1, user) == 0)
            return error_set(reader->error, GODWIT_ERR_INVALID,
                             "%.256s, line %u: user \"%.*s\" has a key in line %u already: leave one of them away",
                             reader->path, user->line, (int)(user->name_size < 64 ? user->name_size : 64), user->name,
                             user[-1].line);
    }
    return GODWIT_OK;
}

/* All that the lines of a text can need. */
static struct tls_psk *psk_new(const unsigned char *text, size_t size)
{
    size_t lines = 1;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    struct tls_psk *psk = calloc(1, sizeof *psk);
    if (psk == NULL)
        return NULL;
    psk->text = malloc(size + 1);
    psk->users = calloc(lines, sizeof *psk->users);
    if (psk->text == NULL || psk->users == NULL) {
        tls_psk_free(psk);
        return NULL;
    }
    memcpy(psk->text, text, size);
    psk->size = size;
    return psk;
}

enum godwit_err tls_psk_parse(const char *path, const unsigned char *text, size_t size, struct tls_psk **out,
                              struct godwit_error *error)
{
    struct tls_psk *psk = psk_new(text, size);
    if (psk == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for the keys of %.256s", path);
    struct reader reader = {.psk = psk, .path = path, .error = error};
    enum godwit_err err = read_lines(&reader);
    if (err == GODWIT_OK)
        err = judge_users(&reader);
    if (err != GODWIT_OK) {
        tls_psk_free(psk);
        return err;
    }
    *out = psk;
    return GODWIT_OK;
}

void tls_psk_free(struct tls_psk *psk)
{
    if (psk == NULL)
        return;
    if (psk->text != NULL)
        explicit_bzero(psk->text, psk->size);
    free(psk->text);
    free(psk->users);
    free(psk);
}

const struct tls_psk_user *tls_psk_find(const struct tls_psk *psk, const void *name, size_t size)
{
    const struct tls_psk_user wanted = {.name = name, .name_size = size};
    return bsearch(&wanted, psk->users, psk->count, sizeof *psk->users, compare_names);
}
