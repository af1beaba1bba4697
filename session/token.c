/* Tokens are compared in constant time, since whoever can time our answers could else guess one byte by byte. */
#include "session/token.h"

#include <errno.h>
#include <nettle/hmac.h>
#include <nettle/memops.h>
#include <string.h>
#include <sys/random.h>

#include "transport/error.h"
#include "transport/wire.h"

_Static_assert((int)TOKEN_SIZE == (int)SHA256_DIGEST_SIZE, "a token can be made of another");
_Static_assert((int)TICKET_SIZE == (int)SESSION_ID_SIZE + SHA256_DIGEST_SIZE, "a ticket is all used");

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

enum godwit_err token_reserve(struct token *tokens, unsigned count, const struct hello *hello, struct token **out,
                              struct godwit_error *error)
{
    for (unsigned i = 0; i < count; i++) {
        struct token *token = &tokens[i];
        if (token->role != hello->role || token->channel != hello->channel || hello->epoch > token->epoch)
            continue;
        if (hello->epoch < token->epoch) /* one that this was made of */
            return error_set(error, GODWIT_ERR_NOT_ADMITTED, "the token of channel %u was used before", hello->channel);
        if (!memeql_sec(token->bytes, hello->token, TOKEN_SIZE))
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

/* What is made of a token is told apart by its purpose, zero byte included. */
static void prove(const struct token *token, const char *purpose, const uint8_t session[SESSION_ID_SIZE],
                  uint32_t epoch, uint8_t proof[SHA256_DIGEST_SIZE])
{
    uint8_t role[8];
    struct wire_out out = wire_out(role, sizeof role);
    wire_put_u8(&out, (uint8_t)token->role);
    wire_put_zeros(&out, 1);
    wire_put_u16(&out, token->channel);
    wire_put_u32(&out, epoch);

    struct hmac_sha256_ctx hmac;
    hmac_sha256_set_key(&hmac, TOKEN_SIZE, token->bytes);
    hmac_sha256_update(&hmac, strlen(purpose) + 1, (const uint8_t *)purpose);
    hmac_sha256_update(&hmac, SESSION_ID_SIZE, session);
    hmac_sha256_update(&hmac, sizeof role, role);
    hmac_sha256_digest(&hmac, SHA256_DIGEST_SIZE, proof);
}

void token_ticket(const struct token *token, const uint8_t session[SESSION_ID_SIZE], uint8_t ticket[TICKET_SIZE])
{
    memcpy(ticket, session, SESSION_ID_SIZE);
    prove(token, "godwit ticket", session, token->epoch, ticket + SESSION_ID_SIZE);
}

void token_next(const struct token *token, const uint8_t session[SESSION_ID_SIZE], struct token *next)
{
    struct token made = {
        .role = token->role, .channel = token->channel, .epoch = token->epoch + 1, .state = TOKEN_ISSUED};
    prove(token, "godwit next token", session, made.epoch, made.bytes);
    *next = made;
}

enum godwit_err token_show(struct token *tokens, unsigned count, const uint8_t session[SESSION_ID_SIZE],
                           const uint8_t ticket[TICKET_SIZE], struct godwit_error *error)
{
    struct token *found = NULL;
    for (unsigned i = 0; i < count; i++) { /* all of them: how far it gets tells nothing */
        uint8_t expected[TICKET_SIZE];
        token_ticket(&tokens[i], session, expected);
        if (memeql_sec(expected, ticket, TICKET_SIZE))
            found = &tokens[i];
    }
    if (found == NULL)
        return error_set(error, GODWIT_ERR_NOT_ADMITTED, "wrong ticket");
    if (found->shown || found->state != TOKEN_ISSUED)
        return error_set(error, GODWIT_ERR_NOT_ADMITTED, "the ticket of channel %u was used before", found->channel);
    found->shown = true;
    return GODWIT_OK;
}
