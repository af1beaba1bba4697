/* Is this memory what the workers' counters say it must be? */
#ifndef GUEST_PROCESS_CHECK_H
#define GUEST_PROCESS_CHECK_H

#include <stdint.h>

#include <godwit/error.h>

#include "guest/page_check.h"
#include "guest/process_plan.h"

/*
 * Compares every page with what `counters` imply: its last stamp, or its initial content where it was never written.
 * Nobody writes the view meanwhile. In as many threads as processors. *out is always written; MISMATCH with the first
 * wrong page described when one is wrong.
 */
enum godwit_err process_guest_check(const struct process_view *view, const struct process_counters *counters,
                                    struct process_check *out, struct godwit_error *error);

#endif
