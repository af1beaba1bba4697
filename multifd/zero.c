/*
 * A page that is not zero mostly shows it in its first word, so both versions look there, and at two more, before they
 * start to loop. The first alone decides most pages: of cold memory every word looked at is a cache line to wait for.
 * Reads of live guest memory race with the guest on purpose (the dirty log settles it): hence no_sanitize.
 */
#include "multifd/zero.h"

#include <stddef.h>
#include <stdint.h>

#include "multifd/ram.h"

#define RACES_ON_PURPOSE __attribute__((no_sanitize("thread")))

RACES_ON_PURPOSE bool zero_test_portable(const void *page)
{
    const uint64_t *word = page;
    if (word[0] != 0 || (word[PAGE_SIZE / 16] | word[PAGE_SIZE / 8 - 1]) != 0)
        return false;
    for (size_t i = 0; i < PAGE_SIZE / 8; i += 8) {
        uint64_t any = word[i] | word[i + 1] | word[i + 2] | word[i + 3] | word[i + 4] | word[i + 5] | word[i + 6] |
                       word[i + 7];
        if (any != 0)
            return false;
    }
    return true;
}

#if defined(__x86_64__)
#include <immintrin.h>

RACES_ON_PURPOSE __attribute__((target("avx2"))) static bool zero_test_avx2(const void *page)
{
    const __m256i *vector = page;
    const uint64_t *word = page;
    if (word[0] != 0 || (word[PAGE_SIZE / 16] | word[PAGE_SIZE / 8 - 1]) != 0)
        return false;
    for (size_t i = 0; i < PAGE_SIZE / 32; i += 8) {
        __m256i a = _mm256_or_si256(_mm256_load_si256(&vector[i]), _mm256_load_si256(&vector[i + 1]));
        __m256i b = _mm256_or_si256(_mm256_load_si256(&vector[i + 2]), _mm256_load_si256(&vector[i + 3]));
        __m256i c = _mm256_or_si256(_mm256_load_si256(&vector[i + 4]), _mm256_load_si256(&vector[i + 5]));
        __m256i d = _mm256_or_si256(_mm256_load_si256(&vector[i + 6]), _mm256_load_si256(&vector[i + 7]));
        __m256i any = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
        if (!_mm256_testz_si256(any, any))
            return false;
    }
    return true;
}

zero_test *zero_test_select(void)
{
    return __builtin_cpu_supports("avx2") ? zero_test_avx2 : zero_test_portable;
}
#else
zero_test *zero_test_select(void)
{
    return zero_test_portable;
}
#endif
