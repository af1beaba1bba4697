/*
 * Admission: the listening side's doorman, for the whole life of a destination. Takes every connection, gives each a
 * short time to say a proper hello, asks its owner whether to let it in, answers, and hands the channel over. Silence,
 * garbage and floods cost one short-lived thread and never hold up anybody else: when all places at the door are taken,
 * the connection that has stood there longest is thrown out.
 */
#ifndef SESSION_ADMISSION_H
#define SESSION_ADMISSION_H

#include "session/hello.h"

enum { ADMISSION_PLACES = 340 }; /* connections at the door at once: all channels of a migration and slack */

struct admission;

struct admission_config {
    struct listener *listener; /* owned by the admission from a successful start on */
    int handshake_ms;          /* from accept to the end of the hello, TLS's handshake before it included */
    unsigned roles;            /* bits 1 << enum hello_role of those who come in here; 0: whoever reserve admits */
    /* Door thread: a connection came to nothing before its hello was read, and an operator can do something about it:
     * the two sides agreed on no keys, one of them alone has TLS, or they have no version in common. */
    void (*turned_away)(void *opaque, const char *name, const struct godwit_error *error);
    /* Door thread. May this connection come in? OK reserves what it asks for; else error is sent as the answer. */
    enum godwit_err (*reserve)(void *opaque, const struct hello *hello, struct godwit_error *error);
    /* Door thread, after a successful reserve and answer: takes the channel over. */
    void (*attach)(void *opaque, const struct hello *hello, struct channel *channel);
    /* Door thread, after a successful reserve when the answer could not be sent: as if it had never come. */
    void (*release)(void *opaque, const struct hello *hello);
    void *opaque;
};

/* On failure the listener is still the caller's. */
enum godwit_err admission_start(const struct admission_config *config, struct admission **out,
                                struct godwit_error *error);
/* Stops listening and frees; no callback runs after it returns. NULL allowed. */
void admission_free(struct admission *admission);

/* The listen backlog for a migration of this many data channels: pure. 0 channels: not known yet, the most there can
 * be. */
unsigned admission_backlog(unsigned channels);

#endif
