/*
 * One data channel of the source: connecting it with its token, and connecting another in its place when it has carried
 * what it should carry. The first connections are made several at a time (source_channels.c), all later ones by the
 * channel's sender, while the other senders go on.
 *
 * Failure modes: an address nobody answers at, a refusal, a timeout: one error that names the channel. The caller fails
 * the migration with it.
 */
#include <string.h>

#include "engine/source.h"
#include "transport/error.h"

enum godwit_err source_connect_data(struct godwit_source *source, const struct token *token, int timeout_ms,
                                    const atomic_bool *stop, struct channel **out, struct godwit_error *error)
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
                                         stop, out, error);
    if (err != GODWIT_OK)
        return err;
    struct channel *wrapped = sabotage_wrap(source->sabotage, *out, source->ram);
    if (wrapped == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a data channel");
    *out = wrapped;
    return GODWIT_OK;
}

/* Of the acceptance's tokens each is used by the sender of its channel alone from now on. */
enum godwit_err source_replace_data(void *opaque, unsigned index, const atomic_bool *stop, struct channel **out,
                                    struct godwit_error *error)
{
    struct godwit_source *source = opaque;
    struct token *token = &source->acceptance.tokens[index];
    token_next(token, source->session, token);
    enum godwit_err err = source_connect_data(source, token, (int)source_option(source, "connect-timeout"), stop, out,
                                              error);
    if (err == GODWIT_OK)
        return err;
    channel_free(*out);
    return error_prefix(error, "data channel %u: cannot be replaced", index);
}
