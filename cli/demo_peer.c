/*
 * The demo's other process as the source sees it: started, listened to, and buried.
 */
#include "cli/demo.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/command.h"
#include "transport/clock.h"
#include "transport/error.h"

enum {
    CRASH_GRACE_MS = 500, /* for a dying process to be gone, so that its signal can be named */
    END_TIMEOUT_MS = 15000, /* longer than the destination lingers */
};

enum godwit_err demo_spawn(struct demo *demo, struct godwit_error *error)
{
    pid_t source = getpid(), pid = fork();
    if (pid < 0)
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot start the destination's process");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != source)
            _exit(COMMAND_FAILED); /* it died before the line above */
        close(demo->notes[0]);
        demo_destination_run(demo);
    }
    close(demo->notes[1]);
    demo->notes[1] = -1;
    demo->destination = pid;
    return GODWIT_OK;
}

/* True when the destination has ended within timeout_ms. *status is waitpid's. */
static bool has_ended(struct demo *demo, int timeout_ms, int *status)
{
    uint64_t deadline = clock_now_ms() + (uint64_t)timeout_ms;
    while (waitpid(demo->destination, status, WNOHANG) == 0) {
        if (clock_left_ms(deadline) == 0)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
    }
    demo->destination = 0;
    return true;
}

bool demo_crashed(struct demo *demo, struct godwit_error *error)
{
    int status;
    if (!demo->destination || !has_ended(demo, CRASH_GRACE_MS, &status))
        return false;
    if (!WIFSIGNALED(status))
        return false;
    error_set(error, GODWIT_ERR_PEER_FAILED, "the destination's process was killed by signal %d (%s)", WTERMSIG(status),
              strsignal(WTERMSIG(status)));
    return true;
}

enum godwit_err demo_wait(struct demo *demo, enum demo_note expected, int signal_fd, int timeout_ms,
                          struct godwit_error *error)
{
    struct pollfd wait[] = {{.fd = demo->notes[0], .events = POLLIN}, {.fd = signal_fd, .events = POLLIN}};
    int ready;
    do
        ready = poll(wait, 2, timeout_ms);
    while (ready < 0 && errno == EINTR);
    if (ready == 0)
        return error_set(error, GODWIT_ERR_TIMEOUT, "the destination's process has not answered for %d s",
                         timeout_ms / 1000);
    char note = 0;
    if (!wait[0].revents)
        return error_set(error, GODWIT_ERR_CANCELLED, "interrupted");
    if (read(demo->notes[0], &note, 1) == 1 && note == (char)expected)
        return GODWIT_OK;
    if (note == DEMO_FAILED) {
        *error = demo->account->error;
        return error->code;
    }
    if (!demo_crashed(demo, error))
        error_set(error, GODWIT_ERR_PEER_FAILED, "the destination's process ended without a word");
    return error->code;
}

void demo_reap(struct demo *demo, bool done)
{
    int status;
    if (demo->destination && done)
        has_ended(demo, END_TIMEOUT_MS, &status);
    if (!demo->destination)
        return;
    kill(demo->destination, SIGKILL);
    waitpid(demo->destination, NULL, 0);
    demo->destination = 0;
}
