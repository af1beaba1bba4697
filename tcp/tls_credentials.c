/*
 * The credentials of one side: which kind the directory holds, what a session is given of them, and what the
 * peer is held to. Made once, before anybody connects, and only read from then on, so that sessions of several threads share
 * them. What files say is judged in tls_x509.c and tls_psk.c, the peer in tls_peer.c.
 *
 * Failure modes: see tls_credentials.h.
 */
#include "tcp/tls_credentials.h"

#include <stdlib.h>
#include <string.h>

#include "tcp/tls_authz.h"
#include "tcp/tls_files.h"
#include "tcp/tls_peer.h"
#include "tcp/tls_priority.h"
#include "tcp/tls_psk.h"
#include "tcp/tls_x509.h"
#include "transport/error.h"

#define PSK_FILE     "keys.psk"
#define PSK_USERNAME "qemu" /* QEMU's default */

struct tls_credentials {
    enum tls_side side;
    enum tls_keys keys;
    struct tls_peer_rules peer;
    char *hostname;          /* peer's */
    struct tls_authz *authz; /* likewise */
    gnutls_priority_t priority;
    gnutls_certificate_credentials_t x509;
    gnutls_psk_client_credentials_t psk_client;
    gnutls_psk_server_credentials_t psk_server;
    struct tls_psk *psk; /* server */
};

static enum godwit_err gnutls_refuses(int rc, const char *what, struct godwit_error *error)
{
    return error_set(error, rc == GNUTLS_E_MEMORY_ERROR ? GODWIT_ERR_NO_MEMORY : GODWIT_ERR_INVALID, "%s: %s", what,
                     gnutls_strerror(rc));
}

/* Any file of certificates counts, so that a set that lacks one is told which, and not that nothing is there. */
static enum godwit_err find_kind(const char *directory, enum tls_keys *keys, struct godwit_error *error)
{
    static const char *const x509_files[] = {"ca-cert.pem", "server-cert.pem", "server-key.pem", "client-cert.pem",
                                             "client-key.pem"};
    const char *x509 = NULL;
    bool psk = false, there = false;
    enum godwit_err err = tls_directory_check(directory, error);
    if (err == GODWIT_OK)
        err = tls_file_exists(directory, PSK_FILE, &psk, error);
    for (size_t i = 0; err == GODWIT_OK && x509 == NULL && i < sizeof x509_files / sizeof x509_files[0]; i++) {
        err = tls_file_exists(directory, x509_files[i], &there, error);
        x509 = err == GODWIT_OK && there ? x509_files[i] : NULL;
    }
    if (err != GODWIT_OK)
        return err;
    if (psk && x509 != NULL)
        return error_set(error, GODWIT_ERR_INVALID,
                         "%.256s holds both certificates (%s) and pre-shared keys (%s): leave one kind in it",
                         directory, x509, PSK_FILE);
    if (!psk && x509 == NULL)
        return error_set(error, GODWIT_ERR_INVALID,
                         "%.256s holds no TLS credentials: expected ca-cert.pem and its like, or %s", directory,
                         PSK_FILE);
    *keys = psk ? TLS_KEYS_PSK : TLS_KEYS_X509;
    return GODWIT_OK;
}

/* Called by GnuTLS in a handshake. 1 says that there is no such user: GnuTLS goes on with a key that it makes up, so
 * that the peer does not learn which users exist. */
static int find_psk(gnutls_session_t session, const gnutls_datum_t *username, gnutls_datum_t *key)
{
    const struct tls_credentials *credentials = gnutls_db_get_ptr(session);
    const struct tls_psk_user *user = tls_psk_find(credentials->psk, username->data, username->size);
    if (user == NULL)
        return 1;
    key->data = gnutls_malloc(user->key_size); /* freed by GnuTLS */
    if (key->data == NULL)
        return -1;
    memcpy(key->data, user->key, user->key_size);
    key->size = (unsigned)user->key_size;
    return 0;
}

static enum godwit_err load_psk_client(struct tls_credentials *credentials, const struct tls_psk *psk, const char *path,
                                       const char *username, struct godwit_error *error)
{
    username = *username != 0 ? username : PSK_USERNAME;
    const struct tls_psk_user *user = tls_psk_find(psk, username, strlen(username));
    if (user == NULL)
        return error_set(error, GODWIT_ERR_INVALID,
                         "%.256s has no key for user \"%.128s\": set tls-username to one that it has", path, username);
    /* GnuTLS copies both. */
    gnutls_datum_t name = {.data = (unsigned char *)(uintptr_t)user->name, .size = (unsigned)user->name_size};
    gnutls_datum_t key = {.data = (unsigned char *)(uintptr_t)user->key, .size = (unsigned)user->key_size};
    int rc = gnutls_psk_allocate_client_credentials(&credentials->psk_client);
    if (rc == GNUTLS_E_SUCCESS)
        rc = gnutls_psk_set_client_credentials2(credentials->psk_client, &name, &key, GNUTLS_PSK_KEY_RAW);
    return rc < 0 ? gnutls_refuses(rc, path, error) : GODWIT_OK;
}

/* Takes psk over. */
static enum godwit_err load_psk_server(struct tls_credentials *credentials, struct tls_psk *psk, const char *path,
                                       struct godwit_error *error)
{
    credentials->psk = psk;
    int rc = gnutls_psk_allocate_server_credentials(&credentials->psk_server);
    if (rc < 0)
        return gnutls_refuses(rc, path, error);
    gnutls_psk_set_server_credentials_function2(credentials->psk_server, find_psk);
    return GODWIT_OK;
}

static enum godwit_err load_psk(struct tls_credentials *credentials, const struct tls_config *config,
                                struct godwit_error *error)
{
    struct tls_file file;
    struct tls_psk *psk = NULL;
    if (credentials->authz != NULL)
        return error_set(error, GODWIT_ERR_INVALID,
                         "tls-authz looks at certificates, and %.256s holds pre-shared keys: leave tls-authz away; who "
                         "has a line in %s may come in",
                         config->creds, PSK_FILE);
    enum godwit_err err = tls_file_read(&file, config->creds, PSK_FILE, TLS_FILE_SECRET, error);
    if (err == GODWIT_OK)
        err = tls_psk_parse(file.path, file.data, file.size, &psk, error);
    if (err == GODWIT_OK && credentials->side == TLS_SERVER) {
        err = load_psk_server(credentials, psk, file.path, error);
        psk = NULL;
    } else if (err == GODWIT_OK) {
        err = load_psk_client(credentials, psk, file.path, config->username, error);
    }
    tls_psk_free(psk);
    tls_file_release(&file);
    return err;
}

static enum godwit_err load_x509(struct tls_credentials *credentials, const struct tls_config *config,
                                 struct godwit_error *error)
{
    enum tls_strength strength = *config->priority != 0 ? TLS_STRENGTH_PRIORITY : TLS_STRENGTH_DEFAULT;
    return tls_x509_load(config->creds, credentials->side, strength, &credentials->x509, error);
}

static enum godwit_err load(struct tls_credentials *credentials, const struct tls_config *config,
                            struct godwit_error *error)
{
    credentials->hostname = strdup(config->hostname);
    if (credentials->hostname == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for TLS credentials");
    enum godwit_err err = find_kind(config->creds, &credentials->keys, error);
    if (err == GODWIT_OK)
        err = tls_priority_make(config->priority, credentials->keys, &credentials->priority, error);
    if (err == GODWIT_OK && credentials->side == TLS_SERVER)
        err = tls_authz_load(config->authz, &credentials->authz, error);
    credentials->peer = (struct tls_peer_rules){
        .peer = credentials->side == TLS_CLIENT ? TLS_SERVER : TLS_CLIENT,
        .hostname = credentials->hostname,
        .certificate_required = config->verify_peer,
        .authz = credentials->authz,
    };
    if (err == GODWIT_OK)
        err = credentials->keys == TLS_KEYS_PSK ? load_psk(credentials, config, error)
                                                : load_x509(credentials, config, error);
    return err;
}

enum godwit_err tls_credentials_load(const struct tls_config *config, enum tls_side side, struct tls_credentials **out,
                                     struct godwit_error *error)
{
    struct tls_credentials *credentials = calloc(1, sizeof *credentials);
    if (credentials == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for TLS credentials");
    credentials->side = side;
    enum godwit_err err = load(credentials, config, error);
    if (err != GODWIT_OK) {
        tls_credentials_free(credentials);
        return err;
    }
    *out = credentials;
    return GODWIT_OK;
}

void tls_credentials_free(struct tls_credentials *credentials)
{
    if (credentials == NULL)
        return;
    if (credentials->x509 != NULL)
        gnutls_certificate_free_credentials(credentials->x509);
    if (credentials->psk_client != NULL)
        gnutls_psk_free_client_credentials(credentials->psk_client);
    if (credentials->psk_server != NULL)
        gnutls_psk_free_server_credentials(credentials->psk_server);
    tls_psk_free(credentials->psk);
    tls_authz_free(credentials->authz);
    if (credentials->priority != NULL)
        gnutls_priority_deinit(credentials->priority);
    free(credentials->hostname);
    free(credentials);
}

bool tls_credentials_psk(const struct tls_credentials *credentials)
{
    return credentials->keys == TLS_KEYS_PSK;
}

static int give_credentials(const struct tls_credentials *credentials, gnutls_session_t session)
{
    if (credentials->keys == TLS_KEYS_X509)
        return gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials->x509);
    if (credentials->side == TLS_CLIENT)
        return gnutls_credentials_set(session, GNUTLS_CRD_PSK, credentials->psk_client);
    /* For find_psk(). The pointer of the session database is free, as there is none; the others are the caller's. */
    gnutls_db_set_ptr(session, (void *)(uintptr_t)credentials);
    return gnutls_credentials_set(session, GNUTLS_CRD_PSK, credentials->psk_server);
}

enum godwit_err tls_credentials_prepare(const struct tls_credentials *credentials, gnutls_session_t session,
                                        struct godwit_error *error)
{
    int rc = gnutls_priority_set(session, credentials->priority);
    if (rc == GNUTLS_E_SUCCESS)
        rc = give_credentials(credentials, session);
    if (rc < 0)
        return gnutls_refuses(rc, "cannot prepare a TLS session", error);
    if (credentials->side == TLS_SERVER && credentials->keys == TLS_KEYS_X509) {
        /* Asked for also where none is needed: who shows one is held to it. REQUEST, not REQUIRE: that one is missing
         * is said in our words. The names of the authorities are kept back, because a client whose certificate is of
         * another would then show none, and the refusal could not name it. */
        gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUEST);
        gnutls_certificate_send_x509_rdn_sequence(session, 1);
    }
    return GODWIT_OK;
}

enum godwit_err tls_credentials_verify(const struct tls_credentials *credentials, gnutls_session_t session,
                                       const char *host, gnutls_alert_description_t *alert,
                                       struct godwit_error *error)
{
    if (credentials->keys == TLS_KEYS_PSK)
        return GODWIT_OK; /* that it has the key was the proof */
    return tls_peer_verify(&credentials->peer, session, host, alert, error);
}
