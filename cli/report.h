/*
 * The end of a migration on stdout: a short table, or one JSON object under QEMU's names. Nothing else of the tool
 * writes to stdout, except --help and --version.
 *
 * A report that cannot be written whole (a full disk behind stdout) is an error of the tool: report_print() says so.
 */
#ifndef CLI_REPORT_H
#define CLI_REPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/info.h>

enum report_side { REPORT_SOURCE, REPORT_DESTINATION };

/* The guest that was migrated, as far as this side knows it. */
struct report_guest {
    const char *type; /* "process", "kvm", "idle", "sink" */
    uint64_t ram;     /* bytes */
    uint64_t dirty_rate_target; /* bytes per second */
    uint64_t hot_set;           /* bytes */
    unsigned cpus;              /* 0: it has none of its own */
    const char *backing;        /* NULL: none of these is known */
    const char *pattern;
    const char *memory_from; /* NULL: none */
    const char *tracker;     /* what tracked the writes; NULL: nothing */
};

/* The demo's proof, made after the migration. */
struct report_proof {
    bool verified;
    uint64_t verify_time_ms;
    uint64_t pages;   /* compared */
    const char *text; /* one line: what was found */
};

/* What --check found at the guest that runs on this side. */
struct report_check {
    bool runs;      /* it did something since the migration ended */
    uint64_t pages; /* compared */
    uint64_t skipped, wrong;
};

struct report {
    enum report_side side;
    const struct godwit_info *info;
    const struct godwit_error *error;  /* NULL: the migration completed */
    const struct report_guest *guest;  /* NULL: none was made */
    const struct report_proof *proof;  /* NULL: nothing was verified */
    int64_t guest_gap_ms;              /* -1: unknown */
    const struct report_check *check;  /* NULL: nothing was checked */
    const char *dump;                  /* destination: file the memory went to; NULL: none */
};

/* True when all of it reached stdout. */
bool report_print(const struct report *report, bool json);

#endif
