/*
 * RDMA channels on the fake under threads and faults, for ThreadSanitizer. Every round connects three pairs at once,
 * moves data and puts both ways on each, and then something happens to it: a request fails, the device reports an
 * event, the connection manager one, the fabric swallows everything, a side is shut down, or nothing. Every call must
 * come to an end, nothing that arrives may be wrong, no request may find no receive, and nothing may be left: closing
 * stops the fake, which ends the program if there is.
 *
 *   rdma_stress [ROUNDS]    exit 0: nothing was wrong
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/lib/pair.h"
#include "tests/rdma/fake_verbs.h"
#include "transport/clock.h"

enum { ROUNDS = 30, PAIRS = 3, MESSAGES = 200, STEP = 20000, PUT_SIZE = 8192, HURRY_MS = 300, CALM_MS = 20000, ROUND_MS = 60000 };

struct side {
    struct channel *channel;
    struct mr *mr, *placed_mr;
    struct remote *remote;
    uint8_t *local, *placed; /* what is put, and what the peer puts into: a slot per message */
    pthread_t sender, receiver;
    int timeout_ms;
    unsigned received;
    bool wrong;
};

struct couple {
    struct channel *ends[2];
    struct side sides[2];
};

static void *send_all(void *argument)
{
    struct side *side = argument;
    uint8_t *message = malloc(STEP);
    enum godwit_err err = GODWIT_OK;
    for (unsigned n = 0; n < MESSAGES && !err; n++) {
        memset(message, (int)(n % 250 + 1), STEP);
        memset(side->local, (int)(n % 250 + 1), PUT_SIZE);
        err = channel_put(side->channel, side->mr, 0, side->remote, (uint64_t)n * PUT_SIZE, PUT_SIZE);
        if (!err)
            err = channel_send(side->channel, message, STEP, NULL, 0, side->timeout_ms);
        enum godwit_err flushed = channel_flush(side->channel, side->timeout_ms);
        err = err ? err : flushed;
    }
    free(message);
    return NULL;
}

static void *recv_all(void *argument)
{
    struct side *side = argument;
    uint8_t *message = malloc(STEP);
    for (unsigned n = 0; n < MESSAGES && !channel_recv_exact(side->channel, message, STEP, side->timeout_ms); n++) {
        uint8_t expected = (uint8_t)(n % 250 + 1);
        const uint8_t *placed = side->placed + (size_t)n * PUT_SIZE;
        side->wrong |= message[0] != expected || memcmp(message, message + 1, STEP - 1) != 0;
        side->wrong |= placed[0] != expected || memcmp(placed, placed + 1, PUT_SIZE - 1) != 0;
        side->received++;
    }
    free(message);
    return NULL;
}

static bool arrange(struct side *side, struct domain *own, struct side *peer, struct domain *peers)
{
    struct region_key key;
    side->local = malloc(PUT_SIZE);
    peer->placed = calloc(MESSAGES, PUT_SIZE);
    struct region local = {side->local, PUT_SIZE, -1, 0};
    struct region placed = {peer->placed, (uint64_t)MESSAGES * PUT_SIZE, -1, 0};
    if (domain_register(own, &local, REGION_LOCAL, &side->mr, NULL) ||
        domain_register(peers, &placed, REGION_REMOTE_WRITE, &peer->placed_mr, NULL))
        return false;
    mr_export(peer->placed_mr, &key);
    return !domain_import(own, &key, &side->remote, NULL);
}

static void happen(unsigned round, struct couple *couples)
{
    static const enum ibv_wc_status statuses[] = {IBV_WC_RETRY_EXC_ERR, IBV_WC_REM_ACCESS_ERR, IBV_WC_LOC_PROT_ERR};
    unsigned chance = round * 2654435761u >> 8;
    nanosleep(&(struct timespec){.tv_nsec = 1000L * (chance % 8000)}, NULL); /* the moment is the point */
    switch (round % 9) {
    case 1: fake_fail_wr(FAKE_WR_ANY, chance % 100, statuses[chance % 3]); break;
    case 2: fake_fail_wr(FAKE_WR_RECV, chance % 50, statuses[chance % 3]); break;
    case 3: fake_raise_async(IBV_EVENT_QP_FATAL); break;
    case 4: fake_raise_async(IBV_EVENT_CQ_ERR); break;
    case 5: fake_raise_cm(FAKE_ACTIVE, RDMA_CM_EVENT_DEVICE_REMOVAL, 0); break;
    case 6: fake_black_hole(chance % 50); break;
    case 7: channel_shutdown(couples[chance % PAIRS].ends[chance / 8 % 2]); break;
    case 8:
        fake_raise_async(IBV_EVENT_PORT_ERR);
        fake_raise_cm(FAKE_PASSIVE, RDMA_CM_EVENT_UNREACHABLE, -110);
        break;
    default: break;
    }
}

static bool connect_all(struct pair *pair, struct couple *couples)
{
    struct pair_knocker knockers[PAIRS];
    bool good = true;
    for (unsigned i = 0; i < PAIRS; i++) {
        knockers[i] = (struct pair_knocker){.pair = pair, .timeout_ms = 10000};
        pair_knocker_start(&knockers[i]);
    }
    /* Which of them is accepted when is open: data, not the order, tells who belongs to whom. */
    struct channel *accepted[PAIRS] = {0};
    for (unsigned i = 0; i < PAIRS; i++)
        good &= !listener_accept(pair->listener, 10000, &accepted[i], NULL);
    for (unsigned i = 0; i < PAIRS; i++) {
        good &= !pair_knocker_join(&knockers[i]);
        couples[i].ends[0] = knockers[i].channel;
        uint8_t name = (uint8_t)i;
        good = good && !channel_send(couples[i].ends[0], &name, 1, NULL, 0, 5000);
    }
    for (unsigned i = 0; good && i < PAIRS; i++) {
        uint8_t name;
        good = !channel_recv_exact(accepted[i], &name, 1, 5000) && name < PAIRS;
        if (good)
            couples[name].ends[1] = accepted[i];
    }
    return good;
}

static void close_couple(struct couple *couple)
{
    for (unsigned i = 0; i < 2; i++)
        channel_free(couple->ends[i]);
    for (unsigned i = 0; i < 2; i++) {
        remote_free(couple->sides[i].remote);
        mr_free(couple->sides[i].mr);
        mr_free(couple->sides[i].placed_mr);
        free(couple->sides[i].local);
        free(couple->sides[i].placed);
    }
}

static bool round_of(unsigned round, unsigned *received)
{
    struct pair pair;
    struct couple couples[PAIRS] = {{.ends = {NULL}}};
    uint64_t start = clock_now_ms();
    bool good = !pair_listen(&pair, PAIR_RDMA) && connect_all(&pair, couples);
    for (unsigned i = 0; good && i < PAIRS; i++) {
        struct side *a = &couples[i].sides[0], *b = &couples[i].sides[1];
        a->channel = couples[i].ends[0];
        b->channel = couples[i].ends[1];
        a->timeout_ms = b->timeout_ms = round % 9 ? HURRY_MS : CALM_MS;
        good = arrange(a, pair.domain_a, b, pair.domain_b) && arrange(b, pair.domain_b, a, pair.domain_a);
    }
    for (unsigned i = 0; good && i < 2 * PAIRS; i++) {
        struct side *side = &couples[i / 2].sides[i % 2];
        pthread_create(&side->sender, NULL, send_all, side);
        pthread_create(&side->receiver, NULL, recv_all, side);
    }
    if (good)
        happen(round, couples);
    for (unsigned i = 0; good && i < 2 * PAIRS; i++) {
        struct side *side = &couples[i / 2].sides[i % 2];
        pthread_join(side->sender, NULL);
        pthread_join(side->receiver, NULL);
        *received += side->received;
    }
    for (unsigned i = 0; i < 2 * PAIRS; i++) {
        struct side *side = &couples[i / 2].sides[i % 2];
        good &= !side->wrong && (round % 9 != 0 || side->received == MESSAGES);
    }
    fake_black_hole(FAKE_NEVER);
    good &= fake_verbs_rnr_count() == 0;
    for (unsigned i = 0; i < PAIRS; i++)
        close_couple(&couples[i]);
    pair_close(&pair);
    return good && clock_now_ms() - start < ROUND_MS;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : ROUNDS, received = 0;
    uint64_t start = clock_now_ms();
    pair_use_fabric(&fabric);
    for (unsigned round = 0; round < rounds; round++) {
        if (!round_of(round, &received)) {
            printf("round %u went wrong\n", round);
            return 1;
        }
    }
    printf("%u rounds, %u messages in %llu ms\n", rounds, received, (unsigned long long)(clock_now_ms() - start));
    return 0;
}
