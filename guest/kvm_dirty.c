/*
 * Lazy clearing, and why it loses nothing.
 *
 * `pending` holds exactly the pages whose bit in the kernel was reported to the library and that the library has yet to
 * read. Clearing a bit protects the page again, so a later write sets it anew; clearing it early, for the whole chunk,
 * is harmless because the page will be read after that. A bit leaves `pending` when it is cleared, so a write that
 * comes afterwards, not yet reported, is never cleared by a neighbour's turn.
 *
 * With KVM_DIRTY_LOG_INITIALLY_SET all bits begin set. For pages that exist that is what it says: they will be reported
 * by next_data and read. Holes are not, so their bits are cleared at once, which is cheap, as nothing maps them. A hole
 * that is written between the look and the clear loses its bit, but has become data before next_data is asked.
 *
 * While the guest stands still clearing is left out (QEMU: 50 ms of downtime on 128 GiB). The bits stay set in the
 * kernel then, so if the guest runs on here the pages are merely reported once more.
 */
#include "guest/kvm_dirty.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/guest_error.h"

/* Pages cleared by one call: a multiple of 64, as the kernel wants. 16 MiB are a few ms of sending. */
enum { CHUNK_PAGES = 4096, CHUNK_WORDS = CHUNK_PAGES / 64 };

static uint64_t dirty_words(const struct kvm_dirty *dirty)
{
    return (dirty->pages + 63) / 64;
}

enum godwit_err kvm_dirty_init(struct kvm_dirty *dirty, const struct kvm_vm *vm, int memory_fd,
                               enum kvm_dirty_mode most, struct godwit_error *error)
{
    *dirty = (struct kvm_dirty){.vm = vm, .memory_fd = memory_fd, .pages = vm->size / GODWIT_PAGE_SIZE};
    uint64_t flags = vm->dirty_caps & (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
    if (most < KVM_DIRTY_LAZY_SET)
        flags &= ~(uint64_t)KVM_DIRTY_LOG_INITIALLY_SET;
    if (most < KVM_DIRTY_LAZY || !(flags & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE))
        return GODWIT_OK;
    struct kvm_enable_cap enable = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = {flags}};
    if (kvm_vm_ioctl(vm->fd, KVM_ENABLE_CAP, &enable) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "/dev/kvm: cannot have the dirty log cleared lazily");
    dirty->mode = flags & KVM_DIRTY_LOG_INITIALLY_SET ? KVM_DIRTY_LAZY_SET : KVM_DIRTY_LAZY;
    return GODWIT_OK;
}

void kvm_dirty_fini(struct kvm_dirty *dirty)
{
    kvm_dirty_stop(dirty);
    *dirty = (struct kvm_dirty){0};
}

/* Clears in the kernel what is set in a chunk of bits. */
static enum godwit_err clear_chunk(const struct kvm_dirty *dirty, uint64_t first, uint64_t *bits,
                                   struct godwit_error *error)
{
    uint64_t pages = dirty->pages - first < CHUNK_PAGES ? dirty->pages - first : CHUNK_PAGES, any = 0;
    for (uint64_t word = 0; word < (pages + 63) / 64; word++)
        any |= bits[word];
    if (!any)
        return GODWIT_OK;
    struct kvm_clear_dirty_log clear = {.first_page = first, .num_pages = (uint32_t)pages, .dirty_bitmap = bits};
    if (kvm_vm_ioctl(dirty->vm->fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "/dev/kvm: cannot clear the dirty log");
    return GODWIT_OK;
}

static void set_bits(uint64_t *bits, uint64_t first, uint64_t pages)
{
    for (uint64_t page = first; page < first + pages;) {
        if (page % 64 == 0 && first + pages - page >= 64) {
            bits[page / 64] = UINT64_MAX;
            page += 64;
        } else {
            bits[page / 64] |= 1ull << page % 64;
            page++;
        }
    }
}

/* Everything is set: what exists is pending, what does not is cleared. */
static enum godwit_err clear_holes(struct kvm_dirty *dirty, struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    for (uint64_t from = 0; from < dirty->pages;) {
        uint64_t first, pages;
        err = godwit_memory_next_data(dirty->vm->addr, dirty->vm->size, dirty->memory_fd, 0, from, &first, &pages,
                                      error);
        if (err)
            return err;
        if (pages == 0)
            break;
        set_bits(dirty->pending, first, pages);
        from = first + pages;
    }
    for (uint64_t word = 0; word < dirty_words(dirty); word++)
        dirty->log[word] = ~dirty->pending[word];
    for (uint64_t first = 0; first < dirty->pages && !err; first += CHUNK_PAGES)
        err = clear_chunk(dirty, first, dirty->log + first / 64, error);
    return err;
}

enum godwit_err kvm_dirty_start(struct kvm_dirty *dirty, struct godwit_error *error)
{
    if (dirty->on)
        return guest_fail(error, GODWIT_ERR_BUSY, "the dirty log is on already");
    dirty->pending = calloc(dirty_words(dirty), sizeof *dirty->pending);
    dirty->log = calloc(dirty_words(dirty), sizeof *dirty->log);
    enum godwit_err err = dirty->pending && dirty->log
                              ? kvm_vm_log(dirty->vm, true, error)
                              : guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for the dirty log");
    dirty->on = !err;
    if (!err && dirty->mode == KVM_DIRTY_LAZY_SET)
        err = clear_holes(dirty, error);
    if (err)
        kvm_dirty_stop(dirty);
    return err;
}

enum godwit_err kvm_dirty_sync(struct kvm_dirty *dirty, uint64_t *bitmap, struct godwit_error *error)
{
    struct kvm_dirty_log get = {.dirty_bitmap = dirty->log};
    if (kvm_vm_ioctl(dirty->vm->fd, KVM_GET_DIRTY_LOG, &get) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "/dev/kvm: cannot read the dirty log");
    for (uint64_t word = 0; word < dirty_words(dirty); word++) {
        bitmap[word] |= dirty->log[word];
        dirty->pending[word] |= dirty->log[word];
    }
    return GODWIT_OK;
}

/* The bits of word `word` that lie in [first, first + pages). */
static uint64_t range_mask(uint64_t word, uint64_t first, uint64_t pages)
{
    uint64_t begin = word * 64, end = first + pages, mask = UINT64_MAX;
    if (begin < first)
        mask &= UINT64_MAX << (first - begin);
    if (end < begin + 64)
        mask &= ~(UINT64_MAX << (end - begin));
    return mask;
}

enum godwit_err kvm_dirty_clear(struct kvm_dirty *dirty, uint64_t first, uint64_t pages, struct godwit_error *error)
{
    if (dirty->mode == KVM_DIRTY_EAGER || pages == 0)
        return GODWIT_OK;
    for (uint64_t word = first / 64; word <= (first + pages - 1) / 64; word++) {
        uint64_t mask = range_mask(word, first, pages);
        if (!(dirty->pending[word] & mask))
            continue;
        if (dirty->frozen) {
            dirty->pending[word] &= ~mask;
            continue;
        }
        uint64_t chunk = word / CHUNK_WORDS * CHUNK_WORDS;
        uint64_t words = dirty_words(dirty) - chunk < CHUNK_WORDS ? dirty_words(dirty) - chunk : CHUNK_WORDS;
        enum godwit_err err = clear_chunk(dirty, chunk * 64, dirty->pending + chunk, error);
        if (err)
            return err;
        memset(dirty->pending + chunk, 0, words * sizeof *dirty->pending);
    }
    return GODWIT_OK;
}

void kvm_dirty_stop(struct kvm_dirty *dirty)
{
    if (dirty->on)
        (void)kvm_vm_log(dirty->vm, false, NULL); /* a log that stays on costs time, nothing else */
    dirty->on = false;
    free(dirty->pending);
    free(dirty->log);
    dirty->pending = dirty->log = NULL;
}

void kvm_dirty_freeze(struct kvm_dirty *dirty, bool frozen)
{
    dirty->frozen = frozen;
}
