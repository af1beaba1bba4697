/* The KVM guest: it counts, stops and goes on. */
#include "guest/process_workers.h"
#include "tests/guest/kvm_case.h"

TestSuite(kvm, .timeout = 60);

Test(kvm, memory_is_right_after_any_number_of_stops)
{
    for (unsigned cpus = 1; cpus <= 3; cpus++) {
        struct kvm_guest_config config = small_config();
        config.cpus = cpus;
        config.pattern = (enum pattern)(cpus - 1);
        struct kvm_guest *guest = new_source(&config);
        struct process_counters counters;
        struct godwit_error error = {0};
        kvm_guest_counters(guest, &counters);
        cr_expect_eq(check(guest, &counters, &error), GODWIT_OK, "before it ever ran: %s", error.text);
        start(guest);
        for (unsigned round = 1; round <= 60; round++) {
            run_steps(guest, round * 300);
            stop(guest);
            kvm_guest_counters(guest, &counters);
            cr_expect_eq(check(guest, &counters, &error), GODWIT_OK, "%u processors, round %u: %s", cpus, round,
                         error.text);
            resume(guest);
        }
        kvm_guest_free(guest);
    }
}

Test(kvm, nothing_changes_while_it_is_stopped)
{
    struct kvm_guest_config config = small_config();
    struct kvm_guest *guest = new_source(&config);
    static char before[RAM];
    start(guest);
    run_steps(guest, 3000);
    stop(guest);
    struct process_view view = kvm_guest_image(guest);
    memcpy(before, view.addr, RAM);
    nanosleep(&(struct timespec){0, 30000000}, NULL);
    cr_expect_eq(memcmp(before, view.addr, RAM), 0);
    kvm_guest_free(guest);
}

Test(kvm, stopping_is_quick_whether_processors_sleep_or_write)
{
    for (unsigned busy = 0; busy < 2; busy++) {
        struct kvm_guest_config config = small_config();
        config.dirty_rate = busy ? 8ull << 30 : 0;
        struct kvm_guest *guest = new_source(&config);
        uint64_t best = UINT64_MAX;
        start(guest);
        for (unsigned i = 0; i < 50; i++) {
            nanosleep(&(struct timespec){0, 1000000}, NULL);
            uint64_t before = process_now();
            stop(guest);
            uint64_t took = process_now() - before;
            best = took < best ? took : best;
            resume(guest);
        }
        cr_expect_lt(best, 2000000, "the best of 50 stops took %lu ns", best); /* the best: others share the machine */
        kvm_guest_free(guest);
    }
}

Test(kvm, refuses_bad_configurations)
{
    struct kvm_guest_config config = small_config();
    struct kvm_guest *guest = new_source(&config);
    kvm_guest_free(guest);
    config.cpus = 0;
    cr_expect_eq(kvm_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID);
    config.cpus = KVM_GUEST_CPUS_MAX + 1;
    cr_expect_eq(kvm_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID);
    config = small_config();
    config.ram = 5 * 4096;
    cr_expect_eq(kvm_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID, "no page for one of two processors");
    config = small_config();
    config.ram = (1ull << 39) + 4096;
    cr_expect_eq(kvm_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID);
    config = small_config();
    config.pattern = PATTERN_FILE;
    cr_expect_eq(kvm_guest_new_source(&guest, &config, NULL), GODWIT_ERR_INVALID);
}
