/* ACCEPT, against the offer that it fits best. */
#include <string.h>

#include "session/negotiate.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct acceptance acceptance;
    static struct offer offer;
    static uint8_t again[ACCEPT_SIZE_MAX];
    struct godwit_error error;
    if (acceptance_decode(data, size, &acceptance, &error) != GODWIT_OK)
        return 0;
    fuzz_require(acceptance.block_count <= NEGOTIATE_BLOCKS_MAX, "blocks are in range");
    fuzz_require(acceptance.token_count <= NEGOTIATE_CHANNELS_MAX + 1, "tokens are in range");
    fuzz_require(acceptance_encode(&acceptance, again) == size && memcmp(data, again, size) == 0,
                 "an acceptance that decodes has one form");
    offer.features = FEATURE_PLACED;
    offer.channels = acceptance.token_count > 0 ? (uint16_t)(acceptance.token_count - 1) : 0;
    offer.block_count = acceptance.block_count;
    if (acceptance_check(&acceptance, &offer, &error) == GODWIT_OK)
        fuzz_require(acceptance.channels == offer.channels, "what is accepted was offered");
    return 0;
}
