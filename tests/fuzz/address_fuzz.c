/* Addresses, as users write them. */
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "transport/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    fuzz_require(text != NULL, "no memory");
    memcpy(text, data, size);
    text[size] = 0;
    struct address address = {0}, again = {0};
    struct godwit_error error;
    if (address_parse(text, &address, &error) == GODWIT_OK) {
        char canonical[ADDRESS_TEXT_MAX];
        address_format(&address, canonical);
        fuzz_require(address_parse(canonical, &again, &error) == GODWIT_OK, "the canonical text is an address");
        fuzz_require(strcmp(address.scheme, again.scheme) == 0 && strcmp(address.host, again.host) == 0 &&
                         strcmp(address.path, again.path) == 0 && address.port == again.port,
                     "the canonical text is the same address");
    }
    free(text);
    return 0;
}
