/*
 * Sets of certificates, and pre-shared keys: the public functions.
 *
 * Happy path: judge the request, make or read the authority, make the host's two certificates, stage all files, give
 * them their names. Nothing touches the disk before the request is known to make sense, and nothing has a name before
 * all is on the disk.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <gnutls/crypto.h>

#include "tcp/pki_authority.h"
#include "tcp/pki_crl.h"
#include "transport/error.h"

#define KEYS_PSK "keys.psk"

enum { DAY = 24 * 3600, PSK_BYTES = 32, PSK_USER_MAX = 64 };

/* What tls-authz, keys.psk and people can write without quoting. */
#define NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@/"

void godwit_pki_init(struct godwit_pki *pki)
{
    *pki = (struct godwit_pki){
        .days = GODWIT_PKI_DAYS, .authority_days = GODWIT_PKI_AUTHORITY_DAYS, .now = (int64_t)time(NULL)};
}

static enum godwit_err check_directory(const char *directory, struct godwit_error *error)
{
    return directory && *directory ? GODWIT_OK : error_set(error, GODWIT_ERR_INVALID, "directory: none is given");
}

static enum godwit_err check_days(const char *what, unsigned days, struct godwit_error *error)
{
    if (days >= 1 && days <= GODWIT_PKI_DAYS_MAX)
        return GODWIT_OK;
    return error_set(error, GODWIT_ERR_INVALID, "%s: %u; use 1 to %d", what, days, GODWIT_PKI_DAYS_MAX);
}

static enum godwit_err resolve_names(const struct godwit_pki *pki, struct pki_names *names, struct godwit_error *error)
{
    if (pki->host && strlen(pki->host) >= GODWIT_PKI_HOST_TEXT)
        return error_set(error, GODWIT_ERR_INVALID, "host: longer than %d characters", GODWIT_PKI_HOST_TEXT - 1);
    enum godwit_err err = pki->host ? pki_names_parse(pki->host, names, error) : pki_names_own(names, error);
    if (!err && strlen(names->names[0].text) >= GODWIT_PKI_NAME_TEXT)
        return error_set(error, GODWIT_ERR_INVALID,
                         "host: the first name becomes a common name, which has %d characters at most: give host with "
                         "a shorter one first",
                         GODWIT_PKI_NAME_TEXT - 1);
    return err;
}

/* Judges the request and writes down what will be made. */
static enum godwit_err plan(const struct godwit_pki *pki, struct pki_names *names, struct godwit_pki_set *set,
                            struct godwit_error *error)
{
    enum godwit_err err = check_days("days", pki->days, error);
    if (!err)
        err = check_days("authority-days", pki->authority_days, error);
    if (!err)
        err = resolve_names(pki, names, error);
    if (err)
        return err;
    for (unsigned i = 0; i < names->count; i++) {
        size_t used = strlen(set->host);
        snprintf(set->host + used, sizeof set->host - used, "%s%s", i ? "," : "", names->names[i].text);
    }
    const char *client = pki->client ? pki->client : names->names[0].text;
    size_t length = strlen(client);
    if (!length || length >= sizeof set->client || strspn(client, NAME_CHARACTERS ": ") < length || client[0] == ' ' ||
        client[length - 1] == ' ')
        return error_set(error, GODWIT_ERR_INVALID,
                         "client: '%s' is no common name: use 1 to %zu letters, digits, spaces and . _ - @ / :", client,
                         sizeof set->client - 1);
    memcpy(set->client, client, length + 1);
    return GODWIT_OK;
}

struct set_identities {
    struct pki_authority authority;
    struct pki_identity server, client;
};

static enum godwit_err make_identities(const struct godwit_pki *pki, const struct pki_names *names,
                                       struct godwit_pki_set *set, struct set_identities *out,
                                       struct godwit_error *error)
{
    enum godwit_err err;
    if (pki->authority)
        err = pki_authority_load(pki->authority, pki->now, &out->authority, error);
    else
        err = pki_authority_make(pki->now, pki->authority_days, &out->authority, error);
    if (err)
        return err;
    const struct pki_authority *authority = &out->authority;
    struct pki_request server = {.purpose = PKI_SERVER, .name = names->names[0].text, .names = names};
    server.from = pki->now - PKI_CLOCK_SKEW;
    server.until = pki->now + (int64_t)pki->days * DAY;
    if (server.from < authority->from)
        server.from = authority->from;
    if (server.until > authority->until)
        server.until = authority->until;
    struct pki_request client = server;
    client.purpose = PKI_CLIENT;
    client.name = set->client;

    set->new_authority = authority->made;
    memcpy(set->authority, authority->name, sizeof set->authority);
    set->authority_until = authority->until;
    set->until = server.until;
    err = pki_identity_make(&server, &authority->identity, &out->server, error);
    return err ? err : pki_identity_make(&client, &authority->identity, &out->client, error);
}

static void free_identities(struct set_identities *identities)
{
    pki_identity_free(&identities->client);
    pki_identity_free(&identities->server);
    pki_authority_free(&identities->authority);
}

/* ca-cert.pem last: see godwit/pki.h. */
static enum godwit_err stage(const struct set_identities *from, struct pki_files *files, struct godwit_error *error)
{
    enum godwit_err err = pki_identity_stage_key(&from->server, "server-key.pem", files, error);
    if (!err)
        err = pki_identity_stage_certificate(&from->server, "server-cert.pem", files, error);
    if (!err)
        err = pki_identity_stage_key(&from->client, "client-key.pem", files, error);
    if (!err)
        err = pki_identity_stage_certificate(&from->client, "client-cert.pem", files, error);
    if (!err && from->authority.made)
        err = pki_identity_stage_key(&from->authority.identity, PKI_CA_KEY, files, error);
    return err ? err : pki_authority_stage(&from->authority, files, error);
}

/* None of the others (NULL terminated) may be there: whoever uses the directory would refuse the mixture. */
static enum godwit_err open_for(struct pki_files *files, const char *directory, const char *const others[],
                                struct godwit_error *error)
{
    enum godwit_err err = pki_files_open(files, directory, error);
    for (; !err && *others; others++)
        if (pki_files_exist(directory, *others))
            err = error_set(error, GODWIT_ERR_INVALID,
                            "%s holds %s, which does not go together with this: give another directory", directory,
                            *others);
    return err;
}

enum godwit_err godwit_pki_make(const char *directory, const struct godwit_pki *pki, struct godwit_pki_set *set,
                                struct godwit_error *error)
{
    struct pki_names names;
    static const char *const others[] = {KEYS_PSK, PKI_CA_CRL, NULL}; /* the list of another authority */
    struct godwit_pki_set made = {0};
    struct set_identities identities = {0};
    struct pki_files files = {.fd = -1};
    enum godwit_err err = check_directory(directory, error);
    if (!err)
        err = plan(pki, &names, &made, error);
    if (!err)
        err = make_identities(pki, &names, &made, &identities, error);
    if (!err)
        err = open_for(&files, directory, others, error);
    if (!err)
        err = stage(&identities, &files, error);
    if (!err)
        err = pki_files_publish(&files, error);
    pki_files_close(&files);
    free_identities(&identities);
    if (!err && set)
        *set = made;
    return err;
}

/* "USER:HEX\n", as psktool writes it */
static enum godwit_err stage_psk(struct pki_files *files, const char *user, struct godwit_error *error)
{
    unsigned char key[PSK_BYTES];
    char line[PSK_USER_MAX + 1 + 2 * PSK_BYTES + 2];
    int rc = gnutls_rnd(GNUTLS_RND_KEY, key, sizeof key);
    if (rc < 0)
        return pki_gnutls_error(error, rc, "no random numbers");
    int used = snprintf(line, sizeof line, "%s:", user);
    for (unsigned i = 0; i < sizeof key; i++)
        used += snprintf(line + used, sizeof line - (size_t)used, "%02x", key[i]);
    line[used++] = '\n';
    enum godwit_err err = pki_files_stage(files, KEYS_PSK, PKI_SECRET, line, (size_t)used, error);
    explicit_bzero(key, sizeof key);
    explicit_bzero(line, sizeof line);
    return err;
}

enum godwit_err godwit_pki_make_psk(const char *directory, const char *user, struct godwit_error *error)
{
    static const char *const others[] = {PKI_CA_CERT, NULL};
    struct pki_files files = {.fd = -1};
    enum godwit_err err = check_directory(directory, error);
    size_t length = user ? strlen(user) : 0;
    if (!err && (!length || length > PSK_USER_MAX || strspn(user, NAME_CHARACTERS) < length))
        err = error_set(error, GODWIT_ERR_INVALID,
                        "user: '%s' is no user name: use 1 to %d letters, digits and . _ - @ /", user ? user : "",
                        PSK_USER_MAX);
    if (!err)
        err = open_for(&files, directory, others, error);
    if (!err)
        err = stage_psk(&files, user, error);
    if (!err)
        err = pki_files_publish(&files, error);
    pki_files_close(&files);
    return err;
}

enum godwit_err godwit_pki_revoke(const char *authority, const char *certificate, int64_t now,
                                  struct godwit_error *error)
{
    struct pki_authority signer = {0};
    struct pki_files files = {.fd = -1};
    enum godwit_err err = check_directory(authority, error);
    if (!err)
        err = pki_files_open(&files, authority, error);
    if (!err) /* under the lock: of two that extend the same list neither is lost */
        err = pki_authority_load(authority, now, &signer, error);
    if (!err)
        err = pki_crl_stage(&signer, certificate, now, &files, error);
    if (!err)
        err = pki_files_replace(&files, error);
    pki_files_close(&files);
    pki_authority_free(&signer);
    return err;
}
