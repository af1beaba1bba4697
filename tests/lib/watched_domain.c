/* Registrations and remotes are the inner domain's own: what is freed goes straight to it. */
#include "tests/lib/watched_domain.h"

#include <stdlib.h>

#include "transport/channel_ops.h"

struct watched_domain {
    struct domain base;
    struct domain *inner;
    watch_fn *watch;
    void *opaque;
};

static enum godwit_err watched_register(struct domain *base, const struct region *region, enum region_access access,
                                        struct mr **out, struct godwit_error *error)
{
    struct watched_domain *domain = (struct watched_domain *)base;
    enum godwit_err err = domain->watch(domain->opaque, region, access, error);
    return err == GODWIT_OK ? domain_register(domain->inner, region, access, out, error) : err;
}

static enum godwit_err watched_import(struct domain *base, const struct region_key *key, struct remote **out,
                                      struct godwit_error *error)
{
    return domain_import(((struct watched_domain *)base)->inner, key, out, error);
}

static void watched_free(struct domain *base)
{
    domain_free(((struct watched_domain *)base)->inner);
    free(base);
}

/* The other operations are those of the inner domain, which made what they are called on. */
static const struct domain_ops watched_ops = {.reg = watched_register, .import = watched_import, .free = watched_free};

struct domain *watched_domain_new(struct domain *inner, watch_fn *watch, void *opaque)
{
    struct watched_domain *domain = calloc(1, sizeof *domain);
    if (domain == NULL) {
        domain_free(inner);
        return NULL;
    }
    *domain = (struct watched_domain){.base = {.ops = &watched_ops}, .inner = inner, .watch = watch, .opaque = opaque};
    return &domain->base;
}
