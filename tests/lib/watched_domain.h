/* A domain around another one that shows each registration to a test before it is made; the test may refuse it. */
#ifndef TESTS_LIB_WATCHED_DOMAIN_H
#define TESTS_LIB_WATCHED_DOMAIN_H

#include "transport/region.h"

/* The thread that registers. Not GODWIT_OK: error says why. */
typedef enum godwit_err watch_fn(void *opaque, const struct region *region, enum region_access access,
                                 struct godwit_error *error);

/* Takes inner, which outlives the registrations made through it. NULL: no memory; inner is freed. */
struct domain *watched_domain_new(struct domain *inner, watch_fn *watch, void *opaque);

#endif
