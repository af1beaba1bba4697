#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "rdma/memlock.h"
#include "tests/rdma/file_tree.h"

TestSuite(memlock, .timeout = 10);

#define GIB ((uint64_t)1 << 30)

static const char *hint(uint64_t limit, bool privileged, uint64_t ram, char text[GODWIT_HINT_TEXT])
{
    struct godwit_memlock memlock = {.limit = limit, .privileged = privileged, .ram = ram};
    memlock_hint(&memlock, text, GODWIT_HINT_TEXT);
    return text;
}

Test(memlock, less_than_the_machines_ram_is_a_hint)
{
    char text[GODWIT_HINT_TEXT];
    cr_expect(strstr(hint(8 << 20, false, 31 * GIB, text), "register 8 MiB of the machine's 31.0 GiB"), "%s", text);
    cr_expect(strstr(text, "ulimit -l unlimited") && strstr(text, "LimitMEMLOCK=infinity"), "%s", text);
    cr_expect(strstr(hint(64 << 10, false, GIB, text), "64 KiB"), "%s", text);
    cr_expect(strlen(text) < GODWIT_HINT_TEXT - 1);
}

Test(memlock, enough_is_none)
{
    char text[GODWIT_HINT_TEXT];
    cr_expect_str_empty(hint(31 * GIB, false, 31 * GIB, text));
    cr_expect_str_empty(hint(UINT64_MAX, false, 31 * GIB, text));
    cr_expect_str_empty(hint(8 << 20, true, 31 * GIB, text));
    cr_expect_str_empty(hint(8 << 20, false, 0, text), "the machine's RAM is unknown");
}

static bool privileged(const char *capabilities, const char *map)
{
    struct file_tree tree;
    struct godwit_memlock memlock;
    char status[128];
    file_tree_make(&tree);
    snprintf(status, sizeof status, "Name:\tgodwit\nCapPrm:\tffffffffffffffff\nCapEff:\t%s\n", capabilities);
    file_tree_put(&tree, "/proc/self/status", status);
    file_tree_put(&tree, "/proc/self/uid_map", map);
    memlock_query(tree.root, &memlock);
    file_tree_remove(&tree);
    return memlock.privileged;
}

Test(memlock, the_capability_counts_in_the_first_namespace_only)
{
    const char *first = "         0          0 4294967295\n";
    cr_expect(privileged("000001ffffffffff", first));
    cr_expect(privileged("0000000000004000", first), "CAP_IPC_LOCK is number 14");
    cr_expect_not(privileged("000001ffffffbfff", first));
    cr_expect_not(privileged("000001ffffffffff", "         0       1000          1\n"));
    cr_expect_not(privileged("000001ffffffffff", "         0     100000      65536\n"));
}

Test(memlock, this_process_has_a_limit)
{
    struct rlimit limit;
    struct godwit_memlock memlock;
    cr_assert_eq(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    limit.rlim_cur = 65536;
    cr_assert_eq(setrlimit(RLIMIT_MEMLOCK, &limit), 0);
    godwit_memlock_query(&memlock);
    cr_expect_eq(memlock.limit, 65536);
    cr_expect_gt(memlock.ram, 65536);
    cr_expect_eq(memlock.hint[0] == '\0', memlock.privileged);
}
