/*
 * PID 1 of the machine, linked statically: the whole userland of its initramfs. It loads the modules that the host's
 * files take (/modules, in the order of their names), mounts the host's root read-only, lays fresh kernel and temporary
 * file systems over it, makes it the root and becomes the agent. Everything else (links, RDMA, what of /tmp is to be
 * seen) is done by commands of the host's, which are then ordinary ones: boot.sh.
 *
 * The host's root, without what is laid over it, stays visible below /run/host.
 *
 * What fails is said on the console, and the machine powers off: the host shows the console's end. It also does when
 * the host goes away.
 */
#include "tests/vm/agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define CONTROL_PORT    "/dev/vport0p1"
#define CONTROL_WAIT_MS 20000

static _Noreturn void power_off(void)
{
    kill(-1, SIGKILL);
    sync();
    reboot(RB_POWER_OFF);
    _exit(1); /* the kernel panics, which ends the machine as well */
}

static _Noreturn void die(const char *what, const char *which)
{
    dprintf(STDERR_FILENO, "init: %s %s: %s\n", what, which, strerror(errno));
    power_off();
}

static void load_modules(void)
{
    struct dirent **names;
    int count = scandir("/modules", &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char path[sizeof "/modules/" + sizeof names[i]->d_name];
        snprintf(path, sizeof path, "/modules/%s", names[i]->d_name);
        if (names[i]->d_name[0] == '.')
            continue;
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0 || (syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST))
            die("cannot load", path);
        close(file);
    }
}

static void mount_at(const char *what, const char *where, const char *kind, unsigned long flags, const char *options)
{
    if (mount(what, where, kind, flags, options) != 0)
        die("cannot mount", where);
}

static void make_root(void)
{
    mkdir("/host", 0755);
    mount_at("root", "/host", "9p", MS_RDONLY, "trans=virtio,version=9p2000.L,msize=512000,cache=loose");
    if (chdir("/host") != 0)
        die("cannot enter", "/host");
    mount_at("proc", "proc", "proc", 0, NULL);
    mount_at("sys", "sys", "sysfs", 0, NULL);
    mount_at("dev", "dev", "devtmpfs", 0, NULL);
    mount_at("tmp", "tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    mount_at("run", "run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
    mkdir("dev/shm", 01777);
    mount_at("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777");
    mkdir("dev/pts", 0755);
    mount_at("pts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=620,ptmxmode=666");
    mkdir("run/host", 0755);
    mount_at("/host", "run/host", NULL, MS_BIND, NULL);
    if (symlink("/proc/self/fd", "dev/fd") != 0 || symlink("fd/0", "dev/stdin") != 0 ||
        symlink("fd/1", "dev/stdout") != 0 || symlink("fd/2", "dev/stderr") != 0)
        die("cannot make links in", "/dev");
    mount_at("/host", "/", NULL, MS_MOVE, NULL);
    if (chroot(".") != 0 || chdir("/") != 0)
        die("cannot enter", "the root");
}

/* The port is there when QEMU has named it, and connected when QEMU has said so: shortly after the driver was loaded.
 * */
static int open_control_port(void)
{
    struct pollfd port = {.fd = -1, .events = POLLIN};
    for (int waited = 0; waited < CONTROL_WAIT_MS; waited++) {
        if (port.fd < 0)
            port.fd = open(CONTROL_PORT, O_RDWR | O_CLOEXEC | O_NONBLOCK);
        if (port.fd >= 0 && poll(&port, 1, 0) >= 0 && !(port.revents & POLLHUP))
            return port.fd;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    die("no host at", CONTROL_PORT);
}

int main(void)
{
    load_modules();
    make_root();
    agent_serve(open_control_port());
    power_off();
}
