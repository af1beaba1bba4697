/* Private to rdma/: making connections, from either side. */
#ifndef RDMA_CONNECT_H
#define RDMA_CONNECT_H

#include "rdma/channel.h"

enum {
    /*
     * 4.096 us * 2^17 = 0.54 s without an acknowledgement, then again, 1 + 6 times: 3.8 s to an error, before the
     * heartbeat's 5 s. The kernel's default is 2.15 s per try; below 14 the stalls of a virtual machine look like
     * death. A retry count of 7 means "for ever" to soft-RoCE (Linux 6.1).
     */
    CONNECT_ACK_TIMEOUT = 17,
    CONNECT_RETRIES = 6,
    CONNECT_RNR_RETRIES = 7, /* credits make them needless; and this value programs the peer */
    CONNECT_READS = 4,       /* gets under way, both ways; a device that has fewer is asked for fewer */
};

enum godwit_err rdma_connect_channel(void *context, const struct address *address,
                                     const struct introduction *introduction, int timeout_ms,
                                     const atomic_bool *cancel, struct channel **out, struct godwit_error *error);

enum godwit_err rdma_listen_channels(void *context, const struct address *address, unsigned backlog,
                                     struct listener **out, struct backlog_warning *warning,
                                     struct godwit_error *error);

/* What both sides ask of a connection. */
struct rdma_conn_param rdma_connection_parameters(struct ibv_context *verbs, const void *private_data, uint8_t size);

/* Before resolving (which uses it for the connection manager's own timers too) and before accepting. */
void rdma_set_ack_timeout(struct rdma_cm_id *id);

/* "rdma 192.0.2.1:4444" of the other side. */
void rdma_peer_name(struct rdma_cm_id *id, char name[CHANNEL_NAME_MAX]);

#endif
