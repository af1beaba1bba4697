/* What a listener answers to a hello: a fixed part, then text. */
#include <string.h>

#include "session/hello.h"
#include "tests/fuzz/fuzz.h"
#include "transport/wire.h"

enum { CRC_AT = 28 };

static void decode(const uint8_t *bytes, size_t size)
{
    struct hello_answer answer;
    struct godwit_error error;
    size_t text = 0;
    if (size >= ANSWER_SIZE && hello_answer_text_size(bytes, &text, &error) == GODWIT_OK)
        fuzz_require(text <= ANSWER_TEXT_MAX, "the size of the text has a maximum");
    if (hello_answer_decode(bytes, size, &answer, &error) != GODWIT_OK)
        return;
    uint8_t again[ANSWER_SIZE + ANSWER_TEXT_MAX];
    fuzz_require(hello_answer_encode(&answer, again) == size && memcmp(bytes, again, size) == 0,
                 "an answer that is accepted has one form");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    decode(data, size);
    if (size < ANSWER_SIZE || size > ANSWER_SIZE + ANSWER_TEXT_MAX)
        return 0;
    uint8_t bytes[ANSWER_SIZE + ANSWER_TEXT_MAX];
    memcpy(bytes, data, size);
    bytes[12] = (uint8_t)((size - ANSWER_SIZE) >> 8); /* size of the text */
    bytes[13] = (uint8_t)(size - ANSWER_SIZE);
    fuzz_put_u32(bytes + CRC_AT, wire_crc32(wire_crc32(0, bytes, CRC_AT), bytes + ANSWER_SIZE, size - ANSWER_SIZE));
    decode(bytes, size);
    return 0;
}
