/*
 * Pairs of queue pairs, each with a thread that writes and sends and one that receives and checks, under random delays:
 * for ThreadSanitizer, and for the order that the fake promises. What a receiver reads was written before the send that
 * it received, of its own queue pair, and not later.
 *
 * usage: fake_stress [ROUNDS]
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/rdma/fake_scene.h"

enum { PAIRS = 3, SLOTS = SCENE_RECVS, SLOT = 512, NOTES = 32 << 10 };

struct pair {
    struct scene *scene;
    struct end a, b;
    unsigned rounds, failures;
    pthread_t writer, reader;
};

static void fail(struct pair *pair, const char *what, unsigned round)
{
    fprintf(stderr, "round %u: %s\n", round, what);
    pair->failures++;
}

/* Waits for a completion; they are signalled each. */
static bool await(struct end *end, struct ibv_cq *cq)
{
    struct ibv_cq *announced;
    void *context;
    struct ibv_wc wc;
    for (;;) {
        if (ibv_poll_cq(cq, 1, &wc) == 1)
            return wc.status == IBV_WC_SUCCESS;
        ibv_req_notify_cq(cq, 0);
        if (ibv_poll_cq(cq, 1, &wc) == 1)
            return wc.status == IBV_WC_SUCCESS;
        poll(&(struct pollfd){.fd = end->completions->fd, .events = POLLIN}, 1, 1000);
        while (!ibv_get_cq_event(end->completions, &announced, &context))
            ibv_ack_cq_events(announced, 1);
    }
}

/* Each side waits for the other, like multifd's credits: a slot is written again when its reader is through. */
static void *write_all(void *argument)
{
    struct pair *pair = argument;
    struct end *a = &pair->a;
    for (unsigned round = 0; round < pair->rounds; round++) {
        size_t slot = round % SLOTS * SLOT;
        if (round >= SLOTS && !await(a, a->recv_cq))
            fail(pair, "no note from the reader", round);
        if (round >= SLOTS)
            scene_recv(a, 0, NOTES, 8);
        memset(a->memory + slot, (int)(round % 250 + 1), SLOT);
        if (scene_write(a, round, slot, SLOT, &pair->b, slot, 0) || scene_send(a, round, slot, 8, IBV_SEND_SIGNALED))
            fail(pair, "posting failed", round);
        if (!await(a, a->send_cq))
            fail(pair, "a request failed", round);
    }
    return NULL;
}

static void *read_all(void *argument)
{
    struct pair *pair = argument;
    struct end *b = &pair->b;
    for (unsigned round = 0; round < pair->rounds; round++) {
        size_t slot = round % SLOTS * SLOT;
        if (!await(b, b->recv_cq))
            fail(pair, "receiving failed", round);
        for (unsigned i = 0; i < SLOT; i++) {
            if (b->memory[slot + i] != round % 250 + 1) {
                fail(pair, "the write before the send is not there", round);
                break;
            }
        }
        scene_recv(b, 0, NOTES, 8);
        if (scene_send(b, round, slot, 8, IBV_SEND_SIGNALED) || !await(b, b->send_cq))
            fail(pair, "a note failed", round);
    }
    return NULL;
}

static void connect_pair(struct pair *pair, struct scene *scene)
{
    scene_connect(scene);
    pair->a = scene->a;
    pair->b = scene->b;
    scene->a = scene->b = (struct end){.id = NULL};
    for (unsigned i = 0; i < SLOTS; i++) {
        scene_recv(&pair->a, 0, NOTES, 8);
        scene_recv(&pair->b, 0, NOTES, 8);
    }
}

int main(int argc, char **argv)
{
    struct fake_setup setup;
    struct scene scene;
    struct pair pairs[PAIRS] = {{.rounds = 0}};
    unsigned failures = 0;
    fake_setup_init(&setup);
    setup.delay_us = 50;
    scene_init(&scene, &setup);
    for (unsigned i = 0; i < PAIRS; i++) {
        pairs[i].rounds = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 2000;
        connect_pair(&pairs[i], &scene);
        pthread_create(&pairs[i].writer, NULL, write_all, &pairs[i]);
        pthread_create(&pairs[i].reader, NULL, read_all, &pairs[i]);
    }
    for (unsigned i = 0; i < PAIRS; i++) {
        pthread_join(pairs[i].writer, NULL);
        pthread_join(pairs[i].reader, NULL);
        scene_end_fini(&pairs[i].a);
        scene_end_fini(&pairs[i].b);
        failures += pairs[i].failures;
    }
    if (fake_verbs_rnr_count()) {
        fprintf(stderr, "%llu requests found no receive\n", (unsigned long long)fake_verbs_rnr_count());
        failures++;
    }
    scene_fini(&scene);
    return failures ? 1 : 0;
}
