/* Who may come in: lists, files, wildcards. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tcp/tls_authz.h"
#include "tests/lib/pki.h"

TestSuite(tls_authz, .timeout = 30);

static struct tls_authz *load(const char *text)
{
    struct tls_authz *authz = NULL;
    struct godwit_error error;
    cr_assert_eq(tls_authz_load(text, &authz, &error), GODWIT_OK, "%s", error.text);
    return authz;
}

static void expect(const char *list, const char *name, bool allowed)
{
    struct tls_authz *authz = load(list);
    cr_assert_eq(tls_authz_allows(authz, name), allowed, "\"%s\" and \"%s\"", list, name);
    tls_authz_free(authz);
}

static void expect_refused(const char *text, const char *words)
{
    struct tls_authz *authz = NULL;
    struct godwit_error error = {0};
    cr_assert_eq(tls_authz_load(text, &authz, &error), GODWIT_ERR_INVALID);
    cr_assert_null(authz);
    cr_assert(strstr(error.text, "tls-authz") && strstr(error.text, words), "\"%s\" does not say \"%s\"", error.text,
              words);
}

Test(tls_authz, an_empty_text_is_everybody)
{
    struct tls_authz *authz = load("");
    cr_assert_null(authz);
    cr_assert(tls_authz_allows(authz, "CN=anybody"));
    tls_authz_free(authz);
}

Test(tls_authz, a_name_is_compared_whole_and_as_it_is)
{
    expect("CN=a,O=b", "CN=a,O=b", true);
    expect("CN=a,O=b", "CN=a,O=b,C=c", false);
    expect("CN=a,O=b", "CN=a", false);
    expect("CN=a,O=b", "XCN=a,O=b", false);
    expect("CN=a,O=b", "CN=A,O=b", false);
    expect("CN=a,O=b", "", false);
}

Test(tls_authz, one_of_several_patterns_is_enough)
{
    expect("CN=a;CN=b;CN=c", "CN=a", true);
    expect("CN=a;CN=b;CN=c", "CN=b", true);
    expect(" CN=a ;; CN=c;", "CN=c", true);
    expect("CN=a;CN=b", "CN=a;CN=b", false);
    expect("CN=a;CN=b", "CN=c", false);
}

Test(tls_authz, a_star_is_anything_and_a_question_mark_one_byte)
{
    expect("*", "", true);
    expect("*", "CN=a,O=b", true);
    expect("CN=*,O=b", "CN=,O=b", true);
    expect("CN=*,O=b", "CN=x,OU=y,O=b", true);
    expect("CN=*,O=b", "CN=x,O=bb", false);
    expect("CN=host?,O=b", "CN=host7,O=b", true);
    expect("CN=host?,O=b", "CN=host,O=b", false);
    expect("CN=host?,O=b", "CN=host12,O=b", false);
    expect("*a*b*c*", "xxaxxbxxcxx", true);
    expect("*a*b*c*", "xxaxxcxxbxx", false);
    expect("*ab", "aab", true);
    expect("a**", "a", true);
    expect("?", "", false);
}

Test(tls_authz, a_separator_inside_a_name_is_none)
{
    expect("CN=a\\;b,O=c;CN=d", "CN=a\\;b,O=c", true);
    expect("CN=a\\;b,O=c;CN=d", "CN=d", true);
    expect("CN=a\\;b,O=c;CN=d", "b,O=c", false);
    expect("CN=a\\\\;CN=d", "CN=d", true);
}

Test(tls_authz, a_pattern_made_to_take_long_does_not)
{
    char name[4001], pattern[4001];
    memset(name, 'a', sizeof name - 1);
    for (size_t i = 0; i < sizeof pattern - 1; i += 2)
        memcpy(pattern + i, "a*", 2);
    name[sizeof name - 1] = pattern[sizeof pattern - 1] = 0;
    expect(pattern, name, true);
    pattern[sizeof pattern - 2] = 'b';
    expect(pattern, name, false);
}

Test(tls_authz, a_list_that_lets_nobody_in_is_refused)
{
    expect_refused(" ", "names nobody");
    expect_refused(" ; ;", "names nobody");
}

static char directory[PKI_PATH_MAX], uri[PKI_PATH_MAX + 32];

static void write_list(const char *text, size_t size)
{
    pki_write(directory, "list", text, size, 0644);
    snprintf(uri, sizeof uri, "file:%s/list", directory);
}

static void setup(void)
{
    pki_directory_new(directory);
}

static void teardown(void)
{
    pki_directory_remove(directory);
}

#define FILE_CASE(name) Test(tls_authz, name, .init = setup, .fini = teardown)

FILE_CASE(a_file_has_a_pattern_on_each_line)
{
    static const char text[] = "# who may come in\n\nCN=a,O=b\r\n  CN=c;d\t\n #CN=no\nCN=e\\ \nCN=f\\\nCN=last";
    write_list(text, sizeof text - 1);
    expect(uri, "CN=a,O=b", true);
    expect(uri, "CN=c;d", true);
    expect(uri, "CN=no", false);
    expect(uri, "#CN=no", false);
    expect(uri, "CN=e\\ ", true);
    expect(uri, "CN=f\\", true);
    expect(uri, "CN=last", true);
    expect(uri, "", false);
    expect(uri, "# who may come in", false);
}

FILE_CASE(a_file_that_is_no_list_is_named)
{
    write_list("# nobody\n\n", 10);
    expect_refused(uri, "names nobody");
    write_list("CN=a\0\nCN=b\n", 11);
    expect_refused(uri, "no text");
    write_list("", 0);
    expect_refused(uri, "is empty");
    expect_refused("file:", "No such file");
    expect_refused("file:/nonexistent/list", "/nonexistent/list, which has to be there: No such file");
    snprintf(uri, sizeof uri, "file:%s", directory);
    expect_refused(uri, "not a file");
}
