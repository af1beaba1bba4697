/* The idle guest: memory that nobody writes, taken from a file or generated. A source only. */
#ifndef GUEST_IDLE_H
#define GUEST_IDLE_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/guest.h>

#include "guest/memory.h"
#include "guest/pattern.h"

struct idle_guest;

struct idle_guest_config {
    const char *memory_from; /* maps this file read-only and allocates nothing; the fields below must then be unset */
    uint64_t ram;            /* bytes; with memory_from 0 or the size of the file */
    enum pattern pattern;
    uint64_t seed;
    enum memory_backing backing;
    bool prealloc;
};

/* No file, ram 0 (to be set), pattern random, seed 1, memfd. */
void idle_guest_config_init(struct idle_guest_config *config);

/*
 * INVALID for a file that is missing, empty, a directory or not whole pages, and for a bad size. A file must not be
 * truncated while the guest lives: reading it would be a SIGBUS.
 */
enum godwit_err idle_guest_new(struct idle_guest **out, const struct idle_guest_config *config,
                               struct godwit_error *error);

/* One block "pc.ram", one stream "idle". Valid until idle_guest_free. */
const struct godwit_guest *idle_guest_interface(const struct idle_guest *guest);

/* NULL is allowed. Not while a migration runs. */
void idle_guest_free(struct idle_guest *guest);

#endif
