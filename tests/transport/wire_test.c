#include <criterion/criterion.h>
#include <string.h>

#include "transport/wire.h"

TestSuite(wire, .timeout = 10);

Test(wire, integers_are_big_endian)
{
    uint8_t buffer[15];
    const uint8_t expected[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    struct wire_out out = wire_out(buffer, sizeof buffer);
    wire_put_u8(&out, 0x01);
    wire_put_u16(&out, 0x0203);
    wire_put_u32(&out, 0x04050607);
    wire_put_u64(&out, 0x08090a0b0c0d0e0f);
    cr_assert_not(out.failed);
    cr_assert_eq(out.at, out.end);
    cr_assert_arr_eq(buffer, expected, sizeof buffer);

    struct wire_in in = wire_in(buffer, sizeof buffer);
    cr_assert_eq(wire_get_u8(&in), 0x01);
    cr_assert_eq(wire_get_u16(&in), 0x0203);
    cr_assert_eq(wire_get_u32(&in), 0x04050607);
    cr_assert_eq(wire_get_u64(&in), 0x08090a0b0c0d0e0f);
    cr_assert_not(in.failed);
    cr_assert_eq(wire_left(&in), 0);
}

Test(wire, put_beyond_the_end_fails_and_touches_nothing)
{
    uint8_t buffer[8];
    memset(buffer, 0xaa, sizeof buffer);
    for (size_t size = 0; size < 4; size++) {
        struct wire_out out = wire_out(buffer, size);
        wire_put_u32(&out, 0x11223344);
        cr_assert(out.failed);
        wire_put_u8(&out, 1);
        cr_assert(out.failed, "a failed cursor stays failed");
        cr_assert_eq(buffer[0], 0xaa);
    }
    struct wire_out out = wire_out(buffer, 4);
    wire_put_zeros(&out, SIZE_MAX);
    cr_assert(out.failed);
    cr_assert_eq(buffer[0], 0xaa);
}

Test(wire, get_beyond_the_end_fails_and_reads_zero)
{
    const uint8_t buffer[] = {0xff, 0xff, 0xff};
    struct wire_in in = wire_in(buffer, sizeof buffer);
    cr_assert_eq(wire_get_u32(&in), 0);
    cr_assert(in.failed);
    cr_assert_eq(wire_get_u8(&in), 0, "a failed cursor stays failed");
    uint8_t bytes[2] = {9, 9};
    wire_get_bytes(&in, bytes, 2);
    cr_assert(bytes[0] == 0 && bytes[1] == 0);
}

Test(wire, bytes_and_zeros_go_there_and_back)
{
    uint8_t buffer[10], bytes[4];
    struct wire_out out = wire_out(buffer, sizeof buffer);
    wire_put_bytes(&out, "abcd", 4);
    wire_put_zeros(&out, 6);
    wire_put_bytes(&out, NULL, 0);
    cr_assert_not(out.failed);
    struct wire_in in = wire_in(buffer, sizeof buffer);
    wire_get_bytes(&in, bytes, 4);
    wire_get_zeros(&in, 6);
    wire_get_bytes(&in, NULL, 0);
    cr_assert_not(in.failed);
    cr_assert_arr_eq(bytes, "abcd", 4);
}

Test(wire, reserved_bytes_that_are_not_zero_fail)
{
    uint8_t buffer[6] = {0};
    for (unsigned i = 0; i < sizeof buffer; i++) {
        memset(buffer, 0, sizeof buffer);
        buffer[i] = 1;
        struct wire_in in = wire_in(buffer, sizeof buffer);
        wire_get_zeros(&in, sizeof buffer);
        cr_assert(in.failed, "byte %u", i);
    }
}

Test(wire, strings_go_there_and_back)
{
    uint8_t buffer[300];
    char longest[257], text[256];
    memset(longest, 'l', 256);
    longest[255] = '\0';
    struct wire_out out = wire_out(buffer, sizeof buffer);
    wire_put_string8(&out, "");
    wire_put_string8(&out, "ram");
    wire_put_string8(&out, longest);
    cr_assert_not(out.failed);
    struct wire_in in = wire_in(buffer, (size_t)(out.at - buffer));
    wire_get_string8(&in, text, 255);
    cr_assert_str_eq(text, "");
    wire_get_string8(&in, text, 255);
    cr_assert_str_eq(text, "ram");
    wire_get_string8(&in, text, 255);
    cr_assert_str_eq(text, longest);
    cr_assert_not(in.failed);

    longest[255] = 'l';
    longest[256] = '\0';
    out = wire_out(buffer, sizeof buffer);
    wire_put_string8(&out, longest);
    cr_assert(out.failed, "256 bytes have no length byte");
}

Test(wire, string_that_does_not_fit_is_refused)
{
    uint8_t buffer[4] = {0xaa, 0xaa, 0xaa, 0xaa};
    struct wire_out out = wire_out(buffer, 3);
    wire_put_string8(&out, "ram");
    cr_assert(out.failed);
    cr_assert_eq(buffer[0], 0xaa);

    const uint8_t four[] = {4, 'a', 'b', 'c', 'd'};
    char text[5] = "....";
    struct wire_in in = wire_in(four, sizeof four);
    wire_get_string8(&in, text, 3);
    cr_assert(in.failed);
    cr_assert_str_eq(text, "");
    in = wire_in(four, 4);
    wire_get_string8(&in, text, 4);
    cr_assert(in.failed, "the length byte promises more than there is");
    cr_assert_str_eq(text, "");
    const uint8_t embedded[] = {3, 'a', 0, 'c'};
    in = wire_in(embedded, sizeof embedded);
    wire_get_string8(&in, text, 4);
    cr_assert(in.failed);
    cr_assert_str_eq(text, "");
}

Test(wire, crc_is_that_of_zlib_and_continues)
{
    cr_assert_eq(wire_crc32(0, "123456789", 9), 0xcbf43926u);
    cr_assert_eq(wire_crc32(wire_crc32(0, "1234", 4), "56789", 5), 0xcbf43926u);
    cr_assert_eq(wire_crc32(0, NULL, 0), 0);
    cr_assert_eq(wire_crc32(77, NULL, 0), 77);
}
