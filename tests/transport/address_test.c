#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <string.h>

#include "transport/address.h"

TestSuite(address, .timeout = 10);

struct good {
    char text[64], scheme[8], host[32];
    unsigned port;
    char path[32];
};

struct bad {
    char text[64], says[64];
};

ParameterizedTestParameters(address, a_good_address_is_read_and_printed_back)
{
    static struct good table[] = {
        {"tcp:127.0.0.1:4444", "tcp", "127.0.0.1", 4444, ""},
        {"tcp:[::1]:0", "tcp", "::1", 0, ""},
        {"tcp:[fe80::1%eth0]:65535", "tcp", "fe80::1%eth0", 65535, ""},
        {"tcp::4444", "tcp", "", 4444, ""},
        {"tcp:host.example:1", "tcp", "host.example", 1, ""},
        {"tcp:0:4444", "tcp", "0", 4444, ""},
        {"unix:/tmp/x", "unix", "", 0, "/tmp/x"},
        {"unix:relative", "unix", "", 0, "relative"},
        {"unix:/with:colon and space", "unix", "", 0, "/with:colon and space"},
        {"rdma:192.0.2.1:4444", "rdma", "192.0.2.1", 4444, ""},
        {"file:/tmp/guest.ram", "file", "", 0, "/tmp/guest.ram"},
        {"loop:name", "loop", "", 0, "name"},
    };
    return cr_make_param_array(struct good, table, sizeof table / sizeof *table);
}

ParameterizedTest(struct good *good, address, a_good_address_is_read_and_printed_back)
{
    struct address address;
    struct godwit_error error;
    cr_assert_eq(address_parse(good->text, &address, &error), GODWIT_OK, "%s", good->text);
    cr_assert_str_eq(address.scheme, good->scheme);
    cr_assert_str_eq(address.host, good->host);
    cr_assert_eq(address.port, good->port);
    cr_assert_str_eq(address.path, good->path);
    char text[ADDRESS_TEXT_MAX];
    address_format(&address, text);
    cr_assert_str_eq(text, good->text);
}

ParameterizedTestParameters(address, a_bad_address_is_refused_and_its_fault_named)
{
    static struct bad table[] = {
        {"", "empty address"},
        {"tcp", "expected tcp:HOST:PORT"},
        {"tcp:", "no port"},
        {"tcp:host", "no port"},
        {"tcp:host:", "bad port \"\""},
        {"tcp:host:99999", "bad port \"99999\""},
        {"tcp:host:65536", "bad port"},
        {"tcp:host:4294967297", "bad port"},
        {"tcp:host:abc", "bad port \"abc\""},
        {"tcp:host:-1", "bad port"},
        {"tcp:host: 1", "bad port"},
        {"tcp:host:1 ", "bad port"},
        {"tcp:host:0x10", "bad port"},
        {"tcp:::1:44", "brackets"},
        {"tcp:[::1:44", "bad brackets"},
        {"tcp:[::1]44", "bad brackets"},
        {"tcp:[]:44", "bad brackets"},
        {"tcp:a b:44", "bad host"},
        {"tcp:a/b:44", "bad host"},
        {"tcp:a]:44", "bad host"},
        {"unix", "expected unix:PATH"},
        {"unix:", "expected unix:PATH"},
        {"http://host", "tcp:HOST:PORT, unix:PATH"},
        {"TCP:host:1", "unknown address scheme"},
        {":4444", "unknown address scheme"},
        {"/tmp/x", "unknown address scheme"},
    };
    return cr_make_param_array(struct bad, table, sizeof table / sizeof *table);
}

ParameterizedTest(struct bad *bad, address, a_bad_address_is_refused_and_its_fault_named)
{
    struct address address, untouched;
    struct godwit_error error;
    memset(&address, 0x5a, sizeof address);
    untouched = address;
    cr_assert_eq(address_parse(bad->text, &address, &error), GODWIT_ERR_INVALID, "%s", bad->text);
    cr_assert_eq(error.code, GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, bad->says), "%s: %s", bad->text, error.text);
    cr_assert_eq(memcmp(&address, &untouched, sizeof address), 0, "outputs are written on success only");
    cr_assert_eq(address_parse(bad->text, &address, NULL), GODWIT_ERR_INVALID);
}

Test(address, the_longest_path_fits_and_one_more_does_not)
{
    struct address address;
    struct godwit_error error;
    char text[ADDRESS_PATH_MAX + 16] = "unix:";
    memset(text + 5, 'p', ADDRESS_PATH_MAX);
    cr_assert_eq(address_parse(text, &address, &error), GODWIT_OK);
    text[5 + ADDRESS_PATH_MAX] = 'p';
    cr_assert_eq(address_parse(text, &address, &error), GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, "107"), "%s", error.text);
}

Test(address, the_longest_host_fits_and_prints_and_one_more_does_not)
{
    struct address address;
    struct godwit_error error;
    char text[ADDRESS_HOST_MAX + 32], back[ADDRESS_TEXT_MAX], host[ADDRESS_HOST_MAX + 2];
    memset(host, 'h', sizeof host);
    snprintf(text, sizeof text, "rdma:%.*s:65535", ADDRESS_HOST_MAX, host);
    cr_assert_eq(address_parse(text, &address, &error), GODWIT_OK);
    address_format(&address, back);
    cr_assert_str_eq(back, text);
    snprintf(text, sizeof text, "rdma:%.*s:65535", ADDRESS_HOST_MAX + 1, host);
    cr_assert_eq(address_parse(text, &address, &error), GODWIT_ERR_INVALID);
}
