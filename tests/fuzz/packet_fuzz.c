/* The data record: header and extents, against a memory of three blocks. */
#include <string.h>

#include "multifd/packet.h"
#include "tests/fuzz/fuzz.h"
#include "transport/wire.h"

enum { CRC_AT = 28 };

static struct ram_block blocks[] = {
    {.id = "a", .pages = 3}, {.id = "b", .pages = 512}, {.id = "c", .pages = 1ull << 40}};
static const struct ram ram = {.blocks = blocks, .count = 3};

static void check(const struct packet *packet, const struct extent *extents)
{
    uint64_t normal = 0;
    for (unsigned i = 0; i < packet->extents; i++) {
        const struct extent *extent = &extents[i];
        fuzz_require(extent->block < ram.count, "an extent names a block");
        fuzz_require(extent->first < blocks[extent->block].pages &&
                         extent->pages <= blocks[extent->block].pages - extent->first, "an extent stays in its block");
        normal += extent->kind == EXTENT_NORMAL ? extent->pages : 0;
    }
    fuzz_require(normal <= BATCH_PAGES, "content fits a batch");
    fuzz_require((packet->flags & PACKET_PLACED) ? packet->payload == 0 : packet->payload == normal * PAGE_SIZE,
                 "the payload is the content");
}

static void decode(const uint8_t *bytes, size_t size)
{
    struct packet packet;
    struct godwit_error error;
    static struct extent extents[BATCH_EXTENTS];
    static uint8_t again[PACKET_HEAD_MAX];
    if (packet_decode(bytes, &packet, &error) != GODWIT_OK)
        return;
    fuzz_require(packet.extents <= BATCH_EXTENTS && packet.payload <= PACKET_PAYLOAD_MAX, "sizes have a maximum");
    size_t need = (size_t)packet.extents * PACKET_EXTENT_SIZE;
    if (size - PACKET_HEADER_SIZE < need || packet_decode_extents(&packet, bytes, bytes + PACKET_HEADER_SIZE, &ram,
                                                                  extents, &error) != GODWIT_OK)
        return;
    check(&packet, extents);
    fuzz_require(packet_encode(&packet, extents, again) == PACKET_HEADER_SIZE + need &&
                     memcmp(bytes, again, PACKET_HEADER_SIZE + need) == 0, "a record that is accepted has one form");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[PACKET_HEAD_MAX];
    if (size < PACKET_HEADER_SIZE)
        return 0;
    decode(data, size);
    size = size < sizeof bytes ? size : sizeof bytes;
    memcpy(bytes, data, size);
    size_t need = (size_t)fuzz_get_u16(bytes + 12) * PACKET_EXTENT_SIZE;
    if (need > size - PACKET_HEADER_SIZE)
        return 0;
    fuzz_put_u32(bytes + CRC_AT, wire_crc32(wire_crc32(0, bytes, CRC_AT), bytes + PACKET_HEADER_SIZE, need));
    decode(bytes, size);
    return 0;
}
