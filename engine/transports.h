/* Which transport serves which scheme. */
#ifndef ENGINE_TRANSPORTS_H
#define ENGINE_TRANSPORTS_H

#include "transport/channel.h"

/* UNSUPPORTED names the schemes there are. */
enum godwit_err transports_find(const struct address *address, const struct transport **out,
                                struct godwit_error *error);

#endif
