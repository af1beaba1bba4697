/*
 * Channels under threads, for ThreadSanitizer: Criterion does not start under it. Every round connects a pair, moves
 * data both ways, puts where there are puts, and ends it by a shutdown from a third thread at a moment that varies.
 *
 *   channel_stress [ROUNDS]    exit 0: nothing was wrong
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/pair.h"
#include "transport/clock.h"

enum { ROUNDS = 40, STEP = 8192, PAYLOAD = STEP - 16, MESSAGES = 400, PUT_SIZE = 4096 };

struct side {
    struct channel *channel;
    pthread_t sender, receiver;
    bool to_the_end; /* nobody will cut this round short */
    bool send_wrong, recv_wrong; /* each written by its thread */

    struct mr *mr; /* NULL: no puts */
    struct remote *remote;
    uint8_t *local, *placed; /* own memory that is put, and that the peer puts into */
};

static void fill(uint8_t *memory, size_t size, uint64_t number)
{
    memset(memory, (int)(number % 250 + 1), size);
}

static void *send_all(void *argument)
{
    struct side *side = argument;
    uint8_t head[16], payload[PAYLOAD];
    for (uint64_t n = 0; n < MESSAGES; n++) {
        fill(head, sizeof head, n);
        fill(payload, sizeof payload, n);
        enum godwit_err err = GODWIT_OK;
        if (side->mr) {
            fill(side->local, PUT_SIZE, n);
            /* A slot for each message: the receiver is still comparing the one before. */
            err = channel_put(side->channel, side->mr, 0, side->remote, n * PUT_SIZE, PUT_SIZE);
        }
        struct iovec iov = {payload, sizeof payload};
        if (!err)
            err = channel_send(side->channel, head, sizeof head, &iov, 1, 20000);
        enum godwit_err flushed = channel_flush(side->channel, 20000);
        if (err || flushed) {
            side->send_wrong |= side->to_the_end;
            break;
        }
    }
    return NULL;
}

static void *recv_all(void *argument)
{
    struct side *side = argument;
    uint8_t got[STEP], expected[STEP];
    for (uint64_t n = 0; n < MESSAGES; n++) {
        if (channel_recv_exact(side->channel, got, sizeof got, 20000)) {
            side->recv_wrong |= side->to_the_end;
            break;
        }
        fill(expected, sizeof expected, n);
        side->recv_wrong |= memcmp(got, expected, sizeof got) != 0;
        if (side->placed)
            side->recv_wrong |= memcmp(side->placed + n * PUT_SIZE, expected, PUT_SIZE) != 0;
    }
    return NULL;
}

/* Lets side put into peer's memory. */
static enum godwit_err arrange_puts(struct domain *domain, struct side *side, struct domain *peer_domain,
                                    struct side *peer, struct mr **peer_mr)
{
    struct region_key key;
    side->local = malloc(PUT_SIZE);
    peer->placed = malloc((size_t)MESSAGES * PUT_SIZE);
    struct region local = {side->local, PUT_SIZE, -1, 0};
    struct region placed = {peer->placed, (uint64_t)MESSAGES * PUT_SIZE, -1, 0};
    enum godwit_err err = domain_register(domain, &local, REGION_LOCAL, &side->mr, NULL);
    if (!err)
        err = domain_register(peer_domain, &placed, REGION_REMOTE_WRITE, peer_mr, NULL);
    if (err)
        return err;
    mr_export(*peer_mr, &key);
    return domain_import(domain, &key, &side->remote, NULL);
}

static void run_sides(struct side sides[2], unsigned cut_after_us)
{
    for (unsigned i = 0; i < 2; i++) {
        sides[i].to_the_end = !cut_after_us;
        pthread_create(&sides[i].sender, NULL, send_all, &sides[i]);
        pthread_create(&sides[i].receiver, NULL, recv_all, &sides[i]);
    }
    if (cut_after_us) {
        nanosleep(&(struct timespec){.tv_nsec = cut_after_us * 1000L}, NULL);
        channel_shutdown(sides[cut_after_us % 2].channel);
        channel_shutdown(sides[cut_after_us % 2].channel);
    }
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(sides[i].sender, NULL);
        pthread_join(sides[i].receiver, NULL);
    }
}

static bool round_of(enum pair_kind kind, unsigned cut_after_us)
{
    struct pair pair;
    struct side sides[2] = {0};
    struct mr *placed[2] = {0};
    bool wrong = pair_open(&pair, kind);
    if (wrong)
        goto done;
    sides[0].channel = pair.a;
    sides[1].channel = pair.b;
    if (channel_limits(pair.a)->one_sided) {
        wrong = arrange_puts(pair.domain_a, &sides[0], pair.domain_b, &sides[1], &placed[1]) ||
                arrange_puts(pair.domain_b, &sides[1], pair.domain_a, &sides[0], &placed[0]);
    }
    if (!wrong)
        run_sides(sides, cut_after_us);
    for (unsigned i = 0; i < 2; i++)
        wrong |= sides[i].send_wrong || sides[i].recv_wrong;

done:
    channel_free(pair.a);
    channel_free(pair.b);
    pair.a = pair.b = NULL;
    for (unsigned i = 0; i < 2; i++) {
        remote_free(sides[i].remote);
        mr_free(sides[i].mr);
        mr_free(placed[i]);
        free(sides[i].local);
        free(sides[i].placed);
    }
    pair_close(&pair);
    return !wrong;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : ROUNDS;
    pair_use_fabric(&fabric);
    for (enum pair_kind kind = PAIR_LOOP; kind < PAIR_KINDS; kind++) {
        if (!pair_kind_works(kind))
            continue;
        uint64_t start = clock_now_ms();
        unsigned share = pair_kind_is_split(kind) ? rounds / 10 + 1 : rounds; /* those take their time */
        for (unsigned i = 0; i < share; i++) {
            if (!round_of(kind, i % 4 ? i * 137 % 5000 + 1 : 0)) {
                printf("%s: round %u went wrong\n", pair_kind_name(kind), i);
                return 1;
            }
        }
        printf("%s: %u rounds in %llu ms\n", pair_kind_name(kind), share,
               (unsigned long long)(clock_now_ms() - start));
    }
    return 0;
}
