/*
 * Memory that a one-sided channel can reach.
 *
 * A region describes local memory, by address and, where there is one, by the descriptor behind it, so that a transport
 * may make a mapping of its own. A domain (one per rail: a device, a file, the loop) registers regions; the
 * registration (struct mr) yields an opaque bounded key, which travels to the peer and is imported there as a remote.
 * puts and gets name (mr, offset) and (remote, offset): host pointers never travel.
 */
#ifndef TRANSPORT_REGION_H
#define TRANSPORT_REGION_H

#include <stddef.h>
#include <stdint.h>

#include <godwit/error.h>

enum { REGION_KEY_MAX = 64 };

struct region {
    void *addr;
    uint64_t size; /* bytes */
    int fd;        /* -1: none */
    uint64_t fd_offset;
};

enum region_access {
    REGION_LOCAL,        /* only this side's puts read it */
    REGION_LOCAL_WRITE,  /* only this side's puts read it and gets write it */
    REGION_REMOTE_WRITE, /* the peer may put into it */
    REGION_REMOTE_READ,  /* the peer may get from it */
};

struct region_key {
    uint16_t size; /* 0: no key */
    uint8_t bytes[REGION_KEY_MAX];
};

struct domain;
struct mr;
struct remote;

/*
 * Registers region, which must stay mapped until mr_free. May block and may fault pages in, which may count as a write
 * to a dirty tracker. *out is owned by the caller. A domain is freed after all its registrations and remotes.
 */
enum godwit_err domain_register(struct domain *domain, const struct region *region, enum region_access access,
                                struct mr **out, struct godwit_error *error);
/* Makes a remote of a key that the peer exported. Untrusted bytes: a key this transport did not make is PROTOCOL. */
enum godwit_err domain_import(struct domain *domain, const struct region_key *key, struct remote **out,
                              struct godwit_error *error);
/* One more holder, who ends by domain_free too: a connection that may outlive what it was made for holds its domain. */
void domain_hold(struct domain *domain);
void domain_free(struct domain *domain); /* NULL allowed; the last holder's frees it */

/* The key that lets the peer reach this registration; size 0 for the local kinds. */
void mr_export(const struct mr *mr, struct region_key *key);
uint64_t mr_size(const struct mr *mr);
/* Ends the registration. When it returns the peer can no longer change the memory. NULL allowed. */
void mr_free(struct mr *mr);

uint64_t remote_size(const struct remote *remote);
void remote_free(struct remote *remote); /* NULL allowed; after the flush of every put that names it */

#endif
