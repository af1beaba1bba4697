/* Who lets whom in: real handshakes between the credentials of two sides. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tcp/tls_credentials.h"
#include "tests/lib/pki.h"
#include "tests/tcp/tls_meeting.h"

TestSuite(tls_peer, .timeout = 60);

/* One set of files for each side, so that either can be spoilt. */
static struct pki theirs, ours; /* the client's, the server's */
static struct tls_config client, server;
static const char *host;
static struct meeting meeting;

static void share_authority(void)
{
    pki_write_certificate(theirs.directory, "ca-cert.pem", &ours.authority);
}

static void remake_client(const struct pki_pair *signer, const struct pki_options *options)
{
    pki_free(&theirs.client);
    theirs.client = pki_make(signer, options);
    pki_write_certificate(theirs.directory, "client-cert.pem", &theirs.client);
    pki_write_key(theirs.directory, "client-key.pem", &theirs.client, 0600, NULL);
}

static void remake_server(const struct pki_pair *signer, const struct pki_options *options)
{
    pki_free(&ours.server);
    ours.server = pki_make(signer, options);
    pki_write_certificate(ours.directory, "server-cert.pem", &ours.server);
    pki_write_key(ours.directory, "server-key.pem", &ours.server, 0600, NULL);
}

/* Both sides of one authority, the server's; a client for its host. */
static void setup(void)
{
    pki_new(&theirs);
    pki_new(&ours);
    share_authority();
    remake_client(&ours.authority,
                  &(struct pki_options){.subject = "CN=source,O=Example", .purpose = GNUTLS_KP_TLS_WWW_CLIENT});
    client = tls_config_of(theirs.directory);
    server = tls_config_of(ours.directory);
    host = "localhost";
}

static void teardown(void)
{
    pki_end(&ours);
    pki_end(&theirs);
}

static struct tls_credentials *load(const struct tls_config *config, enum tls_side side)
{
    struct tls_credentials *credentials = NULL;
    struct godwit_error error;
    cr_assert_eq(tls_credentials_load(config, side, &credentials, &error), GODWIT_OK, "%s", error.text);
    return credentials;
}

static void meet(void)
{
    struct tls_credentials *source = load(&client, TLS_CLIENT), *destination = load(&server, TLS_SERVER);
    tls_meet(source, destination, host, &meeting);
    tls_credentials_free(source);
    tls_credentials_free(destination);
}

static void expect_friends(void)
{
    meet();
    cr_assert_eq(meeting.client.err, GODWIT_OK, "client: %s", meeting.client.error.text);
    cr_assert_eq(meeting.server.err, GODWIT_OK, "server: %s", meeting.server.error.text);
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void expect_words(const struct attendee *attendee, const char *const *words)
{
    cr_assert_eq(attendee->err, GODWIT_ERR_NOT_ADMITTED, "%s", attendee->error.text);
    for (; *words != NULL; words++)
        cr_assert(strstr(attendee->error.text, *words), "\"%s\" does not say \"%s\"", attendee->error.text, *words);
}

static void expect_client_refuses(const char *const *words)
{
    meet();
    expect_words(&meeting.client, words);
    cr_assert_neq(meeting.server.err, GODWIT_OK, "the server hears of it");
}

static void expect_server_refuses(const char *const *words)
{
    meet();
    expect_words(&meeting.server, words);
}

#define CASE(name) Test(tls_peer, name, .init = setup, .fini = teardown)

CASE(two_sides_of_one_authority_meet_in_tls_1_3)
{
    expect_friends();
    cr_assert(meeting.client.judged && meeting.server.judged);
    cr_assert_str_eq(meeting.client.version, "TLS1.3");
    cr_assert_str_eq(meeting.client.cipher, "AES-256-GCM");
}

CASE(tls_1_2_is_spoken_when_both_ask_for_it_and_only_then)
{
    client.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM";
    meet();
    cr_assert_neq(meeting.client.err, GODWIT_OK);
    cr_assert_neq(meeting.server.err, GODWIT_OK);
    server.priority = client.priority;
    expect_friends();
    cr_assert_str_eq(meeting.client.version, "TLS1.2");
    cr_assert_str_eq(meeting.client.cipher, "AES-128-GCM");
}

CASE(addresses_are_names_too)
{
    static const char *const hosts[] = {"localhost", "127.0.0.1", "::1", "::1%lo", "0:0:0:0:0:0:0:1"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        host = hosts[i];
        expect_friends();
    }
}

CASE(a_certificate_for_another_host_is_refused_with_the_names_it_has)
{
    host = "elsewhere.example";
    expect_client_refuses(WORDS("for localhost, 127.0.0.1, ::1, not for elsewhere.example", "tls-hostname"));
    host = "127.0.0.2";
    expect_client_refuses(WORDS("not for 127.0.0.2"));
}

CASE(tls_hostname_replaces_the_name_of_the_address)
{
    host = "192.0.2.1";
    client.hostname = "localhost";
    expect_friends();
    host = "localhost";
    client.hostname = "elsewhere.example";
    expect_client_refuses(WORDS("not for elsewhere.example", "tls-hostname"));
}

CASE(the_common_name_counts_where_no_other_name_is)
{
    remake_server(&ours.authority, &(struct pki_options){.subject = "CN=old.example"});
    host = "old.example";
    expect_friends();
    host = "new.example";
    expect_client_refuses(WORDS("for old.example, not for new.example"));
}

CASE(a_certificate_for_nobody_is_for_no_host)
{
    remake_server(&ours.authority, &(struct pki_options){.subject = "O=Example"});
    expect_client_refuses(WORDS("for nobody, not for localhost"));
}

CASE(a_destination_of_another_authority_is_refused)
{
    pki_write_certificate(theirs.directory, "ca-cert.pem", &theirs.authority);
    pki_unlink(theirs.directory, "client-cert.pem");
    pki_unlink(theirs.directory, "client-key.pem");
    /* The name of both authorities is the same, so it is the signature that is wrong; of others the signer is unknown. */
    expect_client_refuses(WORDS("the destination's certificate \"O=Example,CN=destination\""));
    struct pki_pair other = pki_make(NULL, &(struct pki_options){.subject = "CN=other", .authority = true});
    pki_write_certificate(theirs.directory, "ca-cert.pem", &other);
    pki_free(&other);
    expect_client_refuses(WORDS("\"O=Example,CN=destination\"", "not signed by an authority of ca-cert.pem"));
}

CASE(a_source_of_another_authority_is_refused_by_name)
{
    struct pki_pair other = pki_make(NULL, &(struct pki_options){.subject = "CN=other", .authority = true});
    remake_client(&other, &(struct pki_options){.subject = "CN=hostile,O=Elsewhere"});
    pki_write_certificates(theirs.directory, "ca-cert.pem",
                           (const struct pki_pair *const[]){&ours.authority, &other, NULL});
    pki_free(&other);
    expect_server_refuses(WORDS("the source's certificate \"O=Elsewhere,CN=hostile\"", "not signed by"));
}

CASE(a_source_without_certificate_is_refused_unless_allowed)
{
    pki_unlink(theirs.directory, "client-cert.pem");
    pki_unlink(theirs.directory, "client-key.pem");
    expect_server_refuses(WORDS("no certificate", "tls-verify-peer", "client-cert.pem"));
    server.verify_peer = false;
    expect_friends();
    server.authz = "O=Example,CN=source";
    expect_server_refuses(WORDS("no certificate", "tls-authz"));
}

CASE(a_source_that_shows_a_certificate_is_held_to_it)
{
    server.verify_peer = false;
    expect_friends();
    struct pki_pair other = pki_make(NULL, &(struct pki_options){.subject = "CN=other", .authority = true});
    remake_client(&other, &(struct pki_options){.subject = "CN=hostile"});
    pki_write_certificates(theirs.directory, "ca-cert.pem",
                           (const struct pki_pair *const[]){&ours.authority, &other, NULL});
    pki_free(&other);
    expect_server_refuses(WORDS("\"CN=hostile\"", "not signed by"));
}

CASE(a_list_of_names_says_who_may_come_in)
{
    server.authz = "CN=nobody;O=Example,CN=sou*";
    expect_friends();
    server.authz = "CN=source";
    expect_server_refuses(WORDS("\"O=Example,CN=source\" is not in tls-authz"));
}

CASE(the_name_that_a_refusal_prints_can_be_pasted_into_the_list)
{
    remake_client(&ours.authority, &(struct pki_options){.subject = "CN=a\\;b\\,c \\+ d,OU=x,O=Ex\\\\ample"});
    server.authz = "CN=nobody";
    meet();
    cr_assert_eq(meeting.server.err, GODWIT_ERR_NOT_ADMITTED);
    char *begin = strchr(meeting.server.error.text, '"'), *end = strrchr(meeting.server.error.text, '"');
    cr_assert(begin != NULL && end > begin);
    *end = 0;
    char pasted[sizeof meeting.server.error.text];
    snprintf(pasted, sizeof pasted, "CN=nobody;%s", begin + 1);
    server.authz = pasted;
    expect_friends();
}

/* The credentials of the one who is refused are fine to itself: its own directory has no such list. */
CASE(a_source_that_is_revoked_is_refused)
{
    pki_write_revocations(ours.directory, &ours.authority, &theirs.client, -10, PKI_HOUR);
    expect_server_refuses(WORDS("\"O=Example,CN=source\"", "revoked by ca-crl.pem"));
}

CASE(a_destination_that_is_revoked_is_refused)
{
    pki_write_revocations(theirs.directory, &ours.authority, &ours.server, -10, PKI_HOUR);
    expect_client_refuses(WORDS("\"O=Example,CN=destination\"", "revoked by ca-crl.pem"));
}

/* Loads, then lives longer than its certificate: GnuTLS is given another time meanwhile. */
static time_t later(time_t *out)
{
    time_t now = time(NULL) + 2 * PKI_HOUR;
    if (out != NULL)
        *out = now;
    return now;
}

CASE(a_certificate_that_expires_after_loading_is_refused_by_the_peer)
{
    struct tls_credentials *source = load(&client, TLS_CLIENT), *destination = load(&server, TLS_SERVER);
    gnutls_global_set_time_function(later);
    tls_meet(source, destination, host, &meeting);
    gnutls_global_set_time_function(time);
    tls_credentials_free(source);
    tls_credentials_free(destination);
    expect_words(&meeting.client, WORDS("\"O=Example,CN=destination\"", "expired"));
}

CASE(a_certificate_made_for_a_server_is_no_source_s)
{
    /* As a client's it would not even load. */
    struct tls_credentials *destination = load(&server, TLS_SERVER);
    struct tls_credentials *source = load(&client, TLS_CLIENT);
    gnutls_certificate_credentials_t wrong;
    char ca[PKI_PATH_MAX + 32], cert[PKI_PATH_MAX + 32], key[PKI_PATH_MAX + 32];
    snprintf(ca, sizeof ca, "%s/ca-cert.pem", ours.directory);
    snprintf(cert, sizeof cert, "%s/server-cert.pem", ours.directory);
    snprintf(key, sizeof key, "%s/server-key.pem", ours.directory);
    cr_assert_eq(gnutls_certificate_allocate_credentials(&wrong), 0);
    cr_assert_eq(gnutls_certificate_set_x509_trust_file(wrong, ca, GNUTLS_X509_FMT_PEM), 1);
    cr_assert_eq(gnutls_certificate_set_x509_key_file(wrong, cert, key, GNUTLS_X509_FMT_PEM), 0);
    tls_meet_with(source, wrong, destination, host, &meeting);
    gnutls_certificate_free_credentials(wrong);
    tls_credentials_free(source);
    tls_credentials_free(destination);
    expect_words(&meeting.server, WORDS("\"O=Example,CN=destination\"", "not made for a TLS client"));
}

static void psk(const char *source, const char *destination)
{
    pki_directory_new(theirs.directory);
    pki_directory_new(ours.directory);
    pki_write_text(theirs.directory, "keys.psk", source, 0600);
    pki_write_text(ours.directory, "keys.psk", destination, 0600);
    client = tls_config_of(theirs.directory);
    server = tls_config_of(ours.directory);
    host = "";
}

static void psk_end(void)
{
    pki_directory_remove(theirs.directory);
    pki_directory_remove(ours.directory);
}

#define KEY_A "00112233445566778899aabbccddeeff"
#define KEY_B "ffeeddccbbaa99887766554433221100"

Test(tls_peer, one_key_on_both_sides_is_enough)
{
    psk("qemu:" KEY_A "\n", "alice:" KEY_B "\nqemu:" KEY_A "\n");
    expect_friends();
    cr_assert_str_eq(meeting.client.version, "TLS1.3");
    cr_assert_str_eq(meeting.client.cipher, "AES-128-GCM");
    psk_end();
}

Test(tls_peer, another_user_s_key_is_found_by_its_name)
{
    psk("qemu:" KEY_B "\nalice:" KEY_B "\n", "alice:" KEY_B "\nqemu:" KEY_A "\n");
    client.username = "alice";
    expect_friends();
    psk_end();
}

static void expect_strangers(void)
{
    meet();
    cr_assert_neq(meeting.client.err, GODWIT_OK);
    cr_assert_neq(meeting.server.err, GODWIT_OK);
}

Test(tls_peer, a_key_that_differs_lets_nobody_in)
{
    psk("qemu:" KEY_A "\n", "qemu:" KEY_B "\n");
    expect_strangers();
    psk_end();
}

Test(tls_peer, an_unknown_user_cannot_be_told_from_a_wrong_key)
{
    char wrong_key[GODWIT_ERROR_TEXT];
    psk("qemu:" KEY_A "\n", "qemu:" KEY_B "\n");
    expect_strangers();
    snprintf(wrong_key, sizeof wrong_key, "%s", meeting.client.error.text);
    psk_end();
    psk("qemu:" KEY_A "\n", "alice:" KEY_A "\n");
    expect_strangers();
    cr_assert_str_eq(meeting.client.error.text, wrong_key);
    psk_end();
}

Test(tls_peer, a_key_exchange_that_tls_priority_forgot_is_added)
{
    psk("qemu:" KEY_A "\n", "qemu:" KEY_A "\n");
    client.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305";
    expect_friends();
    cr_assert_str_eq(meeting.client.cipher, "CHACHA20-POLY1305");
    server.priority = client.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-GCM:-KX-ALL";
    expect_friends();
    cr_assert_str_eq(meeting.client.version, "TLS1.2");
    psk_end();
}

CASE(certificates_and_pre_shared_keys_do_not_meet)
{
    pki_end(&theirs);
    pki_directory_new(theirs.directory);
    pki_write_text(theirs.directory, "keys.psk", "qemu:" KEY_A "\n", 0600);
    expect_strangers();
    pki_directory_remove(theirs.directory);
    pki_new(&theirs);
}
