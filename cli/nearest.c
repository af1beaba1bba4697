/*
 * Nearest known name by optimal string alignment distance: insertions, deletions, substitutions and swapped neighbours
 * count one each. A name is suggested when at most a third of what was typed has to change, or when what was typed is a
 * part of it ("bandwidth" for max-bandwidth). Names longer than the row are not compared: no option is.
 */
#include "cli/nearest.h"

#include <stdint.h>
#include <string.h>

enum { NAME_MAX_LENGTH = 63, PART_MIN_LENGTH = 3 };

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static unsigned distance(const char *a, const char *b)
{
    size_t rows = strlen(a), columns = strlen(b);
    if (rows > NAME_MAX_LENGTH || columns > NAME_MAX_LENGTH)
        return UINT32_MAX;

    unsigned row[3][NAME_MAX_LENGTH + 1];
    unsigned *before = row[0], *above = row[1], *here = row[2];
    for (size_t j = 0; j <= columns; j++)
        above[j] = (unsigned)j;
    for (size_t i = 1; i <= rows; i++) {
        here[0] = (unsigned)i;
        for (size_t j = 1; j <= columns; j++) {
            here[j] = least(least(above[j], here[j - 1]) + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                here[j] = least(here[j], before[j - 2] + 1);
        }
        unsigned *oldest = before;
        before = above;
        above = here;
        here = oldest;
    }
    return above[columns];
}

void nearest_init(struct nearest *nearest, const char *typed)
{
    *nearest = (struct nearest){.typed = typed, .distance = UINT32_MAX};
}

void nearest_offer(struct nearest *nearest, const char *name)
{
    size_t length = strlen(nearest->typed);
    unsigned edits = distance(nearest->typed, name);
    unsigned allowed = (unsigned)(length / 3);
    if (edits > allowed && length >= PART_MIN_LENGTH && strstr(name, nearest->typed))
        edits = allowed; /* a part of the name: as good as the worst misspelling, and beaten by any better one */
    if (edits > allowed || edits >= nearest->distance)
        return;
    nearest->best = name;
    nearest->distance = edits;
}
