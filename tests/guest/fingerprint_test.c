/* Fingerprints of pages. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/fingerprint.h"
#include "guest/memory.h"
#include "guest/pattern.h"

enum { PAGES = 4096 };

TestSuite(fingerprint, .timeout = 20);

Test(fingerprint, holes_hash_like_zero_pages_and_are_not_touched)
{
    struct memory sparse, full;
    uint64_t *a = calloc(PAGES, sizeof *a), *b = calloc(PAGES, sizeof *b), first = 7;
    cr_assert_eq(memory_alloc(&sparse, MEMORY_MEMFD, PAGES * 4096, false, NULL), GODWIT_OK);
    cr_assert_eq(memory_alloc(&full, MEMORY_ANON, PAGES * 4096, true, NULL), GODWIT_OK);
    cr_assert_eq(fingerprint_pages(sparse.addr, sparse.size, sparse.fd, 0, a, 0, NULL), GODWIT_OK);
    cr_assert_eq(fingerprint_pages(full.addr, full.size, full.fd, 0, b, 3, NULL), GODWIT_OK);
    cr_expect_eq(fingerprint_compare(a, b, PAGES, &first), 0);
    cr_expect_eq(first, 7, "untouched when nothing differs");
    cr_expect_eq(lseek(sparse.fd, 0, SEEK_DATA), -1, "still all hole");
    free(a);
    free(b);
    memory_free(&sparse);
    memory_free(&full);
}

Test(fingerprint, every_differing_page_is_counted)
{
    struct memory ram;
    uint64_t *a = calloc(PAGES, sizeof *a), *b = calloc(PAGES, sizeof *b), first = 0;
    cr_assert_eq(memory_alloc(&ram, MEMORY_MEMFD, PAGES * 4096, false, NULL), GODWIT_OK);
    pattern_fill(PATTERN_MIXED, 3, ram.addr, ram.size);
    cr_assert_eq(fingerprint_pages(ram.addr, ram.size, ram.fd, 0, a, 1, NULL), GODWIT_OK);
    ((char *)ram.addr)[1234 * 4096 + 4095] ^= 1;
    ((char *)ram.addr)[4000 * 4096] ^= 1;
    cr_assert_eq(fingerprint_pages(ram.addr, ram.size, ram.fd, 0, b, 0, NULL), GODWIT_OK);
    cr_expect_eq(fingerprint_compare(a, b, PAGES, &first), 2);
    cr_expect_eq(first, 1234);
    free(a);
    free(b);
    memory_free(&ram);
}
