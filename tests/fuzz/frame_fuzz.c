/*
 * What a queue pair receives: one frame, and the credits that frames after one another bring (rdma/credits.h). The
 * input is a message as it is; then it is cut into pairs of a byte that says how many frames we send, as far as we may,
 * and the head of a frame that comes.
 */
#include <string.h>

#include "rdma/credits.h"
#include "rdma/frame.h"
#include "tests/fuzz/fuzz.h"

static bool decode(const uint8_t *message, uint32_t size, struct frame *frame)
{
    uint8_t again[FRAME_HEADER];
    if (!frame_decode(message, size, frame))
        return false;
    fuzz_require(frame->size <= FRAME_DATA && FRAME_HEADER + frame->size == size, "the data is what came");
    fuzz_require(!frame->end || frame->size == 0, "nothing comes with the end");
    frame_encode(frame, again);
    fuzz_require(memcmp(message, again, sizeof again) == 0, "a frame that is accepted has one form");
    return true;
}

static void check_credits(const struct credits *credits)
{
    uint32_t under_way = credits->sent - credits->granted;
    fuzz_require(under_way <= CREDITS_RING, "no more is under way than the peer has receives for");
    fuzz_require(credits_may_send(credits) == (under_way < CREDITS_RING), "who has a credit may send");
}

static void exchange(const uint8_t *data, size_t size)
{
    struct credits credits = {0};
    for (; size >= 1 + FRAME_HEADER; data += 1 + FRAME_HEADER, size -= 1 + FRAME_HEADER) {
        struct frame frame;
        for (unsigned i = 0; i < data[0] && credits_may_send(&credits); i++)
            credits.sent++;
        if (!decode(data + 1, FRAME_HEADER, &frame))
            return;
        uint32_t before = credits.granted;
        bool taken = credits_take(&credits, frame.credits, frame.end);
        check_credits(&credits);
        fuzz_require(taken || credits.granted == before, "credits that are refused change nothing");
        fuzz_require(!taken || frame.end || credits.granted - before >= CREDITS_RING / 2, "nothing comes for nothing");
        if (!taken || frame.end)
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct frame frame;
    decode(data, (uint32_t)size, &frame);
    exchange(data, size);
    return 0;
}
