/* Something that happens in other threads: counted with its last error, and awaited without sleeping. */
#ifndef TESTS_LIB_GATE_H
#define TESTS_LIB_GATE_H

#include <pthread.h>
#include <stdbool.h>

#include <godwit/error.h>

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned count;
    struct godwit_error last;
};

#define GATE_INIT                                                              \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
    }

/* It happened once more. error may be NULL. */
void gate_note(struct gate *gate, const struct godwit_error *error);

unsigned gate_count(struct gate *gate);

/* False: it has not happened `count` times within timeout_ms. */
bool gate_wait(struct gate *gate, unsigned count, int timeout_ms);

#endif
