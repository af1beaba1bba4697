/* The witness file of a process guest: what it says must hold of the guest, and outlive it. */
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "guest/process.h"
#include "guest/witness.h"
#include "tests/guest/state_writer.h"

enum { RECORDS_MAX = 1024, KIND_AT = 10, TICKS_AT = 32, TIME_AT = 48 };

struct records {
    uint8_t bytes[RECORDS_MAX][WITNESS_RECORD];
    size_t count;
};

static uint64_t number(const uint8_t *at)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++)
        value = value << 8 | at[i];
    return value;
}

static void read_records(const char *path, struct records *records)
{
    FILE *file = fopen(path, "rb");
    cr_assert(file != NULL);
    records->count = fread(records->bytes, WITNESS_RECORD, RECORDS_MAX, file);
    fclose(file);
}

static struct process_guest *witnessed(struct witness *witness)
{
    struct godwit_error error;
    struct process_guest_config config;
    struct process_guest *guest;
    process_guest_config_init(&config);
    config.ram = 1 << 20;
    config.dirty_rate = 16 << 20;
    config.witness = witness;
    cr_assert(eq(int, process_guest_new_source(&guest, &config, &error), GODWIT_OK));
    return guest;
}

Test(witness, a_running_guest_ticks_and_a_stopped_one_does_not)
{
    char path[] = "/tmp/godwit-witness-XXXXXX";
    close(mkstemp(path));
    struct godwit_error error;
    struct witness *witness;
    cr_assert(eq(int, witness_open(path, WITNESS_SOURCE, &witness, &error), GODWIT_OK));
    struct process_guest *guest = witnessed(witness);
    const struct godwit_guest *interface = process_guest_interface(guest);
    static struct records before, after;
    cr_assert(eq(int, process_guest_start(guest, &error), GODWIT_OK));
    do {
        poll(NULL, 0, 1);
        read_records(path, &before);
    } while (before.count < 4);
    cr_assert(eq(int, interface->ops->stop(interface->self, &error), GODWIT_OK));
    read_records(path, &before);
    poll(NULL, 0, 20);
    read_records(path, &after);
    cr_assert(eq(sz, before.count, after.count), "nothing is written while the guest is stopped");
    cr_assert(eq(int, interface->ops->resume(interface->self, &error), GODWIT_OK));
    process_guest_free(guest);
    witness_close(witness);
    read_records(path, &after);
    unlink(path);

    cr_assert(eq(int, after.bytes[0][KIND_AT], WITNESS_START));
    cr_assert(eq(int, after.bytes[before.count - 1][KIND_AT], WITNESS_STOP));
    cr_assert(eq(int, after.bytes[before.count][KIND_AT], WITNESS_START));
    cr_assert(eq(int, after.bytes[after.count - 1][KIND_AT], WITNESS_STOP));
    for (size_t i = 1; i < after.count; i++) {
        cr_assert(number(after.bytes[i] + TIME_AT) >= number(after.bytes[i - 1] + TIME_AT), "time goes forward");
        cr_assert(number(after.bytes[i] + TICKS_AT) >= number(after.bytes[i - 1] + TICKS_AT), "counters go forward");
    }
}

Test(witness, a_guest_that_cannot_be_witnessed_does_not_start)
{
    struct godwit_error error;
    struct witness *witness;
    cr_assert(eq(int, witness_open("/dev/full", WITNESS_SOURCE, &witness, &error), GODWIT_OK));
    struct process_guest *guest = witnessed(witness);
    cr_assert(eq(int, process_guest_start(guest, &error), GODWIT_ERR_SYSTEM));
    process_guest_free(guest);
    witness_close(witness);
}

/* One thread of two: what the first would write by then is lost when the start is taken back, or worse, is not. */
Test(witness, a_guest_with_a_thread_missing_has_never_run)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    cr_skip("a sanitizer's address space cannot be limited");
#endif
    char path[] = "/tmp/godwit-witness-XXXXXX";
    close(mkstemp(path));
    struct godwit_error error;
    struct witness *witness;
    struct process_counters counters;
    static struct records records;
    cr_assert(eq(int, witness_open(path, WITNESS_SOURCE, &witness, &error), GODWIT_OK));
    struct process_guest *guest = witnessed(witness);
    pthread_attr_t large;
    pthread_attr_init(&large);
    pthread_attr_setstacksize(&large, 64 << 20);
    pthread_setattr_default_np(&large);
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    cr_assert(file != NULL && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    struct rlimit before, limit;
    getrlimit(RLIMIT_AS, &before);
    limit = (struct rlimit){pages * 4096 + (100 << 20), before.rlim_max};
    setrlimit(RLIMIT_AS, &limit);
    enum godwit_err err = process_guest_start(guest, &error);
    setrlimit(RLIMIT_AS, &before);
    cr_assert(eq(int, err, GODWIT_ERR_NO_MEMORY));
    process_guest_counters(guest, &counters);
    read_records(path, &records);
    unlink(path);
    cr_assert(eq(u64, counters.steps[0], 0));
    cr_assert(eq(sz, records.count, 0), "it has not even begun to run");
    struct process_view view = process_guest_image(guest);
    struct process_check check;
    cr_assert(eq(int, process_guest_check(&view, &counters, &check, &error), GODWIT_OK), "nothing was written");
    process_guest_free(guest);
    witness_close(witness);
}

Test(witness, a_file_that_cannot_be_opened_is_an_error)
{
    struct godwit_error error;
    struct witness *witness;
    cr_assert(eq(int, witness_open("/nowhere/witness", WITNESS_SOURCE, &witness, &error), GODWIT_ERR_SYSTEM));
}
