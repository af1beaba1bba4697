/* --help, written from the tables that the parser uses; 100 columns. */
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include <stdio.h>

#include "cli/args.h"

/* All commands, their synopsis, exit codes. */
void help_all(FILE *out, const struct arg_command *const commands[], unsigned count);

/* One command: synopsis, its own options, then the library's options that belong to its side. */
void help_command(FILE *out, const struct arg_command *command);

#endif
