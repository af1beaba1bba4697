/* Which of several reasons for a failure the user is told. */
#ifndef ENGINE_REASON_H
#define ENGINE_REASON_H

#include <stdbool.h>

#include <godwit/error.h>

enum { REASON_WAIT_MS = 300 /* for a better reason than a lost connection */ };

/* Says that a connection ended, not why: often the consequence of what the peer says on another one. */
static inline bool reason_is_lost_channel(enum godwit_err code)
{
    return code == GODWIT_ERR_CLOSED || code == GODWIT_ERR_PEER_CLOSED || code == GODWIT_ERR_RESET ||
           code == GODWIT_ERR_NOT_ADMITTED;
}

/* Should `now` take the place of `before`? The first reason stands, unless it was a lost connection. */
static inline bool reason_is_better(enum godwit_err now, enum godwit_err before)
{
    return before == GODWIT_OK || (reason_is_lost_channel(before) && now != GODWIT_OK && !reason_is_lost_channel(now));
}

#endif
