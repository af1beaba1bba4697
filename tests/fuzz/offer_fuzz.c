/* OFFER: what a destination decodes before it allocates anything. */
#include <string.h>

#include <godwit/guest.h>

#include "session/negotiate.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct offer offer;
    static uint8_t again[OFFER_SIZE_MAX];
    struct godwit_error error;
    if (offer_decode(data, size, &offer, &error) != GODWIT_OK)
        return 0;
    fuzz_require(offer.channels > 0 && offer.channels <= NEGOTIATE_CHANNELS_MAX, "channels are in range");
    fuzz_require(offer.block_count > 0 && offer.block_count <= NEGOTIATE_BLOCKS_MAX, "blocks are in range");
    for (unsigned i = 0; i < offer.block_count; i++)
        fuzz_require(offer.blocks[i].size > 0 && offer.blocks[i].size % GODWIT_PAGE_SIZE == 0, "sizes are whole pages");
    fuzz_require(offer_encode(&offer, again) == size && memcmp(data, again, size) == 0,
                 "an offer that is accepted has one form");
    offer_check(&offer, data[size - 1] % 4, data[size - 1] & 4, "tcp", &error);
    return 0;
}
