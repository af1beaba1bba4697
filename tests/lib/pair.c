#include "tests/lib/pair.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tcp/tcp.h"

enum { PAIR_TIMEOUT_MS = 10000, PAIR_BACKLOG = 16, SPLIT_CHUNK = 4099 };

static enum pair_kind plain(enum pair_kind kind)
{
    return kind >= PAIR_LOOP_SPLIT ? kind - PAIR_LOOP_SPLIT : kind;
}

bool pair_kind_is_split(enum pair_kind kind)
{
    return kind >= PAIR_LOOP_SPLIT;
}

const char *pair_kind_name(enum pair_kind kind)
{
    switch (kind) {
    case PAIR_LOOP:
        return "loop";
    case PAIR_TCP4:
        return "tcp over IPv4";
    case PAIR_TCP6:
        return "tcp over IPv6";
    case PAIR_UNIX:
        return "unix";
    case PAIR_LOOP_SPLIT:
        return "loop, split";
    case PAIR_TCP4_SPLIT:
        return "tcp over IPv4, split";
    case PAIR_TCP6_SPLIT:
        return "tcp over IPv6, split";
    case PAIR_UNIX_SPLIT:
        return "unix, split";
    case PAIR_KINDS:
        break;
    }
    return "no kind";
}

bool pair_kind_works(enum pair_kind kind)
{
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

static enum godwit_err choose(struct pair *pair, enum pair_kind kind, char text[ADDRESS_TEXT_MAX])
{
    const char *tmp = getenv("TMPDIR");
    switch (plain(kind)) {
    case PAIR_TCP4:
        pair->transport = &tcp_transport;
        snprintf(text, ADDRESS_TEXT_MAX, "tcp:127.0.0.1:0");
        return GODWIT_OK;
    case PAIR_TCP6:
        pair->transport = &tcp_transport;
        snprintf(text, ADDRESS_TEXT_MAX, "tcp:[::1]:0");
        return GODWIT_OK;
    case PAIR_UNIX:
        pair->transport = &unix_transport;
        snprintf(pair->directory, sizeof pair->directory, "%s/godwit-pair-XXXXXX",
                 tmp && strlen(tmp) < 40 ? tmp : "/tmp");
        if (!mkdtemp(pair->directory)) {
            pair->directory[0] = '\0';
            return GODWIT_ERR_SYSTEM;
        }
        snprintf(text, ADDRESS_TEXT_MAX, "unix:%s/socket", pair->directory);
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

static enum godwit_err wrap(struct pair *pair)
{
    struct fault_plan plan = fault_plan_none();
    plan.chunk = SPLIT_CHUNK;
    plan.delay_ms = 1;
    pair->fault = fault_net_new(pair->transport, &plan, FAULT_NEVER);
    if (!pair->fault)
        return GODWIT_ERR_NO_MEMORY;
    pair->transport = fault_net_transport(pair->fault);
    return GODWIT_OK;
}

enum godwit_err pair_listen(struct pair *pair, enum pair_kind kind)
{
    *pair = (struct pair){.loop = NULL};
    char text[ADDRESS_TEXT_MAX];
    enum godwit_err err = choose(pair, kind, text);
    if (!err && pair_kind_is_split(kind))
        err = wrap(pair);
    if (!err)
        err = address_parse(text, &pair->address, &pair->error);
    if (!err)
        err = transport_listen(pair->transport, &pair->address, PAIR_BACKLOG, &pair->listener, NULL, &pair->error);
    if (!err)
        pair->address = *listener_address(pair->listener);
    return err;
}

enum godwit_err pair_connect(struct pair *pair)
{
    /* One thread is enough: a connection waits in the backlog. */
    enum godwit_err err =
        transport_connect(pair->transport, &pair->address, NULL, PAIR_TIMEOUT_MS, NULL, &pair->a, &pair->error);
    return err ? err : listener_accept(pair->listener, PAIR_TIMEOUT_MS, &pair->b, &pair->error);
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
    fault_net_free(pair->fault);
    loop_net_free(pair->loop);
    if (pair->directory[0])
        rmdir(pair->directory);
    *pair = (struct pair){.loop = NULL};
}
