/*
 * Errors. Every fallible call returns an enum godwit_err, 0 for success; control calls also fill the caller's
 * struct godwit_error with a sentence that names the cause. The library never prints and never exits.
 */
#ifndef GODWIT_ERROR_H
#define GODWIT_ERROR_H

#include <godwit/api.h>

GODWIT_BEGIN

/* Banded by the largest thing that is lost. Values are pinned: they also travel on the wire (docs/protocol.md). */
enum godwit_err {
    GODWIT_OK = 0,

    /* 1-99: this request; the object it was made on is as before. */
    GODWIT_ERR_INVALID = 1,     /* an argument or option has no meaning here */
    GODWIT_ERR_UNSUPPORTED = 2, /* this build, kernel or transport cannot do it */
    GODWIT_ERR_TOO_BIG = 3,     /* larger than a stated maximum */
    GODWIT_ERR_TIMEOUT = 4,     /* the deadline passed and nothing was consumed */
    GODWIT_ERR_CANCELLED = 5,   /* somebody asked for the end */
    GODWIT_ERR_NO_MEMORY = 6,   /* memory could not be had */
    GODWIT_ERR_BUSY = 7,        /* in use: address, session, object */
    GODWIT_ERR_SYSTEM = 8,      /* a system call failed, see sys_errno */

    /* 100-199: this channel; it can only be freed. */
    GODWIT_ERR_CLOSED = 100,      /* shut down from this side */
    GODWIT_ERR_PEER_CLOSED = 101, /* the peer closed it */
    GODWIT_ERR_RESET = 102,       /* the connection broke */
    GODWIT_ERR_REFUSED = 103,     /* nothing listens there */
    GODWIT_ERR_UNREACHABLE = 104, /* no route, or no answer in time */
    GODWIT_ERR_STALLED = 105,     /* a message stopped half-way for longer than allowed */
    GODWIT_ERR_PROTOCOL = 106,    /* the peer broke the protocol */
    GODWIT_ERR_NOT_ADMITTED = 107, /* the peer speaks the protocol and refuses this connection */

    /* 200-299: this migration; before RUN the guest stays with the source. */
    GODWIT_ERR_MISMATCH = 200,           /* the two sides do not agree on version, channels, memory or parameters */
    GODWIT_ERR_PEER_FAILED = 201,        /* the peer reported an error of its own */
    GODWIT_ERR_PEER_DEAD = 202,          /* no heartbeat within peer-timeout */
    GODWIT_ERR_GUEST = 203,              /* a guest operation failed */
    GODWIT_ERR_SWITCHOVER_TIMEOUT = 204, /* the stop phase outlived switchover-timeout */
    GODWIT_ERR_OUTCOME_UNKNOWN = 205,    /* RUN was sent and nobody answers: see godwit_source_outcome() */
    GODWIT_ERR_NOT_RESUMED = 206, /* the guest is stopped here, resuming it failed: see godwit_source_resume() */
};

enum { GODWIT_ERROR_TEXT = 512 };

struct godwit_error {
    enum godwit_err code;
    int sys_errno; /* 0 where no system call is to blame */
    char text[GODWIT_ERROR_TEXT]; /* one line, cause first, never empty after a failure */
};

/* A few words for a code, static storage; "unknown error" for a value not listed above. */
GODWIT_API const char *godwit_err_text(enum godwit_err code);

GODWIT_END

#endif
