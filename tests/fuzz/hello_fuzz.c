/* The first 96 bytes of every connection. */
#include <string.h>

#include "session/hello.h"
#include "tests/fuzz/fuzz.h"
#include "transport/wire.h"

static void decode(const uint8_t bytes[HELLO_SIZE])
{
    struct hello hello;
    struct godwit_error error;
    if (hello_decode(bytes, &hello, &error) != GODWIT_OK)
        return;
    uint8_t again[HELLO_SIZE];
    hello_encode(&hello, again);
    fuzz_require(memcmp(bytes, again, HELLO_SIZE) == 0, "a hello that is accepted has one form");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[HELLO_SIZE] = {0};
    memcpy(bytes, data, size < HELLO_SIZE ? size : HELLO_SIZE);
    decode(bytes);
    fuzz_put_u32(bytes + HELLO_SIZE - 4, wire_crc32(0, bytes, HELLO_SIZE - 4));
    decode(bytes);
    return 0;
}
