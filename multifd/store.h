/*
 * Storing into guest memory at the destination. Memory is populated before it is stored to, so that a host that is out
 * of memory gives an error of the migration and not a signal. Two maps per block: received (announced by any extent)
 * and stored (content was written, so the page is there).
 */
#ifndef MULTIFD_STORE_H
#define MULTIFD_STORE_H

#include <stdatomic.h>

#include "multifd/batch.h"
#include "multifd/zero.h"

/* Makes the pages of the extent ready to be stored to. NO_MEMORY names the block and the cause. */
enum godwit_err store_populate(struct ram_block *block, const struct extent *extent, struct godwit_error *error);

/*
 * Makes the extent read as zeros: nothing to do for pages of a fresh block that were never stored to. Ends early with
 * CLOSED when *stopping reads true; counts the pages it has been through in *progress.
 */
enum godwit_err store_zeros(struct ram_block *block, const struct extent *extent, zero_test *is_zero,
                            const atomic_bool *stopping, _Atomic uint64_t *progress, struct godwit_error *error);

/* Notes the extent as received; as stored too when its content was. */
void store_note(struct ram_block *block, const struct extent *extent);

#endif
