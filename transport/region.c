/*
 * The checked way into domains: registrations and remotes. As in channel.c, what only a bug can produce is asserted,
 * what a peer or a caller can get wrong is refused before the transport sees it.
 */
#include "transport/region.h"

#include <assert.h>

#include "transport/channel_ops.h"
#include "transport/error.h"

enum godwit_err domain_register(struct domain *domain, const struct region *region, enum region_access access,
                                struct mr **out, struct godwit_error *error)
{
    assert(domain && region && out && "register needs a domain and a region");
    if (!region->addr || !region->size)
        return error_set(error, GODWIT_ERR_INVALID, "an empty region cannot be registered");
    if (region->size > UINTPTR_MAX - (uintptr_t)region->addr)
        return error_set(error, GODWIT_ERR_INVALID, "a region of %llu bytes leaves the address space",
                         (unsigned long long)region->size);
    struct mr *made = NULL;
    enum godwit_err err = domain->ops->reg(domain, region, access, &made, error);
    assert(!err == !!made && "a registration on success, nothing on failure");
    if (!err)
        *out = made;
    return err;
}

enum godwit_err domain_import(struct domain *domain, const struct region_key *key, struct remote **out,
                              struct godwit_error *error)
{
    assert(domain && key && out && "import needs a domain and a key");
    if (!key->size || key->size > REGION_KEY_MAX)
        return error_set(error, GODWIT_ERR_PROTOCOL, "a region key of %u bytes: expected 1 to %d", key->size,
                         REGION_KEY_MAX);
    struct remote *made = NULL;
    enum godwit_err err = domain->ops->import(domain, key, &made, error);
    assert(!err == !!made && "a remote on success, nothing on failure");
    if (!err)
        *out = made;
    return err;
}

void domain_hold(struct domain *domain)
{
    assert(domain && "hold of no domain");
    atomic_fetch_add_explicit(&domain->more_holders, 1, memory_order_relaxed);
}

void domain_free(struct domain *domain)
{
    /* acq_rel: what other holders did with it has happened before the last one frees it */
    if (domain && atomic_fetch_sub_explicit(&domain->more_holders, 1, memory_order_acq_rel) == 0)
        domain->ops->free(domain);
}

void mr_export(const struct mr *mr, struct region_key *key)
{
    assert(mr && key && "export of no registration");
    *key = (struct region_key){.size = 0};
    if (mr->access == REGION_REMOTE_WRITE || mr->access == REGION_REMOTE_READ)
        mr->domain->ops->export(mr, key);
    assert(key->size <= REGION_KEY_MAX && "a key fits its struct");
}

uint64_t mr_size(const struct mr *mr)
{
    return mr->region.size;
}

void mr_free(struct mr *mr)
{
    if (mr)
        mr->domain->ops->mr_free(mr);
}

uint64_t remote_size(const struct remote *remote)
{
    return remote->size;
}

void remote_free(struct remote *remote)
{
    if (remote)
        remote->domain->ops->remote_free(remote);
}
