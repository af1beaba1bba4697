/*
 * The payload. Its registers: rsi the next page, rcx steps so far, rbx and rdi begin and end of the share, eax pages
 * due, dx the port.
 *
 * A processor can be stopped between any two instructions, so the step that is half done is told by rip: between INC
 * and COUNT the byte is incremented and rcx is not. The check of registers is exact: for each place in the code, rsi
 * follows from rcx.
 */
#include "guest/kvm_payload.h"

#include <string.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/parallel.h"
#include "guest/process_order.h"

static const uint8_t code[] = {
    0xed,                                     /* ask:   in eax, dx                            */
    0x85, 0xc0,                               /*        test eax, eax                         */
    0x74, 0xfb,                               /*        jz ask                                */
    0xfe, 0x06,                               /* next:  inc byte [rsi]                        */
    0x48, 0xff, 0xc1,                         /* count: inc rcx                               */
    0x48, 0x81, 0xc6, 0x00, 0x10, 0x00, 0x00, /* move:  add rsi, 4096                         */
    0x48, 0x39, 0xfe,                         /* wrap:  cmp rsi, rdi                          */
    0x72, 0x03,                               /*        jb done                               */
    0x48, 0x89, 0xde,                         /* back:  mov rsi, rbx      (a round is over)   */
    0xff, 0xc8,                               /* done:  dec eax                               */
    0x75, 0xe8,                               /*        jnz next                              */
    0xeb, 0xe1,                               /*        jmp ask                               */
};

enum { AT_COUNT = 7, AT_MOVE = 10, AT_WRAP = 17, AT_JB = 20, AT_BACK = 22, AT_DONE = 25 };

static const uint8_t starts[] = {0, 1, 3, 5, AT_COUNT, AT_MOVE, AT_WRAP, AT_JB, AT_BACK, AT_DONE, 27, 29};

_Static_assert(sizeof code == 31, "the places above are those of these bytes");

/* Bits of page table entries. Accessed and dirty are set beforehand, so that the processor never writes the tables. */
enum { ENTRY_TABLE = 0x27, ENTRY_2M_PAGE = 0xe7, ENTRIES = GODWIT_PAGE_SIZE / 8 };

static void fill_system_page(const struct process_counters *plan, uint64_t page, uint64_t *out)
{
    uint64_t directories = kvm_plan_system(plan->pages) - KVM_PAGE_DIRECTORIES;
    memset(out, 0, GODWIT_PAGE_SIZE);
    if (page == KVM_PAGE_CODE)
        memcpy(out, code, sizeof code);
    else if (page == KVM_PAGE_PML4)
        out[0] = (uint64_t)KVM_PAGE_POINTERS * GODWIT_PAGE_SIZE | ENTRY_TABLE;
    else if (page == KVM_PAGE_POINTERS)
        for (uint64_t i = 0; i < directories; i++)
            out[i] = (KVM_PAGE_DIRECTORIES + i) * GODWIT_PAGE_SIZE | ENTRY_TABLE;
    else
        for (uint64_t i = 0; i < ENTRIES; i++)
            out[i] = ((page - KVM_PAGE_DIRECTORIES) * ENTRIES + i) << 21 | ENTRY_2M_PAGE;
}

void kvm_payload_page(const struct process_counters *plan, uint64_t page, void *out)
{
    if (page < kvm_plan_system(plan->pages)) {
        fill_system_page(plan, page, out);
        return;
    }
    pattern_fill_page(plan->pattern, plan->seed, page, out);
    *(uint8_t *)out = 0;
}

struct fill_job {
    const struct process_counters *plan;
    char *addr;
    int fd;
};

/* Counters of pages that exist start from zero; those that do not are zero already. */
static enum godwit_err fill_counters(void *context, uint64_t page, uint64_t end, struct godwit_error *error)
{
    const struct fill_job *job = context;
    while (page < end) {
        uint64_t first, pages;
        enum godwit_err err = godwit_memory_next_data(job->addr, end * GODWIT_PAGE_SIZE, job->fd, 0, page, &first,
                                                      &pages, error);
        if (err)
            return err;
        if (pages == 0)
            return GODWIT_OK;
        for (page = first; page < first + pages; page++)
            job->addr[page * GODWIT_PAGE_SIZE] = 0;
    }
    return GODWIT_OK;
}

enum godwit_err kvm_payload_fill(const struct process_counters *plan, void *addr, int fd, struct godwit_error *error)
{
    struct fill_job job = {plan, addr, fd};
    pattern_fill(plan->pattern, plan->seed, addr, plan->pages * GODWIT_PAGE_SIZE);
    enum godwit_err err = parallel_run(plan->pages, 512, 0, fill_counters, &job, error);
    for (uint64_t page = 0; page < kvm_plan_system(plan->pages); page++)
        fill_system_page(plan, page, (uint64_t *)addr + page * ENTRIES);
    return err;
}

static struct kvm_segment flat_segment(uint16_t selector, uint8_t type, bool is_code)
{
    return (struct kvm_segment){.limit = 0xffffffff,
                                .selector = selector,
                                .type = type,
                                .present = 1,
                                .s = 1,
                                .g = 1,
                                .l = is_code,
                                .db = !is_code};
}

void kvm_payload_start(const struct process_counters *plan, unsigned cpu, struct kvm_regs *regs,
                       struct kvm_sregs *sregs)
{
    struct kvm_share share = kvm_plan_share(plan, cpu);
    uint64_t begin = share.first * GODWIT_PAGE_SIZE;
    *regs = (struct kvm_regs){.rsi = begin,
                              .rbx = begin,
                              .rdi = begin + share.pages * GODWIT_PAGE_SIZE,
                              .rdx = KVM_PAYLOAD_PORT,
                              .rip = KVM_PAGE_CODE,
                              .rflags = 2};
    sregs->cs = flat_segment(0x08, 0xb, true);
    sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = flat_segment(0x10, 0x3, false);
    sregs->cr3 = KVM_PAGE_PML4 * GODWIT_PAGE_SIZE;
    sregs->cr4 = 1u << 5;                 /* PAE */
    sregs->cr0 = 1u << 31 | 1u << 4 | 1u; /* PG, ET, PE */
    sregs->efer = 1u << 10 | 1u << 8;     /* LMA, LME */
}

/* Which page of its share rsi must point at, for these steps at this place; share->pages: just behind the last. */
static uint64_t expected_index(const struct kvm_share *share, uint64_t rip, uint64_t rcx)
{
    if (rip < AT_MOVE || rip >= AT_DONE)
        return rcx % share->pages;
    return (rcx - 1) % share->pages + (rip >= AT_WRAP);
}

bool kvm_payload_steps(const struct process_counters *plan, unsigned cpu, const struct kvm_regs *regs, uint64_t *steps)
{
    struct kvm_share share = kvm_plan_share(plan, cpu);
    uint64_t begin = share.first * GODWIT_PAGE_SIZE;
    bool counted = regs->rip >= AT_MOVE && regs->rip < AT_DONE; /* here rcx says that there was a step */
    if (regs->rip >= sizeof code || !memchr(starts, (int)regs->rip, sizeof starts))
        return false;
    if (regs->rcx > PROCESS_STEPS_MAX || (counted && regs->rcx == 0))
        return false;
    if (regs->rbx != begin || regs->rdi != begin + share.pages * GODWIT_PAGE_SIZE || regs->rdx != KVM_PAYLOAD_PORT)
        return false;
    uint64_t index = expected_index(&share, regs->rip, regs->rcx);
    if (regs->rsi != begin + index * GODWIT_PAGE_SIZE || (regs->rip == AT_BACK && index != share.pages))
        return false;
    *steps = regs->rcx + (regs->rip == AT_COUNT);
    return true;
}
