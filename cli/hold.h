/*
 * What `send` does while nobody knows where the guest runs: it holds the stopped guest, asks the destination again and
 * again, and takes a human's word.
 */
#ifndef CLI_HOLD_H
#define CLI_HOLD_H

#include <godwit/godwit.h>

enum hold_end {
    HOLD_RUNS_THERE, /* the destination answered: done */
    HOLD_RUNS_HERE,  /* the destination answered that it never ran it, or the user said cont: failed, guest safe */
    HOLD_QUIT,       /* the user said quit, or a signal did: still unknown */
};

/*
 * Blocks until one of them. Reads lines from stdin: cont, quit; its end means that nobody is there, and changes
 * nothing. *error is the last thing to say about it: the cause of a failure, or what is still unknown.
 */
enum hold_end hold_guest(struct godwit_source *source, int signal_fd, struct godwit_error *error);

#endif
