/* What a tls-priority may say. What is allowed is then shown by handshakes, in tls_peer_test.c. */
#include <criterion/criterion.h>
#include <string.h>

#include "tcp/tls_priority.h"

TestSuite(tls_priority, .timeout = 30);

#define TLS13 "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL"

static void expect_made(const char *text, enum tls_keys keys)
{
    gnutls_priority_t priority;
    struct godwit_error error;
    cr_assert_eq(tls_priority_make(text, keys, &priority, &error), GODWIT_OK, "%s", error.text);
    gnutls_priority_deinit(priority);
}

static void expect_refused(const char *text, enum tls_keys keys, const char *words)
{
    gnutls_priority_t priority;
    struct godwit_error error = {0};
    cr_assert_eq(tls_priority_make(text, keys, &priority, &error), GODWIT_ERR_INVALID, "%s", text);
    cr_assert(strstr(error.text, "tls-priority") && strstr(error.text, words), "\"%s\" does not say \"%s\"", error.text,
              words);
}

Test(tls_priority, ours_is_tls_1_3_alone)
{
    for (enum tls_keys keys = TLS_KEYS_X509; keys <= TLS_KEYS_PSK; keys++) {
        gnutls_priority_t priority;
        const unsigned *list;
        cr_assert_eq(tls_priority_make("", keys, &priority, NULL), GODWIT_OK);
        cr_assert_eq(gnutls_priority_protocol_list(priority, &list), 1);
        cr_assert_eq(list[0], GNUTLS_TLS1_3);
        gnutls_priority_deinit(priority);
    }
}

Test(tls_priority, a_word_that_gnutls_does_not_know_is_shown_with_its_place)
{
    expect_refused("NORMAL:+NONSENSE:-VERS-ALL", TLS_KEYS_X509, "\"+NONSENSE\" at character 8");
    expect_refused("nonsense", TLS_KEYS_X509, "\"nonsense\" at character 1");
    expect_refused(TLS13 ":+AES-128-GCM:+X", TLS_KEYS_PSK, "\"+X\"");
}

Test(tls_priority, a_text_that_allows_nothing_is_refused)
{
    expect_refused("NORMAL:-VERS-ALL", TLS_KEYS_X509, "cannot be used");
    expect_refused(TLS13, TLS_KEYS_X509, "cannot be used");
}

Test(tls_priority, versions_before_1_2_are_refused_by_name)
{
    expect_refused("NORMAL:-CIPHER-ALL:+AES-128-GCM", TLS_KEYS_X509, "TLS1.1");
    expect_refused("NORMAL:-VERS-ALL:+VERS-TLS1.0:-CIPHER-ALL:+AES-128-GCM", TLS_KEYS_X509, "TLS1.0");
    expect_made("NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM", TLS_KEYS_X509);
}

Test(tls_priority, dtls_alone_is_no_version_of_tls)
{
    expect_refused("NORMAL:-VERS-ALL:+VERS-DTLS1.2:-CIPHER-ALL:+AES-128-GCM", TLS_KEYS_X509, "no version of TLS");
}

Test(tls_priority, ciphers_that_are_not_aead_are_refused_by_name)
{
    expect_refused("NORMAL:-VERS-ALL:+VERS-TLS1.3", TLS_KEYS_X509, "AES-256-CBC");
    expect_refused(TLS13 ":+AES-128-GCM:+AES-128-CBC", TLS_KEYS_X509, "AES-128-CBC");
    expect_refused(TLS13 ":+AES-128-GCM:+NULL", TLS_KEYS_X509, "NULL");
    expect_made(TLS13 ":+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:+AES-128-CCM:+AES-256-CCM", TLS_KEYS_X509);
}

Test(tls_priority, a_pre_shared_key_needs_a_cipher_that_goes_with_it)
{
    expect_refused(TLS13 ":+AES-256-GCM", TLS_KEYS_PSK, "+AES-128-GCM");
    expect_made(TLS13 ":+AES-256-GCM", TLS_KEYS_X509);
    expect_made(TLS13 ":+AES-256-GCM:+AES-128-GCM", TLS_KEYS_PSK);
    expect_made("NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-256-GCM", TLS_KEYS_PSK);
}

static bool exchanges(gnutls_priority_t priority, unsigned wanted)
{
    const unsigned *list;
    int count = gnutls_priority_kx_list(priority, &list);
    for (int i = 0; i < count; i++) {
        if (list[i] == wanted)
            return true;
    }
    return false;
}

Test(tls_priority, only_a_text_without_exchange_for_pre_shared_keys_gets_one)
{
    gnutls_priority_t priority;
    cr_assert_eq(tls_priority_make(TLS13 ":+AES-128-GCM", TLS_KEYS_PSK, &priority, NULL), GODWIT_OK);
    cr_assert(exchanges(priority, GNUTLS_KX_ECDHE_PSK) && exchanges(priority, GNUTLS_KX_DHE_PSK));
    cr_assert(!exchanges(priority, GNUTLS_KX_PSK), "it keeps forward secrecy");
    gnutls_priority_deinit(priority);
    cr_assert_eq(tls_priority_make(TLS13 ":+AES-128-GCM:+DHE-PSK", TLS_KEYS_PSK, &priority, NULL), GODWIT_OK);
    cr_assert(exchanges(priority, GNUTLS_KX_DHE_PSK) && !exchanges(priority, GNUTLS_KX_ECDHE_PSK));
    gnutls_priority_deinit(priority);
}
