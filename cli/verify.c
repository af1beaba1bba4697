#include "cli/verify.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest/fingerprint.h"
#include "transport/error.h"

enum godwit_err verify_prints_init(struct verify_prints *prints, struct godwit_error *error)
{
    *prints = (struct verify_prints){.fd = memfd_create("godwit-fingerprints", MFD_CLOEXEC)};
    return prints->fd >= 0 ? GODWIT_OK
                           : error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot create a memfd for fingerprints");
}

void verify_prints_fini(struct verify_prints *prints)
{
    if (prints->values)
        munmap(prints->values, prints->pages * sizeof *prints->values);
    if (prints->fd >= 0)
        close(prints->fd);
    *prints = (struct verify_prints){.fd = -1};
}

enum godwit_err verify_prints_map(struct verify_prints *prints, uint64_t pages, struct godwit_error *error)
{
    void *addr = mmap(NULL, pages * sizeof *prints->values, PROT_READ | PROT_WRITE, MAP_SHARED, prints->fd, 0);
    if (addr == MAP_FAILED)
        return error_set_sys(error, GODWIT_ERR_NO_MEMORY, errno, "cannot map %" PRIu64 " fingerprints", pages);
    prints->values = addr;
    prints->pages = pages;
    return GODWIT_OK;
}

enum godwit_err verify_prints_take(struct verify_prints *prints, const struct process_view *view,
                                   struct godwit_error *error)
{
    uint64_t pages = view->size / GODWIT_PAGE_SIZE;
    if (ftruncate(prints->fd, (off_t)(pages * sizeof *prints->values)) != 0)
        return error_set_sys(error, GODWIT_ERR_NO_MEMORY, errno, "no room for %" PRIu64 " fingerprints", pages);
    enum godwit_err err = verify_prints_map(prints, pages, error);
    return err ? err : fingerprint_pages(view->addr, view->size, view->fd, 0, prints->values, 0, error);
}

struct process_view verify_view(const struct godwit_block *block)
{
    return (struct process_view){.addr = block->addr, .size = block->size, .fd = block->fd};
}

/* Adds one finding to the verdict; findings are separated by "; ". */
__attribute__((format(printf, 2, 3))) static void find(struct verify_verdict *verdict, const char *format, ...)
{
    size_t used = strlen(verdict->text);
    used += (size_t)snprintf(verdict->text + used, sizeof verdict->text - used, "%s", used ? "; " : "");
    if (used >= sizeof verdict->text)
        return;
    va_list list;
    va_start(list, format);
    vsnprintf(verdict->text + used, sizeof verdict->text - used, format, list);
    va_end(list);
}

static void judge_memory(const struct verify_prints *mine, const struct verify_prints *theirs,
                         struct verify_verdict *out)
{
    if (mine->pages != theirs->pages || mine->pages == 0) {
        find(out, "the source has %" PRIu64 " pages and the destination %" PRIu64, mine->pages, theirs->pages);
        return;
    }
    uint64_t first = 0, differ = fingerprint_compare(mine->values, theirs->values, mine->pages, &first);
    if (differ)
        find(out, "%" PRIu64 " of %" PRIu64 " pages differ, the first is page %" PRIu64, differ, mine->pages, first);
}

static bool same_plan(const struct process_counters *a, const struct process_counters *b)
{
    return a->pages == b->pages && a->hot_pages == b->hot_pages && a->rate == b->rate && a->seed == b->seed &&
           a->pattern == b->pattern && a->threads == b->threads;
}

static void judge_state(const struct process_counters *loaded, const struct verify_truth *source,
                        struct verify_verdict *out)
{
    const struct process_counters *truth = source->counters;
    if (!same_plan(loaded, truth)) {
        find(out, "the device state that was loaded is not the source's");
        return;
    }
    unsigned differ = 0, first = 0;
    for (unsigned i = truth->threads; i-- > 0;)
        if (loaded->steps[i] != truth->steps[i]) {
            differ++;
            first = i;
        }
    if (differ)
        find(out, "%u of %u counters of the device state differ, %s %u was loaded at step %" PRIu64
             " and stopped at %" PRIu64, differ, truth->threads, source->who, first, loaded->steps[first],
             truth->steps[first]);
}

void verify_judge(const struct verify_claim *claim, const struct verify_prints *mine,
                  const struct verify_prints *theirs, const struct verify_truth *truth, struct verify_verdict *out)
{
    *out = (struct verify_verdict){.pages = mine->pages};
    judge_memory(mine, theirs, out);
    if (truth->counters && !claim->has_counters)
        find(out, "the destination loaded no device state");
    else if (truth->counters)
        judge_state(&claim->loaded, truth, out);
    if (!claim->checks)
        find(out, "%s", claim->check_text);
    if (!claim->runs_on)
        find(out, "the guest does not run on at the destination");
    out->verified = out->text[0] == '\0';
    if (out->verified)
        find(out, "all %" PRIu64 " pages identical%s", out->pages,
             truth->counters ? ", device state equal, the guest runs on" : "");
}
