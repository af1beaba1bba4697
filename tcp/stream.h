/* Private to tcp/: a connected stream socket as a channel, and the two ways of making one. */
#ifndef TCP_STREAM_H
#define TCP_STREAM_H

#include <sys/socket.h>

#include "transport/channel_ops.h"

/* One iovec is kept free for the head: head and payload leave in one sendmsg of at most IOV_MAX (1024) entries. */
enum { STREAM_MAX_IOV = 1023 };

/*
 * Makes a channel of a connected socket. name is "tcp PEER" or "unix PATH". Owns fd on success; on failure it is still
 * the caller's.
 */
enum godwit_err stream_new(int fd, const struct channel_ops *ops, const char *name, struct channel **out,
                           struct godwit_error *error);

enum godwit_err stream_send(struct channel *channel, const void *head, size_t head_size, const struct iovec *payload,
                            unsigned count, int timeout_ms);
/* Beyond the contract: when it fails, iov's lengths are what has not come. */
enum godwit_err stream_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms);
enum godwit_err stream_recv_some(struct channel *channel, void *buffer, size_t size, int timeout_ms, size_t *got);
void stream_shutdown(struct channel *channel);
void stream_free(struct channel *channel);

/* The descriptor of a TCP channel, which stays its own; -1 of any other. */
int stream_socket(const struct channel *channel);

/* Low latency, and the timers that notice a dead peer when nobody above does. */
void stream_tune_tcp(int fd);

/* "tcp 192.0.2.1:4444" of a socket address; IPv4-mapped IPv6 is written as the IPv4 it is. */
void stream_name_tcp(const struct sockaddr *address, socklen_t size, char name[CHANNEL_NAME_MAX]);

enum godwit_err connect_tcp(void *context, const struct address *address, const struct introduction *introduction,
                            int timeout_ms, const atomic_bool *cancel, struct channel **out,
                            struct godwit_error *error);
enum godwit_err connect_unix(void *context, const struct address *address, const struct introduction *introduction,
                             int timeout_ms, const atomic_bool *cancel, struct channel **out,
                             struct godwit_error *error);
enum godwit_err listen_tcp(void *context, const struct address *address, unsigned backlog, struct listener **out,
                           struct backlog_warning *warning, struct godwit_error *error);
enum godwit_err listen_unix(void *context, const struct address *address, unsigned backlog, struct listener **out,
                            struct backlog_warning *warning, struct godwit_error *error);

extern const struct channel_ops tcp_channel_ops;
extern const struct channel_ops unix_channel_ops;

#endif
