/*
 * Data channels of the source: connecting one with its token, and connecting another in its place when it has carried
 * what it should carry. The first connections are the engine thread's business, all later ones that of the channel's
 * sender, while the other senders go on.
 *
 * Failure modes: an address nobody answers at, a refusal, a timeout: one error that names the channel. The caller fails
 * the migration with it.
 */
#include <string.h>

#include "engine/source.h"
#include "transport/clock.h"
#include "transport/error.h"

static enum godwit_err greet(struct godwit_source *source, const struct token *token, const atomic_bool *cancel,
                             int timeout_ms, struct channel **out, struct godwit_error *error)
{
    struct hello hello = {.version = PROTOCOL_VERSION,
                          .oldest = PROTOCOL_OLDEST,
                          .role = HELLO_DATA,
                          .channel = token->channel,
                          .epoch = token->epoch};
    memcpy(hello.session, source->session, sizeof hello.session);
    memcpy(hello.token, token->bytes, sizeof hello.token);
    struct introduction introduction = {.domain = source->domain};
    token_ticket(token, source->session, introduction.ticket);
    enum godwit_err err = source_connect(source, &hello, introduction.domain != NULL ? &introduction : NULL, timeout_ms,
                                         cancel, out, error);
    if (err != GODWIT_OK)
        return err;
    struct channel *wrapped = sabotage_wrap(source->sabotage, *out, source->ram);
    if (wrapped == NULL) {
        channel_free(*out);
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a data channel");
    }
    *out = wrapped;
    return GODWIT_OK;
}

enum godwit_err source_connect_data(struct godwit_source *source, unsigned index, int timeout_ms, struct channel **out,
                                    struct godwit_error *error)
{
    const struct token *token = &source->acceptance.tokens[index];
    enum godwit_err err = source_check(source, error);
    if (err == GODWIT_OK)
        err = greet(source, token, &source->cancel, timeout_ms, out, error);
    if (err == GODWIT_OK)
        return GODWIT_OK;
    /* A refusal is often the consequence of what the destination says on the control connection. */
    enum godwit_err cause = source_check(source, error);
    return cause != GODWIT_OK ? cause : error_prefix(error, "data channel %u", index);
}

/* Of the acceptance's tokens each is used by the sender of its channel alone from now on. */
enum godwit_err source_replace_data(void *opaque, unsigned index, const atomic_bool *stop, struct channel **out,
                                    struct godwit_error *error)
{
    struct godwit_source *source = opaque;
    struct token *token = &source->acceptance.tokens[index];
    token_next(token, source->session, token);
    enum godwit_err err = greet(source, token, stop, (int)source_option(source, "connect-timeout"), out, error);
    return err == GODWIT_OK ? err : error_prefix(error, "data channel %u: cannot be replaced", index);
}
