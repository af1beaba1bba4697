/* See registration.h. */
#include "session/registration.h"

#include <assert.h>

#include "transport/error.h"
#include "transport/wire.h"

size_t register_encode(const struct register_run *runs, unsigned count, uint8_t *bytes)
{
    assert(count > 0 && count <= REGISTER_RUNS_MAX && "callers split what could be larger");
    struct wire_out out = wire_out(bytes, REGISTER_SIZE_MAX);
    for (unsigned i = 0; i < count; i++) {
        wire_put_u16(&out, runs[i].block);
        wire_put_zeros(&out, 2);
        wire_put_u32(&out, runs[i].first);
        wire_put_u32(&out, runs[i].slices);
    }
    return (size_t)(out.at - bytes);
}

enum godwit_err register_decode(const void *bytes, size_t size, struct register_run *runs, unsigned *count,
                                struct godwit_error *error)
{
    struct wire_in in = wire_in(bytes, size);
    if (size == 0 || size > REGISTER_SIZE_MAX || size % REGISTER_RUN_SIZE != 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed REGISTER of %zu bytes", size);
    unsigned used = (unsigned)(size / REGISTER_RUN_SIZE);
    for (unsigned i = 0; i < used; i++) {
        runs[i].block = wire_get_u16(&in);
        wire_get_zeros(&in, 2);
        runs[i].first = wire_get_u32(&in);
        runs[i].slices = wire_get_u32(&in);
        if (in.failed || runs[i].slices == 0)
            return error_set(error, GODWIT_ERR_PROTOCOL, "malformed REGISTER: run %u", i);
    }
    *count = used;
    return GODWIT_OK;
}

size_t slice_key_encode(const struct slice_key *key, uint8_t *bytes)
{
    struct wire_out out = wire_out(bytes, KEY_SIZE_MAX);
    wire_put_u16(&out, key->block);
    wire_put_u16(&out, key->key.size);
    wire_put_u32(&out, key->slice);
    wire_put_bytes(&out, key->key.bytes, key->key.size);
    return (size_t)(out.at - bytes);
}

enum godwit_err slice_key_decode(const void *bytes, size_t size, struct slice_key *key, struct godwit_error *error)
{
    struct wire_in in = wire_in(bytes, size);
    struct slice_key got = {.block = wire_get_u16(&in)};
    got.key.size = wire_get_u16(&in);
    got.slice = wire_get_u32(&in);
    if (in.failed || got.key.size > REGION_KEY_MAX || wire_left(&in) != got.key.size)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed KEY of %zu bytes", size);
    wire_get_bytes(&in, got.key.bytes, got.key.size);
    *key = got;
    return GODWIT_OK;
}
