/* What needs no KVM: shares, counts, what registers mean, the single-step rule, and the plan's stream. */
#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>

#include "guest/kvm_check.h"
#include "guest/kvm_payload.h"

TestSuite(kvm_plan, .timeout = 60);

Test(kvm_plan, shares_cover_all_of_memory_and_know_their_owner)
{
    for (unsigned cpus = 1; cpus <= 7; cpus++)
        for (uint64_t pages = 4 + cpus; pages < 400; pages += 13) {
            struct process_counters plan = {.pages = pages, .threads = cpus};
            cr_assert_eq(kvm_plan_check(&plan, NULL), GODWIT_OK);
            uint64_t next = kvm_plan_system(pages);
            for (unsigned cpu = 0; cpu < cpus; cpu++) {
                struct kvm_share share = kvm_plan_share(&plan, cpu);
                cr_assert_eq(share.first, next);
                cr_assert_gt(share.pages, 0);
                for (uint64_t page = share.first; page < share.first + share.pages; page++)
                    cr_assert_eq(kvm_plan_owner(&plan, page), cpu, "%u processors, page %lu of %lu", cpus, page, pages);
                next += share.pages;
            }
            cr_assert_eq(next, pages);
        }
}

Test(kvm_plan, counts_follow_from_steps)
{
    struct kvm_share share = {.first = 4, .pages = 10};
    uint8_t counter[10] = {0};
    for (uint64_t step = 0; step < 6000; step++) {
        for (unsigned index = 0; index < 10; index++)
            cr_assert_eq(kvm_plan_count(&share, step, index), counter[index], "step %lu page %u", step, index);
        counter[step % 10]++;
    }
}

/* Registers while processor 1 takes its steps, by the code's own rules. */
static struct kvm_regs regs_at(const struct process_counters *plan, uint64_t rip, uint64_t rcx, uint64_t index)
{
    struct kvm_regs regs;
    struct kvm_sregs sregs = {0};
    kvm_payload_start(plan, 1, &regs, &sregs);
    regs.rip = rip;
    regs.rcx = rcx;
    regs.rsi = regs.rbx + index * 4096;
    return regs;
}

Test(kvm_plan, registers_tell_the_steps_at_every_place_of_the_code)
{
    struct process_counters plan = {.pages = 24, .threads = 2};
    const struct {
        uint64_t rip, rcx, index, steps;
    } good[] = {
        {0, 0, 0, 0},    {1, 10, 0, 10},   {3, 7, 7, 7},     {5, 23, 3, 23},  {7, 23, 3, 24},  {10, 24, 3, 24},
        {17, 24, 4, 24}, {20, 30, 10, 30}, {22, 30, 10, 30}, {25, 30, 0, 30}, {27, 31, 1, 31}, {29, 31, 1, 31},
    };
    uint64_t steps;
    for (unsigned i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct kvm_regs regs = regs_at(&plan, good[i].rip, good[i].rcx, good[i].index);
        cr_assert(kvm_payload_steps(&plan, 1, &regs, &steps), "place %lu", good[i].rip);
        cr_expect_eq(steps, good[i].steps, "place %lu: %lu", good[i].rip, steps);
        for (uint64_t index = 0; index <= 11; index++) {
            regs = regs_at(&plan, good[i].rip, good[i].rcx, index);
            cr_expect_eq(kvm_payload_steps(&plan, 1, &regs, &steps), index == good[i].index, "place %lu index %lu",
                         good[i].rip, index);
        }
    }
    const struct {
        uint64_t rip, rcx, index;
    } bad[] = {{2, 0, 0}, {31, 0, 0}, {4096, 0, 0}, {10, 0, 9}, {22, 24, 4}, {0, UINT64_MAX, 5}};
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct kvm_regs regs = regs_at(&plan, bad[i].rip, bad[i].rcx, bad[i].index);
        cr_expect_not(kvm_payload_steps(&plan, 1, &regs, &steps), "case %u", i);
    }
    struct kvm_regs regs = regs_at(&plan, 0, 0, 0);
    cr_expect_not(kvm_payload_steps(&plan, 0, &regs, &steps), "the share of another processor");
    regs.rsi++;
    cr_expect_not(kvm_payload_steps(&plan, 1, &regs, &steps), "not a page");
}

Test(kvm_plan, the_single_step_rule)
{
    enum { PAGES = 8 };
    const struct {
        uint8_t counters[PAGES];
        bool good;
        uint8_t first;
        uint64_t place, bad;
    } cases[] = {
        {{0, 0, 0, 0, 0, 0, 0, 0}, true, 0, 0, 0},
        {{5, 5, 5, 4, 4, 4, 4, 4}, true, 5, 3, 0},
        {{0, 255, 255, 255, 255, 255, 255, 255}, true, 0, 1, 0},
        {{7, 7, 7, 7, 7, 7, 7, 6}, true, 7, 7, 0},
        {{5, 5, 5, 3, 3, 3, 3, 3}, false, 5, 0, 3},
        {{5, 5, 4, 4, 5, 4, 4, 4}, false, 5, 2, 4},
        {{5, 5, 6, 6, 6, 6, 6, 6}, false, 5, 0, 2},
        {{5, 4, 3, 3, 3, 3, 3, 3}, false, 5, 1, 2},
        {{5, 5, 5, 5, 4, 4, 4, 0}, false, 5, 4, 7},
    };
    char *memory = mmap(NULL, (PAGES + 4) * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(memory, MAP_FAILED);
    struct process_view view = {memory, (PAGES + 4) * 4096, -1};
    struct kvm_share share = {.first = 4, .pages = PAGES};
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct kvm_step step;
        for (unsigned page = 0; page < PAGES; page++)
            memory[(page + 4) * 4096] = (char)cases[i].counters[page];
        cr_expect_eq(kvm_check_step(&view, &share, &step), cases[i].good, "case %u", i);
        cr_expect(step.first == cases[i].first && step.place == cases[i].place, "case %u: %u at %lu", i, step.first,
                  step.place);
        cr_expect_eq(step.bad, cases[i].good ? 0 : cases[i].bad + 4, "case %u: %lu", i, step.bad);
    }
    munmap(memory, (PAGES + 4) * 4096);
}

Test(kvm_plan, refuses_plans_that_no_guest_has)
{
    const struct process_counters good = {.pages = 64, .threads = 2, .rate = 100, .seed = 7, .pattern = PATTERN_MIXED};
    struct process_counters out = {0}, bad[5];
    uint8_t bytes[KVM_PLAN_STATE];
    struct godwit_error error = {0};
    kvm_plan_save(&good, bytes);
    cr_assert_eq(kvm_plan_load(&out, bytes, sizeof bytes, 64, &error), GODWIT_OK, "%s", error.text);
    cr_expect_eq(memcmp(&out, &good, sizeof out), 0);
    cr_expect_eq(kvm_plan_load(&out, bytes, sizeof bytes, 65, &error), GODWIT_ERR_GUEST);
    for (size_t size = 0; size < sizeof bytes; size++)
        cr_expect_eq(kvm_plan_load(&out, bytes, size, 64, NULL), GODWIT_ERR_GUEST);
    for (unsigned i = 0; i < 5; i++)
        bad[i] = good;
    bad[0].threads = 0;
    bad[1].threads = KVM_CPUS_MAX + 1;
    bad[2].pattern = PATTERN_FILE;
    bad[3].rate = UINT64_MAX;
    bad[4].threads = 61; /* of 64 pages 4 are the system's */
    for (unsigned i = 0; i < 5; i++) {
        kvm_plan_save(&bad[i], bytes);
        cr_expect_eq(kvm_plan_load(&out, bytes, sizeof bytes, 64, &error), GODWIT_ERR_GUEST, "plan %u", i);
        cr_expect_eq(error.code, GODWIT_ERR_GUEST);
    }
}
