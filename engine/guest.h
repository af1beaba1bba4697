/* The guest's operations with the defaults of <godwit/guest.h> filled in. */
#ifndef ENGINE_GUEST_H
#define ENGINE_GUEST_H

#include <godwit/guest.h>

struct guest {
    /* No slot is NULL but these: dirty_clear (absent: sync re-arms), accept and next_data (call the functions
     * below). */
    struct godwit_guest_ops ops;
    void *self;
    const struct godwit_block *blocks;
    unsigned block_count;
    const char *const *streams;
    unsigned stream_count;
};

/* Checks names, sizes and alignment of what the embedder gave. */
enum godwit_err guest_resolve(const struct godwit_guest *from, struct guest *out, struct godwit_error *error);

/*
 * What an operation returned, with context before its text. An embedder may leave the error untouched: then the code
 * speaks. A failure stays a failure whatever *error holds. Every call of an operation that can fail goes through here.
 */
enum godwit_err guest_checked(enum godwit_err err, struct godwit_error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum godwit_err guest_accept(const struct guest *guest, const struct godwit_block *offered, unsigned count,
                             struct godwit_block *mine, struct godwit_error *error);
enum godwit_err guest_next_data(const struct guest *guest, unsigned block, uint64_t from, uint64_t *first,
                                uint64_t *pages, struct godwit_error *error);

#endif
