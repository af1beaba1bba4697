/*
 * The connection manager as we use it: one identifier with an event channel of its own, never blocking inside the
 * library; every wait is ours, with a deadline, a cancel flag and an eventfd that ends it. And what travels in the
 * private data of requests and rejects.
 */
#ifndef RDMA_CM_H
#define RDMA_CM_H

#include <rdma/rdma_cma.h>

#include "transport/channel_ops.h"

struct cm {
    struct rdma_event_channel *events;
    struct rdma_cm_id *id; /* NULL: none */
};

/* An identifier on an event channel of its own. */
enum godwit_err cm_init(struct cm *cm, struct godwit_error *error);
/* Takes over an identifier that came with a connection request; it is the caller's again on failure. */
enum godwit_err cm_adopt(struct cm *cm, struct rdma_cm_id *id, struct godwit_error *error);
/* Destroys identifier and event channel; the queue pair is gone before. All events were acknowledged. */
void cm_fini(struct cm *cm);

/*
 * Waits for the next event: *event is to be acknowledged by the caller. TIMEOUT; CANCELLED when *cancel (may be NULL)
 * reads true; CLOSED when wake (may be -1) is readable.
 */
enum godwit_err cm_wait(struct rdma_event_channel *events, uint64_t deadline_ms, const atomic_bool *cancel, int wake,
                        struct rdma_cm_event **event);
/* The next event if there is one; NULL: none. */
struct rdma_cm_event *cm_next(struct rdma_event_channel *events);

/* Private data of a request: who knocks. */
enum { CM_REQUEST_SIZE = 56 };

void cm_request_encode(const uint8_t ticket[TICKET_SIZE], uint8_t bytes[CM_REQUEST_SIZE]);
/* False: not one of ours. What arrives may be longer, padded with zeros. */
bool cm_request_decode(const void *bytes, size_t size, uint8_t ticket[TICKET_SIZE]);

/* Private data of a reject: why. */
enum { CM_REFUSAL_SIZE = 148 };

struct cm_refusal {
    enum godwit_err code;
    char text[TICKET_TEXT_MAX + 1];
};

void cm_refusal_encode(const struct cm_refusal *refusal, uint8_t bytes[CM_REFUSAL_SIZE]);
bool cm_refusal_decode(const void *bytes, size_t size, struct cm_refusal *refusal);

#endif
