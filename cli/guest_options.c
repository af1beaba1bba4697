#include "cli/guest_options.h"

#include <inttypes.h>
#include <unistd.h>

#include <godwit/guest.h>
#include <godwit/tracker.h>

#include "guest/memory.h"
#include "guest/memory_file.h"
#include "guest/pattern.h"
#include "transport/error.h"

static const uint64_t standard_ram = 1ull << 30;

static const char *const type_names[] = {[GUEST_PROCESS] = "process", [GUEST_KVM] = "kvm", [GUEST_IDLE] = "idle",
                                         NULL};
static const char *const pattern_names[] = {[PATTERN_RANDOM] = "random", [PATTERN_ZERO] = "zero",
                                            [PATTERN_MIXED] = "mixed", NULL};
static const char *const backing_names[] = {[MEMORY_MEMFD] = "memfd", [MEMORY_ANON] = "anon", 
                                            [MEMORY_HUGETLB] = "hugetlb", NULL};

static const char *const tracker_names[] = {[GODWIT_TRACKER_AUTO] = "auto", [GODWIT_TRACKER_SCAN] = "scan",
                                            [GODWIT_TRACKER_FAULT] = "fault", NULL};

#define FIELD(name) offsetof(struct guest_options, name)

const struct arg_spec guest_option_specs[] = {
    {.name = "ram", .kind = ARG_SIZE, .offset = FIELD(ram), .min = GODWIT_PAGE_SIZE, .multiple = GODWIT_PAGE_SIZE,
     .value = "SIZE", .standard = "1G, or the size of FILE", .summary = "memory of the guest"},
    {.name = "memory-from", .kind = ARG_TEXT, .offset = FIELD(memory_from), .value = "FILE",
     .summary = "initial content of the memory; holes of the file stay holes"},
    {.name = "pattern", .kind = ARG_CHOICE, .offset = FIELD(pattern), .choices = pattern_names, .standard = "random",
     .summary = "initial content where no file is given"},
    {.name = "guest", .kind = ARG_CHOICE, .offset = FIELD(type), .choices = type_names, .standard = "process",
     .summary = "process: threads write to the memory while it moves; kvm: a virtual machine does; idle: nobody does"},
    {.name = "cpus", .kind = ARG_COUNT, .offset = FIELD(cpus), .min = 1, .max = KVM_GUEST_CPUS_MAX, .value = "N",
     .standard = "2", .summary = "processors of a kvm guest"},
    {.name = "dirty-rate", .kind = ARG_SIZE, .offset = FIELD(dirty_rate), .value = "BYTES/s",
     .standard = "200M in demo, 0 in send", .summary = "distinct 4 KiB pages the guest writes per second, in bytes"},
    {.name = "hot-set", .kind = ARG_SIZE, .offset = FIELD(hot_set), .min = GODWIT_PAGE_SIZE,
     .multiple = GODWIT_PAGE_SIZE, .value = "SIZE", .standard = "a quarter of the memory",
     .summary = "process: the part of the memory that takes 15 of 16 writes"},
    {.name = "backing", .kind = ARG_CHOICE, .offset = FIELD(backing), .choices = backing_names, .standard = "memfd",
     .summary = "what the memory is made of"},
    {.name = "witness", .kind = ARG_TEXT, .offset = FIELD(witness), .value = "FILE",
     .summary = "append to FILE when a process guest runs, about every millisecond"},
    {.name = "tracker", .kind = ARG_CHOICE, .offset = FIELD(tracker), .choices = tracker_names, .standard = "auto",
     .summary = "how writes are noticed: scan needs Linux 6.7, fault 5.19 and costs the guest more"},
};

_Static_assert((int)KVM_GUEST_CPUS == 2, "--help says so");
_Static_assert(sizeof guest_option_specs / sizeof *guest_option_specs == GUEST_OPTION_COUNT,
               "the header says how many");

void guest_options_init(struct guest_options *options)
{
    *options = (struct guest_options){.ram = GUEST_OPTION_UNSET, .pattern = GUEST_CHOICE_UNSET, .type = GUEST_PROCESS,
                                      .dirty_rate = GUEST_OPTION_UNSET, .hot_set = GUEST_OPTION_UNSET,
                                      .backing = MEMORY_MEMFD, .tracker = GUEST_CHOICE_UNSET,
                                      .cpus = GUEST_OPTION_UNSET};
}

static enum godwit_err settle_ram(struct guest_options *options, struct godwit_error *error)
{
    uint64_t file_size = 0;
    if (options->memory_from) {
        int fd = -1;
        enum godwit_err err = memory_file_open(options->memory_from, &fd, &file_size, error);
        if (err)
            return error_prefix(error, "--memory-from");
        close(fd);
    }
    if (options->ram == GUEST_OPTION_UNSET)
        options->ram = file_size ? file_size : standard_ram;
    if (file_size > options->ram)
        return error_set(error, GODWIT_ERR_INVALID,
                         "--memory-from %s has %" PRIu64 " bytes and does not fit --ram %" PRIu64 ": leave --ram out",
                         options->memory_from, file_size, options->ram);
    if (options->type == GUEST_IDLE && file_size && file_size != options->ram)
        return error_set(error, GODWIT_ERR_INVALID,
                         "an idle guest's memory is its file, %" PRIu64 " bytes: leave --ram out", file_size);
    if (options->backing == MEMORY_HUGETLB && options->ram % RAM_HUGE_PAGE)
        return error_set(error, GODWIT_ERR_INVALID, "--ram %" PRIu64 " is not a multiple of the huge page, %d bytes",
                         options->ram, RAM_HUGE_PAGE);
    return GODWIT_OK;
}

/* A kvm guest's memory is generated, and all of it is written in turn. */
static enum godwit_err check_kvm(const struct guest_options *options, struct godwit_error *error)
{
    if (options->type != GUEST_KVM)
        return options->cpus == GUEST_OPTION_UNSET
                   ? GODWIT_OK
                   : error_set(error, GODWIT_ERR_INVALID,
                               "only a kvm guest has processors: leave --cpus out, or use --guest kvm");
    if (options->memory_from)
        return error_set(error, GODWIT_ERR_INVALID,
                         "a kvm guest makes its own memory: leave --memory-from or --guest kvm out");
    if (options->hot_set != GUEST_OPTION_UNSET)
        return error_set(error, GODWIT_ERR_INVALID, "a kvm guest has no hot set: leave --hot-set or --guest kvm out");
    return GODWIT_OK;
}

/* With everything settled: what the guest itself has to say. */
static enum godwit_err check_kvm_config(const struct guest_options *options, struct godwit_error *error)
{
    struct kvm_guest_config config;
    guest_options_kvm(options, &config);
    return kvm_guest_config_check(&config, error) ? error_prefix(error, "--guest kvm") : GODWIT_OK;
}

void guest_options_kvm(const struct guest_options *options, struct kvm_guest_config *config)
{
    kvm_guest_config_init(config);
    config->ram = options->ram;
    config->pattern = (enum pattern)options->pattern;
    config->dirty_rate = options->dirty_rate;
    config->backing = (enum memory_backing)options->backing;
    config->cpus = (unsigned)options->cpus;
}

enum godwit_err guest_options_settle(struct guest_options *options, uint64_t dirty_rate, struct godwit_error *error)
{
    if (options->memory_from && options->pattern != GUEST_CHOICE_UNSET)
        return error_set(error, GODWIT_ERR_INVALID,
                         "--memory-from and --pattern both give the memory its content: use one");
    if (options->type == GUEST_IDLE && options->dirty_rate != GUEST_OPTION_UNSET && options->dirty_rate > 0)
        return error_set(error, GODWIT_ERR_INVALID,
                         "an idle guest writes nothing: leave --dirty-rate or --guest idle out");
    if (options->type == GUEST_IDLE && options->hot_set != GUEST_OPTION_UNSET)
        return error_set(error, GODWIT_ERR_INVALID,
                         "an idle guest has no hot set: leave --hot-set or --guest idle out");
    if (options->type != GUEST_PROCESS && options->witness)
        return error_set(error, GODWIT_ERR_INVALID,
                         "only the process guest has a witness: leave --witness or --guest %s out",
                         type_names[options->type]);
    if (options->type != GUEST_PROCESS && options->tracker != GUEST_CHOICE_UNSET)
        return error_set(error, GODWIT_ERR_INVALID,
                         "only the process guest has its writes tracked: leave --tracker or --guest %s out",
                         type_names[options->type]);
    enum godwit_err err = check_kvm(options, error);
    if (!err)
        err = settle_ram(options, error);
    if (err)
        return err;
    if (options->tracker == GUEST_CHOICE_UNSET)
        options->tracker = GODWIT_TRACKER_AUTO;
    if (options->pattern == GUEST_CHOICE_UNSET)
        options->pattern = PATTERN_RANDOM;
    if (options->type == GUEST_IDLE)
        options->dirty_rate = options->hot_set = 0;
    if (options->dirty_rate == GUEST_OPTION_UNSET)
        options->dirty_rate = dirty_rate;
    if (options->type == GUEST_KVM)
        options->hot_set = 0;
    if (options->cpus == GUEST_OPTION_UNSET)
        options->cpus = options->type == GUEST_KVM ? KVM_GUEST_CPUS : 0;
    if (options->hot_set == GUEST_OPTION_UNSET)
        options->hot_set = options->ram / 4 / GODWIT_PAGE_SIZE * GODWIT_PAGE_SIZE;
    if (options->hot_set > options->ram)
        return error_set(error, GODWIT_ERR_INVALID,
                         "--hot-set %" PRIu64 " is larger than the memory, %" PRIu64 " bytes", options->hot_set,
                         options->ram);
    return options->type == GUEST_KVM ? check_kvm_config(options, error) : GODWIT_OK;
}

void guest_options_report(const struct guest_options *options, struct report_guest *out)
{
    *out = (struct report_guest){
        .type = type_names[options->type],
        .ram = options->ram,
        .dirty_rate_target = options->dirty_rate,
        .hot_set = options->hot_set,
        .cpus = (unsigned)options->cpus,
        .backing = options->type == GUEST_IDLE && options->memory_from ? "file" : backing_names[options->backing],
        .pattern = options->memory_from ? "file" : pattern_names[options->pattern],
        .memory_from = options->memory_from,
    };
}
