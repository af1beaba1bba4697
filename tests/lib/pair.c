#include "tests/lib/pair.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tcp/tcp.h"
#include "transport/error.h"

enum { PAIR_TIMEOUT_MS = 10000, PAIR_BACKLOG = 16, SPLIT_CHUNK = 4099 };

static const struct fabric *used_fabric;

static enum pair_kind plain(enum pair_kind kind)
{
    return kind >= PAIR_LOOP_SPLIT ? kind - PAIR_LOOP_SPLIT : kind;
}

bool pair_kind_is_split(enum pair_kind kind)
{
    return kind >= PAIR_LOOP_SPLIT;
}

bool pair_kind_is_loop(enum pair_kind kind)
{
    return plain(kind) == PAIR_LOOP;
}

bool pair_kind_is_rdma(enum pair_kind kind)
{
    return plain(kind) == PAIR_RDMA;
}

bool pair_kind_is_tls(enum pair_kind kind)
{
    return plain(kind) == PAIR_TLS_TCP || plain(kind) == PAIR_TLS_UNIX;
}

bool pair_kind_is_one_sided(enum pair_kind kind)
{
    return pair_kind_is_loop(kind) || pair_kind_is_rdma(kind);
}

void pair_use_fabric(const struct fabric *to_use)
{
    used_fabric = to_use;
}

const char *pair_kind_name(enum pair_kind kind)
{
    switch (kind) {
    case PAIR_LOOP: return "loop";
    case PAIR_TCP4: return "tcp over IPv4";
    case PAIR_TCP6: return "tcp over IPv6";
    case PAIR_UNIX: return "unix";
    case PAIR_RDMA: return "rdma";
    case PAIR_TLS_TCP: return "TLS over tcp";
    case PAIR_TLS_UNIX: return "TLS over unix";
    case PAIR_LOOP_SPLIT: return "loop, split";
    case PAIR_TCP4_SPLIT: return "tcp over IPv4, split";
    case PAIR_TCP6_SPLIT: return "tcp over IPv6, split";
    case PAIR_UNIX_SPLIT: return "unix, split";
    case PAIR_RDMA_SPLIT: return "rdma, split";
    case PAIR_TLS_TCP_SPLIT: return "TLS over tcp, split";
    case PAIR_TLS_UNIX_SPLIT: return "TLS over unix, split";
    case PAIR_KINDS: break;
    }
    return "no kind";
}

bool pair_kind_works(enum pair_kind kind)
{
    if (pair_kind_is_rdma(kind))
        return used_fabric && used_fabric->host();
    if (plain(kind) != PAIR_TCP6)
        return true;
    struct address address;
    struct listener *listener = NULL;
    if (address_parse("tcp:[::1]:0", &address, NULL) ||
        transport_listen(&tcp_transport, &address, 1, &listener, NULL, NULL))
        return false;
    listener_free(listener);
    return true;
}

static enum godwit_err make_directory(struct pair *pair)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(pair->directory, sizeof pair->directory, "%s/godwit-pair-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    if (mkdtemp(pair->directory))
        return GODWIT_OK;
    pair->directory[0] = '\0';
    return GODWIT_ERR_SYSTEM;
}

static enum godwit_err choose(struct pair *pair, enum pair_kind kind, char text[ADDRESS_TEXT_MAX])
{
    enum godwit_err err;
    switch (plain(kind)) {
    case PAIR_TLS_TCP:
    case PAIR_TCP4:
        pair->transport = &tcp_transport;
        snprintf(text, ADDRESS_TEXT_MAX, "tcp:127.0.0.1:0");
        return GODWIT_OK;
    case PAIR_TCP6:
        pair->transport = &tcp_transport;
        snprintf(text, ADDRESS_TEXT_MAX, "tcp:[::1]:0");
        return GODWIT_OK;
    case PAIR_TLS_UNIX:
    case PAIR_UNIX:
        pair->transport = &unix_transport;
        err = make_directory(pair);
        if (err)
            return err;
        snprintf(text, ADDRESS_TEXT_MAX, "unix:%s/socket", pair->directory);
        return GODWIT_OK;
    case PAIR_RDMA:
        pair->fabric = used_fabric;
        pair->transport = pair->fabric->transport;
        snprintf(text, ADDRESS_TEXT_MAX, "rdma:%s:0", pair->fabric->host());
        return GODWIT_OK;
    default:
        pair->loop = loop_net_new(1);
        if (!pair->loop)
            return GODWIT_ERR_NO_MEMORY;
        pair->transport = loop_net_transport(pair->loop);
        snprintf(text, ADDRESS_TEXT_MAX, "loop:pair");
        return GODWIT_OK;
    }
}

static struct fault_plan split_plan(void)
{
    struct fault_plan plan = fault_plan_none();
    plan.chunk = SPLIT_CHUNK;
    plan.delay_ms = 1;
    return plan;
}

static enum godwit_err wrap(struct pair *pair, const struct fault_plan *plan)
{
    pair->fault = fault_net_new(pair->transport, plan, FAULT_NEVER);
    if (!pair->fault)
        return GODWIT_ERR_NO_MEMORY;
    pair->transport = fault_net_transport(pair->fault);
    return GODWIT_OK;
}

const unsigned char pair_key[PAIR_KEY_SIZE] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                                               16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
static const char key_line[] = "qemu:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";

static enum godwit_err write_key(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC | O_EXCL, 0600);
    if (fd < 0)
        return GODWIT_ERR_SYSTEM;
    bool written = write(fd, key_line, strlen(key_line)) == (ssize_t)strlen(key_line);
    close(fd);
    return written ? GODWIT_OK : GODWIT_ERR_SYSTEM;
}

/* What is there now becomes what is inside. */
static enum godwit_err protect(struct pair *pair)
{
    enum godwit_err err = pair->directory[0] ? GODWIT_OK : make_directory(pair);
    char path[96];
    snprintf(path, sizeof path, "%s/keys.psk", pair->directory);
    struct tls_config config = {
        .creds = pair->directory, .hostname = "", .authz = "", .priority = "", .username = "qemu", .verify_peer = true,
        .kernel = true /* where GnuTLS is configured so, which no host is unless a test sees to it */};
    if (!err)
        err = write_key(path);
    if (!err)
        err = tls_load(&config, TLS_SERVER, pair->transport, &pair->tls_listens, &pair->error);
    if (!err)
        err = tls_load(&config, TLS_CLIENT, pair->transport, &pair->tls_connects, &pair->error);
    unlink(path);
    if (err)
        return err;
    pair->transport = tls_transport(pair->tls_listens);
    pair->connects = tls_transport(pair->tls_connects);
    return GODWIT_OK;
}

/* The introduction's ticket may pass, as often as it is shown. */
static enum godwit_err check_ticket(void *opaque, const uint8_t ticket[TICKET_SIZE], struct domain **domain,
                                    struct godwit_error *error)
{
    struct pair *pair = opaque;
    if (memcmp(ticket, pair->introduction.ticket, TICKET_SIZE) != 0)
        return error_set(error, GODWIT_ERR_NOT_ADMITTED, "not the pair's ticket");
    domain_hold(pair->domain_b);
    *domain = pair->domain_b;
    return GODWIT_OK;
}

static enum godwit_err open_domains(struct pair *pair)
{
    enum godwit_err err = transport_domain(pair->transport, &pair->address, &pair->domain_a, &pair->error);
    if (!err)
        err = transport_domain(pair->transport, &pair->address, &pair->domain_b, &pair->error);
    pair->introduction.domain = pair->domain_a;
    memset(pair->introduction.ticket, 't', TICKET_SIZE);
    return err;
}

enum godwit_err pair_listen_again(struct pair *pair)
{
    enum godwit_err err = transport_listen(pair->transport, &pair->address, PAIR_BACKLOG, &pair->listener, NULL,
                                           &pair->error);
    if (!err)
        listener_check_tickets(pair->listener, &(struct ticket_check){check_ticket, pair});
    return err;
}

enum godwit_err pair_listen(struct pair *pair, enum pair_kind kind)
{
    struct fault_plan split = split_plan();
    return pair_listen_faulty(pair, kind, pair_kind_is_split(kind) ? &split : NULL);
}

enum godwit_err pair_listen_faulty(struct pair *pair, enum pair_kind kind, const struct fault_plan *plan)
{
    *pair = (struct pair){.loop = NULL};
    char text[ADDRESS_TEXT_MAX];
    enum godwit_err err = choose(pair, kind, text);
    if (!err && plan)
        err = wrap(pair, plan);
    if (!err && pair_kind_is_tls(kind))
        err = protect(pair);
    if (!err)
        err = address_parse(text, &pair->address, &pair->error);
    if (!err && pair_kind_is_one_sided(kind))
        err = open_domains(pair);
    if (!err)
        err = pair_listen_again(pair);
    if (!err)
        pair->address = *listener_address(pair->listener);
    return err;
}

enum godwit_err pair_knock(struct pair *pair, int timeout_ms, const atomic_bool *cancel, struct channel **out,
                           struct godwit_error *error)
{
    return transport_connect(pair->connects ? pair->connects : pair->transport, &pair->address, &pair->introduction, timeout_ms, cancel, out, error);
}

enum godwit_err pair_accept(struct pair *pair, int timeout_ms, struct channel **out, struct godwit_error *error)
{
    struct channel *channel;
    enum godwit_err err = listener_accept(pair->listener, timeout_ms, &channel, error);
    if (err)
        return err;
    err = channel_handshake(channel, timeout_ms, error);
    if (err)
        channel_free(channel);
    else
        *out = channel;
    return err;
}

static void *knocker_run(void *argument)
{
    struct pair_knocker *knocker = argument;
    knocker->err = pair_knock(knocker->pair, knocker->timeout_ms, &knocker->cancel, &knocker->channel, &knocker->error);
    return NULL;
}

void pair_knocker_start(struct pair_knocker *knocker)
{
    if (pthread_create(&knocker->thread, NULL, knocker_run, knocker))
        abort();
}

enum godwit_err pair_knocker_join(struct pair_knocker *knocker)
{
    pthread_join(knocker->thread, NULL);
    return knocker->err;
}

enum godwit_err pair_connect(struct pair *pair)
{
    struct pair_knocker knocker = {.pair = pair, .timeout_ms = PAIR_TIMEOUT_MS};
    pair_knocker_start(&knocker);
    enum godwit_err err = pair_accept(pair, PAIR_TIMEOUT_MS, &pair->b, &pair->error);
    if (err)
        atomic_store(&knocker.cancel, true);
    if (pair_knocker_join(&knocker)) {
        pair->error = knocker.error;
        return knocker.err;
    }
    pair->a = knocker.channel;
    return err;
}

enum godwit_err pair_open(struct pair *pair, enum pair_kind kind)
{
    enum godwit_err err = pair_listen(pair, kind);
    return err ? err : pair_connect(pair);
}

void pair_close(struct pair *pair)
{
    channel_free(pair->a);
    channel_free(pair->b);
    listener_free(pair->listener);
    domain_free(pair->domain_a);
    domain_free(pair->domain_b);
    tls_free(pair->tls_listens);
    tls_free(pair->tls_connects);
    fault_net_free(pair->fault);
    loop_net_free(pair->loop);
    if (pair->fabric)
        pair->fabric->stop();
    if (pair->directory[0])
        rmdir(pair->directory);
    *pair = (struct pair){.loop = NULL};
}
