/* Golden vectors: files of hex text (README.md), read into bytes and what their comments say about them. */
#ifndef TESTS_GOLDEN_VECTOR_H
#define TESTS_GOLDEN_VECTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { VECTOR_WORD = 32, VECTOR_PARTS = 32, VECTOR_BLOCKS = 4 };

/* In a session: what one side says on one connection. Else there is one part that holds everything. */
struct vector_part {
    char connection[VECTOR_WORD];
    bool from_destination;
    uint8_t *bytes;
    size_t size;
};

struct vector {
    char kind[VECTOR_WORD], from[VECTOR_WORD], expect[VECTOR_WORD]; /* empty where the file does not say */
    bool deviation; /* the code does not refuse it yet, and should */
    bool placed;
    uint64_t ram[VECTOR_BLOCKS]; /* pages of each block */
    unsigned ram_count;
    struct vector_part parts[VECTOR_PARTS];
    unsigned count;
};

/* False for a file that cannot be read or does not keep to the form. vector_free either way. */
bool vector_read(const char *path, struct vector *vector);
void vector_free(struct vector *vector);

#endif
