/* The private data of a reject: words that go to the user's terminal. */
#include <string.h>

#include "rdma/cm.h"
#include "tests/fuzz/fuzz.h"

static void check_words(const char *text)
{
    fuzz_require(text[0] != 0 && memchr(text, 0, TICKET_TEXT_MAX + 1) != NULL, "there are words, and they end");
    for (; *text != 0; text++)
        fuzz_require((unsigned char)*text >= ' ' && *text != 127, "no control character gets to the terminal");
}

static void decode(const uint8_t *data, size_t size)
{
    struct cm_refusal refusal, same;
    uint8_t again[CM_REFUSAL_SIZE];
    memset(&refusal, 0xff, sizeof refusal);
    if (!cm_refusal_decode(data, size, &refusal))
        return;
    check_words(refusal.text);
    fuzz_require(refusal.code == GODWIT_ERR_BUSY || refusal.code == GODWIT_ERR_NOT_ADMITTED, "one of two codes");
    cm_refusal_encode(&refusal, again);
    fuzz_require(cm_refusal_decode(again, sizeof again, &same) && same.code == refusal.code &&
                     strcmp(same.text, refusal.text) == 0, "what was understood can be said again");
}

/* As it is, and with a magic and a size of the text that let the rest be looked at. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { HEAD = 7 };
    uint8_t bytes[2 * CM_REFUSAL_SIZE];
    fuzz_require(!cm_refusal_decode(NULL, size, &(struct cm_refusal){0}), "no private data is no refusal");
    decode(data, size);
    if (size < HEAD || size > sizeof bytes)
        return 0;
    memcpy(bytes, data, size);
    memcpy(bytes, "GWRD", 4);
    if (bytes[6] > size - HEAD)
        bytes[6] = (uint8_t)(size - HEAD);
    decode(bytes, size);
    return 0;
}
