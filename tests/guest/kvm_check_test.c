/* The check of a KVM guest's memory: every kind of damage is seen. */
#include "tests/guest/kvm_case.h"

TestSuite(kvm_check, .timeout = 60);

/* A page of processor 0's share, well away from where the processor is. */
static uint64_t quiet_page(const struct process_counters *counters)
{
    uint64_t share = (PAGES - SYSTEM_PAGES) / counters->threads;
    return SYSTEM_PAGES + (counters->steps[0] + share / 2) % share;
}

static uint8_t *byte_of(const struct kvm_guest *guest, uint64_t page)
{
    return (uint8_t *)kvm_guest_image(guest).addr + page * 4096;
}

Test(kvm_check, the_check_sees_a_page_that_is_a_round_too_old)
{
    struct kvm_guest_config config = small_config();
    struct process_counters counters;
    struct godwit_error error = {0};
    struct kvm_guest *guest = stopped_guest(&config, &counters);
    cr_assert_eq(check(guest, &counters, &error), GODWIT_OK, "%s", error.text);
    --*byte_of(guest, quiet_page(&counters));
    cr_expect_eq(check(guest, &counters, &error), GODWIT_ERR_MISMATCH);
    cr_expect(strstr(error.text, "single-step"), "%s", error.text);
    ++*byte_of(guest, quiet_page(&counters));
    cr_expect_eq(check(guest, &counters, &error), GODWIT_OK);

    uint64_t last = SYSTEM_PAGES + (PAGES - SYSTEM_PAGES) / 2 -
                    1; /* of the share: the rule alone takes this for the place */
    ++*byte_of(guest, last);
    cr_expect_eq(check(guest, &counters, &error), GODWIT_ERR_MISMATCH);
    kvm_guest_free(guest);
}

Test(kvm_check, the_check_sees_memory_and_registers_of_different_moments)
{
    struct kvm_guest_config config = small_config();
    struct process_counters counters;
    struct godwit_error error = {0};
    struct kvm_guest *guest = stopped_guest(&config, &counters);
    for (int by = -2; by <= 2; by++) {
        struct process_counters other = counters;
        other.steps[1] += (uint64_t)(int64_t)by;
        cr_expect_eq(check(guest, &other, &error) == GODWIT_OK, by == 0, "%d steps off", by);
    }
    cr_expect(strstr(error.text, "processor 1"), "%s", error.text);
    struct process_counters other = counters;
    other.steps[0] += 256 * ((PAGES - SYSTEM_PAGES) / 2); /* counters are modulo 256 rounds */
    cr_expect_eq(check(guest, &other, &error), GODWIT_OK);
    other.steps[0] += (PAGES - SYSTEM_PAGES) / 2;
    cr_expect_eq(check(guest, &other, &error), GODWIT_ERR_MISMATCH, "a whole round off");
    kvm_guest_free(guest);
}

Test(kvm_check, the_check_sees_swapped_pages_and_one_wrong_byte_anywhere)
{
    struct kvm_guest_config config = small_config();
    config.pattern = PATTERN_RANDOM;
    struct process_counters counters;
    struct godwit_error error = {0};
    struct kvm_guest *guest = stopped_guest(&config, &counters);
    static uint8_t kept[4096];
    uint8_t *a = byte_of(guest, quiet_page(&counters)), *b = a + 4096;
    memcpy(kept, a, 4096);
    memcpy(a, b, 4096);
    memcpy(b, kept, 4096);
    cr_expect_eq(check(guest, &counters, &error), GODWIT_ERR_MISMATCH);
    cr_expect(strstr(error.text, "2 of"), "the rule does not see it, the content does: %s", error.text);
    memcpy(kept, a, 4096);
    memcpy(a, b, 4096);
    memcpy(b, kept, 4096);
    cr_expect_eq(check(guest, &counters, &error), GODWIT_OK);
    for (uint64_t at = 100; at < RAM; at += 1 << 20) {
        uint8_t *byte = byte_of(guest, 0) + at;
        *byte ^= 4;
        cr_expect_eq(check(guest, &counters, &error), GODWIT_ERR_MISMATCH, "byte %lu", at);
        *byte ^= 4;
    }
    kvm_guest_free(guest);
}
