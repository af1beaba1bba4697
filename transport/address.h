/*
 * Addresses as users write them: "tcp:HOST:PORT" (IPv6 hosts in brackets), "unix:PATH", "rdma:HOST:PORT", and later
 * "file:PATH"; "loop:NAME" inside one process (transport/loop.h). Parsing is pure; names are resolved by the transport
 * that connects.
 */
#ifndef TRANSPORT_ADDRESS_H
#define TRANSPORT_ADDRESS_H

#include <stdint.h>

#include <godwit/error.h>

enum {
    ADDRESS_SCHEME_MAX = 7,
    ADDRESS_HOST_MAX = 255,  /* RFC 1035 */
    ADDRESS_PATH_MAX = 107,  /* sun_path less its NUL; longer paths get an error that says so */
    ADDRESS_TEXT_MAX = 300,  /* any address, formatted */
};

struct address {
    char scheme[ADDRESS_SCHEME_MAX + 1];
    char host[ADDRESS_HOST_MAX +
              1]; /* empty for path schemes; without brackets; "" in tcp::PORT means any, for listening */
    uint16_t port;                   /* 0 when listening: the system chooses */
    char path[ADDRESS_PATH_MAX + 1]; /* or the name of a loop; empty for host schemes */
};

/* Fills *out only on success. Errors name the part that is wrong and show the form expected. */
enum godwit_err address_parse(const char *text, struct address *out, struct godwit_error *error);

/* Writes the canonical text, which address_parse reads back to the same struct. */
void address_format(const struct address *address, char text[ADDRESS_TEXT_MAX]);

#endif
