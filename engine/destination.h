/*
 * Private side of the destination. The caller's thread of godwit_destination_serve() walks one session from its OFFER
 * to its end; the door threads of the admission, the control thread and the receivers report to it under the lock.
 * Files: destination.c the public calls and the walk, destination_setup.c up to ACCEPT, destination_register.c
 * registered memory, destination_door.c who is let in and what past sessions came to, destination_records.c what
 * arrives.
 */
#ifndef ENGINE_DESTINATION_H
#define ENGINE_DESTINATION_H

#include <pthread.h>
#include <stdatomic.h>

#include <godwit/migration.h>

#include "engine/guest.h"
#include "engine/options.h"
#include "engine/state.h"
#include "engine/transports.h"
#include "multifd/ram.h"
#include "multifd/recv.h"
#include "multifd/registrar.h"
#include "session/admission.h"
#include "session/control.h"
#include "session/negotiate.h"

enum { DESTINATION_TICK_MS = 100, DESTINATION_PAST = 16 };

/*
 * What becomes of a session, and with it of the guest. UNDECIDED -> RUN_TAKEN -> RUNNING, or -> NEVER from either of
 * the first two; a decision is final, and is what a source that asks is told (docs/protocol.md §8).
 */
enum fate { FATE_UNDECIDED, FATE_RUN_TAKEN, FATE_RUNNING, FATE_NEVER };

/* A session that was accepted, remembered after its end for a source that lost the connection. */
struct past {
    uint8_t session[SESSION_ID_SIZE];
    uint8_t token[TOKEN_SIZE]; /* of the right to ask */
    enum fate fate;
};

struct session {
    struct godwit_destination *destination;
    uint8_t id[SESSION_ID_SIZE];
    struct past *past; /* NULL before it is accepted */

    /* serving thread only */
    struct control *control;
    char local_host[ADDRESS_HOST_MAX + 1]; /* where the source reached us; "" on transports without hosts */
    bool accepted_memory; /* the guest has to be told if it comes to nothing */
    uint64_t start_ms;

    /* under the destination's lock */
    struct channel *channel; /* control connection, from attach until the control takes it */
    struct offer offer;
    bool offered, committed, loaded, bye;
    uint32_t commit_epoch, commit_streams;
    struct state_set states;
    struct ram *ram;
    struct domain *domain;       /* NULL for stream transports; as registrar */
    struct registrar *registrar;
    struct multifd_recv *recv;   /* from the decision to accept on */
    struct acceptance acceptance; /* and its tokens */
    unsigned attached; /* channels that have had their first connection */
    struct godwit_error failure; /* the first; code 0: none */
    uint64_t closing_ms;         /* since when channels and registrar are being ended; 0: they are not */

    /* under ack_lock; receivers */
    pthread_mutex_t ack_lock;
    uint32_t marks[NEGOTIATE_CHANNELS_MAX]; /* last epoch marked on each channel */
    uint32_t acked;
};

struct godwit_destination {
    /* constant after listen */
    godwit_event_fn *on_event;
    void *opaque;
    struct guest guest;
    struct transports transports;
    const struct transport *control_override, *data_override; /* tests only */
    struct admission *admission;
    struct admission *data_admission; /* where data channels come to a listener of their own; else NULL */

    atomic_bool cancel;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* under lock */
    struct godwit_options *options;
    enum godwit_status status;
    struct godwit_info info;
    bool waiting; /* serve() is there for a new session */
    struct session *session; /* the one in progress */
    struct past past[DESTINATION_PAST]; /* ring */
    unsigned past_count;
    const struct past *last; /* the youngest of them */
    bool owes_answer; /* its source was told LOADED, and may have sent RUN */
    bool goodbye; /* its source needs no more answers */
    unsigned turned_away;     /* connections without common keys since the last warning about one */
    uint64_t turned_away_ms;  /* when that was */
};

/* ---- destination.c ---- */

void destination_warn(struct godwit_destination *destination, const char *text);
uint64_t destination_option(struct godwit_destination *destination, const char *name);
void session_fail(struct session *session, const struct godwit_error *error);
/* Has it failed or been cancelled? Serving thread. */
enum godwit_err session_check(struct session *session, struct godwit_error *error);

/* ---- destination_setup.c; serving thread ---- */

enum godwit_err session_start_control(struct session *session, struct godwit_error *error);
/* Answers the OFFER that has come with ACCEPT and keys; from here on data channels may attach. */
enum godwit_err session_answer_offer(struct session *session, struct godwit_error *error);

/* ---- destination_register.c ---- */

/* Serving thread, before ACCEPT: makes the domain, and starts who registers what the source asks for. Nothing to do for
 * stream transports. */
enum godwit_err session_register(struct session *session, struct godwit_error *error);
/* Control thread, under the destination's lock: REGISTER. */
enum godwit_err session_take_register(struct session *session, const uint8_t *body, uint32_t size,
                                      struct godwit_error *error);

/* ---- destination_door.c ---- */

struct session *session_new(struct godwit_destination *destination, const uint8_t id[SESSION_ID_SIZE]);
void session_free(struct session *session);
/* Admission's callbacks; opaque is the destination. */
void door_turned_away(void *opaque, const char *name, const struct godwit_error *error);
enum godwit_err door_reserve(void *opaque, const struct hello *hello, struct godwit_error *error);
/* Of the data listener. */
enum godwit_err door_check_ticket(void *opaque, const uint8_t ticket[TICKET_SIZE], struct domain **domain,
                                  struct godwit_error *error);
void door_attach(void *opaque, const struct hello *hello, struct channel *channel);
void door_release(void *opaque, const struct hello *hello);
/* Under the lock: remembers the session, undecided, with the right to ask by this token. */
void past_add(struct godwit_destination *destination, struct session *session, const struct token *token);

/* ---- destination_records.c; opaque is the session ---- */

enum godwit_err records_take(void *opaque, const struct record_header *header, const uint8_t *body,
                             struct godwit_error *error);
void records_ended(void *opaque, const struct godwit_error *error);
enum godwit_err records_check(void *opaque, struct godwit_error *error);
uint64_t records_progress(void *opaque);
void records_marker(void *opaque, unsigned channel, uint32_t epoch);
void records_receiver_failed(void *opaque, const struct godwit_error *error);

/* Tests only: use these whatever the scheme. Before listen. */
void destination_use_transport(struct godwit_destination *destination, const struct transport *control,
                               const struct transport *data);

#endif
