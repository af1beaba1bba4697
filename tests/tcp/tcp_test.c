/* What only the stream transports do: sockets, names, files. The conformance list has the rest. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "tcp/tcp.h"
#include "tests/lib/pair.h"
#include "transport/clock.h"

TestSuite(tcp, .timeout = 30);

static struct address parsed(const char *text)
{
    struct address address;
    struct godwit_error error;
    cr_assert_eq(address_parse(text, &address, &error), GODWIT_OK, "%s", error.text);
    return address;
}

/* Calls visit for each open descriptor but the directory's own. */
static void each_fd(void (*visit)(int fd, void *context), void *context)
{
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(dir));) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && fd != dirfd(dir))
            visit(fd, context);
    }
    closedir(dir);
}

static void count_fd(int fd, void *count)
{
    ++*(unsigned *)count;
}

static unsigned count_fds(void)
{
    unsigned count = 0;
    each_fd(count_fd, &count);
    return count;
}

static void note_fd(int fd, void *known)
{
    if (fd < 256)
        ((bool *)known)[fd] = true;
}

static void check_cloexec(int fd, void *known)
{
    if (fd < 256 && !((bool *)known)[fd])
        cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC, "descriptor %d survives exec", fd);
}

Test(tcp, no_descriptor_is_leaked_or_inherited)
{
    for (enum pair_kind kind = PAIR_TCP4; kind <= PAIR_UNIX; kind++) {
        if (!pair_kind_works(kind))
            continue;
        unsigned before = count_fds();
        bool known[256] = {false}; /* Criterion's own */
        each_fd(note_fd, known);
        struct pair pair;
        cr_assert_eq(pair_open(&pair, kind), GODWIT_OK, "%s", pair.error.text);
        each_fd(check_cloexec, known);
        listener_free(pair.listener);
        pair.listener = NULL;
        struct channel *channel = NULL;
        cr_assert_eq(transport_connect(pair.transport, &pair.address, NULL, 60, NULL, &channel, NULL),
                     GODWIT_ERR_REFUSED);
        pair_close(&pair);
        cr_assert_eq(count_fds(), before, "%s", pair_kind_name(kind));
    }
}

Test(tcp, name_that_does_not_resolve_is_invalid_at_once)
{
    struct address address = parsed("tcp:no-such-host.invalid:4444");
    struct channel *channel = NULL;
    struct listener *listener = NULL;
    struct godwit_error error;
    cr_assert_eq(transport_connect(&tcp_transport, &address, NULL, 20000, NULL, &channel, &error), GODWIT_ERR_INVALID,
                 "%s", error.text);
    cr_assert(strstr(error.text, "no-such-host.invalid"), "%s", error.text);
    cr_assert_eq(transport_listen(&tcp_transport, &address, 1, &listener, NULL, &error), GODWIT_ERR_INVALID);
}

Test(tcp, connect_needs_a_host_and_a_port)
{
    struct channel *channel = NULL;
    struct godwit_error error;
    struct address any = parsed("tcp::4444"), zero = parsed("tcp:127.0.0.1:0");
    cr_assert_eq(transport_connect(&tcp_transport, &any, NULL, 1000, NULL, &channel, &error), GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, "no host"), "%s", error.text);
    cr_assert_eq(transport_connect(&tcp_transport, &zero, NULL, 1000, NULL, &channel, &error), GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, "no port"), "%s", error.text);
}

Test(tcp, refused_text_names_address_time_and_cause)
{
    struct pair pair;
    cr_assert_eq(pair_listen(&pair, PAIR_TCP4), GODWIT_OK);
    listener_free(pair.listener);
    pair.listener = NULL;
    struct godwit_error error;
    char expected[128];
    snprintf(expected, sizeof expected,
             "cannot connect to tcp:127.0.0.1:%u within 1 s: connection refused (nothing listens there)",
             pair.address.port);
    cr_assert_eq(transport_connect(&tcp_transport, &pair.address, NULL, 1000, NULL, &pair.a, &error),
                 GODWIT_ERR_REFUSED);
    cr_assert_str_eq(error.text, expected);
    cr_assert_eq(error.sys_errno, ECONNREFUSED);
    pair_close(&pair);
}

Test(tcp, address_of_another_host_cannot_be_listened_on)
{
    struct address address = parsed("tcp:192.0.2.1:4444");
    struct listener *listener = NULL;
    struct godwit_error error;
    cr_assert_eq(transport_listen(&tcp_transport, &address, 1, &listener, NULL, &error), GODWIT_ERR_INVALID);
    cr_assert(strstr(error.text, "not an address of this host"), "%s", error.text);
}

Test(tcp, wildcard_takes_both_families)
{
    struct address any = parsed("tcp::0");
    struct listener *listener = NULL;
    struct godwit_error error;
    cr_assert_eq(transport_listen(&tcp_transport, &any, 8, &listener, NULL, &error), GODWIT_OK, "%s", error.text);
    const char *hosts[] = {"127.0.0.1", "[::1]", "localhost"};
    for (unsigned i = 0; i < 3; i++) {
        if (i == 1 && !pair_kind_works(PAIR_TCP6))
            continue;
        char text[64];
        snprintf(text, sizeof text, "tcp:%s:%u", hosts[i], listener_address(listener)->port);
        struct address address = parsed(text);
        struct channel *a = NULL, *b = NULL;
        cr_assert_eq(transport_connect(&tcp_transport, &address, NULL, 5000, NULL, &a, &error), GODWIT_OK, "%s",
                     error.text);
        cr_assert_eq(listener_accept(listener, 5000, &b, &error), GODWIT_OK, "%s", error.text);
        if (i == 0)
            cr_assert_eq(strncmp(channel_name(b), "tcp 127.0.0.1:", 14), 0, "mapped: %s", channel_name(b));
        if (i == 1)
            cr_assert_eq(strncmp(channel_name(a), "tcp [::1]:", 10), 0, "%s", channel_name(a));
        channel_free(a);
        channel_free(b);
    }
    listener_free(listener);
}

Test(tcp, backlog_beyond_the_limit_is_a_warning_that_names_it)
{
    struct address any = parsed("tcp:127.0.0.1:0");
    struct listener *listener = NULL;
    struct backlog_warning warning;
    cr_assert_eq(transport_listen(&tcp_transport, &any, 16, &listener, &warning, NULL), GODWIT_OK);
    cr_assert_str_eq(warning.text, "");
    listener_free(listener);
    cr_assert_eq(transport_listen(&tcp_transport, &any, 2000000000, &listener, &warning, NULL), GODWIT_OK);
    cr_assert(strstr(warning.text, "net.core.somaxconn") && strstr(warning.text, "2000000000"), "%s", warning.text);
    listener_free(listener);
}

static struct address socket_in(char directory[32])
{
    strcpy(directory, "/tmp/godwit-tcp-XXXXXX");
    cr_assert_not_null(mkdtemp(directory));
    char text[64];
    snprintf(text, sizeof text, "unix:%s/s", directory);
    return parsed(text);
}

Test(tcp, stale_socket_file_is_replaced)
{
    char directory[32];
    struct address address = socket_in(directory);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    strcpy(at.sun_path, address.path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    cr_assert_eq(listen(fd, 1), 0);
    close(fd); /* as a killed process leaves it */
    struct listener *listener = NULL;
    struct godwit_error error;
    cr_assert_eq(transport_listen(&unix_transport, &address, 1, &listener, NULL, &error), GODWIT_OK, "%s", error.text);
    struct channel *channel = NULL;
    cr_assert_eq(transport_connect(&unix_transport, &address, NULL, 1000, NULL, &channel, &error), GODWIT_OK, "%s",
                 error.text);
    channel_free(channel);
    listener_free(listener);
    cr_assert_eq(access(address.path, F_OK), -1, "its own file it takes along");
    rmdir(directory);
}

Test(tcp, file_that_is_no_socket_is_left_alone)
{
    char directory[32];
    struct address address = socket_in(directory);
    close(open(address.path, O_CREAT | O_WRONLY, 0600));
    struct listener *listener = NULL;
    struct godwit_error error;
    cr_assert_eq(transport_listen(&unix_transport, &address, 1, &listener, NULL, &error), GODWIT_ERR_BUSY);
    cr_assert(strstr(error.text, "not a socket"), "%s", error.text);
    cr_assert_eq(access(address.path, F_OK), 0);
    unlink(address.path);
    rmdir(directory);
}

Test(tcp, socket_file_of_somebody_else_is_left_alone)
{
    char directory[32];
    struct address address = socket_in(directory);
    struct listener *first = NULL, *second = NULL;
    cr_assert_eq(transport_listen(&unix_transport, &address, 1, &first, NULL, NULL), GODWIT_OK);
    char aside[64];
    snprintf(aside, sizeof aside, "%s/aside", directory);
    cr_assert_eq(rename(address.path, aside), 0); /* keeps the inode in use */
    cr_assert_eq(transport_listen(&unix_transport, &address, 1, &second, NULL, NULL), GODWIT_OK);
    listener_free(first);
    cr_assert_eq(access(address.path, F_OK), 0, "it is the second one's by now");
    listener_free(second);
    cr_assert_eq(access(address.path, F_OK), -1);
    unlink(aside);
    rmdir(directory);
}

Test(tcp, missing_directory_is_a_system_error_for_a_listener)
{
    struct address address = parsed("unix:/tmp/godwit-no-such-directory/s");
    struct listener *listener = NULL;
    struct godwit_error error;
    cr_assert_eq(transport_listen(&unix_transport, &address, 1, &listener, NULL, &error), GODWIT_ERR_SYSTEM);
    cr_assert_eq(error.sys_errno, ENOENT);
}

Test(tcp, missing_socket_file_is_refused)
{
    struct address address = parsed("unix:/tmp/godwit-no-such-directory/s");
    struct channel *channel = NULL;
    struct godwit_error error;
    cr_assert_eq(transport_connect(&unix_transport, &address, NULL, 60, NULL, &channel, &error), GODWIT_ERR_REFUSED);
    cr_assert(strstr(error.text, "unix:/tmp/godwit-no-such-directory/s within 60 ms"), "%s", error.text);
}

Test(tcp, shortage_of_descriptors_is_reported_and_survived)
{
    struct pair pair;
    cr_assert_eq(pair_listen(&pair, PAIR_TCP4), GODWIT_OK);
    cr_assert_eq(transport_connect(pair.transport, &pair.address, NULL, 5000, NULL, &pair.a, NULL), GODWIT_OK);
    struct rlimit before, none;
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = 0;
    setrlimit(RLIMIT_NOFILE, &none);
    struct godwit_error error;
    /* poll refuses more descriptors than the limit, too: both are a shortage. */
    enum godwit_err err = listener_accept(pair.listener, 1000, &pair.b, &error);
    setrlimit(RLIMIT_NOFILE, &before);
    cr_assert_eq(err, GODWIT_ERR_SYSTEM);
    cr_assert_eq(listener_accept(pair.listener, 1000, &pair.b, &error), GODWIT_OK, "%s", error.text);
    pair_close(&pair);
}

static void on_signal(int number)
{
    (void)number;
}

struct reader {
    struct channel *channel;
    enum godwit_err err;
};

static void *read_thread(void *argument)
{
    struct reader *reader = argument;
    char got[8];
    reader->err = channel_recv_exact(reader->channel, got, sizeof got, 10000);
    return NULL;
}

Test(tcp, signals_do_not_disturb_a_call)
{
    struct sigaction action = {.sa_handler = on_signal}; /* without SA_RESTART */
    sigaction(SIGUSR1, &action, NULL);
    for (enum pair_kind kind = PAIR_TCP4; kind <= PAIR_UNIX; kind += PAIR_UNIX - PAIR_TCP4) {
        struct pair pair;
        cr_assert_eq(pair_open(&pair, kind), GODWIT_OK);
        struct reader reader = {.channel = pair.b};
        pthread_t thread;
        pthread_create(&thread, NULL, read_thread, &reader);
        for (unsigned i = 0; i < 8; i++) {
            pthread_kill(thread, SIGUSR1);
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
            cr_assert_eq(channel_send(pair.a, "x", 1, NULL, 0, 1000), GODWIT_OK);
        }
        pthread_join(thread, NULL);
        cr_assert_eq(reader.err, GODWIT_OK, "%s", godwit_err_text(reader.err));
        pair_close(&pair);
    }
}

static void *cancel_later(void *cancel)
{
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    atomic_store((atomic_bool *)cancel, true);
    return NULL;
}

Test(tcp, full_backlog_ends_in_time_or_by_cancel)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&at, size), 0);
    cr_assert_eq(listen(fd, 0), 0);
    getsockname(fd, (struct sockaddr *)&at, &size);
    char text[64];
    snprintf(text, sizeof text, "tcp:127.0.0.1:%u", ntohs(at.sin_port));
    struct address address = parsed(text);
    struct channel *channels[8] = {0};
    struct godwit_error error;
    enum godwit_err err = GODWIT_OK;
    unsigned n = 0;
    for (; n < 8 && !err; n++)
        err = transport_connect(&tcp_transport, &address, NULL, 100, NULL, &channels[n], &error);
    cr_assert_eq(err, GODWIT_ERR_UNREACHABLE, "%s", error.text);
    cr_assert(strstr(error.text, "no answer"), "%s", error.text);
    atomic_bool cancel = false;
    pthread_t thread;
    pthread_create(&thread, NULL, cancel_later, &cancel);
    uint64_t start = clock_now_ms();
    err = transport_connect(&tcp_transport, &address, NULL, 20000, &cancel, &channels[7], &error);
    pthread_join(thread, NULL);
    cr_assert_eq(err, GODWIT_ERR_CANCELLED, "%s", error.text);
    cr_assert_lt(clock_now_ms() - start, 1000);
    for (unsigned i = 0; i < 8; i++)
        channel_free(channels[i]);
    close(fd);
}

/* TLS of the kernel asks for it: whether a record that is no data came between two messages, or within one. */
Test(tcp, recv_that_fails_leaves_in_its_iovs_what_has_not_come)
{
    struct pair pair;
    char first[8], second[8];
    struct iovec iov[] = {{first, sizeof first}, {second, sizeof second}};
    cr_assert_eq(pair_open(&pair, PAIR_TCP4), GODWIT_OK, "%s", pair.error.text);
    cr_assert_eq(channel_send(pair.a, "whole...", sizeof first, NULL, 0, 5000), GODWIT_OK);
    channel_shutdown(pair.a);
    cr_assert_eq(channel_recv(pair.b, iov, 2, 5000), GODWIT_ERR_RESET);
    cr_assert_eq(iov[0].iov_len, 0);
    cr_assert_eq(iov[1].iov_len, sizeof second);
    pair_close(&pair);
}
