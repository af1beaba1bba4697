/*
 * Who may send: pure arithmetic, no verbs. Each side keeps RING receives posted for frames of the stream. A frame with
 * data takes a credit; its receiver gives it back, in the header of any frame, when the buffer is posted again. Counts
 * are totals since the beginning, so that a frame may repeat what an earlier one said, modulo 2^32.
 *
 * A frame without data (credits alone, or the end of the stream) takes none, or two full sides would wait for each
 * other for ever. It fits nevertheless: SPARE receives more are posted. A side sends credits alone only for RING / 2
 * buffers or more; between two of them the peer must have been given, and have used, so many credits, for which it took
 * the earlier one out of its receives, or was still using those of the beginning. So at most two are ever under way,
 * and one end of the stream: RNR never happens, whatever its timers are set to.
 */
#ifndef RDMA_CREDITS_H
#define RDMA_CREDITS_H

#include <stdbool.h>
#include <stdint.h>

enum { CREDITS_RING = 32, CREDITS_SPARE = 4 };

struct credits {
    uint32_t sent;      /* frames with data that were posted */
    uint32_t granted;   /* buffers the peer has posted again */
    uint32_t returned;  /* buffers of ours that were posted again */
    uint32_t announced; /* of these, told to the peer */
};

static inline bool credits_may_send(const struct credits *credits)
{
    return (uint32_t)(credits->sent - credits->granted) < CREDITS_RING;
}

/* Should the peer be told now, in a frame of its own? */
static inline bool credits_due(const struct credits *credits)
{
    return (uint32_t)(credits->returned - credits->announced) >= CREDITS_RING / 2;
}

/*
 * A header says that the peer posted so many again. False: it cannot have; the total never goes back either. A frame
 * that brings nothing else must bring RING / 2: what comes for nothing could come without end.
 */
static inline bool credits_take(struct credits *credits, uint32_t total, bool brings_else)
{
    uint32_t returned = total - credits->granted;
    if (returned > (uint32_t)(credits->sent - credits->granted) || (!brings_else && returned < CREDITS_RING / 2))
        return false;
    credits->granted = total;
    return true;
}

#endif
