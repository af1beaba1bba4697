/* Stream transports: "tcp:HOST:PORT" over IPv4 and IPv6, and "unix:PATH". Two-sided only. */
#ifndef TCP_TCP_H
#define TCP_TCP_H

#include "transport/channel.h"

extern const struct transport tcp_transport;
extern const struct transport unix_transport;

#endif
