/*
 * The sending half: N sender threads, one per data channel, that take batches from the engine. Zero detection and
 * whatever else costs time per byte happens in them.
 */
#ifndef MULTIFD_SEND_H
#define MULTIFD_SEND_H

#include <godwit/info.h>

#include "multifd/batch.h"
#include "multifd/placement.h"
#include "multifd/rate.h"
#include "multifd/zero.h"
#include "transport/channel.h"

struct multifd_send;

struct multifd_send_config {
    struct ram *ram;              /* borrowed until free */
    struct channel **channels;    /* the array is copied; the channels are owned from a successful start on */
    unsigned count;               /* 1..GODWIT_CHANNELS_MAX */
    struct migration_rate *rate;  /* borrowed */
    zero_test *zero;              /* NULL: zero pages are not looked for */
    struct placement *placement;  /* borrowed; NULL: puts were not agreed on */
    int progress_ms;              /* a channel that takes nothing for so long has failed */
    /*
     * Sender thread: makes another connection of this channel, which the destination has let in, within a time of its
     * own, and soon after *stop reads true not at all. The sender then ends the old one and goes on with it
     * (docs/protocol.md §6.5). NULL: no channel is ever replaced.
     */
    enum godwit_err (*replace)(void *opaque, unsigned channel, const atomic_bool *stop, struct channel **out,
                               struct godwit_error *error);
    uint64_t lifetime;            /* bytes after which a channel is replaced whatever its own limits allow; 0: none */
    /* Sender thread, at most once per channel: it failed and has ended. Must not call multifd_send_free. */
    void (*failed)(void *opaque, const struct godwit_error *error);
    void *opaque;
};

enum godwit_err multifd_send_start(const struct multifd_send_config *config, struct multifd_send **out,
                                   struct godwit_error *error);

/* Engine thread. An empty batch for this epoch; NULL when all were on their way for timeout_ms, and once stopped. */
struct batch *multifd_send_batch(struct multifd_send *send, uint32_t epoch, int timeout_ms);
/* Engine thread. Hands it to the senders; an empty one is simply taken back. */
void multifd_send_submit(struct multifd_send *send, struct batch *batch);
/* Engine thread. The epoch ends here: every channel carries its marker behind what was submitted before. */
void multifd_send_mark(struct multifd_send *send, uint32_t epoch);

/* Any thread. The last epoch whose marker every channel has sent, or is sending; 0: none. What lies above cannot have
 * arrived. */
uint32_t multifd_send_marked(struct multifd_send *send);

/* Any thread, repeatedly: shuts the channels down and ends the senders. */
void multifd_send_stop(struct multifd_send *send);
/* Stops, joins, frees the channels. NULL allowed. */
void multifd_send_free(struct multifd_send *send);

/* Any thread. Counters of one channel; bytes of all. */
void multifd_send_info(struct multifd_send *send, unsigned channel, struct godwit_channel_info *info);
uint64_t multifd_send_bytes(const struct multifd_send *send);
unsigned multifd_send_channels(const struct multifd_send *send);
/* The name of the channel's connection, cut to fit. */
void multifd_send_name(struct multifd_send *send, unsigned channel, char *name, size_t size);

#endif
