/* The guest options of `send` and `demo`: what guest to make on the source, and their defaults. */
#ifndef CLI_GUEST_OPTIONS_H
#define CLI_GUEST_OPTIONS_H

#include <stdint.h>

#include <godwit/error.h>

#include "cli/args.h"
#include "cli/report.h"
#include "guest/kvm.h"

enum guest_type { GUEST_PROCESS, GUEST_KVM, GUEST_IDLE };

#define GUEST_OPTION_UNSET UINT64_MAX
#define GUEST_CHOICE_UNSET UINT32_MAX

struct guest_options {
    uint64_t ram; /* bytes */
    const char *memory_from;
    unsigned pattern; /* enum pattern, or GUEST_CHOICE_UNSET */
    unsigned type;    /* enum guest_type */
    uint64_t dirty_rate, hot_set;
    unsigned backing; /* enum memory_backing */
    const char *witness; /* NULL: none */
    unsigned tracker; /* enum godwit_tracker_kind, or GUEST_CHOICE_UNSET */
    uint64_t cpus;    /* kvm; 0 for the others once settled */
};

/* For an arg_group; the offsets are into struct guest_options. */
extern const struct arg_spec guest_option_specs[];
enum { GUEST_OPTION_COUNT = 10 };

/* Everything unset. */
void guest_options_init(struct guest_options *options);

/*
 * Fills in what was not given: ram from the file or 1 GiB, and the dirty rate. INVALID, in one line with the remedy,
 * for options that contradict each other or a file that cannot be guest memory.
 */
enum godwit_err guest_options_settle(struct guest_options *options, uint64_t dirty_rate, struct godwit_error *error);

/* Settled options of a kvm guest. */
void guest_options_kvm(const struct guest_options *options, struct kvm_guest_config *config);

void guest_options_report(const struct guest_options *options, struct report_guest *out);

#endif
