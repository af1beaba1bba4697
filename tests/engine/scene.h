/*
 * A whole migration in one process: two test guests, a source in the caller's thread, a destination that serves in
 * another.
 *
 *   scene_init -> (change guests, options, rules) -> scene_open -> scene_run, or serve, migrate, join -> scene_close
 *
 * Plain C: the stress program uses it too. Impossible failures abort.
 */
#ifndef TESTS_ENGINE_SCENE_H
#define TESTS_ENGINE_SCENE_H

#include <godwit/migration.h>

#include "tests/engine/tap.h"
#include "tests/engine/test_guest.h"
#include "tests/lib/fabric.h"
#include "tests/lib/pretend_rdma.h"
#include "transport/fault.h"
#include "transport/loop.h"

enum scene_net {
    SCENE_LOOP,
    SCENE_TCP,
    SCENE_UNIX,
    SCENE_NETS,
    SCENE_RDMA, /* control over tcp, data over pretend_rdma */
};

struct scene {
    /* changed by tests between init and open */
    struct test_guest from, to;
    struct godwit_options *source_options, *destination_options;
    const struct transport *base; /* instead of that of the net; over it, scheme and address are the net's */
    const struct fabric *fabric; /* SCENE_RDMA: what data goes over; NULL: pretend_rdma */
    tap_rule *rule;           /* opaque: the scene */
    struct fault_plan plan;   /* of the source's connection number `only`; none by default */
    uint64_t only;
    watch_fn *watch_source, *watch_destination; /* registrations of either side; opaque: the scene */
    void (*on_source)(struct scene *scene, const struct godwit_event *event);
    void (*on_destination)(struct scene *scene, const struct godwit_event *event);
    void *opaque; /* the test's own */

    struct test_sides sides;
    struct godwit_source *source;
    struct godwit_destination *destination;
    struct tap tap, destination_tap;
    struct tap data_tap, destination_data_tap; /* where data goes over another transport; else the same as those */
    struct pretend_rdma rdma;
    bool source_without_rdma, destination_without_rdma; /* SCENE_RDMA: that side has one plane */

    /* results */
    enum godwit_err source_err, destination_err;
    struct godwit_error source_error, destination_error;
    struct godwit_info source_info, destination_info; /* after the end */
    char source_statuses[32], destination_statuses[32]; /* one letter each: Setup Active Device Completed cancelLing
                                                           cancelled(X) Failed */

    enum scene_net net;
    struct loop_net *loop;
    struct fault_net *fault;
    char directory[64], uri[128];
    pthread_t server;
    bool serving;
    atomic_bool served;
};

void scene_init(struct scene *scene, enum scene_net net, uint64_t seed, unsigned scale);
/* Short timeouts on both sides, for tests in which something breaks. */
void scene_hurry(struct scene *scene);
void scene_set(struct scene *scene, const char *name, const char *value); /* on both sides, before open */
void scene_set_source(struct scene *scene, const char *name, const char *value);
void scene_set_destination(struct scene *scene, const char *name, const char *value);

void scene_open(struct scene *scene); /* both objects; the destination listens */
void scene_serve(struct scene *scene); /* returns when the destination waits for a source */
enum godwit_err scene_migrate(struct scene *scene);
void scene_join(struct scene *scene); /* cancels a serve that nobody came to */
void scene_run(struct scene *scene);
void scene_close(struct scene *scene);

/* A second source for the same destination. */
struct godwit_source *scene_another_source(struct scene *scene, const struct godwit_guest *guest);

/* Open descriptors and threads of this process. */
unsigned count_descriptors(void);
unsigned count_threads(void);

#endif
