/* Against a model that looks at one bit at a time. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "multifd/bitmap.h"

TestSuite(bitmap, .timeout = 60);

enum { PAGES = 64 * 5 + 17, WORDS = 6 };

/* Where words begin and end, and a bit around it. */
static const unsigned borders[] = {0,   1,   2,   31,  32,  62,  63,  64,  65,  126, 127,       128,  129,
                                   191, 192, 193, 255, 256, 257, 318, 319, 320, 321, PAGES - 1, PAGES};
enum { BORDERS = sizeof borders / sizeof *borders };

static uint64_t noise(void)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < 5; i++)
        bits = bits << 15 ^ (uint64_t)rand();
    return bits;
}

/* Words as a sync leaves them: dense, sparse, full and empty ones side by side. */
static void fill(uint64_t map[WORDS])
{
    for (unsigned i = 0; i < WORDS; i++) {
        unsigned kind = (unsigned)rand() % 5;
        map[i] = kind == 0 ? 0 : kind == 1 ? ~UINT64_C(0) : kind == 2 ? noise() & noise() & noise() : noise();
    }
}

/* Calls check for every range whose ends are borders. */
static void each_range(void (*check)(unsigned first, unsigned pages))
{
    for (unsigned i = 0; i < BORDERS; i++)
        for (unsigned j = i; j < BORDERS; j++)
            check(borders[i], borders[j] - borders[i]);
}

static void check_set_and_clear(unsigned first, unsigned pages)
{
    uint64_t set[WORDS], clear[WORDS];
    _Atomic uint64_t atomic[WORDS];
    fill(set);
    memcpy(clear, set, sizeof clear);
    uint64_t before[WORDS];
    memcpy(before, set, sizeof before);
    for (unsigned i = 0; i < WORDS; i++)
        atomic_init(&atomic[i], set[i]);
    bitmap_set(set, first, pages);
    bitmap_clear(clear, first, pages);
    bitmap_set_atomic(atomic, first, pages);
    for (unsigned page = 0; page < WORDS * 64; page++) {
        bool inside = page >= first && page < first + pages, was = bitmap_test(before, page);
        cr_assert_eq(bitmap_test(set, page), was || inside, "set %u+%u: %u", first, pages, page);
        cr_assert_eq(bitmap_test(clear, page), was && !inside, "clear %u+%u: %u", first, pages, page);
        cr_assert_eq(atomic[page / 64] >> page % 64 & 1, was || inside, "atomic set %u+%u: %u", first, pages, page);
    }
}

Test(bitmap, ranges_are_set_and_cleared_to_the_bit)
{
    srand(1);
    each_range(check_set_and_clear);
}

static void check_all_and_any(unsigned first, unsigned pages)
{
    for (unsigned round = 0; round < 8; round++) {
        uint64_t map[WORDS];
        _Atomic uint64_t atomic[WORDS];
        unsigned count = 0;
        fill(map);
        if (round < 4) /* full or empty but for one page, which may lie just outside */
            memset(map, round % 2 ? 0xff : 0, sizeof map);
        if (round < 4 && pages > 0) {
            unsigned page = first + (round < 2 ? (unsigned)rand() % pages : pages);
            map[page / 64 % WORDS] ^= UINT64_C(1) << page % 64;
        }
        for (unsigned i = 0; i < WORDS; i++)
            atomic_init(&atomic[i], map[i]);
        for (unsigned page = first; page < first + pages; page++)
            count += bitmap_test(map, page);
        cr_assert_eq(bitmap_all_atomic(atomic, first, pages), count == pages, "%u+%u", first, pages);
        cr_assert_eq(bitmap_any_atomic(atomic, first, pages), count > 0, "%u+%u", first, pages);
    }
}

Test(bitmap, all_and_any_see_every_bit_of_a_range_and_none_outside)
{
    srand(2);
    each_range(check_all_and_any);
}

Test(bitmap, counts_its_pages_and_not_what_lies_behind_them)
{
    srand(3);
    for (unsigned pages = 0; pages <= PAGES; pages++) {
        uint64_t map[WORDS];
        unsigned count = 0;
        fill(map);
        map[WORDS - 1] = ~UINT64_C(0);
        for (unsigned page = 0; page < pages; page++)
            count += bitmap_test(map, page);
        cr_assert_eq(bitmap_count(map, pages), count, "%u pages", pages);
    }
}

/* kind: which pages a run is made of. */
enum kind { SET, SET_NOT_HELD, CLEAR, KINDS };

static bool belongs(const uint64_t *map, const uint64_t *held, enum kind kind, uint64_t page)
{
    return kind == CLEAR ? !bitmap_test(map, page)
                         : bitmap_test(map, page) && (kind == SET || !bitmap_test(held, page));
}

static struct run slow_run(const uint64_t *map, const uint64_t *held, enum kind kind, uint64_t pages, uint64_t from,
                           uint64_t max)
{
    struct run run = {pages, 0};
    for (uint64_t page = from; page < pages; page++) {
        if (!belongs(map, held, kind, page))
            continue;
        run.first = page;
        while (run.pages < max && page + run.pages < pages && belongs(map, held, kind, page + run.pages))
            run.pages++;
        break;
    }
    return run;
}

Test(bitmap, next_run_finds_what_a_page_by_page_search_finds)
{
    static const uint64_t most[] = {1, 2, 7, 63, 64, 65, 128, 512, UINT64_MAX};
    srand(4);
    for (unsigned round = 0; round < 600; round++) {
        uint64_t map[WORDS], held[WORDS];
        uint64_t pages = (uint64_t)rand() % (PAGES + 1);
        fill(map); /* also behind `pages`: it must not be seen */
        fill(held);
        for (enum kind kind = SET; kind < KINDS; kind++) {
            for (uint64_t from = 0; from <= pages + 1; from++) {
                uint64_t max = most[(from + round) % (sizeof most / sizeof *most)];
                struct run due = slow_run(map, held, kind, pages, from, max);
                struct run got = kind == CLEAR ? bitmap_next_clear_run(map, pages, from, max)
                                               : bitmap_next_run(map, kind == SET ? NULL : held, pages, from, max);
                cr_assert(got.first == due.first && got.pages == due.pages,
                          "kind %u, %llu pages, from %llu, at most %llu: %llu+%llu, not %llu+%llu", kind,
                          (unsigned long long)pages, (unsigned long long)from, (unsigned long long)max,
                          (unsigned long long)got.first, (unsigned long long)got.pages, (unsigned long long)due.first,
                          (unsigned long long)due.pages);
            }
        }
    }
}

Test(bitmap, words_behind_the_last_page_are_not_read)
{
    for (uint64_t pages = 1; pages <= PAGES; pages++) {
        uint64_t words = bitmap_words(pages);
        cr_assert_eq(words, (pages + 63) / 64);
        uint64_t *map = calloc(words, sizeof *map); /* the address sanitizer watches its end */
        cr_assert_eq(bitmap_next_run(map, NULL, pages, 0, UINT64_MAX).pages, 0);
        cr_assert_eq(bitmap_next_clear_run(map, pages, 0, UINT64_MAX).pages, pages);
        bitmap_set(map, 0, pages);
        cr_assert_eq(bitmap_next_run(map, map, pages, 0, UINT64_MAX).pages, 0);
        cr_assert_eq(bitmap_next_run(map, NULL, pages, 0, UINT64_MAX).pages, pages);
        cr_assert_eq(bitmap_next_clear_run(map, pages, 0, UINT64_MAX).pages, 0);
        cr_assert_eq(bitmap_count(map, pages), pages);
        bitmap_clear(map, 0, pages);
        cr_assert_eq(bitmap_count(map, pages), 0);
        free(map);
    }
}
