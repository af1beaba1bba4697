/*
 * Fingerprints. Each thread takes a slice of pages and walks its data runs; what lies between them is a hole. Fails
 * only where the file behind the memory cannot be asked for its holes.
 */
#include "guest/fingerprint.h"

#include <xxhash.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/parallel.h"

struct fingerprint_job {
    char *addr;
    int fd;
    uint64_t fd_offset;
    uint64_t *out;
    uint64_t zero; /* hash of a page of zeros */
};

static enum godwit_err fingerprint_slice(void *context, uint64_t page, uint64_t end, struct godwit_error *error)
{
    const struct fingerprint_job *job = context;
    while (page < end) {
        uint64_t first, pages;
        enum godwit_err err = godwit_memory_next_data(job->addr, end * GODWIT_PAGE_SIZE, job->fd, job->fd_offset, page,
                                                      &first, &pages, error);
        if (err)
            return err;
        uint64_t data = pages ? first : end;
        for (; page < data; page++)
            job->out[page] = job->zero;
        for (; page < data + pages; page++)
            job->out[page] = XXH3_64bits(job->addr + page * GODWIT_PAGE_SIZE, GODWIT_PAGE_SIZE);
    }
    return GODWIT_OK;
}

enum godwit_err fingerprint_pages(void *addr, uint64_t size, int fd, uint64_t fd_offset, uint64_t *out,
                                  unsigned threads, struct godwit_error *error)
{
    const char zeros[GODWIT_PAGE_SIZE] = {0};
    struct fingerprint_job job = {addr, fd, fd_offset, out, XXH3_64bits(zeros, sizeof zeros)};
    return parallel_run(size / GODWIT_PAGE_SIZE, 512, threads, fingerprint_slice, &job, error);
}

uint64_t fingerprint_compare(const uint64_t *a, const uint64_t *b, uint64_t pages, uint64_t *first)
{
    uint64_t differing = 0;
    for (uint64_t page = 0; page < pages; page++) {
        if (a[page] == b[page])
            continue;
        if (differing++ == 0)
            *first = page;
    }
    return differing;
}
