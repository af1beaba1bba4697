/*
 * The control connection of a running session: one reader thread that dispatches records and keeps the heartbeats going
 * both ways, and a send that any thread may call. Its end, for whatever reason, is reported once.
 */
#ifndef SESSION_CONTROL_H
#define SESSION_CONTROL_H

#include "session/record.h"

enum { CONTROL_TICK_MS = 100 };

struct control;

struct control_config {
    struct channel *channel; /* owned by the control from control_start's success on */
    int heartbeat_ms;        /* how often we show that we live */
    int peer_timeout_ms;     /* how long the peer may be silent */
    /* Reader thread: one record other than HEARTBEAT and ERROR. Must not block. An error ends the connection. */
    enum godwit_err (*record)(void *opaque, const struct record_header *header, const uint8_t *body,
                              struct godwit_error *error);
    /*
     * Reader thread, about every CONTROL_TICK_MS while some thread is inside control_send: may that go on? Else the
     * connection ends, so that a peer that takes next to nothing cannot hold a sender beyond the owner's deadlines.
     */
    enum godwit_err (*check)(void *opaque, struct godwit_error *error);
    /* Any number that grows while this side gets something done; it travels in our heartbeats. */
    uint64_t (*progress)(void *opaque);
    /* Reader thread, once, last: why the connection ended. PEER_FAILED carries the peer's own words. */
    void (*ended)(void *opaque, const struct godwit_error *error);
    void *opaque;
};

/* On failure the channel is still the caller's. */
enum godwit_err control_start(const struct control_config *config, struct control **out, struct godwit_error *error);

/* Any thread; serialised. Blocks at most peer_timeout_ms without progress. */
enum godwit_err control_send(struct control *control, uint16_t type, const struct iovec *body, unsigned count,
                             struct godwit_error *error);
/* Tells the peer why this side gives up (RECORD_ERROR); failure to do so is ignored. */
void control_send_error(struct control *control, const struct godwit_error *why);

/* The progress that the peer's last heartbeat told. Any thread. */
uint64_t control_peer_progress(const struct control *control);

/* Ends the connection: blocked sends return, the reader ends. Any thread, must not be the reader. */
void control_stop(struct control *control);
/* Frees; stops first. NULL allowed. */
void control_free(struct control *control);

#endif
