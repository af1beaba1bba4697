/* The private data of a request for a queue pair. */
#include <string.h>

#include "rdma/cm.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t ticket[TICKET_SIZE], again[CM_REQUEST_SIZE];
    fuzz_require(!cm_request_decode(NULL, size, ticket), "no private data is no request");
    if (!cm_request_decode(data, size, ticket))
        return 0;
    cm_request_encode(ticket, again);
    fuzz_require(size >= sizeof again && memcmp(data, again, sizeof again) == 0,
                 "a request that is accepted has one form");
    return 0;
}
