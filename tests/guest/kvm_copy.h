/* A KVM guest's memory copied by its dirty log, as the library does it. */
#ifndef TESTS_GUEST_KVM_COPY_H
#define TESTS_GUEST_KVM_COPY_H

#include "tests/guest/kvm_case.h"

static inline const struct godwit_guest *arm(struct kvm_guest *guest)
{
    const struct godwit_guest *face = kvm_guest_interface(guest);
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->dirty_start(face->self, &error), GODWIT_OK, "%s", error.text);
    return face;
}

static inline void sync_log(const struct godwit_guest *face, uint64_t *bitmap)
{
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->dirty_sync(face->self, 0, bitmap, &error), GODWIT_OK, "%s", error.text);
}

static inline void clear_log(const struct godwit_guest *face, uint64_t first, uint64_t pages)
{
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->dirty_clear(face->self, 0, first, pages, &error), GODWIT_OK, "%s", error.text);
}

/* One pass as the library does it: sync, then for every run of dirty pages clear and read. */
static inline void copy_pass(const struct godwit_guest *face, uint64_t *bitmap, char *to)
{
    const char *from = face->blocks[0].addr;
    for (uint64_t page = 0; page < PAGES; page++) {
        uint64_t run = 0;
        while (page + run < PAGES && run < 37 && bitmap[(page + run) / 64] >> (page + run) % 64 & 1)
            run++;
        if (run == 0)
            continue;
        clear_log(face, page, run);
        memcpy(to + page * 4096, from + page * 4096, run * 4096);
        page += run - 1;
    }
    memset(bitmap, 0, WORDS * sizeof *bitmap);
}

static inline void mark_data(const struct godwit_guest *face, uint64_t *bitmap)
{
    for (uint64_t from = 0, first, pages; from < PAGES; from = first + pages) {
        cr_assert_eq(face->ops->next_data(face->self, 0, from, &first, &pages, NULL), GODWIT_OK);
        if (pages == 0)
            break;
        for (uint64_t page = first; page < first + pages; page++)
            bitmap[page / 64] |= 1ull << page % 64;
    }
}

#endif
