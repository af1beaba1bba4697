/* The demo's two processes and what is between them: a pipe, shared memory, a descriptor. */
#ifndef CLI_DEMO_H
#define CLI_DEMO_H

#include <stdbool.h>
#include <sys/types.h>

#include <godwit/godwit.h>

#include "cli/guest_options.h"
#include "cli/verify.h"

enum { DEMO_URI_MAX = 320 };

/* In memory that both processes see. Written by the destination; a byte on the pipe says that a group is whole. */
struct demo_account {
    char uri[DEMO_URI_MAX];        /* 'L': it listens here */
    struct godwit_error error;     /* 'E': it could not listen, or its migration failed */
    struct verify_claim claim;     /* 'V': the guest arrived, runs, and was looked at */
};

enum demo_note { DEMO_LISTENS = 'L', DEMO_FAILED = 'E', DEMO_VERIFIED = 'V' };

struct demo {
    const struct guest_options *guest;
    const struct godwit_options *options;
    char listen_uri[DEMO_URI_MAX];
    struct demo_account *account; /* shared */
    struct verify_prints theirs;  /* shared */
    int notes[2];                 /* pipe: destination to source; its end tells of a crash */
    pid_t destination;            /* 0: none */
};

/*
 * The destination's process, from fork to exit; never returns. Serves one migration, lets the guest run, looks at it,
 * and ends when the source has said goodbye. Prints warnings only: what went wrong goes into the account.
 */
_Noreturn void demo_destination_run(struct demo *demo);

/* Forks the destination, which dies with us. Before any thread exists: a fork copies one thread only. */
enum godwit_err demo_spawn(struct demo *demo, struct godwit_error *error);

/*
 * Waits for the next note, which must be the one expected. Otherwise the error is the destination's own, or that it
 * crashed, TIMEOUT, or CANCELLED when a signal came first.
 */
enum godwit_err demo_wait(struct demo *demo, enum demo_note expected, int signal_fd, int timeout_ms,
                          struct godwit_error *error);

/* True when it is being killed by a signal or was, in words. */
bool demo_crashed(struct demo *demo, struct godwit_error *error);

/* Lets a destination that is done end by itself; otherwise, and if it does not, kills it. */
void demo_reap(struct demo *demo, bool done);

#endif
