/* See state.h. */
#include "engine/state.h"

#include <stdlib.h>
#include <string.h>

#include "transport/error.h"
#include "transport/wire.h"

enum { STATE_LAST = 1 << 0 };

enum godwit_err godwit_state_write(struct godwit_state_writer *writer, const void *data, size_t size)
{
    if (size > STATE_STREAM_MAX - writer->before - writer->size) /* what is there never exceeds it */
        return GODWIT_ERR_TOO_BIG;
    if (size > writer->room - writer->size) {
        size_t room = writer->room > 0 ? writer->room : 4096;
        while (room - writer->size < size)
            room *= 2;
        uint8_t *bytes = realloc(writer->bytes, room);
        if (bytes == NULL)
            return GODWIT_ERR_NO_MEMORY;
        writer->bytes = bytes;
        writer->room = room;
    }
    if (size > 0)
        memcpy(writer->bytes + writer->size, data, size);
    writer->size += size;
    return GODWIT_OK;
}

void state_writer_clear(struct godwit_state_writer *writer)
{
    free(writer->bytes);
    *writer = (struct godwit_state_writer){0};
}

size_t state_head_encode(const struct state_head *head, uint8_t bytes[STATE_HEAD_MAX])
{
    struct wire_out out = wire_out(bytes, STATE_HEAD_MAX);
    wire_put_string8(&out, head->name);
    wire_put_u8(&out, head->last ? STATE_LAST : 0);
    wire_put_u64(&out, head->offset);
    return (size_t)(out.at - bytes);
}

const uint8_t *state_head_decode(const uint8_t *bytes, size_t size, struct state_head *head)
{
    struct wire_in in = wire_in(bytes, size);
    wire_get_string8(&in, head->name, GODWIT_STATE_NAME_MAX);
    uint8_t flags = wire_get_u8(&in);
    head->last = (flags & STATE_LAST) != 0;
    head->offset = wire_get_u64(&in);
    return in.failed || (flags & ~STATE_LAST) != 0 || head->name[0] == 0 ? NULL : in.at;
}

static struct state_stream *find_or_add(struct state_set *set, const char *name)
{
    for (unsigned i = 0; i < set->count; i++)
        if (strcmp(set->streams[i].name, name) == 0)
            return &set->streams[i];
    if (set->count == GODWIT_STATES_MAX)
        return NULL;
    struct state_stream *streams = realloc(set->streams, (set->count + 1) * sizeof *streams);
    if (streams == NULL)
        return NULL;
    set->streams = streams;
    struct state_stream *stream = &streams[set->count++];
    *stream = (struct state_stream){0};
    strcpy(stream->name, name); /* both are GODWIT_STATE_NAME_MAX + 1 bytes */
    return stream;
}

enum godwit_err state_set_add(struct state_set *set, const uint8_t *bytes, size_t size, struct godwit_error *error)
{
    struct state_head head;
    const uint8_t *data = state_head_decode(bytes, size, &head);
    if (data == NULL)
        return error_set(error, GODWIT_ERR_PROTOCOL, "malformed STATE of %zu bytes", size);
    struct state_stream *stream = find_or_add(set, head.name);
    if (stream == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no place for device state %s beside %u others", head.name,
                         set->count);
    if (stream->complete || head.offset != stream->data.size)
        return error_set(error, GODWIT_ERR_PROTOCOL, "device state %s: bytes at %llu where %zu were due", head.name,
                         (unsigned long long)head.offset, stream->data.size);
    size_t more = (size_t)(bytes + size - data);
    if (more > STATE_TOTAL_MAX - set->total)
        return error_set(error, GODWIT_ERR_TOO_BIG, "device state of more than %u bytes", STATE_TOTAL_MAX);
    enum godwit_err err = godwit_state_write(&stream->data, data, more);
    if (err != GODWIT_OK)
        return error_set(error, err, "device state %s: %s", head.name, godwit_err_text(err));
    set->total += more;
    stream->complete = head.last;
    return GODWIT_OK;
}

bool state_set_complete(const struct state_set *set)
{
    for (unsigned i = 0; i < set->count; i++)
        if (!set->streams[i].complete)
            return false;
    return true;
}

void state_set_clear(struct state_set *set)
{
    for (unsigned i = 0; i < set->count; i++)
        state_writer_clear(&set->streams[i].data);
    free(set->streams);
    *set = (struct state_set){0};
}
