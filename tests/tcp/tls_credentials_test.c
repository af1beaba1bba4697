/* What is judged before anybody connects. Each test spoils one thing of a set that is right, and looks for the words. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tcp/tls_credentials.h"
#include "tests/lib/pki.h"
#include "tests/tcp/tls_meeting.h"

TestSuite(tls_credentials, .timeout = 60);

static struct pki pki;

static void setup(void)
{
    pki_new(&pki);
}

static void teardown(void)
{
    pki_end(&pki);
}

static void expect_config_loads(const struct tls_config *config, enum tls_side side)
{
    struct tls_credentials *credentials = NULL;
    struct godwit_error error;
    cr_assert_eq(tls_credentials_load(config, side, &credentials, &error), GODWIT_OK, "%s", error.text);
    tls_credentials_free(credentials);
}

static void expect_loads(enum tls_side side)
{
    struct tls_config config = tls_config_of(pki.directory);
    expect_config_loads(&config, side);
}

/* Every one of the words, which end with NULL. */
static void expect_config_refused(const struct tls_config *config, enum tls_side side, const char *const *words)
{
    struct tls_credentials *credentials = NULL;
    struct godwit_error error = {0};
    cr_assert_eq(tls_credentials_load(config, side, &credentials, &error), GODWIT_ERR_INVALID);
    cr_assert_null(credentials, "the output is written only on success");
    for (; *words != NULL; words++)
        cr_assert(strstr(error.text, *words), "\"%s\" does not say \"%s\"", error.text, *words);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void expect_refused(enum tls_side side, const char *const *words)
{
    struct tls_config config = tls_config_of(pki.directory);
    expect_config_refused(&config, side, words);
}

/* The server's certificate made anew. */
static void remake_server(const struct pki_pair *signer, const struct pki_options *options)
{
    pki_free(&pki.server);
    pki.server = pki_make(signer, options);
    pki_write_certificate(pki.directory, "server-cert.pem", &pki.server);
    pki_write_key(pki.directory, "server-key.pem", &pki.server, 0600, NULL);
}

static void remake_authority(const struct pki_options *options)
{
    pki_free(&pki.authority);
    pki.authority = pki_make(NULL, options);
    pki_write_certificate(pki.directory, "ca-cert.pem", &pki.authority);
}

#define CASE(name) Test(tls_credentials, name, .init = setup, .fini = teardown)

CASE(a_set_of_certificates_loads_on_either_side)
{
    expect_loads(TLS_SERVER);
    expect_loads(TLS_CLIENT);
}

CASE(a_directory_that_is_not_there_is_named)
{
    struct tls_config config = tls_config_of("/nonexistent/pki");
    expect_config_refused(&config, TLS_SERVER, WORDS("/nonexistent/pki", "No such file"));
}

CASE(a_file_in_place_of_the_directory_is_refused)
{
    struct tls_config config = tls_config_of("/etc/hostname");
    expect_config_refused(&config, TLS_CLIENT, WORDS("/etc/hostname", "Not a directory"));
}

CASE(an_empty_directory_is_told_what_it_lacks)
{
    char empty[PKI_PATH_MAX];
    pki_directory_new(empty);
    struct tls_config config = tls_config_of(empty);
    expect_config_refused(&config, TLS_CLIENT, WORDS(empty, "ca-cert.pem", "keys.psk"));
    pki_directory_remove(empty);
}

CASE(two_kinds_in_one_directory_are_refused)
{
    pki_write_text(pki.directory, "keys.psk", "qemu:00112233445566778899aabbccddeeff\n", 0600);
    expect_refused(TLS_SERVER, WORDS("keys.psk", "ca-cert.pem", "both"));
}

CASE(a_set_without_its_authority_is_told_which_file_is_missing)
{
    pki_unlink(pki.directory, "ca-cert.pem");
    expect_refused(TLS_CLIENT, WORDS("ca-cert.pem", "No such file"));
}

CASE(a_server_needs_both_its_files)
{
    pki_unlink(pki.directory, "server-key.pem");
    expect_refused(TLS_SERVER, WORDS("server-key.pem", "No such file"));
    pki_unlink(pki.directory, "server-cert.pem");
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "No such file"));
}

CASE(a_client_has_both_its_files_or_none)
{
    pki_unlink(pki.directory, "client-key.pem");
    expect_refused(TLS_CLIENT, WORDS("client-key.pem", "No such file"));
    pki_unlink(pki.directory, "client-cert.pem");
    expect_loads(TLS_CLIENT);
    pki_write_key(pki.directory, "client-key.pem", &pki.client, 0600, NULL);
    expect_refused(TLS_CLIENT, WORDS("client-cert.pem", "No such file"));
}

CASE(files_that_hold_nothing_of_use_are_named)
{
    static const struct {
        const char *name, *words;
    } files[] = {{"server-key.pem", "no private key in PEM form"},
                 {"server-cert.pem", "no certificate in PEM form"},
                 {"ca-crl.pem", "no list of revoked certificates in PEM form"},
                 {"ca-cert.pem", "no certificate in PEM form"}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        pki_write_text(pki.directory, files[i].name, "hello\n", 0600);
        expect_refused(TLS_SERVER, WORDS(files[i].name, files[i].words));
        pki_write_text(pki.directory, files[i].name, "", 0600);
        expect_refused(TLS_SERVER, WORDS(files[i].name, "is empty"));
    }
}

CASE(a_directory_in_place_of_a_file_is_refused)
{
    char path[PKI_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/ca-crl.pem", pki.directory);
    cr_assert_eq(mkdir(path, 0700), 0);
    expect_refused(TLS_SERVER, WORDS("ca-crl.pem", "not a file"));
    rmdir(path);
}

CASE(a_fifo_in_place_of_a_file_is_refused_and_not_waited_for)
{
    char path[PKI_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/ca-crl.pem", pki.directory);
    cr_assert_eq(mkfifo(path, 0600), 0);
    expect_refused(TLS_SERVER, WORDS("ca-crl.pem", "not a file"));
}

CASE(a_key_that_others_may_read_or_change_is_refused)
{
    static const mode_t modes[] = {0640, 0620, 0604, 0602, 0644, 0666};
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        char mode[8];
        snprintf(mode, sizeof mode, "%04o", (unsigned)modes[i]);
        pki_write_key(pki.directory, "server-key.pem", &pki.server, modes[i], NULL);
        expect_refused(TLS_SERVER, WORDS("server-key.pem", mode, "chmod 600"));
    }
    pki_write_key(pki.directory, "server-key.pem", &pki.server, 0400, NULL);
    expect_loads(TLS_SERVER);
}

CASE(a_certificate_that_anybody_may_change_is_refused)
{
    static const char *const files[] = {"ca-cert.pem", "server-cert.pem"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char path[PKI_PATH_MAX + 32];
        snprintf(path, sizeof path, "%s/%s", pki.directory, files[i]);
        cr_assert_eq(chmod(path, 0646), 0);
        expect_refused(TLS_SERVER, WORDS(files[i], "0646", "chmod o-w"));
        cr_assert_eq(chmod(path, 0664), 0);
        expect_loads(TLS_SERVER);
    }
}

CASE(a_key_behind_a_link_is_judged_by_its_own_mode)
{
    char target[PKI_PATH_MAX + 32], link[PKI_PATH_MAX + 32];
    pki_unlink(pki.directory, "server-key.pem");
    pki_write_key(pki.directory, "elsewhere.pem", &pki.server, 0644, NULL);
    snprintf(target, sizeof target, "%s/elsewhere.pem", pki.directory);
    snprintf(link, sizeof link, "%s/server-key.pem", pki.directory);
    cr_assert_eq(symlink(target, link), 0);
    expect_refused(TLS_SERVER, WORDS("server-key.pem", "0644"));
    cr_assert_eq(chmod(target, 0600), 0);
    expect_loads(TLS_SERVER);
}

CASE(a_list_of_revoked_certificates_that_is_a_dead_link_is_not_overlooked)
{
    char link[PKI_PATH_MAX + 32];
    snprintf(link, sizeof link, "%s/ca-crl.pem", pki.directory);
    cr_assert_eq(symlink("/nonexistent/crl", link), 0);
    expect_refused(TLS_SERVER, WORDS("ca-crl.pem", "No such file"));
}

CASE(an_encrypted_key_is_told_from_a_broken_one)
{
    pki_write_key(pki.directory, "server-key.pem", &pki.server, 0600, "secret");
    expect_refused(TLS_SERVER, WORDS("server-key.pem", "encrypted", "openssl pkey"));
}

CASE(a_key_of_another_certificate_is_refused)
{
    pki_write_key(pki.directory, "server-key.pem", &pki.client, 0600, NULL);
    expect_refused(TLS_SERVER, WORDS("server-key.pem", "does not belong", "server-cert.pem"));
}

CASE(an_expired_certificate_is_refused_with_its_date)
{
    char year[8];
    time_t then = time(NULL) - 10;
    strftime(year, sizeof year, "%Y-", gmtime(&then));
    remake_server(&pki.authority, &(struct pki_options){.begin = -PKI_HOUR, .end = -10});
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "expired on", year, "UTC"));
}

CASE(a_certificate_that_is_not_valid_yet_is_refused_with_its_date)
{
    remake_server(&pki.authority, &(struct pki_options){.begin = 100});
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "not valid before", "UTC", "set this host's clock"));
}

CASE(a_certificate_for_the_other_side_is_refused)
{
    remake_server(&pki.authority, &(struct pki_options){.purpose = GNUTLS_KP_TLS_WWW_CLIENT});
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "not made for a TLS server", "extended key usage"));
    pki_write_certificate(pki.directory, "client-cert.pem", &pki.server);
    pki_write_key(pki.directory, "client-key.pem", &pki.server, 0600, NULL);
    expect_loads(TLS_CLIENT);
    remake_server(&pki.authority, &(struct pki_options){.purpose = GNUTLS_KP_TLS_WWW_SERVER});
    pki_write_certificate(pki.directory, "client-cert.pem", &pki.server);
    pki_write_key(pki.directory, "client-key.pem", &pki.server, 0600, NULL);
    expect_refused(TLS_CLIENT, WORDS("client-cert.pem", "not made for a TLS client"));
}

CASE(a_certificate_without_purpose_is_for_every_purpose)
{
    remake_server(&pki.authority, &(struct pki_options){.subject = "CN=any"});
    expect_loads(TLS_SERVER);
}

CASE(a_certificate_that_may_not_sign_is_refused)
{
    remake_server(&pki.authority, &(struct pki_options){.usage = GNUTLS_KEY_KEY_ENCIPHERMENT});
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "key usage", "digitalSignature"));
}

CASE(an_authority_in_place_of_a_server_is_refused)
{
    remake_server(&pki.authority, &(struct pki_options){.authority = true});
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "authority", "basic constraints"));
}

CASE(an_authority_that_is_none_is_refused)
{
    remake_authority(&(struct pki_options){.subject = "CN=no authority"});
    expect_refused(TLS_CLIENT, WORDS("ca-cert.pem", "not an authority", "basic constraints"));
    remake_authority(&(struct pki_options){.subject = "CN=no word of it", .no_constraints = true});
    expect_refused(TLS_CLIENT, WORDS("ca-cert.pem", "not an authority", "basic constraints"));
    remake_authority(&(struct pki_options){.authority = true, .usage = GNUTLS_KEY_DIGITAL_SIGNATURE});
    expect_refused(TLS_CLIENT, WORDS("ca-cert.pem", "may not sign certificates", "key usage"));
}

CASE(an_authority_out_of_its_time_is_refused_with_its_date)
{
    remake_authority(&(struct pki_options){.authority = true, .begin = 100});
    expect_refused(TLS_CLIENT, WORDS("ca-cert.pem", "not valid before", "UTC"));
    remake_authority(&(struct pki_options){.authority = true, .end = -10});
    expect_refused(TLS_CLIENT, WORDS("ca-cert.pem", "expired on", "UTC"));
}

CASE(a_certificate_of_another_authority_is_refused)
{
    struct pki_pair other = pki_make(NULL, &(struct pki_options){.subject = "CN=other", .authority = true});
    remake_server(&other, &(struct pki_options){.subject = "CN=destination"});
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "not signed by an authority of ca-cert.pem"));
    /* Of the same name, but not the same. */
    struct pki_pair twin = pki_make(NULL, &(struct pki_options){.subject = "CN=test authority", .authority = true});
    remake_server(&twin, &(struct pki_options){.subject = "CN=destination"});
    expect_refused(TLS_SERVER, WORDS("server-cert.pem"));
    pki_free(&twin);
    pki_free(&other);
}

CASE(one_of_several_authorities_is_enough)
{
    struct pki_pair other = pki_make(NULL, &(struct pki_options){.subject = "CN=other", .authority = true});
    pki_write_certificates(pki.directory, "ca-cert.pem",
                           (const struct pki_pair *const[]){&other, &pki.authority, NULL});
    expect_loads(TLS_SERVER);
    remake_server(&other, &(struct pki_options){.subject = "CN=destination"});
    expect_loads(TLS_SERVER);
    pki_free(&other);
}

CASE(a_chain_with_authorities_in_between_loads)
{
    struct pki_pair upper = pki_make(&pki.authority, &(struct pki_options){.subject = "CN=1", .authority = true});
    struct pki_pair lower = pki_make(&upper, &(struct pki_options){.subject = "CN=2", .authority = true});
    remake_server(&lower, &(struct pki_options){.subject = "CN=destination"});
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "not signed by"));
    pki_write_certificates(pki.directory, "server-cert.pem",
                           (const struct pki_pair *const[]){&pki.server, &lower, &upper, NULL});
    expect_loads(TLS_SERVER);
    pki_write_certificates(pki.directory, "server-cert.pem",
                           (const struct pki_pair *const[]){&pki.server, &upper, &lower, NULL});
    expect_loads(TLS_SERVER);
    pki_write_certificates(pki.directory, "server-cert.pem",
                           (const struct pki_pair *const[]){&lower, &upper, &pki.server, NULL});
    expect_refused(TLS_SERVER, WORDS("does not belong to the first certificate", "server-cert.pem"));
    pki_free(&lower);
    pki_free(&upper);
}

CASE(an_authority_in_between_that_expired_is_told_apart)
{
    struct pki_pair between = pki_make(&pki.authority,
                                       &(struct pki_options){.subject = "CN=between", .authority = true, .end = -10});
    remake_server(&between, &(struct pki_options){.subject = "CN=destination"});
    pki_write_certificates(pki.directory, "server-cert.pem",
                           (const struct pki_pair *const[]){&pki.server, &between, NULL});
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "expired on", "a certificate above it"));
    pki_free(&between);
}

CASE(an_own_certificate_that_is_revoked_is_refused)
{
    pki_write_revocations(pki.directory, &pki.authority, &pki.server, -10, PKI_HOUR);
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "revoked by ca-crl.pem"));
    expect_loads(TLS_CLIENT);
    pki_write_revocations(pki.directory, &pki.authority, NULL, -10, PKI_HOUR);
    expect_loads(TLS_SERVER);
}

CASE(a_list_of_revoked_certificates_is_current_and_the_authority_s_own)
{
    pki_write_revocations(pki.directory, &pki.authority, NULL, -PKI_HOUR, -10);
    expect_refused(TLS_SERVER, WORDS("ca-crl.pem", "out of date", "UTC"));
    pki_write_revocations(pki.directory, &pki.authority, NULL, 100, PKI_HOUR);
    expect_refused(TLS_SERVER, WORDS("ca-crl.pem", "in the future"));
    struct pki_pair other = pki_make(NULL, &(struct pki_options){.subject = "CN=other", .authority = true});
    pki_write_revocations(pki.directory, &other, NULL, -10, PKI_HOUR);
    expect_refused(TLS_SERVER, WORDS("ca-crl.pem", "not signed by an authority"));
    pki_free(&other);
    struct pki_pair twin = pki_make(NULL, &(struct pki_options){.subject = "CN=test authority", .authority = true});
    pki_write_revocations(pki.directory, &twin, NULL, -10, PKI_HOUR);
    expect_refused(TLS_SERVER, WORDS("ca-crl.pem", "not signed by an authority"));
    pki_free(&twin);
}

CASE(a_weak_signature_is_refused_unless_tls_priority_decides)
{
    remake_server(&pki.authority, &(struct pki_options){.subject = "CN=weak", .digest = GNUTLS_DIG_SHA1});
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "too weak"));
    struct tls_config config = tls_config_of(pki.directory);
    config.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:%VERIFY_ALLOW_SIGN_WITH_SHA1";
    expect_config_loads(&config, TLS_SERVER);
    remake_server(&pki.authority, &(struct pki_options){.subject = "CN=weak", .digest = GNUTLS_DIG_SHA1, .end = -10});
    expect_config_refused(&config, TLS_SERVER, WORDS("expired"));
}

CASE(a_weak_key_is_refused)
{
    remake_server(&pki.authority, &(struct pki_options){.subject = "CN=weak", .rsa_bits = 768});
    expect_refused(TLS_SERVER, WORDS("server-cert.pem", "too weak"));
}

CASE(a_wrong_priority_or_list_of_names_is_an_error_of_loading)
{
    struct tls_config config = tls_config_of(pki.directory);
    config.priority = "NORMAL";
    expect_config_refused(&config, TLS_CLIENT, WORDS("tls-priority", "TLS1"));
    config.priority = "";
    config.authz = " ; ";
    expect_config_refused(&config, TLS_SERVER, WORDS("tls-authz"));
    expect_config_loads(&config, TLS_CLIENT);
}

static struct tls_config psk_config(char directory[PKI_PATH_MAX], const char *text, mode_t mode)
{
    pki_directory_new(directory);
    pki_write_text(directory, "keys.psk", text, mode);
    return tls_config_of(directory);
}

Test(tls_credentials, pre_shared_keys_load_and_say_so)
{
    char directory[PKI_PATH_MAX];
    struct tls_config config = psk_config(directory, "qemu:00112233445566778899aabbccddeeff\n", 0600);
    for (enum tls_side side = TLS_CLIENT; side <= TLS_SERVER; side++) {
        struct tls_credentials *credentials = NULL;
        struct godwit_error error;
        cr_assert_eq(tls_credentials_load(&config, side, &credentials, &error), GODWIT_OK, "%s", error.text);
        cr_assert(tls_credentials_psk(credentials));
        tls_credentials_free(credentials);
    }
    pki_directory_remove(directory);
}

Test(tls_credentials, a_user_without_a_line_is_named)
{
    char directory[PKI_PATH_MAX];
    struct tls_config config = psk_config(directory, "alice:00112233445566778899aabbccddeeff\n", 0600);
    expect_config_refused(&config, TLS_CLIENT, WORDS("keys.psk", "\"qemu\"", "tls-username"));
    config.username = "alice";
    expect_config_loads(&config, TLS_CLIENT);
    config.username = "bob";
    expect_config_refused(&config, TLS_CLIENT, WORDS("keys.psk", "\"bob\"", "tls-username"));
    expect_config_loads(&config, TLS_SERVER);
    pki_directory_remove(directory);
}

Test(tls_credentials, pre_shared_keys_that_others_may_read_are_refused)
{
    char directory[PKI_PATH_MAX];
    struct tls_config config = psk_config(directory, "qemu:00112233445566778899aabbccddeeff\n", 0640);
    expect_config_refused(&config, TLS_SERVER, WORDS("keys.psk", "0640", "chmod 600"));
    pki_directory_remove(directory);
}

Test(tls_credentials, names_cannot_be_allowed_where_keys_have_none)
{
    char directory[PKI_PATH_MAX];
    struct tls_config config = psk_config(directory, "qemu:00112233445566778899aabbccddeeff\n", 0600);
    config.authz = "CN=source";
    expect_config_refused(&config, TLS_SERVER, WORDS("tls-authz", "pre-shared keys"));
    expect_config_loads(&config, TLS_CLIENT);
    pki_directory_remove(directory);
}
