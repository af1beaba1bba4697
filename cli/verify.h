/*
 * The demo's proof that the guest which runs on the destination is the one that was stopped on the source.
 *
 * The destination writes a claim into memory it shares with the source's process: the fingerprint of every page of the
 * image as it was when the guest ran on, the device state as loaded, what a check of the one against the other found,
 * and whether the guest runs. The source compares with its own stopped guest. verify_judge() decides; it sees numbers
 * only.
 */
#ifndef CLI_VERIFY_H
#define CLI_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/error.h>
#include <godwit/guest.h>

#include "guest/process.h"

enum { VERIFY_TEXT = 768 };

/* Written by the destination only, read by the source after it was told that all is written. */
struct verify_claim {
    bool has_counters; /* a guest that writes: the next group is meaningful */
    struct process_counters loaded;
    bool checks;  /* the image is what the loaded counters say */
    char check_text[GODWIT_ERROR_TEXT];
    bool runs_on; /* the guest did something after it was resumed */
    int64_t guest_gap_ms; /* -1: unknown */
    uint64_t pages;       /* fingerprints written; 0 when that failed, check_text says why */
};

struct verify_verdict {
    bool verified;
    uint64_t pages;
    char text[VERIFY_TEXT]; /* one line: what was found */
};

/* An array of one fingerprint per page, in a memfd that was made before the fork. */
struct verify_prints {
    int fd;
    uint64_t *values; /* NULL until sized or mapped */
    uint64_t pages;
};

enum godwit_err verify_prints_init(struct verify_prints *prints, struct godwit_error *error);
void verify_prints_fini(struct verify_prints *prints);

/* Makes room for the view's pages and fills it; nobody writes the view meanwhile. */
enum godwit_err verify_prints_take(struct verify_prints *prints, const struct process_view *view,
                                   struct godwit_error *error);

/* Maps what the other process has filled. */
enum godwit_err verify_prints_map(struct verify_prints *prints, uint64_t pages, struct godwit_error *error);

/* The memory of a guest with one block. */
struct process_view verify_view(const struct godwit_block *block);

/* What the stopped source knows of its guest. */
struct verify_truth {
    const struct process_counters *counters; /* NULL: the guest has none */
    const char *who;                         /* counts in it, for messages: "worker", "processor" */
};

/* mine: of the stopped source. */
void verify_judge(const struct verify_claim *claim, const struct verify_prints *mine,
                  const struct verify_prints *theirs, const struct verify_truth *truth, struct verify_verdict *out);

#endif
