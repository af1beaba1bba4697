/*
 * See cm.h. The library's synchronous mode (an identifier without an event channel) is not used: it has no deadlines
 * and cannot be cancelled.
 */
#include "rdma/cm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "rdma/hints.h"
#include "transport/clock.h"
#include "transport/error.h"
#include "transport/wire.h"

enum { CANCEL_SLICE_MS = 50, VERSION = 1 };

static const uint8_t magic[4] = {'G', 'W', 'R', 'D'};

static enum godwit_err open_events(struct rdma_event_channel **out, struct godwit_error *error)
{
    struct rdma_event_channel *events = rdma_create_event_channel();
    if (events == NULL)
        return hint_no_rdma(errno, error);
    if (fcntl(events->fd, F_SETFL, fcntl(events->fd, F_GETFL) | O_NONBLOCK) != 0) {
        enum godwit_err err = error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot prepare the connection manager");
        rdma_destroy_event_channel(events);
        return err;
    }
    *out = events;
    return GODWIT_OK;
}

enum godwit_err cm_init(struct cm *cm, struct godwit_error *error)
{
    *cm = (struct cm){0};
    enum godwit_err err = open_events(&cm->events, error);
    if (err != GODWIT_OK)
        return err;
    if (rdma_create_id(cm->events, &cm->id, NULL, RDMA_PS_TCP) != 0) {
        err = hint_resource(errno, "make an identifier of the connection manager", 0, error);
        cm->id = NULL;
        cm_fini(cm);
    }
    return err;
}

enum godwit_err cm_adopt(struct cm *cm, struct rdma_cm_id *id, struct godwit_error *error)
{
    *cm = (struct cm){0};
    enum godwit_err err = open_events(&cm->events, error);
    if (err != GODWIT_OK)
        return err;
    /* Waits until the events taken from the old channel are acknowledged; those of a new identifier are. */
    if (rdma_migrate_id(id, cm->events) != 0) {
        err = error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot take over a connection request");
        cm_fini(cm);
        return err;
    }
    cm->id = id;
    return GODWIT_OK;
}

void cm_fini(struct cm *cm)
{
    if (cm->id != NULL)
        rdma_destroy_id(cm->id);
    if (cm->events != NULL)
        rdma_destroy_event_channel(cm->events);
    *cm = (struct cm){0};
}

struct rdma_cm_event *cm_next(struct rdma_event_channel *events)
{
    struct rdma_cm_event *event = NULL;
    return rdma_get_cm_event(events, &event) == 0 ? event : NULL;
}

enum godwit_err cm_wait(struct rdma_event_channel *events, uint64_t deadline_ms, const atomic_bool *cancel, int wake,
                        struct rdma_cm_event **event)
{
    struct pollfd pollfds[] = {{.fd = events->fd, .events = POLLIN}, {.fd = wake, .events = POLLIN}};
    for (;;) {
        if (cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed))
            return GODWIT_ERR_CANCELLED;
        int left = clock_left_ms(deadline_ms);
        int slice = cancel != NULL && left > CANCEL_SLICE_MS ? CANCEL_SLICE_MS : left;
        int n = poll(pollfds, wake >= 0 ? 2 : 1, slice);
        if (n < 0 && errno != EINTR)
            return GODWIT_ERR_SYSTEM;
        if (n > 0 && pollfds[1].revents != 0)
            return GODWIT_ERR_CLOSED;
        if (n > 0 && (*event = cm_next(events)) != NULL)
            return GODWIT_OK;
        if (left == 0)
            return GODWIT_ERR_TIMEOUT;
    }
}

void cm_request_encode(const uint8_t ticket[TICKET_SIZE], uint8_t bytes[CM_REQUEST_SIZE])
{
    struct wire_out out = wire_out(bytes, CM_REQUEST_SIZE);
    wire_put_bytes(&out, magic, sizeof magic);
    wire_put_u16(&out, VERSION);
    wire_put_zeros(&out, 2);
    wire_put_bytes(&out, ticket, TICKET_SIZE);
}

bool cm_request_decode(const void *bytes, size_t size, uint8_t ticket[TICKET_SIZE])
{
    if (bytes == NULL)
        return false;
    struct wire_in in = wire_in(bytes, size);
    uint8_t found[sizeof magic];
    wire_get_bytes(&in, found, sizeof found);
    uint16_t version = wire_get_u16(&in);
    wire_get_zeros(&in, 2);
    wire_get_bytes(&in, ticket, TICKET_SIZE);
    return !in.failed && memcmp(found, magic, sizeof magic) == 0 && version == VERSION;
}

void cm_refusal_encode(const struct cm_refusal *refusal, uint8_t bytes[CM_REFUSAL_SIZE])
{
    size_t length = strnlen(refusal->text, TICKET_TEXT_MAX);
    memset(bytes, 0, CM_REFUSAL_SIZE);
    struct wire_out out = wire_out(bytes, CM_REFUSAL_SIZE);
    wire_put_bytes(&out, magic, sizeof magic);
    wire_put_u16(&out, (uint16_t)refusal->code);
    wire_put_u8(&out, (uint8_t)length);
    wire_put_bytes(&out, refusal->text, length);
}

bool cm_refusal_decode(const void *bytes, size_t size, struct cm_refusal *refusal)
{
    if (bytes == NULL)
        return false;
    struct wire_in in = wire_in(bytes, size);
    uint8_t found[sizeof magic];
    wire_get_bytes(&in, found, sizeof found);
    uint16_t code = wire_get_u16(&in);
    uint8_t length = wire_get_u8(&in);
    if (in.failed || memcmp(found, magic, sizeof magic) != 0 || code == 0 || length > TICKET_TEXT_MAX ||
        wire_left(&in) < length)
        return false;
    *refusal = (struct cm_refusal){.code = code == GODWIT_ERR_BUSY ? GODWIT_ERR_BUSY : GODWIT_ERR_NOT_ADMITTED};
    wire_get_bytes(&in, refusal->text, length);
    /* Words of a stranger, for a terminal. */
    for (char *c = refusal->text; *c != '\0'; c++)
        if ((unsigned char)*c < ' ' || *c == 127)
            *c = '?';
    return refusal->text[0] != '\0';
}
