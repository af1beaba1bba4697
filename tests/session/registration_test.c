#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "session/registration.h"

TestSuite(registration, .timeout = 20);

static struct register_run runs[REGISTER_RUNS_MAX], decoded[REGISTER_RUNS_MAX];
static uint8_t bytes[REGISTER_SIZE_MAX + REGISTER_RUN_SIZE];

static size_t encode_runs(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        runs[i] = (struct register_run){
            .block = (uint16_t)(i * 77), .first = i * 0x01020304u, .slices = UINT32_MAX - i};
    return register_encode(runs, count, bytes);
}

Test(registration, one_and_the_most_runs_survive)
{
    for (unsigned count = 1; count <= REGISTER_RUNS_MAX; count += REGISTER_RUNS_MAX - 1) {
        unsigned got = 0;
        size_t size = encode_runs(count);
        cr_assert_eq(size, count * REGISTER_RUN_SIZE);
        cr_assert_eq(register_decode(bytes, size, decoded, &got, NULL), GODWIT_OK);
        cr_assert_eq(got, count);
        for (unsigned i = 0; i < count; i++)
            cr_assert(decoded[i].block == runs[i].block && decoded[i].first == runs[i].first &&
                      decoded[i].slices == runs[i].slices);
    }
}

Test(registration, sizes_that_are_no_whole_number_of_runs_are_refused)
{
    unsigned count;
    encode_runs(REGISTER_RUNS_MAX);
    memcpy(bytes + REGISTER_SIZE_MAX, bytes, REGISTER_RUN_SIZE);
    for (size_t size = 0; size <= sizeof bytes; size++) {
        bool good = size > 0 && size <= REGISTER_SIZE_MAX && size % REGISTER_RUN_SIZE == 0;
        uint8_t *copy = malloc(size + !size);
        memcpy(copy, bytes, size);
        cr_assert_eq(register_decode(copy, size, decoded, &count, NULL), good ? GODWIT_OK : GODWIT_ERR_PROTOCOL,
                     "%zu bytes", size);
        free(copy);
    }
}

Test(registration, reserved_bits_and_runs_of_nothing_are_refused)
{
    unsigned count;
    struct godwit_error error = {0};
    size_t size = encode_runs(3);
    bytes[REGISTER_RUN_SIZE + 3] = 1;
    cr_assert_eq(register_decode(bytes, size, decoded, &count, &error), GODWIT_ERR_PROTOCOL);
    cr_assert(strstr(error.text, "run 1"), "%s", error.text);
    encode_runs(3);
    memset(bytes + 2 * REGISTER_RUN_SIZE + 8, 0, 4);
    cr_assert_eq(register_decode(bytes, size, decoded, &count, &error), GODWIT_ERR_PROTOCOL);
    cr_assert(strstr(error.text, "run 2"), "%s", error.text);
}

Test(registration, keys_of_every_size_survive)
{
    for (uint16_t size = 0; size <= REGION_KEY_MAX; size++) {
        struct slice_key key = {.block = 1023, .slice = 0xfffefdfc, .key = {.size = size}}, got;
        uint8_t body[KEY_SIZE_MAX];
        memset(key.key.bytes, size, sizeof key.key.bytes);
        size_t used = slice_key_encode(&key, body);
        cr_assert_eq(used, (size_t)KEY_HEAD_SIZE + size);
        cr_assert_eq(slice_key_decode(body, used, &got, NULL), GODWIT_OK);
        cr_assert(got.block == key.block && got.slice == key.slice && got.key.size == size);
        cr_assert_eq(memcmp(got.key.bytes, key.key.bytes, size), 0);
        for (size_t other = 0; other < sizeof body; other++)
            if (other != used)
                cr_assert_eq(slice_key_decode(body, other, &got, NULL), GODWIT_ERR_PROTOCOL, "%zu of %zu", other, used);
    }
}
