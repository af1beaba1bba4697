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

/* How much a reason tells: that this side closed is what follows from something, that a connection ended may be. */
static inline unsigned reason_weight(enum godwit_err code)
{
    if (code == GODWIT_OK)
        return 0;
    if (code == GODWIT_ERR_CLOSED)
        return 1;
    return reason_is_lost_channel(code) ? 2 : 3;
}

/* Should `now` take the place of `before`? Of two that tell as much the first stands. */
static inline bool reason_is_better(enum godwit_err now, enum godwit_err before)
{
    return reason_weight(now) > reason_weight(before);
}

#endif
