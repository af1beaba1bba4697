/* Each call of GnuTLS is checked by must(): a test that got no certificate would fail later, and far from the cause. */
#include "tests/lib/pki.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <gnutls/abstract.h>
#include <gnutls/crypto.h>

static void must(bool good, const char *what, const char *why)
{
    if (good)
        return;
    fprintf(stderr, "tests/lib/pki: %s: %s\n", what, why);
    abort();
}

static void done(int rc, const char *what)
{
    must(rc >= 0, what, gnutls_strerror(rc));
}

static gnutls_x509_privkey_t make_key(unsigned rsa_bits)
{
    gnutls_x509_privkey_t key;
    done(gnutls_x509_privkey_init(&key), "key");
    if (rsa_bits > 0)
        done(gnutls_x509_privkey_generate(key, GNUTLS_PK_RSA, rsa_bits, 0), "RSA key");
    else
        done(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
             "ECDSA key");
    return key;
}

/* Each kind of address has its own form in a certificate. */
static void add_name(gnutls_x509_crt_t certificate, const char *name)
{
    unsigned char address[16];
    if (inet_pton(AF_INET, name, address) == 1)
        done(gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_IPADDRESS, address, 4, GNUTLS_FSAN_APPEND),
             name);
    else if (inet_pton(AF_INET6, name, address) == 1)
        done(gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_IPADDRESS, address, 16, GNUTLS_FSAN_APPEND),
             name);
    else
        done(gnutls_x509_crt_set_subject_alt_name(certificate, GNUTLS_SAN_DNSNAME, name, (unsigned)strlen(name),
                                                  GNUTLS_FSAN_APPEND),
             name);
}

static void add_names(gnutls_x509_crt_t certificate, const char *names)
{
    char *list = strdup(names), *save = NULL;
    must(list != NULL, "names", "no memory");
    for (char *name = strtok_r(list, ",", &save); name != NULL; name = strtok_r(NULL, ",", &save))
        add_name(certificate, name);
    free(list);
}

static void describe(gnutls_x509_crt_t certificate, const struct pki_options *options)
{
    unsigned char serial[9] = {1};
    const char *wrong = NULL;
    time_t now = time(NULL);
    done(gnutls_rnd(GNUTLS_RND_NONCE, serial + 1, sizeof serial - 1), "random serial");
    done(gnutls_x509_crt_set_version(certificate, 3), "version");
    done(gnutls_x509_crt_set_serial(certificate, serial, sizeof serial), "serial");
    done(gnutls_x509_crt_set_dn(certificate, options->subject ? options->subject : "CN=test", &wrong), "subject");
    done(gnutls_x509_crt_set_activation_time(certificate, now + (options->begin ? options->begin : -PKI_HOUR)),
         "begin");
    done(gnutls_x509_crt_set_expiration_time(certificate, now + (options->end ? options->end : PKI_HOUR)), "end");
    if (!options->no_constraints)
        done(gnutls_x509_crt_set_ca_status(certificate, options->authority), "constraints");
    if (options->names != NULL)
        add_names(certificate, options->names);
    if (options->purpose != NULL)
        done(gnutls_x509_crt_set_key_purpose_oid(certificate, options->purpose, 0), "purpose");
    if (options->usage != 0)
        done(gnutls_x509_crt_set_key_usage(certificate, options->usage), "usage");
}

struct pki_pair pki_make(const struct pki_pair *signer, const struct pki_options *options)
{
    struct pki_pair made = {.key = make_key(options->rsa_bits)};
    const struct pki_pair *by = signer != NULL ? signer : &made;
    done(gnutls_x509_crt_init(&made.certificate), "certificate");
    describe(made.certificate, options);
    done(gnutls_x509_crt_set_key(made.certificate, made.key), "key of a certificate");
    done(gnutls_x509_crt_sign2(made.certificate, by->certificate, by->key,
                               options->digest ? options->digest : GNUTLS_DIG_SHA256, 0),
         "signature");
    return made;
}

void pki_free(struct pki_pair *identity)
{
    if (identity->certificate != NULL)
        gnutls_x509_crt_deinit(identity->certificate);
    if (identity->key != NULL)
        gnutls_x509_privkey_deinit(identity->key);
    *identity = (struct pki_pair){0};
}

void pki_directory_new(char path[PKI_PATH_MAX])
{
    snprintf(path, PKI_PATH_MAX, "/tmp/godwit-tls-XXXXXX");
    must(mkdtemp(path) != NULL, path, "cannot be made");
}

static void join(char path[PKI_PATH_MAX], const char *directory, const char *name)
{
    must(snprintf(path, PKI_PATH_MAX, "%s/%s", directory, name) < PKI_PATH_MAX, name, "too long");
}

void pki_unlink(const char *directory, const char *name)
{
    char path[PKI_PATH_MAX];
    join(path, directory, name);
    must(unlink(path) == 0, path, "cannot be removed");
}

void pki_directory_remove(const char *path)
{
    DIR *folder = opendir(path);
    must(folder != NULL, path, "cannot be read");
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            pki_unlink(path, entry->d_name);
    }
    closedir(folder);
    must(rmdir(path) == 0, path, "cannot be removed");
}

void pki_write(const char *directory, const char *name, const void *data, size_t size, mode_t mode)
{
    char path[PKI_PATH_MAX];
    join(path, directory, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    must(fd >= 0, path, "cannot be opened");
    must(write(fd, data, size) == (ssize_t)size, path, "cannot be written");
    must(fchmod(fd, mode) == 0, path, "cannot have that mode");
    close(fd);
}

void pki_write_text(const char *directory, const char *name, const char *text, mode_t mode)
{
    pki_write(directory, name, text, strlen(text), mode);
}

void pki_write_certificates(const char *directory, const char *name, const struct pki_pair *const *identities)
{
    gnutls_datum_t pem;
    char all[16384] = "";
    for (; *identities != NULL; identities++) {
        done(gnutls_x509_crt_export2((*identities)->certificate, GNUTLS_X509_FMT_PEM, &pem), "certificate");
        must(strlen(all) + pem.size < sizeof all, name, "too many certificates");
        strncat(all, (const char *)pem.data, pem.size);
        gnutls_free(pem.data);
    }
    pki_write_text(directory, name, all, 0644);
}

void pki_write_certificate(const char *directory, const char *name, const struct pki_pair *identity)
{
    pki_write_certificates(directory, name, (const struct pki_pair *const[]){identity, NULL});
}

void pki_write_key(const char *directory, const char *name, const struct pki_pair *identity, mode_t mode,
                   const char *password)
{
    gnutls_datum_t pem;
    done(gnutls_x509_privkey_export2_pkcs8(identity->key, GNUTLS_X509_FMT_PEM, password,
                                           password != NULL ? GNUTLS_PKCS_PBES2_AES_256 : GNUTLS_PKCS_PLAIN, &pem),
         "key");
    pki_write(directory, name, pem.data, pem.size, mode);
    gnutls_free(pem.data);
}

void pki_write_revocations(const char *directory, const struct pki_pair *signer, const struct pki_pair *revoked,
                           long begin, long end)
{
    gnutls_x509_crl_t list;
    gnutls_datum_t pem;
    time_t now = time(NULL);
    done(gnutls_x509_crl_init(&list), "list");
    done(gnutls_x509_crl_set_version(list, 2), "list version");
    done(gnutls_x509_crl_set_this_update(list, now + begin), "list begin");
    done(gnutls_x509_crl_set_next_update(list, now + end), "list end");
    done(gnutls_x509_crl_set_number(list, "\1", 1), "list number");
    if (revoked != NULL)
        done(gnutls_x509_crl_set_crt(list, revoked->certificate, now + begin), "revocation");
    done(gnutls_x509_crl_sign2(list, signer->certificate, signer->key, GNUTLS_DIG_SHA256, 0), "list signature");
    done(gnutls_x509_crl_export2(list, GNUTLS_X509_FMT_PEM, &pem), "list");
    pki_write(directory, "ca-crl.pem", pem.data, pem.size, 0644);
    gnutls_free(pem.data);
    gnutls_x509_crl_deinit(list);
}

void pki_new(struct pki *pki)
{
    pki_directory_new(pki->directory);
    pki->authority = pki_make(NULL, &(struct pki_options){.subject = "CN=test authority",
                                                          .authority = true,
                                                          .usage = GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN});
    pki->server = pki_make(&pki->authority, &(struct pki_options){.subject = "CN=destination,O=Example",
                                                                  .names = "localhost,127.0.0.1,::1",
                                                                  .purpose = GNUTLS_KP_TLS_WWW_SERVER,
                                                                  .usage = GNUTLS_KEY_DIGITAL_SIGNATURE});
    pki->client = pki_make(&pki->authority, &(struct pki_options){.subject = "CN=source,O=Example",
                                                                  .purpose = GNUTLS_KP_TLS_WWW_CLIENT,
                                                                  .usage = GNUTLS_KEY_DIGITAL_SIGNATURE});
    pki_write_certificate(pki->directory, "ca-cert.pem", &pki->authority);
    pki_write_certificate(pki->directory, "server-cert.pem", &pki->server);
    pki_write_key(pki->directory, "server-key.pem", &pki->server, 0600, NULL);
    pki_write_certificate(pki->directory, "client-cert.pem", &pki->client);
    pki_write_key(pki->directory, "client-key.pem", &pki->client, 0600, NULL);
}

void pki_end(struct pki *pki)
{
    pki_free(&pki->client);
    pki_free(&pki->server);
    pki_free(&pki->authority);
    pki_directory_remove(pki->directory);
}
