/*
 * GnuTLS parses the text; what it allows is then read off the result, so that no spelling gets around the rules.
 *
 * Failure modes: a word that GnuTLS does not know, a text that allows nothing, a cipher that is not AEAD, a version
 * before TLS 1.2, ciphers that do not go with pre-shared keys.
 */
#include "tcp/tls_priority.h"

#include <gnutls/crypto.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "transport/error.h"

#define TLS13              "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL"
#define FORWARD_SECRET_PSK ":+ECDHE-PSK:+DHE-PSK"

/* In TLS 1.3 a pre-shared key goes with one hash, in GnuTLS SHA-256, and so not with AES-256-GCM. */
static const char *const ours[] = {
    [TLS_KEYS_X509] = TLS13 ":+AES-256-GCM:+CHACHA20-POLY1305:+AES-128-GCM",
    [TLS_KEYS_PSK] = TLS13 ":+AES-128-GCM:+CHACHA20-POLY1305:-KX-ALL" FORWARD_SECRET_PSK,
};

static bool has_version(gnutls_priority_t priority, unsigned version)
{
    const unsigned *list;
    int count = gnutls_priority_protocol_list(priority, &list);
    for (int i = 0; i < count; i++) {
        if (list[i] == version)
            return true;
    }
    return false;
}

static bool has_psk_exchange(gnutls_priority_t priority)
{
    const unsigned *list;
    int count = gnutls_priority_kx_list(priority, &list);
    for (int i = 0; i < count; i++) {
        if (list[i] == GNUTLS_KX_PSK || list[i] == GNUTLS_KX_DHE_PSK || list[i] == GNUTLS_KX_ECDHE_PSK)
            return true;
    }
    return false;
}

static enum godwit_err judge_versions(gnutls_priority_t priority, struct godwit_error *error)
{
    const unsigned *list;
    int count = gnutls_priority_protocol_list(priority, &list);
    for (int i = 0; i < count; i++) {
        /* Versions of DTLS stand in the same list; a stream never speaks them. */
        if (list[i] < GNUTLS_TLS1_2)
            return error_set(error, GODWIT_ERR_INVALID,
                             "tls-priority allows %s, which is not safe: begin with "
                             "\"NORMAL:-VERS-ALL:+VERS-TLS1.3\", and add \":+VERS-TLS1.2\" if you have to",
                             gnutls_protocol_get_name((gnutls_protocol_t)list[i]));
    }
    if (!has_version(priority, GNUTLS_TLS1_2) && !has_version(priority, GNUTLS_TLS1_3))
        return error_set(error, GODWIT_ERR_INVALID, "tls-priority allows no version of TLS: add \":+VERS-TLS1.3\"");
    return GODWIT_OK;
}

static enum godwit_err judge_ciphers(gnutls_priority_t priority, struct godwit_error *error)
{
    const unsigned *list;
    int count = gnutls_priority_cipher_list(priority, &list);
    for (int i = 0; i < count; i++) {
        gnutls_cipher_algorithm_t cipher = (gnutls_cipher_algorithm_t)list[i];
        if (gnutls_cipher_get_tag_size(cipher) == 0)
            return error_set(error, GODWIT_ERR_INVALID,
                             "tls-priority allows %s, which is no AEAD cipher and cannot encrypt memory that changes "
                             "meanwhile: add \":-%s\", or \":-CIPHER-ALL:+AES-256-GCM:+AES-128-GCM\"",
                             gnutls_cipher_get_name(cipher), gnutls_cipher_get_name(cipher));
    }
    return GODWIT_OK;
}

static enum godwit_err judge_psk(gnutls_priority_t priority, struct godwit_error *error)
{
    const unsigned *list;
    int count = gnutls_priority_cipher_list(priority, &list);
    for (int i = 0; i < count; i++) {
        if (list[i] == GNUTLS_CIPHER_AES_128_GCM || list[i] == GNUTLS_CIPHER_CHACHA20_POLY1305 ||
            list[i] == GNUTLS_CIPHER_AES_128_CCM || list[i] == GNUTLS_CIPHER_AES_128_CCM_8)
            return GODWIT_OK;
    }
    if (has_version(priority, GNUTLS_TLS1_2))
        return GODWIT_OK;
    return error_set(error, GODWIT_ERR_INVALID,
                     "tls-priority has no cipher that goes with a pre-shared key in TLS 1.3 (SHA-256): add "
                     "\":+AES-128-GCM\" or \":+CHACHA20-POLY1305\"");
}

static enum godwit_err judge(gnutls_priority_t priority, enum tls_keys keys, struct godwit_error *error)
{
    enum godwit_err err = judge_versions(priority, error);
    if (err == GODWIT_OK)
        err = judge_ciphers(priority, error);
    if (err == GODWIT_OK && keys == TLS_KEYS_PSK)
        err = judge_psk(priority, error);
    return err;
}

static enum godwit_err parse(const char *text, gnutls_priority_t *out, struct godwit_error *error)
{
    const char *at = text;
    int rc = gnutls_priority_init2(out, text, &at, 0);
    if (rc == GNUTLS_E_SUCCESS)
        return GODWIT_OK;
    if (rc == GNUTLS_E_INVALID_REQUEST)
        return error_set(error, GODWIT_ERR_INVALID,
                         "tls-priority: GnuTLS does not understand \"%.*s\" at character %zu of \"%.200s\"",
                         (int)strcspn(at, ":"), at, (size_t)(at - text) + 1, text);
    return error_set(error, rc == GNUTLS_E_MEMORY_ERROR ? GODWIT_ERR_NO_MEMORY : GODWIT_ERR_INVALID,
                     "tls-priority \"%.200s\" cannot be used: %s", text, gnutls_strerror(rc));
}

/* Replaces *priority, which was parsed from text. */
static enum godwit_err add_psk_exchange(const char *text, gnutls_priority_t *priority, struct godwit_error *error)
{
    char *longer = NULL;
    if (asprintf(&longer, "%s" FORWARD_SECRET_PSK, text) < 0)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for tls-priority");
    gnutls_priority_t wider;
    enum godwit_err err = parse(longer, &wider, error);
    free(longer);
    if (err != GODWIT_OK)
        return err;
    gnutls_priority_deinit(*priority);
    *priority = wider;
    return GODWIT_OK;
}

enum godwit_err tls_priority_make(const char *text, enum tls_keys keys, gnutls_priority_t *out,
                                  struct godwit_error *error)
{
    gnutls_priority_t priority;
    text = *text != 0 ? text : ours[keys];
    enum godwit_err err = parse(text, &priority, error);
    if (err != GODWIT_OK)
        return err;
    if (keys == TLS_KEYS_PSK && !has_psk_exchange(priority))
        err = add_psk_exchange(text, &priority, error);
    if (err == GODWIT_OK)
        err = judge(priority, keys, error);
    if (err != GODWIT_OK) {
        gnutls_priority_deinit(priority);
        return err;
    }
    *out = priority;
    return GODWIT_OK;
}
