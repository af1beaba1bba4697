/*
 * Names for certificates. They are judged strictly here because a wrong one is found late: at the other end, by a
 * verification that fails.
 */
#include "tcp/pki_names.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/error.h"

enum { LABEL_MAX = 63 };

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS  "0123456789"

/* Letters, digits, hyphens; underscores too, which DNS has though host names should not. */
static bool label_is_good(const char *label, size_t length)
{
    return length > 0 && length <= LABEL_MAX && label[0] != '-' && label[length - 1] != '-' &&
           strspn(label, LETTERS DIGITS "-_") >= length;
}

static bool dns_is_good(const char *name)
{
    const char *label = name;
    for (;;) {
        size_t length = strcspn(label, ".");
        if (!label_is_good(label, length))
            return false;
        if (!label[length])
            return strspn(label, DIGITS) < length; /* otherwise an address that lost a part */
        label += length + 1;
    }
}

static bool ip_parse(struct pki_name *name)
{
    if (inet_pton(AF_INET, name->text, name->ip) == 1)
        name->ip_size = 4;
    else if (inet_pton(AF_INET6, name->text, name->ip) == 1)
        name->ip_size = 16;
    return name->ip_size > 0;
}

static enum godwit_err name_parse(const char *text, size_t length, struct pki_name *out, struct godwit_error *error)
{
    *out = (struct pki_name){0};
    if (length > PKI_DNS_MAX)
        return error_set(error, GODWIT_ERR_INVALID, "host: a name of %zu characters; %d is the most", length,
                         PKI_DNS_MAX);
    memcpy(out->text, text, length);
    if (ip_parse(out) || dns_is_good(out->text))
        return GODWIT_OK;
    return error_set(error, GODWIT_ERR_INVALID,
                     "host: '%s' is no host name and no IP address: give NAME|IP[,NAME|IP...], without brackets, "
                     "port or wildcard",
                     out->text);
}

enum godwit_err pki_names_parse(const char *list, struct pki_names *out, struct godwit_error *error)
{
    out->count = 0;
    for (;;) {
        size_t length = strcspn(list, ",");
        if (out->count == PKI_NAMES_MAX)
            return error_set(error, GODWIT_ERR_INVALID, "host: more than %d names and addresses", PKI_NAMES_MAX);
        enum godwit_err err = name_parse(list, length, &out->names[out->count], error);
        if (err)
            return err;
        out->count++;
        if (!list[length])
            return GODWIT_OK;
        list += length + 1;
    }
}

static bool is_everybodys(const char *name)
{
    return strncasecmp(name, "localhost", strlen("localhost")) == 0 && (!name[9] || name[9] == '.');
}

/* The resolver's answer to what `hostname -f` asks. No answer, and one that is no better, are no error. */
static void add_long_form(struct pki_names *names)
{
    struct addrinfo hints = {.ai_flags = AI_CANONNAME, .ai_socktype = SOCK_STREAM}, *list = NULL;
    if (getaddrinfo(names->names[0].text, NULL, &hints, &list))
        return;
    const char *name = list->ai_canonname;
    struct pki_name parsed;
    if (name && strchr(name, '.') && strcasecmp(name, names->names[0].text) != 0 && !is_everybodys(name) &&
        !name_parse(name, strlen(name), &parsed, NULL) && !parsed.ip_size)
        names->names[names->count++] = parsed;
    freeaddrinfo(list);
}

enum godwit_err pki_names_own(struct pki_names *out, struct godwit_error *error)
{
    char name[PKI_DNS_MAX + 1] = "";
    if (gethostname(name, sizeof name - 1))
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot ask for the name of this host");
    out->count = 1;
    if (is_everybodys(name) || name_parse(name, strlen(name), &out->names[0], NULL) || out->names[0].ip_size)
        return error_set(error, GODWIT_ERR_INVALID,
                         "this host calls itself '%s', by which no other host can find it: give host, the name or IP "
                         "address that others use",
                         name);
    add_long_form(out);
    return GODWIT_OK;
}
