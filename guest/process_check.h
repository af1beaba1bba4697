/* Is this memory what the workers' counters say it must be? */
#ifndef GUEST_PROCESS_CHECK_H
#define GUEST_PROCESS_CHECK_H

#include <stdint.h>

#include <godwit/error.h>

#include "guest/process_plan.h"

struct process_view {
    void *addr;    /* first page of the guest's memory */
    uint64_t size; /* bytes */
    int fd;        /* behind addr from offset 0, -1 for anonymous memory: holes are not touched */
};

struct process_check {
    uint64_t pages;   /* compared: stamped ones, and never written ones whose content can be generated */
    uint64_t skipped; /* never written ones that came from a file */
    uint64_t wrong;
    uint64_t first_wrong; /* page number; meaningful when wrong > 0 */
};

/*
 * Compares every page with what `counters` imply: its last stamp, or its initial content where it was never written.
 * Nobody writes the view meanwhile. In as many threads as processors. *out is always written; MISMATCH with the first
 * wrong page described when one is wrong.
 */
enum godwit_err process_guest_check(const struct process_view *view, const struct process_counters *counters,
                                    struct process_check *out, struct godwit_error *error);

#endif
