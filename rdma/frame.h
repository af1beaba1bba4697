/* Private to rdma/: the head of every SEND. Pure. */
#ifndef RDMA_FRAME_H
#define RDMA_FRAME_H

#include "transport/wire.h"

enum {
    FRAME_SIZE = 64 << 10,
    FRAME_HEADER = 8,
    FRAME_DATA = FRAME_SIZE - FRAME_HEADER,
};

#define FRAME_END UINT32_C(0x80000000)

struct frame {
    uint32_t credits; /* buffers posted again since the beginning (rdma/credits.h) */
    uint32_t size;    /* bytes of the stream that follow, 0 to FRAME_DATA */
    bool end;         /* nothing follows on this stream; size is 0 */
};

static inline void frame_encode(const struct frame *frame, uint8_t header[FRAME_HEADER])
{
    struct wire_out out = wire_out(header, FRAME_HEADER);
    wire_put_u32(&out, frame->credits);
    wire_put_u32(&out, frame->size | (frame->end ? FRAME_END : 0));
}

/* bytes: of the whole message, header included. */
static inline bool frame_decode(const uint8_t *message, uint32_t bytes, struct frame *frame)
{
    struct wire_in in = wire_in(message, bytes);
    frame->credits = wire_get_u32(&in);
    uint32_t size = wire_get_u32(&in);
    frame->end = (size & FRAME_END) != 0;
    frame->size = size & ~FRAME_END;
    return !in.failed && frame->size <= FRAME_DATA && wire_left(&in) == frame->size && !(frame->end && frame->size > 0);
}

#endif
