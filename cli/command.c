#include "cli/command.h"

#include <stdarg.h>
#include <stdio.h>

#include "cli/help.h"

void command_complain(const char *format, ...)
{
    char text[GODWIT_ERROR_TEXT + 256];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fprintf(stderr, "godwit: %s\n", text); /* one call, so that two processes' lines do not mix */
}

bool command_begin(const struct arg_command *args, int argc, char *const argv[], struct args_result *result,
                   int *exit_code)
{
    struct godwit_error error = {0};
    if (args_parse(args, argc, argv, result, &error)) {
        command_complain("%s", error.text);
        *exit_code = COMMAND_USAGE;
        return false;
    }
    if (result->help) {
        help_command(stdout, args);
        *exit_code = fflush(stdout) == 0 ? COMMAND_DONE : COMMAND_FAILED;
        return false;
    }
    return true;
}
