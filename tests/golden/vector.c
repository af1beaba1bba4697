/* See vector.h. A line is split at its '#'; comments before the first byte describe the file, hex goes to the last
 * part. */
#include "tests/golden/vector.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct vector_part *add_part(struct vector *vector)
{
    return vector->count < VECTOR_PARTS ? &vector->parts[vector->count++] : NULL;
}

static void read_ram(struct vector *vector, char *text)
{
    vector->ram_count = 0;
    for (char *word = strtok(text, " "); word != NULL && vector->ram_count < VECTOR_BLOCKS; word = strtok(NULL, " "))
        vector->ram[vector->ram_count++] = strtoull(word, NULL, 10);
}

static void copy_word(char *to, const char *from)
{
    snprintf(to, VECTOR_WORD, "%s", from);
}

/* "word: value" of the comments before the first byte. Sentences have no such word, and are for readers. */
static void read_about(struct vector *vector, char *comment)
{
    char *value = strstr(comment, ": ");
    if (value == NULL)
        return;
    *value = 0;
    value += 2;
    if (strcmp(comment, "kind") == 0)
        copy_word(vector->kind, value);
    else if (strcmp(comment, "from") == 0)
        copy_word(vector->from, value);
    else if (strcmp(comment, "expect") == 0)
        copy_word(vector->expect, value);
    else if (strcmp(comment, "deviation") == 0)
        vector->deviation = true;
    else if (strcmp(comment, "placed") == 0)
        vector->placed = true;
    else if (strcmp(comment, "ram") == 0)
        read_ram(vector, value);
}

static bool read_comment(struct vector *vector, char *comment)
{
    char side[VECTOR_WORD];
    comment += strspn(comment, " ");
    if (comment[0] != '@') {
        if (vector->count == 0)
            read_about(vector, comment);
        return true;
    }
    struct vector_part *part = add_part(vector);
    if (part == NULL || sscanf(comment, "@ %31s %31s", part->connection, side) != 2)
        return false;
    part->from_destination = strcmp(side, "destination") == 0;
    return true;
}

/* XX or XX*N. */
static bool read_token(struct vector *vector, const char *token)
{
    unsigned byte;
    unsigned long times = 1;
    if (sscanf(token, "%2x*%lu", &byte, &times) < 1)
        return false;
    struct vector_part *part = vector->count > 0 ? &vector->parts[vector->count - 1] : add_part(vector);
    uint8_t *bytes = realloc(part->bytes, part->size + times);
    if (bytes == NULL)
        return false;
    memset(bytes + part->size, (int)byte, times);
    part->bytes = bytes;
    part->size += times;
    return true;
}

static bool read_line(struct vector *vector, char *line)
{
    line[strcspn(line, "\n")] = 0;
    char *comment = strchr(line, '#');
    if (comment != NULL)
        *comment++ = 0;
    bool good = true;
    for (char *token = strtok(line, " "); token != NULL && good; token = strtok(NULL, " "))
        good = read_token(vector, token);
    return comment != NULL && good ? read_comment(vector, comment) : good;
}

bool vector_read(const char *path, struct vector *vector)
{
    *vector = (struct vector){.ram = {3}, .ram_count = 1};
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    char line[1024];
    bool good = true;
    while (good && fgets(line, sizeof line, file) != NULL)
        good = read_line(vector, line);
    fclose(file);
    return good && vector->count > 0 && vector->kind[0] != 0;
}

void vector_free(struct vector *vector)
{
    for (unsigned i = 0; i < vector->count; i++)
        free(vector->parts[i].bytes);
    vector->count = 0;
}
