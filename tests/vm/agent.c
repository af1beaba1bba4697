/*
 * The agent: one thread, one poll() over the control port, the ends of processes, and the output of each job.
 *
 * A job is a process group of its own. When its first process ends, what is left of the group is killed, what the pipes
 * hold is passed on, and its status is the last that is heard of it: `server & client` leaves no server behind.
 * Something that is to go on gets a job of its own.
 *
 * The host always reads, so waiting for room in the port cannot block for ever; a job that writes faster than the port
 * takes it waits in its own write(). A host that breaks the protocol is a bug in agent.py: the agent says so on the
 * console and ends, and with PID 1 the machine.
 */
#include "tests/vm/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOBS_MAX    64
#define PAYLOAD_MAX (1u << 20)
#define CHUNK       (16u << 10) /* of output, at most in one frame */

struct job {
    uint32_t number;
    pid_t pid;     /* of its first process, and of the group; 0 for a free place */
    int stream[2]; /* the reading ends of its standard output and error; -1 once they have ended */
};

struct agent {
    int port, ends;
    struct job jobs[JOBS_MAX];
    char payload[PAYLOAD_MAX + 1];
};

static void die(const char *what)
{
    dprintf(STDERR_FILENO, "agent: %s: %s\n", what, strerror(errno));
    _exit(1);
}

/* All of it, or false when the host is gone. The port does not block: in a blocking write the kernel spins until the
 * host has taken the bytes. */
static bool transfer(int port, void *data, size_t length, bool out)
{
    for (size_t done = 0; done < length;) {
        char *at = (char *)data + done;
        ssize_t n = out ? write(port, at, length - done) : read(port, at, length - done);
        if (n > 0) {
            done += (size_t)n;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            return false;
        } else {
            struct pollfd ready = {.fd = port, .events = out ? POLLOUT : POLLIN};
            poll(&ready, 1, -1);
        }
    }
    return true;
}

static bool tell(struct agent *agent, enum agent_kind kind, uint32_t job, void *payload, size_t length)
{
    struct agent_head head = {.kind = kind, .job = job, .length = (uint32_t)length};
    return transfer(agent->port, &head, sizeof head, true) && transfer(agent->port, payload, length, true);
}

/* Passes on what is there, one chunk; false when there is nothing, now or for ever. */
static bool pass_on(struct agent *agent, struct job *job, int which)
{
    char chunk[CHUNK];
    ssize_t n = job->stream[which] < 0 ? -1 : read(job->stream[which], chunk, sizeof chunk);
    if (n > 0)
        return tell(agent, which == 0 ? AGENT_OUT : AGENT_ERR, job->number, chunk, (size_t)n);
    if (n == 0) {
        close(job->stream[which]);
        job->stream[which] = -1;
    }
    return false;
}

static const char *next_text(const char **at, const char *end)
{
    const char *text = *at;
    if (text >= end)
        return NULL;
    *at = text + strlen(text) + 1;
    return text;
}

/* In the child. Says why on the job's standard error if the command cannot be run, with a shell's status. */
static void become(const char *directory, const char *user, const char *locked, char **arguments, char **environment)
{
    const char *what = directory;
    if (chdir(directory) != 0)
        goto failed;
    if (*locked) {
        rlim_t bytes = strcmp(locked, "unlimited") == 0 ? RLIM_INFINITY : strtoull(locked, NULL, 10);
        what = "the limit of locked memory";
        if (setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){bytes, bytes}) != 0)
            goto failed;
    }
    if (*user) {
        uid_t id = (uid_t)strtoul(user, NULL, 10);
        what = "the user id";
        if (setgroups(0, NULL) != 0 || setgid(id) != 0 || setuid(id) != 0)
            goto failed;
    }
    environ = environment;
    what = arguments[0];
    execvp(arguments[0], arguments);
failed:
    dprintf(STDERR_FILENO, "vm: %s: %s\n", what, strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

static _Noreturn void child(struct agent *agent, size_t length, int out, int err)
{
    const char *at = agent->payload, *end = at + length;
    const char *directory = next_text(&at, end), *user = next_text(&at, end), *locked = next_text(&at, end);
    const char *count = next_text(&at, end);
    size_t arguments = count ? strtoul(count, NULL, 10) : 0, texts = 0;
    /* The arguments, their end, the environment, its end. */
    char **text = calloc(length + 2, sizeof *text);
    if (arguments == 0 || !text)
        die("a command that is none");
    for (const char *next; (next = next_text(&at, end)); texts++)
        text[texts + (texts >= arguments)] = strdup(next);

    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(err, STDERR_FILENO) < 0)
        die("dup2");
    become(directory, user, locked, text, text + arguments + 1);
    _exit(126);
}

static void spawn(struct agent *agent, uint32_t number, size_t length)
{
    struct job *job = agent->jobs;
    while (job < agent->jobs + JOBS_MAX && job->pid)
        job++;
    int pipes[2][2];
    if (job == agent->jobs + JOBS_MAX || pipe2(pipes[0], O_CLOEXEC) != 0 || pipe2(pipes[1], O_CLOEXEC) != 0)
        die("too many jobs");
    *job = (struct job){.number = number, .pid = fork(), .stream = {pipes[0][0], pipes[1][0]}};
    if (job->pid < 0)
        die("fork");
    if (job->pid == 0)
        child(agent, length, pipes[0][1], pipes[1][1]);
    setpgid(job->pid, job->pid); /* here as well: the group is to be there before anybody signals it */
    for (int i = 0; i < 2; i++) {
        close(pipes[i][1]);
        fcntl(pipes[i][0], F_SETFL, O_NONBLOCK);
    }
}

static void signal_job(struct agent *agent, uint32_t number)
{
    for (struct job *job = agent->jobs; job < agent->jobs + JOBS_MAX; job++)
        if (job->pid && job->number == number)
            kill(agent->payload[1] ? -job->pid : job->pid, agent->payload[0]);
}

/* False at the end: told to quit, or the host is gone. */
static bool obey(struct agent *agent)
{
    struct agent_head head;
    if (!transfer(agent->port, &head, sizeof head, false))
        return false;
    if (head.length > PAYLOAD_MAX) {
        errno = EMSGSIZE;
        die("a frame of the host");
    }
    if (!transfer(agent->port, agent->payload, head.length, false))
        return false;
    agent->payload[head.length] = 0;
    if (head.kind == AGENT_SPAWN)
        spawn(agent, head.job, head.length);
    else if (head.kind == AGENT_SIGNAL && head.length == 2)
        signal_job(agent, head.job);
    return head.kind != AGENT_QUIT;
}

static void finish(struct agent *agent, struct job *job, int status)
{
    kill(-job->pid, SIGKILL);
    for (int which = 0; which < 2; which++) {
        while (pass_on(agent, job, which))
            ;
        if (job->stream[which] >= 0)
            close(job->stream[which]);
    }
    tell(agent, AGENT_EXIT, job->number, &status, sizeof status);
    job->pid = 0;
}

/* A process that lost its parent is ours as well, and of no job. */
static void reap(struct agent *agent)
{
    struct signalfd_siginfo info;
    while (read(agent->ends, &info, sizeof info) > 0)
        ;
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        for (struct job *job = agent->jobs; job < agent->jobs + JOBS_MAX; job++)
            if (job->pid == pid)
                finish(agent, job, status);
}

static bool serve_once(struct agent *agent)
{
    struct pollfd ready[2 + 2 * JOBS_MAX] = {{.fd = agent->port, .events = POLLIN},
                                             {.fd = agent->ends, .events = POLLIN}};
    for (int i = 0; i < 2 * JOBS_MAX; i++) {
        struct job *job = &agent->jobs[i / 2];
        ready[2 + i] = (struct pollfd){.fd = job->pid ? job->stream[i % 2] : -1, .events = POLLIN};
    }
    if (poll(ready, 2 + 2 * JOBS_MAX, -1) < 0)
        return true;
    for (int i = 0; i < 2 * JOBS_MAX; i++)
        if (ready[2 + i].revents)
            pass_on(agent, &agent->jobs[i / 2], i % 2);
    if (ready[1].revents)
        reap(agent);
    return !ready[0].revents || obey(agent);
}

void agent_serve(int port)
{
    static struct agent agent;
    agent.port = port;
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGCHLD);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    agent.ends = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
    if (agent.ends < 0)
        die("signalfd");
    if (tell(&agent, AGENT_READY, 0, NULL, 0))
        while (serve_once(&agent))
            ;
}
