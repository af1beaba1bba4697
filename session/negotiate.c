/* Pure encoding, decoding and comparison of OFFER and ACCEPT. */
#include "session/negotiate.h"

#include <string.h>

#include <godwit/guest.h>

#include "transport/error.h"
#include "transport/wire.h"

_Static_assert((int)NEGOTIATE_BLOCKS_MAX == (int)GODWIT_BLOCKS_MAX, "the wire carries every block a guest may have");
_Static_assert((int)NEGOTIATE_NAME_MAX == (int)GODWIT_BLOCK_ID_MAX, "the wire carries every id a block may have");

/* 2^52 bytes: beyond any address space, and page numbers stay well inside the 48 bits an extent has. */
static const uint64_t block_size_max = UINT64_C(1) << 52;

enum { SLICE_MIN = 2 << 20, SLICE_MAX = 16 << 20 };

size_t offer_encode(const struct offer *offer, uint8_t *bytes)
{
    struct wire_out out = wire_out(bytes, OFFER_SIZE_MAX);
    wire_put_u64(&out, offer->features);
    wire_put_u16(&out, offer->channels);
    wire_put_u16(&out, offer->block_count);
    wire_put_u32(&out, offer->page_size);
    wire_put_u64(&out, offer->populated);
    wire_put_u32(&out, offer->slice_size);
    wire_put_string8(&out, offer->compression);
    for (unsigned i = 0; i < offer->block_count; i++) {
        wire_put_string8(&out, offer->blocks[i].id);
        wire_put_u64(&out, offer->blocks[i].size);
        wire_put_u32(&out, offer->blocks[i].page_size);
    }
    return (size_t)(out.at - bytes);
}

static enum godwit_err block_decode(struct wire_in *in, struct offer *offer, unsigned index, struct godwit_error *error)
{
    struct offer_block *block = &offer->blocks[index];
    wire_get_string8(in, block->id, NEGOTIATE_NAME_MAX);
    block->size = wire_get_u64(in);
    block->page_size = wire_get_u32(in);
    if (in->failed || block->id[0] == 0 || block->size == 0 || block->size > block_size_max ||
        block->size % GODWIT_PAGE_SIZE != 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed OFFER: block %u", index);
    for (unsigned i = 0; i < index; i++)
        if (strcmp(offer->blocks[i].id, block->id) == 0)
            return error_set(error, GODWIT_ERR_PROTOCOL, "malformed OFFER: two blocks called %s", block->id);
    return GODWIT_OK;
}

/* A few sizes only: the smallest bounds what both sides remember of a block, the largest what one page pins. */
static bool slice_size_fits(const struct offer *offer)
{
    uint32_t size = offer->slice_size;
    if ((offer->features & FEATURE_PLACED) == 0)
        return size == 0;
    return size >= SLICE_MIN && size <= SLICE_MAX && (size & (size - 1)) == 0;
}

enum godwit_err offer_decode(const void *bytes, size_t size, struct offer *offer, struct godwit_error *error)
{
    struct wire_in in = wire_in(bytes, size);
    offer->features = wire_get_u64(&in);
    offer->channels = wire_get_u16(&in);
    offer->block_count = wire_get_u16(&in);
    offer->page_size = wire_get_u32(&in);
    offer->populated = wire_get_u64(&in);
    offer->slice_size = wire_get_u32(&in);
    wire_get_string8(&in, offer->compression, NEGOTIATE_NAME_MAX);
    if (in.failed || offer->channels == 0 || offer->channels > NEGOTIATE_CHANNELS_MAX || offer->block_count == 0 ||
        offer->block_count > NEGOTIATE_BLOCKS_MAX)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed OFFER of %zu bytes", size);
    if (!slice_size_fits(offer))
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed OFFER: slices of %u bytes", offer->slice_size);
    for (unsigned i = 0; i < offer->block_count; i++) {
        enum godwit_err err = block_decode(&in, offer, i, error);
        if (err != GODWIT_OK)
            return err;
    }
    if (wire_left(&in) != 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed OFFER: %zu bytes too many", wire_left(&in));
    return GODWIT_OK;
}

enum godwit_err offer_check(const struct offer *offer, unsigned channels, bool rdma, const char *scheme,
                            struct godwit_error *error)
{
    if (offer->page_size != GODWIT_PAGE_SIZE)
        return error_set(error, GODWIT_ERR_MISMATCH, "page size mismatch: the source uses %u, the destination %u",
                         offer->page_size, GODWIT_PAGE_SIZE);
    if (channels != 0 && channels != offer->channels)
        return error_set(
            error, GODWIT_ERR_MISMATCH,
            "multifd-channels mismatch: source %u, destination %u; set the same number on both sides, or none "
            "on the destination",
            offer->channels, channels);
    bool wanted = (offer->features & FEATURE_RDMA) != 0;
    if (wanted && !rdma)
        return error_set(error, GODWIT_ERR_MISMATCH,
                         "transport mismatch: the source sends to rdma:, the destination listens on %s:; use rdma: on "
                         "both sides, or %s: on both",
                         scheme, scheme);
    if (rdma && !wanted)
        return error_set(error, GODWIT_ERR_MISMATCH,
                         "transport mismatch: the source does not send to rdma:, the destination listens on %s:; use "
                         "rdma: on both sides, or tcp: on both",
                         scheme);
    if (strcmp(offer->compression, "none") != 0)
        return error_set(error, GODWIT_ERR_MISMATCH,
                         "multifd-compression mismatch: the source wants %s, which this destination does not have",
                         offer->compression);
    return GODWIT_OK;
}

size_t acceptance_encode(const struct acceptance *acceptance, uint8_t *bytes)
{
    struct wire_out out = wire_out(bytes, ACCEPT_SIZE_MAX);
    wire_put_u64(&out, acceptance->features);
    wire_put_u16(&out, acceptance->channels);
    wire_put_u16(&out, acceptance->block_count);
    wire_put_u16(&out, acceptance->token_count);
    wire_put_zeros(&out, 2);
    wire_put_bytes(&out, acceptance->fresh, acceptance->block_count);
    for (unsigned i = 0; i < acceptance->token_count; i++) {
        const struct token *token = &acceptance->tokens[i];
        wire_put_u8(&out, (uint8_t)token->role);
        wire_put_zeros(&out, 1);
        wire_put_u16(&out, token->channel);
        wire_put_u32(&out, token->epoch);
        wire_put_bytes(&out, token->bytes, TOKEN_SIZE);
    }
    return (size_t)(out.at - bytes);
}

enum godwit_err acceptance_decode(const void *bytes, size_t size, struct acceptance *acceptance,
                                  struct godwit_error *error)
{
    struct wire_in in = wire_in(bytes, size);
    acceptance->features = wire_get_u64(&in);
    acceptance->channels = wire_get_u16(&in);
    acceptance->block_count = wire_get_u16(&in);
    acceptance->token_count = wire_get_u16(&in);
    wire_get_zeros(&in, 2);
    if (in.failed || acceptance->block_count > NEGOTIATE_BLOCKS_MAX ||
        acceptance->token_count > NEGOTIATE_CHANNELS_MAX + 1)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed ACCEPT of %zu bytes", size);
    wire_get_bytes(&in, acceptance->fresh, acceptance->block_count);
    for (unsigned i = 0; i < acceptance->block_count; i++)
        if (acceptance->fresh[i] > 1)
            return error_set(error, GODWIT_ERR_PROTOCOL, "malformed ACCEPT: block %u is neither fresh nor used", i);
    for (unsigned i = 0; i < acceptance->token_count; i++) {
        struct token *token = &acceptance->tokens[i];
        token->role = (enum hello_role)wire_get_u8(&in);
        wire_get_zeros(&in, 1);
        token->channel = wire_get_u16(&in);
        token->epoch = wire_get_u32(&in);
        wire_get_bytes(&in, token->bytes, TOKEN_SIZE);
        token->state = TOKEN_ISSUED;
    }
    if (in.failed || wire_left(&in) != 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed ACCEPT of %zu bytes", size);
    return GODWIT_OK;
}

enum godwit_err acceptance_check(const struct acceptance *acceptance, const struct offer *offer,
                                 struct godwit_error *error)
{
    if ((acceptance->features & ~offer->features) != 0 || acceptance->channels != offer->channels ||
        acceptance->block_count != offer->block_count || acceptance->token_count != offer->channels + 1u)
        return error_set(error, GODWIT_ERR_PROTOCOL, "ACCEPT does not answer our OFFER");
    if ((offer->features & ~acceptance->features & FEATURE_RDMA) != 0)
        return error_set(error, GODWIT_ERR_MISMATCH,
                         "transport mismatch: the source sends to rdma:, the destination does not know it; use tcp: on "
                         "both sides, or a newer destination");
    for (unsigned i = 0; i < acceptance->token_count; i++) {
        const struct token *token = &acceptance->tokens[i];
        bool data = i < offer->channels;
        if (token->role != (data ? HELLO_DATA : HELLO_CONTROL) || token->channel != (data ? i : 0) ||
            token->epoch != (data ? 0 : 1))
            return error_set(error, GODWIT_ERR_PROTOCOL, "ACCEPT: token %u is not the one due", i);
    }
    return GODWIT_OK;
}
