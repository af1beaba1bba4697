/*
 * Every page of a guest's memory against what it should hold. Holes are shown as zero pages without reading them, which
 * would allocate them. Wrong pages do not end the walk: their number tells a lost page from a lost memory.
 */
#ifndef GUEST_PAGE_CHECK_H
#define GUEST_PAGE_CHECK_H

#include <stdint.h>

#include <godwit/error.h>

struct process_view {
    void *addr;    /* first page of the guest's memory */
    uint64_t size; /* bytes */
    int fd;        /* behind addr from offset 0, -1 for anonymous memory: holes are not touched */
};

struct process_check {
    uint64_t pages;   /* compared: stamped ones, and never written ones whose content can be generated */
    uint64_t skipped; /* never written ones that came from a file */
    uint64_t wrong;
    uint64_t wrong_holes; /* of the wrong ones, those that the file said do not exist */
    uint64_t first_wrong; /* page number; meaningful when wrong > 0 */
};

enum page_verdict { PAGE_RIGHT, PAGE_WRONG, PAGE_SKIPPED };

/* content: the page's 4096 bytes, 8-byte aligned. Called from several threads, for each page once. */
typedef enum page_verdict page_judge_fn(const void *context, uint64_t page, const void *content);

/*
 * Judges all of view, which must have `pages` pages, in as many threads as processors. Nobody writes it meanwhile. *out
 * is always written. MISMATCH when the size is wrong; wrong pages are no error here, *out counts them.
 */
enum godwit_err page_check_all(const struct process_view *view, uint64_t pages, page_judge_fn *judge,
                               const void *context, struct process_check *out, struct godwit_error *error);

#endif
