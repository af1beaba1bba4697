/*
 * A domain is the device that leads to an address, or has it: one protection domain, in which memory is registered and
 * from which queue pairs are made. A queue pair reaches only memory of its own domain, so one domain per session keeps
 * sessions apart even if somebody guesses keys.
 *
 * A region is registered under device addresses that begin near 0 instead of at the host's pointer: keys name offsets,
 * and pointers never travel. The device wants the same offset within a page on both sides, hence "near".
 *
 * Teardown: registrations and remotes go before the domain (transport/region.h); the queue pairs of its channels too,
 * as the device refuses to free a protection domain that is in use. The identifier goes last: it holds the device open.
 */
#include "rdma/domain.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rdma/hints.h"
#include "transport/clock.h"
#include "transport/error.h"
#include "transport/wire.h"

enum { RESOLVE_MS = 5000, KEY_SIZE = 20, HOST_PAGE = 4096 };

enum godwit_err rdma_resolve(const struct address *address, struct sockaddr_storage *out, struct godwit_error *error)
{
    char port[8];
    snprintf(port, sizeof port, "%u", address->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list;
    int rc = getaddrinfo(address->host[0] != '\0' ? address->host : NULL, port, &hints, &list);
    if (rc == EAI_SYSTEM)
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot resolve host \"%.200s\"", address->host);
    if (rc != 0)
        return error_set(error, rc == EAI_MEMORY ? GODWIT_ERR_NO_MEMORY : GODWIT_ERR_INVALID,
                         "cannot resolve host \"%.200s\": %s", address->host, gai_strerror(rc));
    memset(out, 0, sizeof *out);
    memcpy(out, list->ai_addr, list->ai_addrlen);
    freeaddrinfo(list);
    return GODWIT_OK;
}

/* The device of an address of this host, or else of the way to an address of another. */
static enum godwit_err find_device(struct rdma_domain *domain, const struct address *address,
                                   struct godwit_error *error)
{
    char text[ADDRESS_TEXT_MAX];
    address_format(address, text);
    struct sockaddr_storage at;
    struct address host = *address;
    host.port = 0; /* a port would be taken by the bind */
    enum godwit_err err = rdma_resolve(&host, &at, error);
    if (err != GODWIT_OK)
        return err;
    if (rdma_bind_addr(domain->cm.id, (struct sockaddr *)&at) == 0 && domain->cm.id->verbs != NULL)
        return GODWIT_OK;

    /* A failed or fruitless bind leaves the identifier half-made: the second question goes by a fresh one. */
    cm_fini(&domain->cm);
    err = cm_init(&domain->cm, error);
    if (err != GODWIT_OK)
        return err;
    if (rdma_resolve_addr(domain->cm.id, NULL, (struct sockaddr *)&at, RESOLVE_MS) != 0)
        return error_set_sys(error, GODWIT_ERR_UNREACHABLE, errno,
                             "cannot find the RDMA device that leads to %s", text);
    struct rdma_cm_event *event;
    err = cm_wait(domain->cm.events, clock_now_ms() + RESOLVE_MS + 1000, NULL, -1, &event);
    if (err != GODWIT_OK)
        return error_set(error, err, "no answer from the connection manager about the way to %s", text);
    if (event->event != RDMA_CM_EVENT_ADDR_RESOLVED)
        err = hint_cm_event(event, CM_RESOLVE_ADDRESS, text, error);
    rdma_ack_cm_event(event);
    if (err == GODWIT_OK && domain->cm.id->verbs == NULL)
        err = error_set(error, GODWIT_ERR_UNREACHABLE,
                        "the interface that leads to %s has no RDMA device (see godwit devices)", text);
    return err;
}

static void rdma_domain_free(struct domain *base)
{
    struct rdma_domain *domain = (struct rdma_domain *)base;
    /* Fails when the device is gone, and the kernel has freed it already. */
    int rc = domain->pd != NULL ? ibv_dealloc_pd(domain->pd) : 0;
    assert(rc != EBUSY && "registrations and queue pairs are freed before their domain");
    (void)rc;
    cm_fini(&domain->cm);
    free(domain);
}

static int access_flags(enum region_access access)
{
    switch (access) {
    case REGION_LOCAL:
        return 0; /* reading is always allowed */
    case REGION_LOCAL_WRITE:
        return IBV_ACCESS_LOCAL_WRITE;
    case REGION_REMOTE_WRITE:
        /* Writes of one queue pair may land in any order among themselves; what tells of them still comes later, and
         * no page is under way twice (docs/protocol.md §7.3). Where the device does not know the flag the kernel drops
         * it. */
        return IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_RELAXED_ORDERING;
    case REGION_REMOTE_READ:
        return IBV_ACCESS_REMOTE_READ;
    }
    return 0;
}

static enum godwit_err rdma_register(struct domain *base, const struct region *region, enum region_access access,
                                     struct mr **out, struct godwit_error *error)
{
    struct rdma_domain *domain = (struct rdma_domain *)base;
    struct rdma_mr *mr = calloc(1, sizeof *mr);
    if (mr == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to register a region");
    mr->iova = (uintptr_t)region->addr % HOST_PAGE;
    mr->mr = ibv_reg_mr_iova(domain->pd, region->addr, region->size, mr->iova, access_flags(access));
    if (mr->mr == NULL) {
        enum godwit_err err = hint_resource(errno, "register memory with the RDMA device", region->size, error);
        free(mr);
        return err;
    }
    mr->base = (struct mr){base, *region, access};
    *out = &mr->base;
    return GODWIT_OK;
}

static void rdma_export(const struct mr *base, struct region_key *key)
{
    const struct rdma_mr *mr = (const struct rdma_mr *)base;
    struct wire_out out = wire_out(key->bytes, sizeof key->bytes);
    wire_put_u32(&out, mr->mr->rkey);
    wire_put_u64(&out, mr->iova);
    wire_put_u64(&out, base->region.size);
    key->size = KEY_SIZE;
}

static enum godwit_err rdma_import(struct domain *domain, const struct region_key *key, struct remote **out,
                                   struct godwit_error *error)
{
    struct wire_in in = wire_in(key->bytes, key->size);
    uint32_t rkey = wire_get_u32(&in);
    uint64_t iova = wire_get_u64(&in);
    uint64_t size = wire_get_u64(&in);
    if (in.failed || key->size != KEY_SIZE || size == 0 || iova >= HOST_PAGE || size > UINT64_MAX - iova)
        return error_set(error, GODWIT_ERR_PROTOCOL, "the peer sent a malformed RDMA key of %u bytes", key->size);
    struct rdma_remote *remote = calloc(1, sizeof *remote);
    if (remote == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to import a region");
    *remote = (struct rdma_remote){.base = {domain, size}, .rkey = rkey, .iova = iova};
    *out = &remote->base;
    return GODWIT_OK;
}

static void rdma_mr_free(struct mr *base)
{
    struct rdma_mr *mr = (struct rdma_mr *)base;
    int rc = ibv_dereg_mr(mr->mr); /* fails when the device is gone, likewise */
    assert(rc != EBUSY && "no memory window is ever bound, so a registration can be ended");
    (void)rc;
    free(mr);
}

static void rdma_remote_free(struct remote *remote)
{
    free(remote);
}

static const struct domain_ops rdma_domain_ops = {
    .reg = rdma_register,
    .import = rdma_import,
    .export = rdma_export,
    .mr_free = rdma_mr_free,
    .remote_free = rdma_remote_free,
    .free = rdma_domain_free,
};

enum godwit_err rdma_domain_open(void *context, const struct address *address, struct domain **out,
                                 struct godwit_error *error)
{
    (void)context;
    struct rdma_domain *domain = calloc(1, sizeof *domain);
    if (domain == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a domain");
    domain->base.ops = &rdma_domain_ops;
    enum godwit_err err = cm_init(&domain->cm, error);
    if (err != GODWIT_OK)
        goto free_domain;
    err = find_device(domain, address, error);
    if (err != GODWIT_OK)
        goto free_domain;
    domain->verbs = domain->cm.id->verbs;
    domain->pd = ibv_alloc_pd(domain->verbs);
    if (domain->pd == NULL) {
        err = hint_resource(errno, "make a protection domain", 0, error);
        goto free_domain;
    }
    *out = &domain->base;
    return GODWIT_OK;

free_domain:
    rdma_domain_free(&domain->base);
    return err;
}
