#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "transport/error.h"

TestSuite(error, .timeout = 10);

Test(error, every_code_has_words_and_others_are_unknown)
{
    unsigned known = 0;
    for (int code = 0; code < 300; code++)
        known += strcmp(godwit_err_text((enum godwit_err)code), "unknown error") != 0;
    cr_assert_eq(known, 24);
    cr_assert_str_eq(godwit_err_text((enum godwit_err)-1), "unknown error");
    cr_assert_str_eq(godwit_err_text((enum godwit_err)9999), "unknown error");
}

Test(error, set_returns_the_code_and_fills_the_text)
{
    struct godwit_error error = {.sys_errno = 7};
    cr_assert_eq(error_set(&error, GODWIT_ERR_BUSY, "port %d", 4444), GODWIT_ERR_BUSY);
    cr_assert_eq(error.code, GODWIT_ERR_BUSY);
    cr_assert_eq(error.sys_errno, 0);
    cr_assert_str_eq(error.text, "port 4444");
}

Test(error, set_sys_appends_the_words_of_the_system)
{
    struct godwit_error error;
    cr_assert_eq(error_set_sys(&error, GODWIT_ERR_SYSTEM, ENOENT, "open %s", "x"), GODWIT_ERR_SYSTEM);
    cr_assert_eq(error.sys_errno, ENOENT);
    cr_assert_str_eq(error.text, "open x: No such file or directory");
}

Test(error, prefixes_stack_before_the_cause)
{
    struct godwit_error error;
    error_set_sys(&error, GODWIT_ERR_RESET, EPIPE, "cause");
    cr_assert_eq(error_prefix(&error, "channel %d", 3), GODWIT_ERR_RESET);
    error_prefix(&error, "migration");
    cr_assert_str_eq(error.text, "migration: channel 3: cause: Broken pipe");
    cr_assert_eq(error.sys_errno, EPIPE);
}

Test(error, no_error_struct_still_returns_a_failure)
{
    cr_assert_eq(error_set(NULL, GODWIT_ERR_BUSY, "x"), GODWIT_ERR_BUSY);
    cr_assert_eq(error_set_sys(NULL, GODWIT_ERR_RESET, EPIPE, "x"), GODWIT_ERR_RESET);
    cr_assert_neq(error_prefix(NULL, "x"), GODWIT_OK);
}

Test(error, text_that_is_too_long_is_cut)
{
    struct godwit_error error;
    char words[2 * GODWIT_ERROR_TEXT];
    memset(words, 'w', sizeof words - 1);
    words[sizeof words - 1] = '\0';
    error_set(&error, GODWIT_ERR_INVALID, "%s", words);
    cr_assert_eq(strlen(error.text), GODWIT_ERROR_TEXT - 1);
    error_set_sys(&error, GODWIT_ERR_SYSTEM, EIO, "%s", words);
    cr_assert_eq(strlen(error.text), GODWIT_ERROR_TEXT - 1);
    error_prefix(&error, "front");
    cr_assert_eq(strncmp(error.text, "front: www", 10), 0);
    cr_assert_eq(strlen(error.text), GODWIT_ERROR_TEXT - 1);
}

Test(error, text_is_one_line_and_never_empty)
{
    struct godwit_error error;
    error_set(&error, GODWIT_ERR_PEER_FAILED, "two\nlines\t\x1b[31m");
    cr_assert_str_eq(error.text, "two lines  [31m");
    const char *nothing = "";
    error_set(&error, GODWIT_ERR_TIMEOUT, "%s", nothing);
    cr_assert_str_eq(error.text, "timed out");
}

Test(error, text_may_quote_itself)
{
    struct godwit_error error;
    error_set(&error, GODWIT_ERR_INVALID, "inner");
    error_set(&error, GODWIT_ERR_BUSY, "outer (%s)", error.text);
    cr_assert_str_eq(error.text, "outer (inner)");
}
