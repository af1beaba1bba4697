/* Device state in memory: what the engine does for save_rest, for tests that run without an engine. */
#ifndef TESTS_GUEST_STATE_WRITER_H
#define TESTS_GUEST_STATE_WRITER_H

#include <string.h>

#include <godwit/guest.h>

struct godwit_state_writer {
    unsigned char bytes[4096];
    size_t used;
};

enum godwit_err godwit_state_write(struct godwit_state_writer *writer, const void *data, size_t size)
{
    if (size > sizeof writer->bytes - writer->used)
        return GODWIT_ERR_TOO_BIG;
    memcpy(writer->bytes + writer->used, data, size);
    writer->used += size;
    return GODWIT_OK;
}

#endif
