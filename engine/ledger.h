/*
 * The ledger of epochs: which are open, closed, acknowledged, and how fast what was acknowledged arrived. Pure: time
 * and byte counts are handed in.
 *
 * Epochs count from 1. One is open; at most the one before it may be unacknowledged, so a page that went out in epoch e
 * is remembered in map e % 2 until e is acknowledged, and epoch e + 2 reuses the map.
 */
#ifndef ENGINE_LEDGER_H
#define ENGINE_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

struct ledger {
    uint32_t open;       /* the epoch batches are stamped with now */
    uint32_t closed;     /* the last one whose markers were asked for: open - 1, or open while nothing is open */
    uint32_t acked;      /* all up to this one have arrived */
    uint64_t opened_ns;  /* when `open` was opened */
    uint64_t pages[2];   /* normal pages sent in epoch e, at [e % 2] */
    uint64_t opened[2];  /* ns */

    uint64_t last_ack_ns;
    uint64_t arrived;    /* bytes, as of the last acknowledgement */
    double bandwidth;    /* delivered bytes per second, smoothed; 0: nothing is known yet */
    bool measured;       /* by a sample of LEDGER_SAMPLE_MIN at least; else it is a lower bound */
};

enum {
    LEDGER_EPOCH_MAX_MS = 1000,
    LEDGER_SAMPLE_MIN = 1 << 20, /* bytes: what less than this shows is latency, not bandwidth */
};

static const uint64_t LEDGER_EPOCH_MAX_BYTES = UINT64_C(4) << 30;

void ledger_init(struct ledger *ledger);
/* May the next epoch be opened? Only when the one before the last is acknowledged. */
bool ledger_may_open(const struct ledger *ledger);
void ledger_open(struct ledger *ledger, uint64_t now_ns);
/* Should the open epoch end, by its age or size? */
bool ledger_due(const struct ledger *ledger, uint64_t now_ns);
void ledger_close(struct ledger *ledger);
/* False for an acknowledgement that does not answer anything closed. `arrived`: bytes the destination has in all. */
bool ledger_ack(struct ledger *ledger, uint32_t epoch, uint64_t arrived, uint64_t now_ns);

/* Pages sent and not acknowledged. */
uint64_t ledger_unacked_pages(const struct ledger *ledger);

#endif
