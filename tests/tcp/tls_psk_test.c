/* keys.psk, line by line. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tcp/tls_psk.h"

TestSuite(tls_psk, .timeout = 30);

#define KEY "00112233445566778899aabbccddeeff"

static const unsigned char key[] = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                                    0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};

static struct tls_psk *parse(const char *text)
{
    struct tls_psk *psk = NULL;
    struct godwit_error error;
    cr_assert_eq(tls_psk_parse("keys.psk", (const unsigned char *)text, strlen(text), &psk, &error), GODWIT_OK, "%s",
                 error.text);
    return psk;
}

static void expect_key(const struct tls_psk *psk, const char *name)
{
    const struct tls_psk_user *user = tls_psk_find(psk, name, strlen(name));
    cr_assert_not_null(user, "%s", name);
    cr_assert(user->key_size == sizeof key && memcmp(user->key, key, sizeof key) == 0, "%s", name);
}

static void expect_refused(const char *text, const char *words)
{
    struct tls_psk *psk = NULL;
    struct godwit_error error = {0};
    cr_assert_eq(tls_psk_parse("keys.psk", (const unsigned char *)text, strlen(text), &psk, &error), GODWIT_ERR_INVALID,
                 "%s", text);
    cr_assert_null(psk);
    cr_assert(strstr(error.text, "keys.psk") && strstr(error.text, words), "\"%s\" does not say \"%s\"", error.text,
              words);
    cr_assert(strstr(error.text, KEY) == NULL, "a key is never told");
}

Test(tls_psk, users_are_found_by_their_whole_name)
{
    struct tls_psk *psk = parse("qemu:" KEY "\nalice:" KEY "\nal:00112233445566778899AABBCCDDEEFF");
    expect_key(psk, "qemu");
    expect_key(psk, "alice");
    expect_key(psk, "al");
    cr_assert_null(tls_psk_find(psk, "qem", 3));
    cr_assert_null(tls_psk_find(psk, "qemux", 5));
    cr_assert_null(tls_psk_find(psk, "", 0));
    tls_psk_free(psk);
}

Test(tls_psk, blanks_empty_lines_and_comments_are_no_users)
{
    struct tls_psk *psk = parse("\n# a comment\n#another: one\n#\n \t\nqemu:" KEY " \t\r\n\r\n");
    expect_key(psk, "qemu");
    cr_assert_null(tls_psk_find(psk, "", 0));
    tls_psk_free(psk);
}

Test(tls_psk, a_user_may_be_in_hexadecimal_as_gnutls_has_it)
{
    struct tls_psk *psk = parse("#71656d75:" KEY "\n#00ff:" KEY "\n");
    expect_key(psk, "qemu");
    cr_assert_not_null(tls_psk_find(psk, "\0\xff", 2));
    tls_psk_free(psk);
}

Test(tls_psk, a_line_that_is_wrong_is_named_by_its_number)
{
    expect_refused("qemu:" KEY "\n\nhello\n", "line 3: expected USER:KEY");
    expect_refused(":" KEY "\n", "line 1: expected USER:KEY");
    expect_refused("qemu:\n", "line 1: the key is not an even number");
    expect_refused("a:" KEY "\nqemu:" KEY "0\n", "line 2: the key is not an even number");
    expect_refused("qemu:" KEY "xx\n", "hexadecimal digits");
    expect_refused("qemu: " KEY "\n", "hexadecimal digits");
    expect_refused("qemu:" KEY ":" KEY "\n", "hexadecimal digits");
    expect_refused("qemu:00112233445566778899aabbccddee\n", "line 1: the key is shorter than 16 bytes");
}

Test(tls_psk, a_key_has_an_upper_bound)
{
    char text[8 + 2 * TLS_PSK_KEY_MAX + 3] = "qemu:";
    memset(text + 5, 'a', 2 * TLS_PSK_KEY_MAX);
    struct tls_psk *psk = parse(text);
    cr_assert_eq(tls_psk_find(psk, "qemu", 4)->key_size, TLS_PSK_KEY_MAX);
    tls_psk_free(psk);
    memset(text + 5, 'a', 2 * TLS_PSK_KEY_MAX + 2);
    expect_refused(text, "longer than 512 bytes");
}

Test(tls_psk, a_user_with_two_keys_is_refused)
{
    expect_refused("b:" KEY "\na:" KEY "\nc:" KEY "\na:" KEY "\n", "line 4: user \"a\" has a key in line 2 already");
    expect_refused("qemu:" KEY "\n#71656D75:" KEY "\n", "line 2: user \"qemu\"");
}

Test(tls_psk, a_file_without_users_is_refused)
{
    expect_refused("# nobody\n", "has no key");
    expect_refused("\n", "has no key");
}
