/* Device state: STATE records put together again. Input: length (2 bytes) and body, repeated. */
#include "engine/state.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct state_set set = {0};
    struct godwit_error error;
    size_t given = 0, total = 0;
    while (size >= 2) {
        size_t length = fuzz_get_u16(data);
        data += 2;
        size -= 2;
        length = length < size ? length : size;
        if (state_set_add(&set, data, length, &error) != GODWIT_OK)
            break; /* the session ends with the first that is refused */
        given += length;
        data += length;
        size -= length;
    }
    for (unsigned i = 0; i < set.count; i++)
        total += set.streams[i].data.size;
    fuzz_require(total == set.total && total <= given, "what is kept was sent");
    fuzz_require(set.count <= GODWIT_STATES_MAX, "streams are in range");
    state_set_complete(&set);
    state_set_clear(&set);
    return 0;
}
