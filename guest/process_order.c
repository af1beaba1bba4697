/* The order of writes. Nothing here can fail; products stay below 2^64 because shares are below 2^32 pages. */
#include "guest/process_order.h"

#include <assert.h>

static uint64_t order_gcd(uint64_t a, uint64_t b)
{
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Extended Euclid: the x with a * x = 1 mod n, for coprime a < n. */
static uint64_t order_inverse(uint64_t a, uint64_t n)
{
    int64_t x = 0, next_x = 1, r = (int64_t)n, next_r = (int64_t)a;
    while (next_r) {
        int64_t q = r / next_r, swap = next_x;
        next_x = x - q * next_x;
        x = swap;
        swap = next_r;
        next_r = r - q * next_r;
        r = swap;
    }
    return (uint64_t)(x < 0 ? x + (int64_t)n : x);
}

static void order_share(struct process_share *share, uint64_t first, uint64_t end)
{
    uint64_t pages = end - first;
    *share = (struct process_share){.first = first, .pages = pages, .stride = 1, .inverse = 1};
    if (pages < 3)
        return;
    /* Near the golden ratio: neighbours in time are far apart in memory, as a guest's writes are for the tracker. */
    share->stride = pages * 618 / 1000;
    while (order_gcd(share->stride, pages) != 1)
        share->stride++;
    share->stride %= pages; /* pages - 1 is coprime, so the search ends below pages */
    share->inverse = order_inverse(share->stride, pages);
}

void process_order_init(struct process_order *order, uint64_t pages, uint64_t hot, unsigned workers, unsigned worker)
{
    assert(hot <= pages && worker < workers && "the plan was validated");
    uint64_t cold = pages - hot;
    order_share(&order->hot, hot * worker / workers, hot * (worker + 1) / workers);
    order_share(&order->cold, hot + cold * worker / workers, hot + cold * (worker + 1) / workers);
}

bool process_order_empty(const struct process_order *order)
{
    return order->hot.pages == 0 && order->cold.pages == 0;
}

static uint64_t order_visit(const struct process_share *share, uint64_t k)
{
    return share->first + k % share->pages * share->stride % share->pages;
}

uint64_t process_order_page(const struct process_order *order, uint64_t step)
{
    if (order->hot.pages == 0)
        return order_visit(&order->cold, step);
    if (order->cold.pages == 0)
        return order_visit(&order->hot, step);
    uint64_t round = step / PROCESS_COLD_EVERY;
    if (step % PROCESS_COLD_EVERY == PROCESS_COLD_EVERY - 1)
        return order_visit(&order->cold, round);
    return order_visit(&order->hot, step - round);
}

/* The last k below `visits` that goes to the page, plus one; 0 for none. */
static uint64_t order_last_visit(const struct process_share *share, uint64_t visits, uint64_t page)
{
    uint64_t residue = (page - share->first) * share->inverse % share->pages;
    if (residue >= visits)
        return 0;
    return residue + (visits - 1 - residue) / share->pages * share->pages + 1;
}

uint64_t process_order_last(const struct process_order *order, uint64_t steps, uint64_t page)
{
    bool hot = page - order->hot.first < order->hot.pages;
    if (order->hot.pages == 0 || order->cold.pages == 0)
        return order_last_visit(hot ? &order->hot : &order->cold, steps, page);
    uint64_t rounds = steps / PROCESS_COLD_EVERY; /* as many cold steps are below `steps` */
    uint64_t visit = order_last_visit(hot ? &order->hot : &order->cold, hot ? steps - rounds : rounds, page);
    if (visit == 0)
        return 0;
    uint64_t k = visit - 1, hot_run = PROCESS_COLD_EVERY - 1;
    return (hot ? k / hot_run * PROCESS_COLD_EVERY + k % hot_run : k * PROCESS_COLD_EVERY + hot_run) + 1;
}

unsigned process_order_owner(uint64_t pages, uint64_t hot, unsigned workers, uint64_t page)
{
    uint64_t index = page < hot ? page : page - hot, count = page < hot ? hot : pages - hot;
    uint64_t worker = index * workers / count;
    while (index >= count * (worker + 1) / workers)
        worker++;
    return (unsigned)worker;
}
