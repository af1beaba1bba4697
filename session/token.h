/*
 * One-time tokens: the right to attach one channel once. Issued on the control channel, reserved when a hello shows
 * one, consumed when that connection is admitted, given back if it breaks in between (so that the peer may try again).
 * Those of a channel's later connections are made of the first, one of the other.
 */
#ifndef SESSION_TOKEN_H
#define SESSION_TOKEN_H

#include <stdbool.h>

#include "session/hello.h"

enum token_state { TOKEN_ISSUED, TOKEN_RESERVED, TOKEN_CONSUMED };

struct token {
    enum hello_role role;
    uint16_t channel;
    uint32_t epoch;
    uint8_t bytes[TOKEN_SIZE];
    enum token_state state;
    bool shown; /* its ticket has opened a connection */
};

/* Fresh random bytes from the system; SYSTEM when it has none to give. */
enum godwit_err token_random(void *bytes, size_t size, struct godwit_error *error);

enum godwit_err token_issue(struct token *token, enum hello_role role, uint16_t channel, uint32_t epoch,
                            struct godwit_error *error);
/* Finds the token that matches the hello and reserves it; the error names what is wrong without giving anything
 * away. */
enum godwit_err token_reserve(struct token *tokens, unsigned count, const struct hello *hello, struct token **out,
                              struct godwit_error *error);

/*
 * The ticket of a token: what a connection shows before it exists (docs/protocol.md §3.5). It travels in the clear, so
 * it proves the token without telling it: the session's id, and HMAC-SHA256 under the token.
 */
void token_ticket(const struct token *token, const uint8_t session[SESSION_ID_SIZE], uint8_t ticket[TICKET_SIZE]);
/* Finds the issued token whose ticket this is, and marks it as shown: a ticket opens one connection. */
enum godwit_err token_show(struct token *tokens, unsigned count, const uint8_t session[SESSION_ID_SIZE],
                           const uint8_t ticket[TICKET_SIZE], struct godwit_error *error);

/*
 * The token of the channel's next connection, epoch + 1, made of this one: both sides have it without a word about it
 * (docs/protocol.md §3.6). Each of the chain is used once, like those that were issued. next may be token.
 */
void token_next(const struct token *token, const uint8_t session[SESSION_ID_SIZE], struct token *next);

#endif
