/*
 * The tables of the stream transports. TCP and Unix sockets differ in how a connection is made and in nothing else, so
 * they share the functions of stream.c; they have tables of their own so that messages and backtraces name the kind.
 */
#include "tcp/tcp.h"

#include "tcp/stream.h"

const struct channel_ops tcp_channel_ops = {
    .name = "tcp",
    .handshake = channel_handshake_nothing,
    .send = stream_send,
    .recv = stream_recv,
    .recv_some = stream_recv_some,
    .put = channel_put_unsupported,
    .get = channel_get_unsupported,
    .flush = channel_flush_nothing,
    .shutdown = stream_shutdown,
    .free = stream_free,
};

const struct channel_ops unix_channel_ops = {
    .name = "unix",
    .handshake = channel_handshake_nothing,
    .send = stream_send,
    .recv = stream_recv,
    .recv_some = stream_recv_some,
    .put = channel_put_unsupported,
    .get = channel_get_unsupported,
    .flush = channel_flush_nothing,
    .shutdown = stream_shutdown,
    .free = stream_free,
};

static const struct transport_ops tcp_ops = {
    .scheme = "tcp",
    .connect = connect_tcp,
    .listen = listen_tcp,
    .domain = transport_domain_unsupported,
};

static const struct transport_ops unix_ops = {
    .scheme = "unix",
    .connect = connect_unix,
    .listen = listen_unix,
    .domain = transport_domain_unsupported,
};

const struct transport tcp_transport = {.ops = &tcp_ops};
const struct transport unix_transport = {.ops = &unix_ops};
