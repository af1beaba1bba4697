/*
 * Whole migrations, again and again, over the loop, over a Unix socket, and with a data plane of its own, the pretended
 * one and RDMA on the fake in turn: four channels, or twenty, a guest that writes all along, a thread that asks and
 * sets, channels that are replaced every few pages in a third of the rounds, and in half of the rounds a cancel at a
 * random moment, on either side. Every round must end in one of the legal ends. Meant for ThreadSanitizer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/engine/scene.h"
#include "transport/clock.h"

enum { ROUNDS = 60, SECONDS_MOST = 45 };

struct meddler {
    struct scene *scene;
    unsigned round;
    atomic_bool quit;
    unsigned asked;
};

static void *ask_and_set(void *opaque)
{
    static const char *const limits[] = {"200M", "0", "50M", "1G"};
    struct meddler *meddler = opaque;
    struct godwit_info *info = malloc(sizeof *info);
    for (; !atomic_load(&meddler->quit); meddler->asked++) {
        godwit_source_query(meddler->scene->source, info);
        godwit_destination_query(meddler->scene->destination, info);
        if (meddler->asked % 16 == 0)
            godwit_source_set(meddler->scene->source, "max-bandwidth", limits[meddler->asked / 16 % 4], NULL);
        if (meddler->asked % 16 == 8)
            godwit_source_mark(meddler->scene->source, 2, meddler->asked % 300, 5);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL); /* how often it asks */
    }
    free(info);
    return NULL;
}

static void *cancel_some_time(void *opaque)
{
    const struct meddler *meddler = opaque;
    unsigned moment = (meddler->round * 2654435761u >> 8) % 40;
    nanosleep(&(struct timespec){.tv_nsec = 1000000L * moment}, NULL); /* the moment is the point */
    if (meddler->round % 4 == 1)
        godwit_source_cancel(meddler->scene->source);
    else
        godwit_destination_cancel(meddler->scene->destination);
    return NULL;
}

static bool ended_well(const struct scene *scene)
{
    bool here = atomic_load(&scene->from.running), there = atomic_load(&scene->to.running);
    if (atomic_load(&scene->sides.both))
        return false;
    if (scene->source_err == GODWIT_OK)
        return !here && there && scene->destination_err == GODWIT_OK && scene->to.memory_equal && scene->to.state_equal;
    if (scene->source_err == GODWIT_ERR_OUTCOME_UNKNOWN)
        return !here;
    return here && !there && scene->destination_err != GODWIT_OK;
}

static bool round_of(enum scene_net net, unsigned round, unsigned ends[2])
{
    pthread_t asker, canceller;
    bool cancels = round % 2;
    struct scene *scene = malloc(sizeof *scene);
    scene_init(scene, net, round, 1 + round % 3);
    scene->fabric = net == SCENE_RDMA && round / 2 % 2 == 0 ? &fabric : NULL;
    scene_set(scene, "multifd-channels", round % 6 < 4 ? "4" : "20"); /* more than are connected at once */
    scene_set_source(scene, "max-bandwidth", "100M");
    if (round % 3 == 0)
        test_guest_use_up(&scene->to);
    if (round % 5 == 0)
        test_guest_clear_lazily(&scene->from);
    if (round % 5 == 2)
        test_guest_hide_descriptors(&scene->from);
    if (round % 3 == 1)
        scene_set_source(scene, "x-channel-lifetime", "64K");
    if (round % 7 == 3)
        scene_set(scene, "rdma-pin-all", "on");
    if (round % 7 == 4)
        scene_set(scene, "max-pinned", "1M");
    test_guest_start_writer(&scene->from);
    scene_open(scene);
    scene_serve(scene);
    struct meddler meddler = {.scene = scene, .round = round};
    pthread_create(&asker, NULL, ask_and_set, &meddler);
    if (cancels)
        pthread_create(&canceller, NULL, cancel_some_time, &meddler);
    scene_migrate(scene);
    scene_join(scene);
    if (cancels)
        pthread_join(canceller, NULL);
    atomic_store(&meddler.quit, true);
    pthread_join(asker, NULL);

    bool good = ended_well(scene) && (cancels || scene->source_err == GODWIT_OK);
    if (!good)
        printf("net %d, round %u: source %d (%s), destination %d (%s)\n", net, round, scene->source_err,
               scene->source_error.text, scene->destination_err, scene->destination_error.text);
    ends[scene->source_err == GODWIT_OK]++;
    scene_close(scene);
    free(scene);
    return good;
}

int main(int argc, char **argv)
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : ROUNDS, ends[2] = {0};
    static const enum scene_net nets[] = {SCENE_LOOP, SCENE_UNIX, SCENE_RDMA};
    uint64_t start = clock_now_ms();
    for (unsigned round = 0; round < rounds && clock_now_ms() - start < SECONDS_MOST * 1000; round++) {
        for (unsigned i = 0; i < sizeof nets / sizeof nets[0]; i++)
            if (!round_of(nets[i], round, ends))
                return 1;
    }
    printf("%u migrations completed, %u were cancelled, in %llu ms\n", ends[1], ends[0],
           (unsigned long long)(clock_now_ms() - start));
    return ends[1] > 0 ? 0 : 1;
}
