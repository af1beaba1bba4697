/*
 * What the verbs, the connection manager and the device say, in words for the user: the cause, and the remedy where
 * there is one. Pure functions of what was reported (and, for memory, of this process's limit). The causes are those of
 * the InfiniBand specification as met in practice; vendors differ in detail.
 */
#ifndef RDMA_HINTS_H
#define RDMA_HINTS_H

#include <stddef.h>

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <godwit/error.h>

/* Where in the making of a connection something happened. */
enum cm_step { CM_RESOLVE_ADDRESS, CM_RESOLVE_ROUTE, CM_CONNECT, CM_ESTABLISHED };

/* A work request failed. text: what channel_set_detail takes. */
void hint_completion(const struct ibv_wc *wc, const char *what, char *text, size_t size);

/* A connection manager event other than the one the step waits for. address is for the message. REFUSED where nothing
 * listens, NOT_ADMITTED where the peer's owner refused (with its words), BUSY for what a second try may cure. */
enum godwit_err hint_cm_event(const struct rdma_cm_event *event, enum cm_step step, const char *address,
                              struct godwit_error *error);

/* A call that needs locked memory or device resources failed with this errno. */
enum godwit_err hint_resource(int cause, const char *what, uint64_t bytes, struct godwit_error *error);

/* An asynchronous event of a queue pair or completion queue; NULL for those that mean nothing to us. */
const char *hint_async(enum ibv_event_type type);

/* There are no devices, or the connection manager cannot be reached. */
enum godwit_err hint_no_rdma(int cause, struct godwit_error *error);

#endif
