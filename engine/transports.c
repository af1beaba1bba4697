/* The only file that names the transports. */
#include "engine/transports.h"

#include <string.h>

#include "tcp/tcp.h"
#include "transport/error.h"

static const struct {
    const char *scheme;
    const struct transport *transport;
} table[] = {
    {"tcp", &tcp_transport},
    {"unix", &unix_transport},
};

enum godwit_err transports_find(const struct address *address, const struct transport **out,
                                struct godwit_error *error)
{
    for (unsigned i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(table[i].scheme, address->scheme) == 0) {
            *out = table[i].transport;
            return GODWIT_OK;
        }
    return error_set(error, GODWIT_ERR_UNSUPPORTED, "this build has no transport called %s; there are tcp and unix",
                     address->scheme);
}
