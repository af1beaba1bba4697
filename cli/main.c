/*
 * The godwit tool: finds the command, and answers --help and --version. Usage errors end with 2 and one line on stderr.
 */
#include <stdio.h>
#include <string.h>

#include "cli/command.h"
#include "cli/help.h"
#include "cli/nearest.h"

static const struct command *const commands[] = {&demo_command, &send_command, &recv_command, &devices_command,
                                                &pki_command};

enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static void usage(FILE *out)
{
    const struct arg_command *args[COMMAND_COUNT];
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        args[i] = commands[i]->args;
    help_all(out, args, COMMAND_COUNT);
}

static const struct command *find_command(const char *name)
{
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(commands[i]->args->name, name) == 0)
            return commands[i];
    return NULL;
}

static int unknown_command(const char *name)
{
    struct nearest nearest;
    nearest_init(&nearest, name);
    for (unsigned i = 0; i < COMMAND_COUNT; i++)
        nearest_offer(&nearest, commands[i]->args->name);
    if (nearest.best)
        command_complain("unknown command '%s': did you mean '%s'?", name, nearest.best);
    else
        command_complain("unknown command '%s': godwit --help lists the commands", name);
    return COMMAND_USAGE;
}

static int answer(int printed)
{
    return printed >= 0 && fflush(stdout) == 0 ? COMMAND_DONE : COMMAND_FAILED;
}

/* `godwit help`, `godwit help demo` */
static int help(int argc, char *const argv[])
{
    if (argc == 0) {
        usage(stdout);
        return answer(0);
    }
    const struct command *command = find_command(argv[0]);
    if (!command)
        return unknown_command(argv[0]);
    help_command(stdout, command->args);
    return answer(0);
}

int main(int argc, char *argv[])
{
    if (argc < 2) {
        usage(stderr);
        return COMMAND_USAGE;
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help(argc - 2, argv + 2);
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0)
        return answer(printf("godwit %s\n", GODWIT_VERSION));
    const struct command *command = find_command(argv[1]);
    return command ? command->run(argc - 2, argv + 2) : unknown_command(argv[1]);
}
