/*
 * The guest of `recv`: for each migration that is offered it makes a fresh guest and hands the operations
 * on to it, so that one listener serves guest after guest.
 */
#ifndef CLI_RECEIVER_H
#define CLI_RECEIVER_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/guest.h>

#include "cli/report.h"

enum receiver_type { RECEIVER_SINK, RECEIVER_PROCESS, RECEIVER_KVM };

struct receiver_config {
    enum receiver_type type;
    const char *dump;        /* sink: keep the memory in this file; NULL: no */
    bool discard;            /* sink: do not keep it at all */
    const char *memory_from; /* sink: what the memory holds before; NULL: zeros */
    bool prealloc;
    const char *witness; /* process: note in this file when the guest runs; NULL: no */
};

struct receiver;

/* Borrows config's strings. What can be checked before a guest is offered is checked here. */
enum godwit_err receiver_new(const struct receiver_config *config, struct receiver **out, struct godwit_error *error);
void receiver_free(struct receiver *receiver); /* NULL allowed; not while a migration runs */

/* Valid until receiver_free. */
const struct godwit_guest *receiver_interface(const struct receiver *receiver);

/* After a migration that succeeded: a dump gets its name. Blocks for as long as the disk takes. */
enum godwit_err receiver_keep(struct receiver *receiver, struct godwit_error *error);

/* Pages the guest has written since it arrived, which grow while it runs; 0 for a sink. */
uint64_t receiver_steps(const struct receiver *receiver);

/* --check of a process guest that runs here; it is stopped afterwards. MISMATCH when pages are wrong. */
enum godwit_err receiver_check(struct receiver *receiver, struct report_check *out, struct godwit_error *error);

void receiver_report(const struct receiver *receiver, struct report_guest *out);

#endif
