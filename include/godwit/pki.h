/*
 * Certificates and keys for tls-creds, in the layout that QEMU and libvirt users have on their hosts. A host both sends
 * and receives guests, so each gets a set of its own, all signed by one authority:
 *
 *   ca-cert.pem                       the authority, which both sides trust
 *   ca-key.pem                        its key; only where the authority was made
 *   server-cert.pem, server-key.pem   shown by a destination
 *   client-cert.pem, client-key.pem   shown by a source
 *   ca-crl.pem                        which certificates are good no longer; only if any was revoked
 *
 * or, instead of certificates, keys.psk: a secret that both sides have (tls-username names its line).
 *
 * A set comes whole or not at all: a file of it that is there already is never replaced, what fails half-way is removed
 * again, and ca-cert.pem, without which no set is usable, gets its name last. Key files are their owner's alone (0600),
 * certificates may be read by anybody (0644). Keys do not stay in memory.
 *
 * All functions block for as long as the disk takes. Nothing is shared: any thread, several at once.
 */
#ifndef GODWIT_PKI_H
#define GODWIT_PKI_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/api.h>
#include <godwit/error.h>

GODWIT_BEGIN

enum {
    GODWIT_PKI_DAYS = 825, /* the most that any platform takes (Apple's, for private authorities too): seldom work */
    GODWIT_PKI_AUTHORITY_DAYS = 3650, /* replacing it means visiting every host */
    GODWIT_PKI_DAYS_MAX = 36500,
    GODWIT_PKI_HOST_TEXT = 1024, /* with the terminator */
    GODWIT_PKI_NAME_TEXT = 65,   /* a common name has 64 characters at most: RFC 5280, appendix A.1 */
};

/* What to make. Strings are borrowed for the call. */
struct godwit_pki {
    /* Directory with the ca-cert.pem and ca-key.pem to sign with; NULL: make a new authority. */
    const char *authority;
    /* What sources call this host in their URI, or in tls-hostname: NAME|IP[,NAME|IP...], 16 at most, the first no
     * longer than a common name. NULL: the name that the host has itself, and its long form if the resolver knows one
     * (which takes as long as the resolver takes). Neither localhost nor 127.0.0.1 unless asked for: every host is
     * called that, and a certificate that names it is good for any of them. */
    const char *host;
    /* Common name of the client's certificate, which tls-authz sees as "CN=..."; NULL: the first of host. */
    const char *client;
    /* Lifetimes, 1 to GODWIT_PKI_DAYS_MAX. No certificate outlives its authority: it ends with it if need be. They
     * begin an hour ago, for hosts whose clocks are behind. */
    unsigned days, authority_days;
    int64_t now; /* seconds since 1970, UTC */
};

/* What was made. */
struct godwit_pki_set {
    bool new_authority;
    char authority[GODWIT_PKI_NAME_TEXT]; /* common name; "" where one that was given has none */
    char host[GODWIT_PKI_HOST_TEXT];      /* "dest,dest.example,192.0.2.7" */
    char client[GODWIT_PKI_NAME_TEXT];
    int64_t authority_until, until; /* seconds since 1970 */
};

/* A new authority, this host's name, the lifetimes above, the time of the system. */
GODWIT_API void godwit_pki_init(struct godwit_pki *pki);

/*
 * Makes a set in directory, which is made if it is not there (0700; the one it lies in must exist). The keys are ECDSA
 * on P-256. set may be NULL; it is written on success.
 *
 * INVALID: host, client or lifetime make no sense; anybody may write in directory; it holds a keys.psk or a ca-crl.pem;
 * the authority cannot sign: ca-cert.pem or ca-key.pem is missing or broken, they do not belong together, others may
 * read the key, it is no authority, or it is not valid now. BUSY: one of the files is there already, or another call is
 * at work in the directory. SYSTEM, NO_MEMORY: the rest.
 */
GODWIT_API enum godwit_err godwit_pki_make(const char *directory, const struct godwit_pki *pki,
                                           struct godwit_pki_set *set, struct godwit_error *error);

/*
 * Makes keys.psk in directory: one line with 256 random bits for user, who is called "qemu" unless tls-username says
 * otherwise. Errors as above; a directory with certificates is INVALID, for it would be both kinds.
 */
GODWIT_API enum godwit_err godwit_pki_make_psk(const char *directory, const char *user, struct godwit_error *error);

/*
 * Revokes a certificate that the authority in this directory signed: puts it on the list ca-crl.pem beside it, which is
 * made if need be and replaced in one step. The list is good for as long as the authority. It has no effect on hosts
 * that do not have it: it is to be taken to each, and sets that are made from now on contain it. certificate is a
 * file; one that is on the list already stays there. now: seconds since 1970.
 *
 * INVALID: the authority cannot sign, the certificate is not its, or ca-crl.pem is broken or somebody else's. BUSY,
 * SYSTEM, NO_MEMORY as above.
 */
GODWIT_API enum godwit_err godwit_pki_revoke(const char *authority, const char *certificate, int64_t now,
                                             struct godwit_error *error);

GODWIT_END

#endif
