#include "tests/engine/scene.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "engine/destination.h"
#include "engine/source.h"
#include "tcp/tcp.h"

static void must(bool good, const char *what, const struct godwit_error *error)
{
    if (good)
        return;
    fprintf(stderr, "scene: %s: %s\n", what, error ? error->text : "");
    abort();
}

static void note_status(char *statuses, const struct godwit_event *event)
{
    static const char letters[] = {[GODWIT_STATUS_NONE] = 'N',      [GODWIT_STATUS_SETUP] = 'S',
                                   [GODWIT_STATUS_CANCELLING] = 'L', [GODWIT_STATUS_CANCELLED] = 'X',
                                   [GODWIT_STATUS_ACTIVE] = 'A',    [GODWIT_STATUS_DEVICE] = 'D',
                                   [GODWIT_STATUS_COMPLETED] = 'C', [GODWIT_STATUS_FAILED] = 'F'};
    size_t length = strlen(statuses);
    if (event->kind == GODWIT_EVENT_MIGRATION && length < 31)
        statuses[length] = letters[event->value];
}

static void source_event(void *opaque, const struct godwit_event *event)
{
    struct scene *scene = opaque;
    note_status(scene->source_statuses, event);
    if (scene->on_source)
        scene->on_source(scene, event);
}

static void destination_event(void *opaque, const struct godwit_event *event)
{
    struct scene *scene = opaque;
    note_status(scene->destination_statuses, event);
    if (scene->on_destination)
        scene->on_destination(scene, event);
}

void scene_init(struct scene *scene, enum scene_net net, uint64_t seed, unsigned scale)
{
    memset(scene, 0, sizeof *scene);
    scene->net = net;
    scene->plan = fault_plan_none();
    scene->only = FAULT_NEVER;
    test_guest_init(&scene->from, &scene->sides, seed, scale);
    test_guest_init(&scene->to, &scene->sides, seed + 1, scale);
    scene->to.original = &scene->from;
    scene->source_options = godwit_options_new();
    scene->destination_options = godwit_options_new();
    if (net == SCENE_RDMA)
        pretend_rdma_init(&scene->rdma, seed);
    if (net == SCENE_LOOP) {
        scene->loop = loop_net_new(seed);
        snprintf(scene->uri, sizeof scene->uri, "loop:scene");
    } else if (net == SCENE_TCP || net == SCENE_RDMA) {
        snprintf(scene->uri, sizeof scene->uri, "tcp:127.0.0.1:0");
    } else {
        snprintf(scene->directory, sizeof scene->directory, "/tmp/godwit-scene-XXXXXX");
        must(mkdtemp(scene->directory) != NULL, "mkdtemp", NULL);
        snprintf(scene->uri, sizeof scene->uri, "unix:%s/socket", scene->directory);
    }
    test_guest_boot(&scene->from);
}

void scene_set_source(struct scene *scene, const char *name, const char *value)
{
    struct godwit_error error;
    must(godwit_options_set(scene->source_options, name, value, &error) == GODWIT_OK, "option", &error);
}

void scene_set_destination(struct scene *scene, const char *name, const char *value)
{
    struct godwit_error error;
    must(godwit_options_set(scene->destination_options, name, value, &error) == GODWIT_OK, "option", &error);
}

void scene_set(struct scene *scene, const char *name, const char *value)
{
    scene_set_source(scene, name, value);
    scene_set_destination(scene, name, value);
}

void scene_hurry(struct scene *scene)
{
    scene_set(scene, "connect-timeout", "2000");
    scene_set(scene, "handshake-timeout", "1000");
    scene_set(scene, "peer-timeout", "500");
    scene_set(scene, "heartbeat-interval", "50");
    scene_set(scene, "progress-timeout", "1500");
    scene_set(scene, "setup-timeout", "3000");
}

static const struct transport *base_transport(const struct scene *scene)
{
    return scene->base                ? scene->base
           : scene->net == SCENE_LOOP ? loop_net_transport(scene->loop)
           : scene->net == SCENE_UNIX ? &unix_transport
                                      : &tcp_transport;
}

void scene_open(struct scene *scene)
{
    struct godwit_error error = {0};
    const struct transport *base = base_transport(scene);
    scene->fault = fault_net_new(base, &scene->plan, scene->only);
    tap_init(&scene->tap, fault_net_transport(scene->fault), scene->rule, scene);
    tap_init(&scene->destination_tap, base, NULL, NULL);
    if (scene->net == SCENE_RDMA) {
        const struct transport *data = scene->fabric ? scene->fabric->transport : &scene->rdma.transport;
        tap_init(&scene->data_tap, data, scene->rule, scene);
        tap_init(&scene->destination_data_tap, data, NULL, NULL);
    }
    scene->tap.watch = scene->data_tap.watch = scene->watch_source;
    scene->destination_tap.watch = scene->destination_data_tap.watch = scene->watch_destination;
    scene->tap.watch_opaque = scene->data_tap.watch_opaque = scene;
    scene->destination_tap.watch_opaque = scene->destination_data_tap.watch_opaque = scene;
    must(!godwit_destination_new(&scene->to.guest, scene->destination_options, destination_event, scene,
                                 &scene->destination, &error),
         "destination", &error);
    const struct transport *control = &scene->destination_tap.transport, *data = control;
    if (scene->net == SCENE_RDMA && !scene->destination_without_rdma)
        data = &scene->destination_data_tap.transport;
    destination_use_transport(scene->destination, control, data);
    must(!godwit_destination_listen(scene->destination, scene->uri, scene->uri, sizeof scene->uri, &error), "listen",
         &error);
    must(!godwit_source_new(&scene->from.guest, scene->source_options, source_event, scene, &scene->source, &error),
         "source", &error);
    control = data = &scene->tap.transport;
    if (scene->net == SCENE_RDMA && !scene->source_without_rdma)
        data = &scene->data_tap.transport;
    source_use_transport(scene->source, control, data);
}

struct godwit_source *scene_another_source(struct scene *scene, const struct godwit_guest *guest)
{
    struct godwit_source *source = NULL;
    struct godwit_error error;
    must(!godwit_source_new(guest, scene->source_options, NULL, NULL, &source, &error), "source", &error);
    source_use_transport(source, base_transport(scene), base_transport(scene));
    return source;
}

static void *serve(void *opaque)
{
    struct scene *scene = opaque;
    scene->destination_err = godwit_destination_serve(scene->destination, &scene->destination_error);
    godwit_destination_query(scene->destination, &scene->destination_info);
    atomic_store(&scene->served, true);
    return NULL;
}

/* Polls: the library has no event for it. */
static bool nobody_came(struct scene *scene)
{
    pthread_mutex_lock(&scene->destination->lock);
    bool waiting = scene->destination->waiting && scene->destination->session == NULL;
    pthread_mutex_unlock(&scene->destination->lock);
    if (!waiting)
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    return waiting;
}

void scene_serve(struct scene *scene)
{
    atomic_store(&scene->served, false);
    memset(&scene->destination_error, 0, sizeof scene->destination_error);
    must(pthread_create(&scene->server, NULL, serve, scene) == 0, "thread", NULL);
    scene->serving = true;
    while (!atomic_load(&scene->served) && !nobody_came(scene))
        ;
}

enum godwit_err scene_migrate(struct scene *scene)
{
    memset(&scene->source_error, 0, sizeof scene->source_error);
    scene->source_err = godwit_source_migrate(scene->source, scene->uri, &scene->source_error);
    godwit_source_query(scene->source, &scene->source_info);
    return scene->source_err;
}

void scene_join(struct scene *scene)
{
    for (bool cancelled = false; !atomic_load(&scene->served);) {
        if (!nobody_came(scene) || cancelled)
            continue;
        godwit_destination_cancel(scene->destination); /* once: a second one would meet the next serve */
        cancelled = true;
    }
    pthread_join(scene->server, NULL);
    scene->serving = false;
}

void scene_run(struct scene *scene)
{
    scene_serve(scene);
    scene_migrate(scene);
    scene_join(scene);
}

void scene_close(struct scene *scene)
{
    godwit_source_free(scene->source);
    tap_fini(&scene->tap);
    tap_fini(&scene->destination_tap);
    tap_fini(&scene->data_tap);
    tap_fini(&scene->destination_data_tap);
    godwit_destination_free(scene->destination);
    test_guest_fini(&scene->from);
    test_guest_fini(&scene->to);
    godwit_options_free(scene->source_options);
    godwit_options_free(scene->destination_options);
    fault_net_free(scene->fault);
    loop_net_free(scene->loop);
    pretend_rdma_fini(&scene->rdma);
    if (scene->fabric)
        scene->fabric->stop();
    if (scene->directory[0])
        rmdir(scene->directory);
}

static unsigned count_entries(const char *path)
{
    unsigned count = 0;
    DIR *directory = opendir(path);
    while (directory && readdir(directory))
        count++;
    closedir(directory);
    return count;
}

unsigned count_descriptors(void)
{
    return count_entries("/proc/self/fd");
}

unsigned count_threads(void)
{
    return count_entries("/proc/self/task");
}
