/* See packet.h. A header is trusted for its sizes alone, and only within their maxima, until its CRC has been
 * checked. */
#include "multifd/packet.h"

#include "transport/error.h"
#include "transport/wire.h"

enum { CRC_AT = 28 };

size_t packet_encode(struct packet *packet, const struct extent *extents, uint8_t *head)
{
    struct wire_out out = wire_out(head, PACKET_HEAD_MAX);
    wire_put_u16(&out, (uint16_t)packet->type);
    wire_put_u16(&out, packet->flags);
    wire_put_u32(&out, packet->epoch);
    wire_put_u32(&out, packet->sequence);
    wire_put_u16(&out, packet->extents);
    wire_put_zeros(&out, 2);
    wire_put_u32(&out, packet->payload);
    wire_put_zeros(&out, 8);
    struct wire_out crc_at = wire_out(out.at, 4);
    wire_put_zeros(&out, 4);
    for (unsigned i = 0; i < packet->extents; i++) {
        wire_put_u16(&out, extents[i].block);
        wire_put_u8(&out, extents[i].kind);
        wire_put_u8(&out, 0);
        wire_put_u32(&out, extents[i].pages);
        wire_put_u64(&out, extents[i].first);
    }
    size_t size = (size_t)(out.at - head);
    packet->crc = wire_crc32(wire_crc32(0, head, CRC_AT), head + PACKET_HEADER_SIZE, size - PACKET_HEADER_SIZE);
    wire_put_u32(&crc_at, packet->crc);
    return size;
}

enum godwit_err packet_decode(const uint8_t header[PACKET_HEADER_SIZE], struct packet *packet,
                              struct godwit_error *error)
{
    struct wire_in in = wire_in(header, PACKET_HEADER_SIZE);
    uint16_t type = wire_get_u16(&in);
    struct packet got = {.type = (enum packet_type)type};
    got.flags = wire_get_u16(&in);
    got.epoch = wire_get_u32(&in);
    got.sequence = wire_get_u32(&in);
    got.extents = wire_get_u16(&in);
    wire_get_zeros(&in, 2);
    got.payload = wire_get_u32(&in);
    wire_get_zeros(&in, 8);
    if (in.failed || type < PACKET_PAGES || type > PACKET_END || (got.flags & ~PACKET_PLACED) != 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed data record: type %u, flags %#x", type, got.flags);
    got.crc = wire_get_u32(&in);
    bool pages = type == PACKET_PAGES;
    if (got.extents > BATCH_EXTENTS || got.payload > PACKET_PAYLOAD_MAX ||
        (!pages && (got.extents != 0 || got.payload != 0 || got.flags != 0)) || (pages && got.extents == 0))
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed data record: %u extents, %u bytes", got.extents,
                         got.payload);
    *packet = got;
    return GODWIT_OK;
}

static bool extent_valid(const struct extent *extent, const struct ram *ram)
{
    if (extent->block >= ram->count || extent->pages == 0)
        return false;
    if (extent->kind != EXTENT_NORMAL && extent->kind != EXTENT_ZERO)
        return false;
    uint64_t pages = ram->blocks[extent->block].pages;
    return extent->first < pages && extent->pages <= pages - extent->first;
}

enum godwit_err packet_decode_extents(const struct packet *packet, const uint8_t header[PACKET_HEADER_SIZE],
                                      const uint8_t *bytes, const struct ram *ram, struct extent *extents,
                                      struct godwit_error *error)
{
    size_t size = (size_t)packet->extents * PACKET_EXTENT_SIZE;
    if (packet->crc != wire_crc32(wire_crc32(0, header, CRC_AT), bytes, size))
        return error_set(error, GODWIT_ERR_PROTOCOL, "damaged data record: checksum does not match");

    struct wire_in in = wire_in(bytes, size);
    uint64_t normal = 0;
    for (unsigned i = 0; i < packet->extents; i++) {
        struct extent *extent = &extents[i];
        extent->block = wire_get_u16(&in);
        extent->kind = wire_get_u8(&in);
        wire_get_zeros(&in, 1);
        extent->pages = wire_get_u32(&in);
        extent->first = wire_get_u64(&in);
        if (in.failed || !extent_valid(extent, ram))
            return error_set(error, GODWIT_ERR_PROTOCOL,
                             "malformed extent: block %u, kind %u, page %llu, %u pages; it leaves the guest's memory",
                             extent->block, extent->kind, (unsigned long long)extent->first, extent->pages);
        normal += extent->kind == EXTENT_NORMAL ? extent->pages : 0;
    }
    if (normal > BATCH_PAGES || packet->payload != ((packet->flags & PACKET_PLACED) ? 0 : normal * PAGE_SIZE))
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed data record: %llu pages in %u bytes",
                         (unsigned long long)normal, packet->payload);
    return GODWIT_OK;
}
