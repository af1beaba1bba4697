/*
 * What the commands share: their exit codes and how each begins. Every command is a table for the parser and a
 * function; main.c lists them.
 */
#ifndef CLI_COMMAND_H
#define CLI_COMMAND_H

#include <stdbool.h>

#include <godwit/godwit.h>

#include "cli/args.h"

enum command_exit {
    COMMAND_DONE = 0,
    COMMAND_FAILED = 1,          /* the guest is safe on the source */
    COMMAND_USAGE = 2,           /* nothing was begun */
    COMMAND_OUTCOME_UNKNOWN = 3, /* the guest may run on the destination */
};

struct command {
    const struct arg_command *args; /* settings and options unset: each run has its own */
    int (*run)(int argc, char *const argv[]); /* returns an enum command_exit */
};

extern const struct command demo_command, send_command, recv_command, devices_command, pki_command;

/*
 * Parses the arguments and serves --help. True: go on. False: *exit_code is the end, and what there was to say is said.
 */
bool command_begin(const struct arg_command *args, int argc, char *const argv[], struct args_result *result,
                   int *exit_code);

/* One line on stderr: "godwit: <text>". */
__attribute__((format(printf, 1, 2))) void command_complain(const char *format, ...);

#endif
