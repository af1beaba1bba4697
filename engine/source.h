/*
 * Private side of the source. One thread, the caller's of godwit_source_migrate(), walks from setup to the end; the
 * control thread and the senders only report to it, under the lock. Files: source.c the public calls and the walk as a
 * whole, source_setup.c up to the first page, source_channel.c one data channel, source_channels.c all of them at once,
 * source_register.c registered memory, source_pass.c passes and epochs, source_switch.c the stop phase and the outcome.
 */
#ifndef ENGINE_SOURCE_H
#define ENGINE_SOURCE_H

#include <pthread.h>
#include <stdatomic.h>

#include <godwit/migration.h>

#include "engine/dirty.h"
#include "engine/guest.h"
#include "engine/ledger.h"
#include "engine/options.h"
#include "engine/sabotage.h"
#include "engine/state.h"
#include "engine/switchover.h"
#include "engine/transports.h"
#include "multifd/placement.h"
#include "multifd/registrar.h"
#include "multifd/send.h"
#include "session/control.h"
#include "session/negotiate.h"

enum { SOURCE_TICK_MS = 100 /* how soon a wait notices a cancel */ };

struct source_state_stream {
    struct godwit_state_writer data; /* collected, not sent yet */
};

struct godwit_source {
    /* constant after new */
    godwit_event_fn *on_event;
    void *opaque;
    struct guest given; /* the embedder's guest */
    const struct transport *control_override, *data_override; /* tests only */

    atomic_bool cancel;

    /* engine thread only */
    struct guest guest; /* given, or its damaged form */
    struct sabotage *sabotage;
    struct transports transports;
    struct control *control;
    struct source_state_stream *streams;
    struct offer offer;
    struct channel *channels[NEGOTIATE_CHANNELS_MAX]; /* until there are senders; NULL: not connected (yet) */
    unsigned channel_count;
    uint8_t session[SESSION_ID_SIZE];
    bool tracking; /* dirty_start succeeded */
    uint64_t sync_ns, synced_ns; /* what the last dirty log sync took, and when it ended */
    uint64_t start_ms;
    uint64_t moved_bytes, moved_ms; /* watch for progress */
    uint64_t window_bytes, window_pages, window_ms; /* watch for mbps */
    struct token outcome_token;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* something below was changed by the control thread or a sender */
    /* under lock */
    struct godwit_options *options;
    enum godwit_status status;
    struct godwit_error failure; /* the first; code 0: none */
    struct acceptance acceptance; /* each data channel's token: of its sender, once there are senders */
    bool accepted, committed, loaded;
    bool run_written; /* RUN may have reached the destination; set by the engine thread */
    bool running;
    bool migrating;        /* a migrate is running */
    uint64_t stop_ms;
    bool stopped, released; /* what the guest has to be brought back from; outlives a migration that could not do it */
    enum godwit_outcome outcome;
    struct ledger ledger;
    struct domain *domain; /* NULL for stream transports; as placement and registrar */
    struct ram *ram;       /* domain, ram and placement: pointers under lock for keys that arrive */
    struct placement *placement;
    struct registrar *registrar; /* pointer under lock for query() */
    struct dirty *dirty;       /* pointer under lock for mark(); content by the engine thread */
    struct multifd_send *send; /* pointer under lock for query() */
    struct migration_rate *rate; /* pointer under lock for set() */
    struct godwit_info info;   /* all but what is counted by the channels */
};

/* ---- source.c: what the other files share ---- */

/* Notes the first failure and wakes the engine thread. Any thread. */
void source_fail(struct godwit_source *source, const struct godwit_error *error);
/* Has it failed, been cancelled, or come to a halt? Called by the engine thread in every wait and between batches;
 * fills error with the reason. After RUN was written a cancel is no longer a reason. */
enum godwit_err source_check(struct godwit_source *source, struct godwit_error *error);
/* Waits under the lock for a change, at most one tick. */
/* The part that looks at flags and clocks only; under the lock, any thread. */
enum godwit_err source_check_locked(struct godwit_source *source, struct godwit_error *error);
void source_wait_tick(struct godwit_source *source);
uint64_t source_option(struct godwit_source *source, const char *name);
void source_set_status(struct godwit_source *source, enum godwit_status status);
void source_emit(struct godwit_source *source, enum godwit_event_kind kind, uint64_t value, const char *text);

/* ---- source_setup.c ---- */

/* Finds the transports of uri. */
enum godwit_err source_address(struct godwit_source *source, const char *uri, struct godwit_error *error);
/* Connects and greets: a data channel with an introduction, a control connection without. Any thread; CANCELLED soon
 * after *cancel reads true. *out is the caller's to free in any case: where greeting failed, a channel that the peer
 * may have let in already; where connecting did, NULL. */
enum godwit_err source_connect(struct godwit_source *source, const struct hello *hello,
                               const struct introduction *introduction, int timeout_ms, const atomic_bool *cancel,
                               struct channel **out, struct godwit_error *error);
/* From nothing to running senders and an armed dirty log. */
enum godwit_err source_setup(struct godwit_source *source, struct godwit_error *error);

/* ---- source_channel.c ---- */

/* Any thread: the connection of a data channel that this token opens; *out as of source_connect(). */
enum godwit_err source_connect_data(struct godwit_source *source, const struct token *token, int timeout_ms,
                                    const atomic_bool *stop, struct channel **out, struct godwit_error *error);
/* The channel's sender thread: the next one, as multifd_send_config asks for it. opaque is the source. */
enum godwit_err source_replace_data(void *opaque, unsigned index, const atomic_bool *stop, struct channel **out,
                                    struct godwit_error *error);

/* ---- source_channels.c ---- */

/* After ACCEPT: connects and greets all data channels, several at a time. On failure those that are connected stay
 * in source->channels until the cleanup: the destination is told why before it sees them close. */
enum godwit_err source_connect_channels(struct godwit_source *source, struct godwit_error *error);

/* ---- source_register.c ---- */

/* Before the dirty log is armed: makes the domain, and registers what has to be registered by then. Nothing to do for
 * stream transports. */
enum godwit_err source_register_early(struct godwit_source *source, struct godwit_error *error);
/* Once the pages that hold something are known: cuts the memory, and registers those slices. With
 * rdma-pin-all waits for all slices, and then reads the dirty log; else does not wait. */
enum godwit_err source_register(struct godwit_source *source, struct godwit_error *error);
/* After the dirty log was read again: registers the slices that hold something by now. Does not wait. */
void source_register_found(struct godwit_source *source);
/* After ACCEPT: tells the destination of slices that are registered here and hold something dirty. */
enum godwit_err source_announce_slices(struct godwit_source *source, struct godwit_error *error);
/* Control thread, under the lock. */
enum godwit_err source_take_key(struct godwit_source *source, const uint8_t *body, uint32_t size,
                                struct godwit_error *error);

/* ---- source_pass.c ---- */

/* Live passes until it is time to stop the guest. */
enum godwit_err source_iterate(struct godwit_source *source, struct godwit_error *error);
/* Guest stopped: the last dirty log, all that is left, everything acknowledged. */
enum godwit_err source_finish_ram(struct godwit_source *source, struct godwit_error *error);

/* ---- source_switch.c ---- */

/* The first, empty record of a stream. */
enum godwit_err source_begin_state(struct godwit_source *source, unsigned stream, struct godwit_error *error);
/* Sends what stream's writer holds, and its end if it is the last. */
enum godwit_err source_send_state(struct godwit_source *source, unsigned stream, bool last, struct godwit_error *error);
/* Stop, rest, device state, LOADED, RUN, RUNNING. */
enum godwit_err source_switch(struct godwit_source *source, struct godwit_error *error);
/* One question to the destination, by a new connection. */
enum godwit_outcome source_ask_outcome(struct godwit_source *source, int timeout_ms, struct godwit_error *error);
/* Brings the guest back to running here, from whatever was done to it. */
enum godwit_err source_revive(struct godwit_source *source, struct godwit_error *error);

/* Tests only: use these whatever the scheme. */
void source_use_transport(struct godwit_source *source, const struct transport *control, const struct transport *data);

#endif
