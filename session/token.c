/* Tokens are compared in constant time, since whoever can time our answers could else guess one byte by byte. */
#include "session/token.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "transport/error.h"

enum godwit_err token_random(void *bytes, size_t size, struct godwit_error *error)
{
    /* Up to 256 bytes getrandom is never partial (getrandom(2)). */
    if (size > 256 || getrandom(bytes, size, 0) != (ssize_t)size)
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot get %zu random bytes", size);
    return GODWIT_OK;
}

enum godwit_err token_issue(struct token *token, enum hello_role role, uint16_t channel, uint32_t epoch,
                            struct godwit_error *error)
{
    *token = (struct token){.role = role, .channel = channel, .epoch = epoch, .state = TOKEN_ISSUED};
    return token_random(token->bytes, sizeof token->bytes, error);
}

static bool bytes_equal(const uint8_t *a, const uint8_t *b, size_t size)
{
    uint8_t difference = 0;
    for (size_t i = 0; i < size; i++)
        difference |= (uint8_t)(a[i] ^ b[i]);
    return difference == 0;
}

enum godwit_err token_reserve(struct token *tokens, unsigned count, const struct hello *hello, struct token **out,
                              struct godwit_error *error)
{
    for (unsigned i = 0; i < count; i++) {
        struct token *token = &tokens[i];
        if (token->role != hello->role || token->channel != hello->channel || token->epoch != hello->epoch)
            continue;
        if (!bytes_equal(token->bytes, hello->token, TOKEN_SIZE))
            return error_set(error, GODWIT_ERR_NOT_ADMITTED, "wrong token for channel %u", hello->channel);
        if (token->state != TOKEN_ISSUED)
            return error_set(error, GODWIT_ERR_NOT_ADMITTED, "the token of channel %u was used before", hello->channel);
        token->state = TOKEN_RESERVED;
        *out = token;
        return GODWIT_OK;
    }
    return error_set(error, GODWIT_ERR_NOT_ADMITTED, "no such channel in this migration: %u, epoch %u", hello->channel,
                     hello->epoch);
}
