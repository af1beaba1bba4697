/* Memory for a reference guest that comes in: one block, as it is offered, and kept as it arrived where asked for. */
#ifndef GUEST_INCOMING_H
#define GUEST_INCOMING_H

#include <stdbool.h>

#include <godwit/guest.h>

#include "guest/memory.h"

struct incoming_config {
    enum memory_backing backing;
    bool prealloc;
    /*
     * The memory that is received into stays as it was at switchover: the guest runs on a private copy-on-write view of
     * it. For checking at leisure while the guest runs; needs memfd or hugetlb, and such a guest cannot be migrated on.
     */
    bool keep_image;
};

/* memfd, nothing else. */
void incoming_config_init(struct incoming_config *config);

/* INVALID with the reason. */
enum godwit_err incoming_config_check(const struct incoming_config *config, struct godwit_error *error);

/*
 * Allocates *ram for the offer, and *view where the image is kept; both are empty before, and again after a failure.
 * kind is the guest's, for messages: "process". BUSY when there is memory already, MISMATCH unless the offer is one
 * block MEMORY_BLOCK_ID, otherwise as memory_alloc().
 */
enum godwit_err incoming_accept(const struct incoming_config *config, const char *kind,
                                const struct godwit_block *offered, unsigned count, struct memory *ram,
                                struct memory *view, struct godwit_error *error);

/* What guest_ops.accept() answers about memory that was accepted. */
void incoming_describe(const struct incoming_config *config, const struct memory *ram, struct godwit_block *mine);

#endif
