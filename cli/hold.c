#include "cli/hold.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "transport/error.h"

enum { ASK_INTERVAL_MS = 2000, ASK_TIMEOUT_MS = 1000, LINE_SIZE = 64 };

enum word { WORD_NONE, WORD_CONT, WORD_QUIT };

struct hold {
    struct godwit_source *source;
    struct pollfd wait[2]; /* stdin (fd -1 once it ended), signals */
    char line[LINE_SIZE];
    size_t length; /* of an unfinished line */
};

static enum word word_of(const char *line)
{
    if (strcmp(line, "cont") == 0)
        return WORD_CONT;
    if (strcmp(line, "quit") == 0)
        return WORD_QUIT;
    if (*line)
        fprintf(stderr, "'%s' is not understood: write cont (the guest does not run elsewhere) or quit\n", line);
    return WORD_NONE;
}

/* The first whole line that is a word; a line longer than the buffer is read in pieces, none of which is one. */
static enum word take_word(struct hold *hold)
{
    char *newline;
    enum word word = WORD_NONE;
    while (word == WORD_NONE && (newline = memchr(hold->line, '\n', hold->length)) != NULL) {
        *newline = '\0';
        hold->line[strcspn(hold->line, "\r")] = '\0';
        word = word_of(hold->line);
        size_t used = (size_t)(newline + 1 - hold->line);
        hold->length -= used;
        memmove(hold->line, newline + 1, hold->length);
    }
    if (hold->length == sizeof hold->line)
        hold->length = 0;
    return word;
}

static enum word read_word(struct hold *hold)
{
    ssize_t got = read(STDIN_FILENO, hold->line + hold->length, sizeof hold->line - hold->length);
    if (got < 0 && (errno == EINTR || errno == EAGAIN))
        return WORD_NONE;
    if (got <= 0) {
        hold->wait[0].fd = -1; /* poll passes over it from now on */
        return WORD_NONE;
    }
    hold->length += (size_t)got;
    return take_word(hold);
}

/* A word, a signal (as quit), or nothing within the interval. */
static enum word wait_word(struct hold *hold)
{
    if (poll(hold->wait, 2, ASK_INTERVAL_MS) <= 0)
        return WORD_NONE;
    if (hold->wait[1].revents)
        return WORD_QUIT;
    return hold->wait[0].revents ? read_word(hold) : WORD_NONE;
}

static enum godwit_outcome ask(struct hold *hold, struct godwit_error *error)
{
    struct godwit_error answer = {0};
    enum godwit_outcome outcome = godwit_source_outcome(hold->source, ASK_TIMEOUT_MS, &answer);
    if (outcome == GODWIT_OUTCOME_NEVER && answer.code)
        *error = answer;
    else if (outcome == GODWIT_OUTCOME_NEVER)
        error_prefix(error, "the destination never ran the guest");
    return outcome;
}

/* True when the guest runs here again. */
static bool resume(struct hold *hold, struct godwit_error *error)
{
    struct godwit_error refused = {0};
    if (godwit_source_resume(hold->source, &refused)) {
        command_complain("the guest cannot be resumed: %s", refused.text);
        return false;
    }
    error_prefix(error, "resumed by hand");
    return true;
}

enum hold_end hold_guest(struct godwit_source *source, int signal_fd, struct godwit_error *error)
{
    struct hold hold = {.source = source,
                        .wait = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}}};
    command_complain("%s; the guest is held here, stopped: it may run on the destination", error->text);
    fputs("asking the destination every 2 s; write cont if the guest does not run there, quit to give it up here\n",
          stderr);
    for (;;) {
        enum godwit_outcome outcome = ask(&hold, error);
        if (outcome == GODWIT_OUTCOME_RUNNING)
            return HOLD_RUNS_THERE;
        if (outcome == GODWIT_OUTCOME_NEVER)
            return HOLD_RUNS_HERE;
        enum word word = wait_word(&hold);
        if (word == WORD_QUIT)
            return HOLD_QUIT;
        if (word == WORD_CONT && resume(&hold, error))
            return HOLD_RUNS_HERE;
    }
}
