/* keys.psk. What is accepted has every user whom a line names. */
#include <string.h>

#include "tcp/tls_psk.h"
#include "tests/fuzz/fuzz.h"

/* line has no end of line. */
static void check_line(const struct tls_psk *psk, const uint8_t *line, size_t size)
{
    const uint8_t *colon = memchr(line, ':', size);
    if (colon == NULL || line[0] == '#')
        return;
    const struct tls_psk_user *user = tls_psk_find(psk, line, (size_t)(colon - line));
    fuzz_require(user != NULL, "a user with a line is found");
    fuzz_require(user->key_size >= TLS_PSK_KEY_MIN && user->key_size <= TLS_PSK_KEY_MAX, "a key is within its bounds");
    for (size_t i = 0; i < user->key_size; i++) {
        char digits[3];
        snprintf(digits, sizeof digits, "%.2s", (const char *)colon + 1 + 2 * i);
        fuzz_require(strtoul(digits, NULL, 16) == user->key[i], "a key is what the line says");
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tls_psk *psk;
    struct godwit_error error = {0};
    if (tls_psk_parse("keys.psk", data, size, &psk, &error) != GODWIT_OK) {
        fuzz_require(error.text[0] != 0, "a refusal has words");
        return 0;
    }
    for (const uint8_t *at = data, *end = data + size, *stop; at < end; at = stop + 1) {
        stop = memchr(at, '\n', (size_t)(end - at));
        stop = stop != NULL ? stop : end;
        check_line(psk, at, (size_t)(stop - at));
    }
    tls_psk_free(psk);
    return 0;
}
