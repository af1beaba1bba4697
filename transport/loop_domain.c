/*
 * Registered memory of the loop transport. A key is a random number known to the net; revoking it and touching the
 * memory behind it exclude each other, so that a registration that has been freed is never written again.
 */
#include <stdlib.h>
#include <string.h>

#include "transport/error.h"
#include "transport/loop_private.h"
#include "transport/wire.h"

enum { KEY_SIZE = 16 }; /* the number, and the size of the region */

struct loop_domain {
    struct domain base;
    struct loop_net *net;
};

struct loop_mr {
    struct mr base;
    struct loop_region *region; /* the net's */
};

static struct loop_net *net_of(const struct domain *domain)
{
    return ((const struct loop_domain *)domain)->net;
}

/* Caller holds regions_lock. */
static struct loop_region *region_find(const struct loop_regions *regions, uint64_t key)
{
    struct loop_region *region;
    LIST_FOREACH (region, regions, link) {
        if (region->key == key)
            return region;
    }
    return NULL;
}

static uint8_t *region_at(const struct loop_net *net, uint64_t key, enum region_access access, uint64_t offset,
                          uint64_t size)
{
    struct loop_region *region = region_find(&net->regions, key);
    if (!region || region->access != access || offset > region->size || size > region->size - offset)
        return NULL;
    return region->addr + offset;
}

bool loop_region_write(struct loop_net *net, uint64_t key, uint64_t offset, const void *from, uint64_t size)
{
    pthread_rwlock_rdlock(&net->regions_lock);
    uint8_t *at = region_at(net, key, REGION_REMOTE_WRITE, offset, size);
    if (at)
        memmove(at, from, size); /* both sides are one process: the ranges may be the same memory */
    pthread_rwlock_unlock(&net->regions_lock);
    return at;
}

bool loop_region_read(struct loop_net *net, uint64_t key, uint64_t offset, void *to, uint64_t size)
{
    pthread_rwlock_rdlock(&net->regions_lock);
    const uint8_t *at = region_at(net, key, REGION_REMOTE_READ, offset, size);
    if (at)
        memmove(to, at, size);
    pthread_rwlock_unlock(&net->regions_lock);
    return at;
}

static enum godwit_err loop_register(struct domain *domain, const struct region *region, enum region_access access,
                                     struct mr **out, struct godwit_error *error)
{
    struct loop_net *net = net_of(domain);
    struct loop_mr *mr = calloc(1, sizeof *mr);
    struct loop_region *entry = calloc(1, sizeof *entry);
    if (!mr || !entry) {
        free(mr);
        free(entry);
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to register a region");
    }
    *entry = (struct loop_region){.addr = region->addr, .size = region->size, .access = access};
    pthread_mutex_lock(&net->lock);
    entry->key = loop_random(&net->random);
    pthread_mutex_unlock(&net->lock);
    *mr = (struct loop_mr){.base = {domain, *region, access}, .region = entry};
    pthread_rwlock_wrlock(&net->regions_lock);
    LIST_INSERT_HEAD(&net->regions, entry, link);
    pthread_rwlock_unlock(&net->regions_lock);
    *out = &mr->base;
    return GODWIT_OK;
}

static void loop_mr_free(struct mr *base)
{
    struct loop_mr *mr = (struct loop_mr *)base;
    struct loop_net *net = net_of(base->domain);
    pthread_rwlock_wrlock(&net->regions_lock);
    LIST_REMOVE(mr->region, link);
    LIST_INSERT_HEAD(&net->past_regions, mr->region, link);
    pthread_rwlock_unlock(&net->regions_lock);
    free(mr);
}

static void loop_export(const struct mr *base, struct region_key *key)
{
    const struct loop_mr *mr = (const struct loop_mr *)base;
    struct wire_out out = wire_out(key->bytes, sizeof key->bytes);
    wire_put_u64(&out, mr->region->key);
    wire_put_u64(&out, mr->region->size);
    key->size = KEY_SIZE;
}

static enum godwit_err loop_import(struct domain *domain, const struct region_key *key, struct remote **out,
                                   struct godwit_error *error)
{
    struct loop_net *net = net_of(domain);
    struct wire_in in = wire_in(key->bytes, key->size);
    uint64_t number = wire_get_u64(&in);
    uint64_t size = wire_get_u64(&in);
    struct loop_remote *remote = calloc(1, sizeof *remote);
    if (!remote)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to import a region");

    pthread_rwlock_rdlock(&net->regions_lock);
    const struct loop_region *region = region_find(&net->regions, number);
    if (!region) /* gone while its key was on its way: that shows when it is used, as with a device */
        region = region_find(&net->past_regions, number);
    bool known = key->size == KEY_SIZE && region && region->size == size &&
                 (region->access == REGION_REMOTE_WRITE || region->access == REGION_REMOTE_READ);
    if (known)
        *remote = (struct loop_remote){{domain, size}, number};
    pthread_rwlock_unlock(&net->regions_lock);

    if (!known) {
        free(remote);
        return error_set(error, GODWIT_ERR_PROTOCOL, "the peer sent a key that names no region of this net");
    }
    *out = &remote->base;
    return GODWIT_OK;
}

static void loop_remote_free(struct remote *remote)
{
    free(remote);
}

static void loop_domain_free(struct domain *domain)
{
    free(domain);
}

static const struct domain_ops loop_domain_ops = {
    .reg = loop_register,
    .import = loop_import,
    .export = loop_export,
    .mr_free = loop_mr_free,
    .remote_free = loop_remote_free,
    .free = loop_domain_free,
};

enum godwit_err loop_domain_new(struct loop_net *net, struct domain **out, struct godwit_error *error)
{
    struct loop_domain *domain = calloc(1, sizeof *domain);
    if (!domain)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a domain");
    *domain = (struct loop_domain){.base = {.ops = &loop_domain_ops}, .net = net};
    *out = &domain->base;
    return GODWIT_OK;
}
