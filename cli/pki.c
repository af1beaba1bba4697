/*
 * `godwit pki`: certificates for TLS, or a pre-shared key, made by the library; or certificates taken back.
 *
 * Happy path: the files, and on stdout what they are good for and until when; exit 0. Failure modes: wrong words, names
 * and authorities are 2, anything else, such as a file that is there already, 1; one line on stderr, and no new file.
 */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "cli/command.h"

struct pki_settings {
    const char *host, *client, *authority, *psk, *revoke;
    uint64_t days; /* 0: not given */
};

static const struct arg_spec pki_specs[] = {
    {.name = "host", .kind = ARG_TEXT, .offset = offsetof(struct pki_settings, host), .value = "NAME|IP[,...]",
     .standard = "the name of this host, and its long form",
     .summary = "what sources call the host in their URI: names, IP addresses"},
    {.name = "client", .kind = ARG_TEXT, .offset = offsetof(struct pki_settings, client), .value = "NAME",
     .standard = "the first of --host", .summary = "what tls-authz of a destination calls the host: CN=NAME"},
    {.name = "days", .kind = ARG_COUNT, .offset = offsetof(struct pki_settings, days), .min = 1,
     .max = GODWIT_PKI_DAYS_MAX, .value = "N", .standard = "825",
     .summary = "lifetime of the host's certificates; they end with their authority, which has 3650 days"},
    {.name = "ca", .kind = ARG_TEXT, .offset = offsetof(struct pki_settings, authority), .value = "DIR2",
     .summary = "sign with the authority made in DIR2 by an earlier run, instead of making one"},
    {.name = "psk", .kind = ARG_TEXT, .offset = offsetof(struct pki_settings, psk), .value = "USER",
     .summary = "make keys.psk with a key for USER, and no certificates; unless told otherwise a source is user qemu"},
    {.name = "revoke", .kind = ARG_TEXT, .offset = offsetof(struct pki_settings, revoke), .value = "FILE",
     .summary = "put the certificate in FILE on the list ca-crl.pem of the authority in DIR, and make nothing"},
};

static const struct arg_command pki_args = {
    .name = "pki",
    .synopsis = "DIR [--host NAME|IP[,...]] [--client NAME] [--days N] [--ca DIR2] [--psk USER] [--revoke FILE]",
    .summary = "Makes what tls-creds needs, in the layout of QEMU and libvirt: an authority, and the certificates of "
               "one host. With --ca: those of a further host.",
    .groups = {{.title = "Certificates:", .specs = pki_specs, .count = sizeof pki_specs / sizeof *pki_specs}},
    .group_count = 1,
    .takes_directory = true,
};

static void date_text(int64_t seconds, char text[16])
{
    time_t time = (time_t)seconds;
    struct tm tm = {0};
    gmtime_r(&time, &tm);
    strftime(text, 16, "%Y-%m-%d", &tm);
}

static void print_set(const char *directory, const struct godwit_pki_set *set)
{
    char until[16], authority_until[16];
    date_text(set->until, until);
    date_text(set->authority_until, authority_until);
    printf("in %s:\n", directory);
    printf("  ca-cert.pem                       %s authority '%s', until %s\n", set->new_authority ? "new" : "the",
           set->authority, authority_until);
    if (set->new_authority)
        printf("  ca-key.pem                        signs for further hosts (--ca %s); who has it can pose as any\n",
               directory);
    printf("  server-cert.pem, server-key.pem   for %s, until %s\n", set->host, until);
    printf("  client-cert.pem, client-key.pem   as CN=%s, until %s\n", set->client, until);
}

static enum godwit_err make_certificates(const char *directory, const struct pki_settings *settings,
                                         struct godwit_error *error)
{
    struct godwit_pki pki;
    struct godwit_pki_set set;
    godwit_pki_init(&pki);
    pki.authority = settings->authority;
    pki.host = settings->host;
    pki.client = settings->client;
    if (settings->days)
        pki.days = (unsigned)settings->days;
    enum godwit_err err = godwit_pki_make(directory, &pki, &set, error);
    if (!err)
        print_set(directory, &set);
    return err;
}

static enum godwit_err make_psk(const char *directory, const char *user, struct godwit_error *error)
{
    enum godwit_err err = godwit_pki_make_psk(directory, user, error);
    if (!err)
        printf("in %s:\n  keys.psk   a key for user %s; both hosts need this file\n", directory, user);
    return err;
}

static enum godwit_err take_back(const char *directory, const char *certificate, struct godwit_error *error)
{
    enum godwit_err err = godwit_pki_revoke(directory, certificate, (int64_t)time(NULL), error);
    if (!err)
        printf("in %s:\n  ca-crl.pem   revokes %s, on every host that this file is taken to\n", directory, certificate);
    return err;
}

/* False: said. */
static bool goes_together(const struct pki_settings *settings)
{
    bool certificates = settings->host || settings->client || settings->authority || settings->days;
    if (settings->psk && settings->revoke)
        command_complain("--psk makes a key, --revoke takes back a certificate: use one");
    else if (settings->psk && certificates)
        command_complain("--psk makes a key and no certificates: leave --host, --client, --days and --ca");
    else if (settings->revoke && certificates)
        command_complain("--revoke makes no certificates: leave --host, --client, --days and --ca");
    else
        return true;
    return false;
}

static enum godwit_err act(const char *directory, const struct pki_settings *settings, struct godwit_error *error)
{
    if (settings->psk)
        return make_psk(directory, settings->psk, error);
    if (settings->revoke)
        return take_back(directory, settings->revoke, error);
    return make_certificates(directory, settings, error);
}

static int pki_run(int argc, char *const argv[])
{
    struct pki_settings settings = {0};
    struct arg_command args = pki_args;
    args.groups[0].settings = &settings;
    struct args_result result;
    int code = COMMAND_FAILED;
    if (!command_begin(&args, argc, argv, &result, &code))
        return code;
    if (!goes_together(&settings))
        return COMMAND_USAGE;

    struct godwit_error error = {0};
    enum godwit_err err = act(result.directory, &settings, &error);
    if (err) {
        command_complain("%s", error.text);
        return err == GODWIT_ERR_INVALID ? COMMAND_USAGE : COMMAND_FAILED;
    }
    if (fflush(stdout) == 0 && !ferror(stdout))
        return COMMAND_DONE;
    command_complain("the files are made, but what they are could not be written to stdout");
    return COMMAND_FAILED;
}

const struct command pki_command = {.args = &pki_args, .run = pki_run};
