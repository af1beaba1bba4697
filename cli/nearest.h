/* Did you mean? The known name that is closest to a mistyped one. */
#ifndef CLI_NEAREST_H
#define CLI_NEAREST_H

struct nearest {
    const char *typed;
    const char *best;  /* NULL: nothing is near enough to be worth suggesting */
    unsigned distance; /* of best, edits */
};

void nearest_init(struct nearest *nearest, const char *typed);

/* Offers one known name; it is kept when it is nearer than those before. */
void nearest_offer(struct nearest *nearest, const char *name);

#endif
