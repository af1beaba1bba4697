#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "multifd/ram.h"
#include "multifd/zero.h"

TestSuite(zero, .timeout = 60);

static _Alignas(PAGE_SIZE) uint8_t pages[3 * PAGE_SIZE];

/* The page in the middle: what lies around it must not count. */
static uint8_t *const page = pages + PAGE_SIZE;

static void check_every_byte(zero_test *test)
{
    memset(pages, 0xff, sizeof pages);
    memset(page, 0, PAGE_SIZE);
    cr_assert(test(page));
    for (unsigned at = 0; at < PAGE_SIZE; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            page[at] = (uint8_t)(1u << bit);
            cr_assert_not(test(page), "byte %u, bit %u", at, bit);
        }
        page[at] = 0;
    }
    cr_assert(test(page));
    memset(page, 0xff, PAGE_SIZE);
    cr_assert_not(test(page));
}

Test(zero, portable_test_sees_every_bit_of_the_page_and_no_other)
{
    check_every_byte(zero_test_portable);
}

Test(zero, fastest_test_of_this_processor_sees_every_bit_of_the_page_and_no_other)
{
    check_every_byte(zero_test_select());
}
