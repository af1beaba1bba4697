/*
 * The control connection as its reader thread sees it: header, CRC and sequence, then HEARTBEAT and ERROR, which the
 * session takes itself. control.c is included for its static decoders.
 */
#include "session/control.c"

#include "tests/fuzz/fuzz.h"

enum { RECORD_CRC_AT = 12 };

static enum godwit_err take(void *opaque, const struct record_header *header, const uint8_t *body,
                            struct godwit_error *error)
{
    return GODWIT_OK;
}

static void decode(struct control *control, const uint8_t *bytes, size_t size)
{
    struct record_header header;
    struct godwit_error error;
    if (record_header_decode(bytes, &header, &error) != GODWIT_OK)
        return;
    fuzz_require(header.size <= RECORD_BODY_MAX, "the size of a body has a maximum");
    if (header.size > size - RECORD_HEADER_SIZE ||
        record_check(bytes, &header, bytes + RECORD_HEADER_SIZE, header.sequence, &error) != GODWIT_OK)
        return;
    struct record_header again = {.type = header.type, .sequence = header.sequence};
    struct iovec body = {(void *)(uintptr_t)(bytes + RECORD_HEADER_SIZE), header.size};
    uint8_t encoded[RECORD_HEADER_SIZE];
    record_header_encode(&again, &body, 1, encoded);
    fuzz_require(memcmp(bytes, encoded, sizeof encoded) == 0, "a header that is accepted has one form");
    control->body = (uint8_t *)(uintptr_t)(bytes + RECORD_HEADER_SIZE);
    dispatch(control, &header, &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct control control = {.config = {.record = take}};
    if (size < RECORD_HEADER_SIZE)
        return 0;
    decode(&control, data, size);
    uint8_t *bytes = malloc(size);
    if (bytes == NULL)
        return 0;
    memcpy(bytes, data, size);
    fuzz_put_u32(bytes + 4, (uint32_t)(size - RECORD_HEADER_SIZE));
    fuzz_put_u32(bytes + RECORD_CRC_AT, wire_crc32(wire_crc32(0, bytes, RECORD_CRC_AT), bytes + RECORD_HEADER_SIZE,
                                                   size - RECORD_HEADER_SIZE));
    decode(&control, bytes, size);
    free(bytes);
    return 0;
}
