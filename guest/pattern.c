/*
 * Generated memory content. Cannot fail.
 *
 * The text-like page strings together words of a small vocabulary, which compresses about as well as logs and heaps of
 * strings do (around 1:4 with zstd level 1), unlike a page of one repeated byte.
 */
#include "guest/pattern.h"

#include <assert.h>
#include <string.h>

#include <godwit/guest.h>

#include "guest/parallel.h"

enum { PATTERN_WORD = 12 }; /* longest word with its separator */

static const char *const pattern_names[] = {
    [PATTERN_RANDOM] = "random", [PATTERN_ZERO] = "zero", [PATTERN_MIXED] = "mixed"};

static const char *const pattern_words[64] = {
    "the ",     "of ",     "and ",   "to ",     "in ",       "is ",     "that ",    "for ",      "memory ",  "guest ",
    "page ",    "0x0000",  "0x7fff", "error: ", "warning: ", "info: ",  "request ", "response ", "connect ", "timeout ",
    "channel ", "buffer ", "queue ", "socket ", "thread ",   "worker ", "config ",  "server ",   "client ",  "session ",
    "handle ",  "status ", "index=", "size=",   "count=",    "offset=", "length=",  "name=",     "value=",   "type=",
    "user=",    "host=",   "port=",  "path=/",  "usr/",      "lib/",    "share/",   "local/",    "home/",    "true,\n",
    "false,\n", "null,\n", "\n",     "\n\n",    "{ ",        " }\n",    "[",        "]\n",       "1",        "2",
    "10",       "64",      "255",    "4096 ",
};

bool pattern_parse(const char *name, enum pattern *out)
{
    for (unsigned i = 0; i < sizeof pattern_names / sizeof pattern_names[0]; i++) {
        if (strcmp(name, pattern_names[i]) == 0) {
            *out = (enum pattern)i;
            return true;
        }
    }
    return false;
}

static void pattern_random(uint64_t key, uint64_t *words)
{
    for (unsigned i = 0; i < GODWIT_PAGE_SIZE / sizeof *words; i++)
        words[i] = pattern_mix(key + i * 0x9e3779b97f4a7c15u);
}

static void pattern_text(uint64_t key, char *out)
{
    unsigned used = 0;
    for (unsigned i = 0; used < GODWIT_PAGE_SIZE - PATTERN_WORD; i++) {
        uint64_t bits = pattern_mix(key + i);
        for (unsigned j = 0; j < 10 && used < GODWIT_PAGE_SIZE - PATTERN_WORD; j++, bits >>= 6) {
            const char *word = pattern_words[bits % 64];
            size_t length = strlen(word);
            memcpy(out + used, word, length);
            used += (unsigned)length;
        }
    }
    memset(out + used, '\n', GODWIT_PAGE_SIZE - used);
}

void pattern_fill_page(enum pattern pattern, uint64_t seed, uint64_t page, void *out)
{
    assert(pattern != PATTERN_FILE && "the content of a file cannot be generated");
    uint64_t key = pattern_mix(seed ^ pattern_mix(page));
    unsigned kind = pattern == PATTERN_RANDOM ? 0 : pattern == PATTERN_ZERO ? 2 : (unsigned)(key >> 62);
    if (kind < 2)
        pattern_random(key, out);
    else if (kind == 2)
        memset(out, 0, GODWIT_PAGE_SIZE);
    else
        pattern_text(key, out);
}

struct pattern_job {
    enum pattern pattern;
    uint64_t seed;
    char *addr;
};

static enum godwit_err pattern_fill_slice(void *context, uint64_t first, uint64_t end, struct godwit_error *error)
{
    const struct pattern_job *job = context;
    for (uint64_t page = first; page < end; page++)
        pattern_fill_page(job->pattern, job->seed, page, job->addr + page * GODWIT_PAGE_SIZE);
    return GODWIT_OK;
}

void pattern_fill(enum pattern pattern, uint64_t seed, void *addr, uint64_t size)
{
    struct pattern_job job = {pattern, seed, addr};
    if (pattern == PATTERN_RANDOM || pattern == PATTERN_MIXED)
        (void)parallel_run(size / GODWIT_PAGE_SIZE, 512, 0, pattern_fill_slice, &job, NULL); /* slices cannot fail */
}
