#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "multifd/packet.h"
#include "transport/wire.h"

TestSuite(packet, .timeout = 60);

enum { FIRST_PAGES = 1000, SECOND_PAGES = 5000000 };

static struct ram_block blocks[2] = {{.pages = FIRST_PAGES}, {.pages = SECOND_PAGES}};
static const struct ram ram = {.blocks = blocks, .count = 2};

static uint8_t head[PACKET_HEAD_MAX];
static struct extent got[BATCH_EXTENTS];

static struct extent extent_of(unsigned block, uint64_t first, uint32_t pages, unsigned kind)
{
    return (struct extent){.first = first, .pages = pages, .block = (uint16_t)block, .kind = (uint8_t)kind};
}

/* Both steps, as a receiver takes them; every byte beyond what was encoded is 0. */
static enum godwit_err decode(struct packet *packet)
{
    struct godwit_error error = {0};
    enum godwit_err err = packet_decode(head, packet, &error);
    if (err == GODWIT_OK)
        err = packet_decode_extents(packet, head, head + PACKET_HEADER_SIZE, &ram, got, &error);
    cr_assert(err == GODWIT_OK || (err == GODWIT_ERR_PROTOCOL && error.text[0]), "%s", error.text);
    return err;
}

static size_t encode_pages(const struct extent *extents, unsigned count, unsigned flags, uint32_t payload)
{
    struct packet packet = {.type = PACKET_PAGES,
                            .flags = (uint16_t)flags,
                            .epoch = 0x11223344,
                            .sequence = 0x55667788,
                            .extents = (uint16_t)count,
                            .payload = payload};
    memset(head, 0, sizeof head);
    return packet_encode(&packet, extents, head);
}

static enum godwit_err decode_one(struct extent extent, unsigned flags, uint32_t payload)
{
    struct packet packet;
    encode_pages(&extent, 1, flags, payload);
    return decode(&packet);
}

Test(packet, pages_survive_with_one_and_with_all_extents)
{
    static const unsigned counts[] = {1, 2, 7, BATCH_EXTENTS};
    for (unsigned c = 0; c < 4; c++) {
        for (unsigned placed = 0; placed < 2; placed++) {
            struct extent extents[BATCH_EXTENTS];
            struct packet packet;
            uint32_t normal = 0;
            for (unsigned i = 0; i < counts[c]; i++) {
                bool zero = i % 2 == 0;
                extents[i] = zero ? extent_of(1, i * 1000, 900 + i, EXTENT_ZERO) : extent_of(0, i, 1, EXTENT_NORMAL);
                normal += !zero;
            }
            size_t size = encode_pages(extents, counts[c], placed ? PACKET_PLACED : 0, placed ? 0 : normal * PAGE_SIZE);
            cr_assert_eq(size, PACKET_HEADER_SIZE + counts[c] * PACKET_EXTENT_SIZE);
            cr_assert_eq(decode(&packet), GODWIT_OK);
            cr_assert_eq(packet.type, PACKET_PAGES);
            cr_assert_eq(packet.flags, placed ? PACKET_PLACED : 0);
            cr_assert_eq(packet.epoch, 0x11223344);
            cr_assert_eq(packet.sequence, 0x55667788);
            cr_assert_eq(packet.extents, counts[c]);
            cr_assert_eq(packet.payload, placed ? 0 : normal * PAGE_SIZE);
            for (unsigned i = 0; i < counts[c]; i++)
                cr_assert(got[i].first == extents[i].first && got[i].pages == extents[i].pages &&
                          got[i].block == extents[i].block && got[i].kind == extents[i].kind);
        }
    }
}

Test(packet, marker_survives)
{
    struct packet packet = {.type = PACKET_MARKER, .epoch = UINT32_MAX, .sequence = 7};
    memset(head, 0, sizeof head);
    cr_assert_eq(packet_encode(&packet, NULL, head), PACKET_HEADER_SIZE);
    packet = (struct packet){0};
    cr_assert_eq(decode(&packet), GODWIT_OK);
    cr_assert(packet.type == PACKET_MARKER && packet.epoch == UINT32_MAX && packet.sequence == 7 &&
              packet.extents == 0);
}

static void check_every_bit(size_t size)
{
    for (size_t bit = 0; bit < size * 8; bit++) {
        struct packet packet;
        head[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(decode(&packet), GODWIT_ERR_PROTOCOL, "bit %zu", bit);
        head[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

Test(packet, every_flipped_bit_is_refused)
{
    struct extent extents[3] = {extent_of(0, 1, 4, EXTENT_NORMAL), extent_of(1, 0, 100, EXTENT_ZERO),
                                extent_of(1, 1000, 2, EXTENT_NORMAL)};
    check_every_bit(encode_pages(extents, 3, 0, 6 * PAGE_SIZE));
    check_every_bit(encode_pages(extents, 3, PACKET_PLACED, 0));
    struct packet marker = {.type = PACKET_MARKER, .epoch = 3, .sequence = 7};
    memset(head, 0, sizeof head);
    check_every_bit(packet_encode(&marker, NULL, head));
}

/* A receiver reads as many extents as the header says: what it lacks is filled with anything. */
Test(packet, of_which_a_part_is_missing_is_refused)
{
    struct extent extents[3] = {extent_of(0, 1, 4, EXTENT_NORMAL), extent_of(1, 0, 100, EXTENT_ZERO),
                                extent_of(1, 1000, 2, EXTENT_NORMAL)};
    uint8_t whole[PACKET_HEAD_MAX];
    size_t size = encode_pages(extents, 3, 0, 6 * PAGE_SIZE);
    memcpy(whole, head, sizeof whole);
    for (size_t part = 0; part < size; part++) {
        struct packet packet;
        memset(head, 0xee, sizeof head);
        memcpy(head, whole, part);
        cr_assert_eq(decode(&packet), GODWIT_ERR_PROTOCOL, "%zu bytes", part);
    }
}

Test(packet, extents_that_leave_the_memory_are_refused)
{
    static const struct {
        unsigned block;
        uint64_t first;
        uint32_t pages;
        bool good;
    } cases[] = {
        {0, 0, 1, true},
        {0, FIRST_PAGES - 1, 1, true},
        {0, 0, FIRST_PAGES, true},
        {1, 0, SECOND_PAGES, true},
        {0, FIRST_PAGES, 1, false},
        {0, FIRST_PAGES - 1, 2, false},
        {0, 0, FIRST_PAGES + 1, false},
        {0, 1, FIRST_PAGES, false},
        {0, 0, UINT32_MAX, false},
        {0, UINT64_MAX, 1, false},
        {0, UINT64_MAX - 5, 7, false},
        {0, UINT64_C(1) << 52, 1, false},
        {1, SECOND_PAGES - 1, UINT32_MAX, false},
        {2, 0, 1, false},
        {UINT16_MAX, 0, 1, false},
        {0, 0, 0, false},
        {1, 5, 0, false},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_assert_eq(decode_one(extent_of(cases[i].block, cases[i].first, cases[i].pages, EXTENT_ZERO), 0, 0),
                     cases[i].good ? GODWIT_OK : GODWIT_ERR_PROTOCOL, "case %u", i);
}

Test(packet, kinds_other_than_normal_and_zero_are_refused)
{
    for (unsigned kind = 0; kind <= UINT8_MAX; kind++)
        if (kind != EXTENT_NORMAL)
            cr_assert_eq(decode_one(extent_of(0, 0, 1, kind), 0, 0),
                         kind == EXTENT_ZERO ? GODWIT_OK : GODWIT_ERR_PROTOCOL, "kind %u", kind);
}

Test(packet, payload_is_exactly_the_normal_pages_or_nothing_when_placed)
{
    for (uint32_t payload = 0; payload <= 4 * PAGE_SIZE; payload += PAGE_SIZE / 4) {
        cr_assert_eq(decode_one(extent_of(0, 0, 2, EXTENT_NORMAL), 0, payload),
                     payload == 2 * PAGE_SIZE ? GODWIT_OK : GODWIT_ERR_PROTOCOL, "%u bytes", payload);
        cr_assert_eq(decode_one(extent_of(0, 0, 2, EXTENT_NORMAL), PACKET_PLACED, payload),
                     payload == 0 ? GODWIT_OK : GODWIT_ERR_PROTOCOL, "%u bytes", payload);
        cr_assert_eq(decode_one(extent_of(0, 0, 2, EXTENT_ZERO), 0, payload),
                     payload == 0 ? GODWIT_OK : GODWIT_ERR_PROTOCOL, "%u bytes", payload);
    }
    cr_assert_eq(decode_one(extent_of(0, 0, BATCH_PAGES, EXTENT_NORMAL), 0, BATCH_PAGES * PAGE_SIZE), GODWIT_OK);
    cr_assert_eq(decode_one(extent_of(0, 0, BATCH_PAGES + 1, EXTENT_NORMAL), PACKET_PLACED, 0), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(decode_one(extent_of(1, 0, 1 << 20, EXTENT_NORMAL), 0, 0), GODWIT_ERR_PROTOCOL, "a product of 2^32");
}

/* A header whose fields are these and whose checksum is right. */
static enum godwit_err decode_header(unsigned type, unsigned flags, unsigned extents, uint32_t payload)
{
    struct packet packet;
    struct wire_out out = wire_out(head, sizeof head);
    memset(head, 0, sizeof head);
    wire_put_u16(&out, (uint16_t)type);
    wire_put_u16(&out, (uint16_t)flags);
    wire_put_u32(&out, 1);
    wire_put_u32(&out, 0);
    wire_put_u16(&out, (uint16_t)extents);
    wire_put_zeros(&out, 2);
    wire_put_u32(&out, payload);
    out = wire_out(head + 28, 4);
    wire_put_u32(&out, wire_crc32(0, head, 28));
    return packet_decode(head, &packet, NULL);
}

Test(packet, header_that_asks_for_too_much_is_refused_before_anything_is_read)
{
    cr_assert_eq(decode_header(PACKET_PAGES, 0, BATCH_EXTENTS, PACKET_PAYLOAD_MAX), GODWIT_OK);
    for (unsigned extents = BATCH_EXTENTS + 1; extents <= UINT16_MAX; extents++)
        cr_assert_eq(decode_header(PACKET_PAGES, 0, extents, 0), GODWIT_ERR_PROTOCOL, "%u extents", extents);
    cr_assert_eq(decode_header(PACKET_PAGES, 0, 1, PACKET_PAYLOAD_MAX + 1), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(decode_header(PACKET_PAGES, 0, 1, UINT32_MAX), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(decode_header(PACKET_PAGES, 0, 0, 0), GODWIT_ERR_PROTOCOL, "a record of nothing");
}

Test(packet, marker_with_anything_in_it_is_refused)
{
    cr_assert_eq(decode_header(PACKET_MARKER, 0, 0, 0), GODWIT_OK);
    cr_assert_eq(decode_header(PACKET_MARKER, 0, 1, 0), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(decode_header(PACKET_MARKER, 0, 0, PAGE_SIZE), GODWIT_ERR_PROTOCOL);
    cr_assert_eq(decode_header(PACKET_MARKER, PACKET_PLACED, 0, 0), GODWIT_ERR_PROTOCOL);
}

Test(packet, unknown_types_and_flags_are_refused)
{
    for (unsigned type = 0; type <= UINT16_MAX; type++)
        if (type != PACKET_MARKER)
            cr_assert_eq(decode_header(type, 0, 1, 0), type == PACKET_PAGES ? GODWIT_OK : GODWIT_ERR_PROTOCOL);
    for (unsigned bit = 0; bit < 16; bit++)
        cr_assert_eq(decode_header(PACKET_PAGES, 1u << bit, 1, 0),
                     1u << bit == PACKET_PLACED ? GODWIT_OK : GODWIT_ERR_PROTOCOL);
}

Test(packet, random_damage_with_a_right_checksum_never_leaves_the_memory)
{
    srand(1);
    for (unsigned round = 0; round < 20000; round++) {
        struct extent extents[4];
        struct packet packet;
        for (unsigned i = 0; i < 4; i++)
            extents[i] = extent_of((unsigned)rand() % 3, (uint64_t)rand() % 6000, (uint32_t)rand() % 200,
                                   (unsigned)rand() % 4);
        encode_pages(extents, 1 + round % 4, round % 2 ? PACKET_PLACED : 0, 0);
        if (decode(&packet) != GODWIT_OK)
            continue;
        for (unsigned i = 0; i < packet.extents; i++)
            cr_assert(got[i].block < 2 && got[i].pages > 0 &&
                      got[i].first + got[i].pages <= blocks[got[i].block].pages);
    }
}
