#include "cli/watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "transport/clock.h"
#include "transport/error.h"

enum { SIGNALLED_INTERVAL_MS = 50 };

struct watch {
    pthread_t thread;
    int signal_fd; /* borrowed */
    int stop_fd;   /* eventfd, readable once stop was asked for */
    struct progress *progress;
    struct watch_subject subject;
    bool signalled; /* the thread's until it is joined */
};

int watch_block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0)
        return -1;
    return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

static bool read_signal(int signal_fd)
{
    struct signalfd_siginfo info;
    return read(signal_fd, &info, sizeof info) == (ssize_t)sizeof info;
}

bool watch_signalled(int signal_fd, int timeout_ms)
{
    struct pollfd wait = {.fd = signal_fd, .events = POLLIN};
    return poll(&wait, 1, timeout_ms) > 0 && read_signal(signal_fd);
}

static void *watch_run(void *opaque)
{
    struct watch *watch = opaque;
    struct godwit_info *info = malloc(sizeof *info); /* tens of KiB; without it: no line, only cancel */
    struct pollfd wait[] = {{.fd = watch->stop_fd, .events = POLLIN}, {.fd = watch->signal_fd, .events = POLLIN}};
    uint64_t interval_ms = (uint64_t)progress_interval_ms(watch->progress), look_ms = clock_now_ms() + interval_ms;
    pthread_setname_np(pthread_self(), "mig_watch");
    for (;;) {
        int ready = poll(wait, 2, watch->signalled ? SIGNALLED_INTERVAL_MS : clock_left_ms(look_ms));
        if (ready > 0 && (wait[0].revents & POLLIN))
            break;
        if (ready > 0 && (wait[1].revents & POLLIN) && read_signal(watch->signal_fd))
            watch->signalled = true;
        if (watch->signalled)
            watch->subject.cancel(watch->subject.object);
        if (clock_left_ms(look_ms) > 0)
            continue;
        look_ms = clock_now_ms() + interval_ms;
        if (info) {
            watch->subject.query(watch->subject.object, info);
            progress_look(watch->progress, info);
        }
    }
    free(info);
    return NULL;
}

enum godwit_err watch_start(int signal_fd, struct progress *progress, const struct watch_subject *subject,
                            struct watch **out, struct godwit_error *error)
{
    int cause;
    struct watch *watch = malloc(sizeof *watch);
    if (!watch) {
        cause = ENOMEM;
        goto fail;
    }
    *watch = (struct watch){.signal_fd = signal_fd, .progress = progress, .subject = *subject};
    watch->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (watch->stop_fd < 0) {
        cause = errno;
        goto fail_free;
    }
    cause = pthread_create(&watch->thread, NULL, watch_run, watch);
    if (cause)
        goto fail_close;
    *out = watch;
    return GODWIT_OK;

fail_close:
    close(watch->stop_fd);
fail_free:
    free(watch);
fail:
    return error_set_sys(error, GODWIT_ERR_SYSTEM, cause, "cannot start the thread that watches the migration");
}

bool watch_stop(struct watch *watch)
{
    if (!watch)
        return false;
    uint64_t one = 1;
    ssize_t written = write(watch->stop_fd, &one, sizeof one);
    (void)written; /* an eventfd at 0 takes a 1 */
    pthread_join(watch->thread, NULL);
    bool signalled = watch->signalled;
    close(watch->stop_fd);
    free(watch);
    return signalled;
}
