/* The KVM guest as a destination: what arrives runs on, and what cannot be is refused. */
#include "tests/guest/kvm_copy.h"

TestSuite(kvm_destination, .timeout = 60);

static struct kvm_guest *new_destination(bool keep_image)
{
    struct incoming_config config;
    struct kvm_guest *guest = NULL;
    struct godwit_error error = {0};
    incoming_config_init(&config);
    config.keep_image = keep_image;
    enum godwit_err err = kvm_guest_new_destination(&guest, &config, &error);
    if (err && strstr(error.text, "/dev/kvm"))
        cr_skip_test("%s", error.text);
    cr_assert_eq(err, GODWIT_OK, "%s", error.text);
    return guest;
}

static void accept_ram(struct kvm_guest *guest)
{
    struct godwit_block offer = {.id = "pc.ram", .size = RAM, .page_size = 4096}, mine = offer;
    struct godwit_error error = {0};
    const struct godwit_guest *face = kvm_guest_interface(guest);
    cr_assert_eq(face->ops->accept(face->self, &offer, 1, &mine, &error), GODWIT_OK, "%s", error.text);
}

static struct godwit_state_writer saved(const struct kvm_guest *from, unsigned stream)
{
    const struct godwit_guest *face = kvm_guest_interface(from);
    struct godwit_state_writer writer = {.used = 0};
    struct godwit_error error = {0};
    cr_assert_eq(face->ops->save_rest(face->self, stream, &writer, &error), GODWIT_OK, "%s", error.text);
    return writer;
}

static enum godwit_err load(struct kvm_guest *to, const char *name, const void *bytes, size_t size)
{
    const struct godwit_guest *face = kvm_guest_interface(to);
    return face->ops->load(face->self, name, bytes, size, NULL);
}

static void move_state(const struct kvm_guest *from, struct kvm_guest *to)
{
    const struct godwit_guest *face = kvm_guest_interface(from);
    for (unsigned i = 0; i < face->stream_count; i++) {
        struct godwit_state_writer writer = saved(from, i);
        cr_assert_eq(load(to, face->streams[i], writer.bytes, writer.used), GODWIT_OK, "%s", face->streams[i]);
    }
}

static void check_migration(bool keep_image)
{
    struct kvm_guest_config config = small_config();
    struct kvm_guest *source = new_source(&config), *target = new_destination(keep_image);
    struct process_counters at_source, arrived, later;
    struct godwit_error error = {0};
    uint64_t bitmap[WORDS] = {0};
    accept_ram(target);
    start(source);
    run_steps(source, 3000);
    const struct godwit_guest *face = arm(source);
    mark_data(face, bitmap);
    for (unsigned pass = 0; pass < 10; pass++) {
        copy_pass(face, bitmap, kvm_guest_image(target).addr);
        if (pass == 9)
            stop(source);
        sync_log(face, bitmap);
    }
    copy_pass(face, bitmap, kvm_guest_image(target).addr);
    face->ops->dirty_stop(face->self);
    move_state(source, target);
    kvm_guest_counters(source, &at_source);
    cr_assert(kvm_guest_loaded(target, &arrived));
    cr_expect_eq(memcmp(&at_source, &arrived, sizeof arrived), 0, "the counters travelled");
    cr_expect_eq(check(target, &arrived, &error), GODWIT_OK, "%s", error.text);
    cr_expect_not(kvm_guest_alive(target), "not resumed yet");
    resume(target);
    run_steps(target, total(source) + 6000);
    while (!kvm_guest_alive(target)) /* for ever: the suite's timeout */
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    stop(target);
    kvm_guest_counters(target, &later);
    static _Alignas(4096) char running[RAM];
    memcpy(running, kvm_guest_memory(target), RAM);
    cr_expect_eq(check_view((struct process_view){running, RAM, -1}, &later, &error), GODWIT_OK,
                 "it runs on where it was: %s", error.text);
    if (keep_image) {
        cr_expect_eq(check(target, &arrived, &error), GODWIT_OK, "the image stays: %s", error.text);
        cr_expect_eq(memcmp(kvm_guest_image(target).addr, kvm_guest_image(source).addr, RAM), 0);
    }
    struct process_gap gap;
    kvm_guest_gap(target, &gap);
    cr_expect(gap.switchover_known);
    cr_expect_geq(gap.longest_ns, gap.switchover_ns);
    kvm_guest_free(source);
    kvm_guest_free(target);
}

Test(kvm_destination, migrates_and_runs_on)
{
    check_migration(false);
}
Test(kvm_destination, migrates_and_keeps_the_image_of_the_switchover)
{
    check_migration(true);
}

Test(kvm_destination, refuses_every_truncation_and_every_impossible_state)
{
    struct kvm_guest_config config = small_config();
    struct process_counters counters;
    struct kvm_guest *source = stopped_guest(&config, &counters), *target = new_destination(false);
    const struct godwit_guest *from = kvm_guest_interface(source);
    struct godwit_state_writer machine = saved(source, 0), cpu = saved(source, 1);
    accept_ram(target);
    cr_expect_eq(load(target, "cpu", cpu.bytes, cpu.used), GODWIT_ERR_GUEST, "before the machine");
    for (unsigned stream = 0; stream < from->stream_count; stream++) {
        struct godwit_state_writer good = saved(source, stream);
        for (size_t size = 0; size <= good.used + 1; size++)
            if (size != good.used)
                cr_expect_eq(load(target, from->streams[stream], good.bytes, size), GODWIT_ERR_GUEST, "%s of %zu bytes",
                             from->streams[stream], size);
        good.bytes[3]++;
        cr_expect_eq(load(target, from->streams[stream], good.bytes, good.used), GODWIT_ERR_GUEST, "a later version");
        good.bytes[3]--;
        cr_expect_eq(load(target, from->streams[stream], good.bytes, good.used), GODWIT_OK);
    }
    cr_expect_eq(load(target, "machine", machine.bytes, machine.used), GODWIT_ERR_GUEST, "twice");
    cr_expect_eq(load(target, "floppy", "x", 1), GODWIT_ERR_GUEST);
    unsigned refused = 0;
    for (size_t at = 8; at < cpu.used; at++) { /* whatever is accepted must be safe to run on */
        cpu.bytes[at] ^= 0xff;
        refused += load(target, "cpu", cpu.bytes, cpu.used) != GODWIT_OK;
        cpu.bytes[at] ^= 0xff;
    }
    cr_expect_gt(refused, 100, "%u of %zu", refused, cpu.used);
    kvm_guest_free(source);
    kvm_guest_free(target);
}

Test(kvm_destination, a_processor_that_leaves_its_program_is_reported)
{
    struct kvm_guest_config config = small_config();
    struct process_counters counters;
    struct kvm_guest *source = stopped_guest(&config, &counters), *target = new_destination(false);
    struct godwit_error error = {0};
    accept_ram(target); /* and nothing arrives in it: not even page tables */
    move_state(source, target);
    const struct godwit_guest *face = kvm_guest_interface(target);
    enum godwit_err err = GODWIT_OK;
    while (!err) { /* for ever: the suite's timeout */
        resume(target);
        nanosleep(&(struct timespec){0, 1000000}, NULL);
        err = face->ops->stop(face->self, &error);
    }
    cr_expect_eq(err, GODWIT_ERR_GUEST);
    cr_expect(strstr(error.text, "left its program"), "%s", error.text);
    kvm_guest_free(source);
    kvm_guest_free(target);
}

Test(kvm_destination, refuses_offers_that_are_not_one_block_of_ram)
{
    struct kvm_guest *guest = new_destination(false);
    struct godwit_error error = {0};
    const struct godwit_guest *face = kvm_guest_interface(guest);
    struct godwit_block offer[2] = {{.id = "pc.ram", .size = RAM}, {.id = "vga", .size = RAM}}, mine[2];
    cr_expect_eq(face->ops->accept(face->self, offer, 2, mine, &error), GODWIT_ERR_MISMATCH);
    cr_expect_eq(face->ops->accept(face->self, offer + 1, 1, mine, &error), GODWIT_ERR_MISMATCH);
    cr_expect(strstr(error.text, "vga"), "%s", error.text);
    offer[0].size = 5000;
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_ERR_INVALID);
    offer[0].size = RAM;
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_OK);
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_ERR_BUSY);
    cr_expect_eq(face->ops->resume(face->self, &error), GODWIT_ERR_GUEST, "nothing was loaded");
    face->ops->discard(face->self);
    cr_expect_eq(face->ops->accept(face->self, offer, 1, mine, &error), GODWIT_OK, "as new after discard");
    kvm_guest_free(guest);
}
