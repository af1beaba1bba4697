/*
 * Damage on purpose: five ways in which a migration could go wrong without any error, so that it can be shown, and is
 * tested, that verification finds each of them. They act where the real fault would: at the dirty log and the device
 * state of the guest, and at the records on a data channel.
 */
#ifndef ENGINE_SABOTAGE_H
#define ENGINE_SABOTAGE_H

#include "engine/guest.h"
#include "multifd/ram.h"
#include "transport/channel.h"

enum sabotage_kind {
    SABOTAGE_NONE,
    SABOTAGE_DROP_DIRTY_BIT,   /* one page's writes are not reported */
    SABOTAGE_SWAP_PAGES,       /* neighbours arrive in each other's place */
    SABOTAGE_STALE_PAGE,       /* a page is sent again with its old content */
    SABOTAGE_LOSE_EXTENT,      /* an extent of a record is left out */
    SABOTAGE_OLD_DEVICE_STATE, /* device state of the beginning instead of the end */
    SABOTAGE_KINDS,
};

/* Names for the option table, NULL terminated. */
extern const char *const sabotage_names[SABOTAGE_KINDS + 1];

struct sabotage;

/* For the faults of the guest, replaces what *guest does by a damaged form; for SABOTAGE_NONE *out is NULL. */
enum godwit_err sabotage_new(enum sabotage_kind kind, struct guest *guest, struct sabotage **out,
                             struct godwit_error *error);
/* For the faults of the line: wraps a data channel that carries pages of ram; NULL when memory is out (the channel
 * is the caller's still). With fault NULL, or another kind of fault, the channel itself. */
struct channel *sabotage_wrap(struct sabotage *sabotage, struct channel *channel, const struct ram *ram);
void sabotage_free(struct sabotage *sabotage); /* NULL allowed; after the channels */

#endif
