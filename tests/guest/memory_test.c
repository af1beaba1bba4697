/* Guest RAM. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "guest/memory.h"

TestSuite(memory, .timeout = 20);

Test(memory, refuses_sizes_that_are_not_whole_pages)
{
    struct memory ram;
    struct godwit_error error;
    cr_expect_eq(memory_alloc(&ram, MEMORY_MEMFD, 0, false, &error), GODWIT_ERR_INVALID);
    cr_expect_eq(memory_alloc(&ram, MEMORY_MEMFD, 4097, false, &error), GODWIT_ERR_INVALID);
    cr_expect_eq(memory_alloc(&ram, MEMORY_ANON, 100, false, &error), GODWIT_ERR_INVALID);
    cr_expect_eq(memory_alloc(&ram, MEMORY_HUGETLB, 4096, false, &error), GODWIT_ERR_INVALID);
    cr_expect_eq(memory_alloc(&ram, MEMORY_MEMFD, RAM_SIZE_MAX + 4096, false, &error), GODWIT_ERR_TOO_BIG);
}

Test(memory, reads_as_zero_and_has_an_fd_where_promised)
{
    struct memory ram;
    cr_assert_eq(memory_alloc(&ram, MEMORY_MEMFD, 8192, false, NULL), GODWIT_OK);
    cr_expect_geq(ram.fd, 0);
    cr_expect_eq(((char *)ram.addr)[8191], 0);
    memory_free(&ram);
    memory_free(&ram);
    cr_assert_eq(memory_alloc(&ram, MEMORY_ANON, 8192, false, NULL), GODWIT_OK);
    cr_expect_eq(ram.fd, -1);
    memory_free(&ram);
}

Test(memory, preallocated_memory_is_there)
{
    enum { SIZE = 64 << 20 };
    static unsigned char resident[SIZE / 4096];
    struct memory ram;
    cr_assert_eq(memory_alloc(&ram, MEMORY_MEMFD, SIZE, true, NULL), GODWIT_OK);
    cr_assert_eq(mincore(ram.addr, SIZE, resident), 0);
    for (unsigned i = 0; i < SIZE / 4096; i++)
        cr_assert(resident[i] & 1, "page %u", i);
    memory_free(&ram);
}

Test(memory, a_private_view_sees_the_memory_and_does_not_change_it)
{
    struct memory ram, view;
    cr_assert_eq(memory_alloc(&ram, MEMORY_MEMFD, 8192, false, NULL), GODWIT_OK);
    memset(ram.addr, 5, 4096);
    cr_assert_eq(memory_private_view(&view, &ram, NULL), GODWIT_OK);
    cr_expect_eq(((char *)view.addr)[0], 5);
    memset(view.addr, 6, 8192);
    cr_expect_eq(((char *)ram.addr)[0], 5);
    cr_expect_eq(((char *)ram.addr)[4096], 0);
    memory_free(&ram);
    cr_expect_eq(((char *)view.addr)[0], 6);
    memory_free(&view);
}

Test(memory, anonymous_memory_has_no_private_view)
{
    struct memory ram, view;
    cr_assert_eq(memory_alloc(&ram, MEMORY_ANON, 8192, false, NULL), GODWIT_OK);
    cr_expect_eq(memory_private_view(&view, &ram, NULL), GODWIT_ERR_UNSUPPORTED);
    memory_free(&ram);
}

#if defined(__SANITIZE_ADDRESS__)
#define WITHOUT_ADDRESS_LIMIT 1 /* ASan reserves terabytes of address space itself */
#else
#define WITHOUT_ADDRESS_LIMIT 0
#endif

Test(memory, an_address_space_limit_is_named_in_the_error)
{
    if (WITHOUT_ADDRESS_LIMIT)
        cr_skip_test("an address sanitizer build cannot be limited");
    struct rlimit limit = {1ul << 30, 1ul << 30};
    struct godwit_error error = {0};
    struct memory ram;
    cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
    cr_expect_eq(memory_alloc(&ram, MEMORY_MEMFD, 4ul << 30, false, &error), GODWIT_ERR_NO_MEMORY);
    cr_expect(strstr(error.text, "ulimit -v"), "%s", error.text);
}

Test(memory, missing_huge_pages_are_named_in_the_error)
{
    struct godwit_error error = {0};
    struct memory ram;
    enum godwit_err err = memory_alloc(&ram, MEMORY_HUGETLB, 1ull << 43, false, &error);
    cr_expect_neq(err, GODWIT_OK);
    if (err == GODWIT_ERR_NO_MEMORY)
        cr_expect(strstr(error.text, "vm.nr_hugepages"), "%s", error.text);
}

Test(memory, backing_names_are_parsed)
{
    enum memory_backing backing = MEMORY_MEMFD;
    cr_expect(memory_backing_parse("hugetlb", &backing) && backing == MEMORY_HUGETLB);
    cr_expect(memory_backing_parse("anon", &backing) && backing == MEMORY_ANON);
    cr_expect_not(memory_backing_parse("paper", &backing));
}
