/* The last look at a process guest: stop it, wherever it runs, and compare its memory with what its counters say. */
#ifndef CLI_CHECK_H
#define CLI_CHECK_H

#include <godwit/error.h>

#include "cli/report.h"
#include "guest/process.h"

/* Fills pages, skipped and wrong. MISMATCH when pages are wrong. The guest does not run afterwards. */
enum godwit_err check_process(struct process_guest *guest, struct report_check *out, struct godwit_error *error);

#endif
