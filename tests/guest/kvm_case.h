/*
 * What the tests of the KVM guest share. They use it through its operations, without an engine: a test moves pages and
 * state itself. Where /dev/kvm cannot be used every test that needs it is skipped with the reason. Sizes are small:
 * where KVM itself is virtualised the first touch of a page takes some 10 us.
 */
#ifndef TESTS_GUEST_KVM_CASE_H
#define TESTS_GUEST_KVM_CASE_H

#include <criterion/criterion.h>
#include <string.h>
#include <time.h>

#include "guest/kvm.h"
#include "tests/guest/state_writer.h"

enum { RAM = 8 << 20, PAGES = RAM / 4096, WORDS = PAGES / 64, SYSTEM_PAGES = 4 };

static inline struct kvm_guest_config small_config(void)
{
    struct kvm_guest_config config;
    kvm_guest_config_init(&config);
    config.ram = RAM;
    config.dirty_rate = 400u << 20;
    config.pattern = PATTERN_MIXED;
    return config;
}

static inline struct kvm_guest *new_source(const struct kvm_guest_config *config)
{
    struct kvm_guest *guest = NULL;
    struct godwit_error error = {0};
    enum godwit_err err = kvm_guest_new_source(&guest, config, &error);
    if (err && strstr(error.text, "/dev/kvm"))
        cr_skip_test("%s", error.text);
    cr_assert_eq(err, GODWIT_OK, "%s", error.text);
    return guest;
}

static inline uint64_t total(const struct kvm_guest *guest)
{
    struct process_counters counters;
    uint64_t steps = 0;
    kvm_guest_counters(guest, &counters);
    for (unsigned i = 0; i < counters.threads; i++)
        steps += counters.steps[i];
    return steps;
}

/* Until so many pages were counted. Real processors, so real time passes; nothing is asserted about how much. */
static inline void run_steps(const struct kvm_guest *guest, uint64_t steps)
{
    while (total(guest) < steps)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
}

static inline void start(struct kvm_guest *guest)
{
    struct godwit_error error = {0};
    cr_assert_eq(kvm_guest_start(guest, &error), GODWIT_OK, "%s", error.text);
}

static inline void stop(struct kvm_guest *guest)
{
    const struct godwit_guest *face = kvm_guest_interface(guest);
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->stop(face->self, &error), GODWIT_OK, "%s", error.text);
}

static inline void resume(struct kvm_guest *guest)
{
    const struct godwit_guest *face = kvm_guest_interface(guest);
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->resume(face->self, &error), GODWIT_OK, "%s", error.text);
}

static inline enum godwit_err check_view(struct process_view view, const struct process_counters *counters,
                                  struct godwit_error *error)
{
    struct process_check result;
    enum godwit_err err = kvm_guest_check(&view, counters, &result, error);
    cr_expect(err || result.wrong == 0);
    return err;
}

static inline enum godwit_err check(const struct kvm_guest *guest, const struct process_counters *counters,
                             struct godwit_error *error)
{
    return check_view(kvm_guest_image(guest), counters, error);
}

static inline struct kvm_guest *stopped_guest(const struct kvm_guest_config *config, struct process_counters *counters)
{
    struct kvm_guest *guest = new_source(config);
    start(guest);
    run_steps(guest, 5000); /* more than two rounds */
    stop(guest);
    kvm_guest_counters(guest, counters);
    return guest;
}

#endif
