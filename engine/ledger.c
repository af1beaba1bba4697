/* See ledger.h. */
#include "engine/ledger.h"

#include <assert.h>

enum { PAGE_BYTES = 4096 };

void ledger_init(struct ledger *ledger)
{
    *ledger = (struct ledger){0};
}

bool ledger_may_open(const struct ledger *ledger)
{
    return ledger->acked + 1 >= ledger->closed;
}

void ledger_open(struct ledger *ledger, uint64_t now_ns)
{
    assert(ledger->open == ledger->closed && ledger_may_open(ledger) && "the caller closed and waited");
    ledger->open++;
    ledger->opened_ns = now_ns;
    ledger->opened[ledger->open % 2] = now_ns;
    ledger->pages[ledger->open % 2] = 0;
}

bool ledger_due(const struct ledger *ledger, uint64_t now_ns)
{
    return now_ns - ledger->opened_ns >= LEDGER_EPOCH_MAX_MS * UINT64_C(1000000) ||
           ledger->pages[ledger->open % 2] * PAGE_BYTES >= LEDGER_EPOCH_MAX_BYTES;
}

void ledger_close(struct ledger *ledger)
{
    assert(ledger->closed + 1 == ledger->open && "there is an open epoch");
    ledger->closed = ledger->open;
}

/*
 * What arrived between two acknowledgements, by the time between them; or by the time since the epoch was opened, if
 * that was later and the line lay idle before. Two samples weigh as one another: a guest's first pass and its last
 * differ.
 *
 * A small sample shows latency: the line is at least that fast. The highest of them serves until there is a real one,
 * or a guest whose passes are all small would be judged by its first, which may have carried markers only, and never be
 * stopped.
 */
static void sample(struct ledger *ledger, uint32_t epoch, uint64_t arrived, uint64_t now_ns)
{
    uint64_t opened = ledger->opened[epoch % 2];
    uint64_t since = opened > ledger->last_ack_ns ? opened : ledger->last_ack_ns;
    uint64_t bytes = arrived - ledger->arrived;
    if (now_ns <= since || bytes == 0 || (bytes < LEDGER_SAMPLE_MIN && ledger->measured))
        return;
    double speed = (double)bytes * 1e9 / (double)(now_ns - since);
    if (bytes < LEDGER_SAMPLE_MIN) {
        ledger->bandwidth = speed > ledger->bandwidth ? speed : ledger->bandwidth;
        return;
    }
    ledger->bandwidth = ledger->measured ? (ledger->bandwidth + speed) / 2 : speed;
    ledger->measured = true;
}

bool ledger_ack(struct ledger *ledger, uint32_t epoch, uint64_t arrived, uint64_t now_ns)
{
    if (epoch <= ledger->acked || epoch > ledger->closed || arrived < ledger->arrived)
        return false;
    sample(ledger, epoch, arrived, now_ns);
    ledger->acked = epoch;
    ledger->arrived = arrived;
    ledger->last_ack_ns = now_ns;
    return true;
}

uint64_t ledger_unacked_pages(const struct ledger *ledger)
{
    uint64_t pages = 0;
    for (uint32_t epoch = ledger->acked + 1; epoch <= ledger->open; epoch++)
        pages += ledger->pages[epoch % 2];
    return pages;
}
