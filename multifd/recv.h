/* The receiving half: one receiver thread per data channel, reading straight into guest memory. */
#ifndef MULTIFD_RECV_H
#define MULTIFD_RECV_H

#include <godwit/info.h>

#include "multifd/ram.h"
#include "transport/channel.h"

struct multifd_recv;

struct multifd_recv_config {
    struct ram *ram; /* borrowed until free; with received bitmaps */
    unsigned count;  /* channels that will attach */
    bool placed;     /* puts were agreed on: records may say that their content was put before */
    int progress_ms; /* a record that stops half-way for so long has failed, as has a connection that is to follow one */
    /*
     * Receiver thread: a channel's marker, in the order of epochs; everything of the epoch on it is stored. Between
     * records a receiver waits without a deadline of its own: whoever watches the control connection calls
     * multifd_recv_stop.
     */
    void (*marker)(void *opaque, unsigned channel, uint32_t epoch);
    /* Receiver thread, at most once per channel; not after multifd_recv_stop was called. */
    void (*failed)(void *opaque, const struct godwit_error *error);
    void *opaque;
};

/* NULL when memory is out. */
struct multifd_recv *multifd_recv_new(const struct multifd_recv_config *config);

/* May a connection be attached to channel index now? Its first one, or one that will take the place of the one it has
 * and that nobody else is to take; never after multifd_recv_stop. Any thread. */
bool multifd_recv_expects(struct multifd_recv *recv, unsigned index);

/*
 * Gives channel index a connection. The first one starts its thread; another one waits until the source has ended the
 * one before (docs/protocol.md §6.5). PROTOCOL when it was not expected. Any thread, one at a time per index. The
 * channel is owned from here on, also on failure.
 */
enum godwit_err multifd_recv_attach(struct multifd_recv *recv, unsigned index, struct channel *channel,
                                    struct godwit_error *error);

/* Ends and joins all receivers: when it returns nothing is stored any more, and no put that the peer begins then lands,
 * whatever is still registered. The counters stay. Not from a receiver thread; after the first attach of every index
 * that is attached at all. */
void multifd_recv_stop(struct multifd_recv *recv);
void multifd_recv_free(struct multifd_recv *recv); /* stops, and frees the channels; NULL allowed */

/* Any thread. A number that grows while receivers get anything done. */
uint64_t multifd_recv_progress(const struct multifd_recv *recv);

void multifd_recv_info(struct multifd_recv *recv, unsigned channel, struct godwit_channel_info *info);

#endif
