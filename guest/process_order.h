/*
 * Which page a worker of the process guest writes in which step, and back: pure arithmetic.
 *
 * The first `hot` pages of memory are hot, the rest cold; each worker owns a contiguous share of both. Of 16 steps 15
 * go to its hot share and the last to its cold share (all to the one that is not empty). The k-th visit of a share of n
 * pages goes to page k * stride mod n, stride coprime to n, so n visits in a row touch n pages, and the visits of page
 * i are those with k = i / stride (mod n): the last one before a given step needs no record.
 */
#ifndef GUEST_PROCESS_ORDER_H
#define GUEST_PROCESS_ORDER_H

#include <stdbool.h>
#include <stdint.h>

enum { PROCESS_COLD_EVERY = 16 };

/* Steps are numbered from 0; counters of a longer life than this are refused as impossible. */
#define PROCESS_STEPS_MAX (1ull << 60)

struct process_share {
    uint64_t first; /* page */
    uint64_t pages; /* below 2^32 */
    uint64_t stride;
    uint64_t inverse; /* stride * inverse = 1 mod pages */
};

struct process_order {
    struct process_share hot;
    struct process_share cold;
};

/* The shares of `worker` of `workers` in a memory of `pages` (at most 2^32), `hot` of them hot. */
void process_order_init(struct process_order *order, uint64_t pages, uint64_t hot, unsigned workers, unsigned worker);

/* True for a worker that owns no page: fewer pages than workers. */
bool process_order_empty(const struct process_order *order);

/* The page of a step. Not for an empty order. */
uint64_t process_order_page(const struct process_order *order, uint64_t step);

/* The last step below `steps` that wrote `page`, plus one; 0 when none did. page is one of the order's own. */
uint64_t process_order_last(const struct process_order *order, uint64_t steps, uint64_t page);

/* The worker that owns a page. */
unsigned process_order_owner(uint64_t pages, uint64_t hot, unsigned workers, uint64_t page);

#endif
