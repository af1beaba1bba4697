/*
 * Parsing and printing of addresses. One table says which schemes exist and which of the two forms each has. Every
 * refusal names the wrong part and shows the form expected; nothing is resolved here, so nothing blocks.
 */
#include "transport/address.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "transport/error.h"

enum address_form { FORM_HOST, FORM_PATH };

struct scheme {
    const char *name;
    enum address_form form;
    const char *expected;
};

/* Which of these a build can really use is for the engine's table of transports to say. */
static const struct scheme schemes[] = {
    {"tcp", FORM_HOST, "tcp:HOST:PORT"}, {"unix", FORM_PATH, "unix:PATH"}, {"rdma", FORM_HOST, "rdma:HOST:PORT"},
    {"file", FORM_PATH, "file:PATH"},    {"loop", FORM_PATH, "loop:NAME"},
};

static const struct scheme *scheme_find(const char *name, size_t length)
{
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        if (strlen(schemes[i].name) == length && !memcmp(schemes[i].name, name, length))
            return &schemes[i];
    }
    return NULL;
}

static enum godwit_err scheme_unknown(const char *text, struct godwit_error *error)
{
    char list[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++) {
        int n = snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", schemes[i].expected);
        used += (size_t)n < sizeof list - used ? (size_t)n : sizeof list - used - 1;
    }
    return error_set(error, GODWIT_ERR_INVALID, "unknown address scheme in \"%.200s\": expected one of %s", text, list);
}

static enum godwit_err parse_port(const char *text, const char *whole, const struct scheme *scheme, uint16_t *port,
                                  struct godwit_error *error)
{
    uint32_t value = 0;
    size_t digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9' && value <= UINT16_MAX; digits++)
        value = value * 10 + (uint32_t)(text[digits] - '0');
    if (!digits || text[digits] || value > UINT16_MAX)
        return error_set(error, GODWIT_ERR_INVALID,
                         "bad port \"%.40s\" in \"%.200s\": expected %s, PORT being 0 to 65535", text, whole,
                         scheme->expected);
    *port = (uint16_t)value;
    return GODWIT_OK;
}

static bool host_is_clean(const char *host, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)host[i];
        if (c <= ' ' || c == 127 || c == '[' || c == ']' || c == '/')
            return false;
    }
    return true;
}

/* Finds the host in "HOST:PORT" or "[HOST]:PORT"; *port_text is what follows the colon. */
static enum godwit_err split_host(const char *rest, const char *whole, const struct scheme *scheme, const char **host,
                                  size_t *length, const char **port_text, struct godwit_error *error)
{
    const char *end;
    *host = rest;
    if (*rest == '[') {
        *host = rest + 1;
        end = strchr(rest, ']');
        if (!end || end == *host || end[1] != ':')
            return error_set(error, GODWIT_ERR_INVALID, "bad brackets in \"%.200s\": expected %s:[IPV6]:PORT", whole,
                             scheme->name);
        *port_text = end + 2;
    } else {
        end = strchr(rest, ':');
        if (!end)
            return error_set(error, GODWIT_ERR_INVALID, "no port in \"%.200s\": expected %s", whole, scheme->expected);
        if (strchr(end + 1, ':'))
            return error_set(error, GODWIT_ERR_INVALID,
                             "too many colons in \"%.200s\": an IPv6 host needs brackets, as in %s:[::1]:4444", whole,
                             scheme->name);
        *port_text = end + 1;
    }
    *length = (size_t)(end - *host);
    return GODWIT_OK;
}

static enum godwit_err parse_host(const char *rest, const char *whole, const struct scheme *scheme, struct address *out,
                                  struct godwit_error *error)
{
    const char *host = NULL, *port_text = NULL;
    size_t length = 0;
    enum godwit_err err = split_host(rest, whole, scheme, &host, &length, &port_text, error);
    if (err)
        return err;
    if (length > ADDRESS_HOST_MAX)
        return error_set(error, GODWIT_ERR_INVALID, "host of %zu characters in a %s address: at most %d", length,
                         scheme->name, ADDRESS_HOST_MAX);
    if (!host_is_clean(host, length))
        return error_set(error, GODWIT_ERR_INVALID, "bad host in \"%.200s\": expected %s", whole, scheme->expected);
    err = parse_port(port_text, whole, scheme, &out->port, error);
    if (err)
        return err;
    memcpy(out->host, host, length);
    return GODWIT_OK;
}

static enum godwit_err parse_path(const char *rest, const struct scheme *scheme, struct address *out,
                                  struct godwit_error *error)
{
    size_t length = strlen(rest);
    if (!length)
        return error_set(error, GODWIT_ERR_INVALID, "nothing after \"%s:\": expected %s", scheme->name,
                         scheme->expected);
    if (length > ADDRESS_PATH_MAX)
        return error_set(error, GODWIT_ERR_INVALID, "path of %zu characters in a %s address: at most %d", length,
                         scheme->name, ADDRESS_PATH_MAX);
    memcpy(out->path, rest, length);
    return GODWIT_OK;
}

enum godwit_err address_parse(const char *text, struct address *out, struct godwit_error *error)
{
    if (!*text)
        return error_set(error, GODWIT_ERR_INVALID, "empty address: expected for example tcp:HOST:PORT or unix:PATH");
    size_t length = strcspn(text, ":");
    const struct scheme *scheme = scheme_find(text, length);
    if (!scheme)
        return scheme_unknown(text, error);
    if (!text[length])
        return error_set(error, GODWIT_ERR_INVALID, "nothing after \"%s\": expected %s", scheme->name,
                         scheme->expected);

    struct address parsed = {.port = 0};
    memcpy(parsed.scheme, scheme->name, length);
    const char *rest = text + length + 1;
    enum godwit_err err = scheme->form == FORM_HOST ? parse_host(rest, text, scheme, &parsed, error)
                                                    : parse_path(rest, scheme, &parsed, error);
    if (!err)
        *out = parsed;
    return err;
}

void address_format(const struct address *address, char text[ADDRESS_TEXT_MAX])
{
    if (address->path[0])
        snprintf(text, ADDRESS_TEXT_MAX, "%s:%s", address->scheme, address->path);
    else if (strchr(address->host, ':'))
        snprintf(text, ADDRESS_TEXT_MAX, "%s:[%s]:%u", address->scheme, address->host, address->port);
    else
        snprintf(text, ADDRESS_TEXT_MAX, "%s:%s:%u", address->scheme, address->host, address->port);
}
