#include "cli/demo_tls.h"

#include <stdio.h>
#include <unistd.h>

#include <godwit/pki.h>

static const char *const files[] = {"ca-cert.pem",     "ca-key.pem",      "server-cert.pem", "server-key.pem",
                                    "client-cert.pem", "client-key.pem", "keys.psk"};

enum { PATH_SIZE = 128 };

static void path_of(const char *folder, const char *file, char path[PATH_SIZE])
{
    snprintf(path, PATH_SIZE, "%s/tls%s%s", folder, *file ? "/" : "", file);
}

enum godwit_err demo_tls_make(enum demo_tls kind, const char *folder, struct godwit_options *options,
                              struct godwit_error *error)
{
    char path[PATH_SIZE];
    path_of(folder, "", path);
    struct godwit_pki pki;
    godwit_pki_init(&pki);
    pki.host = "localhost";
    pki.days = pki.authority_days = 1;
    enum godwit_err err = kind == DEMO_TLS_PSK ? godwit_pki_make_psk(path, "qemu", error)
                                               : godwit_pki_make(path, &pki, NULL, error);
    if (!err)
        err = godwit_options_set(options, "tls-creds", path, error);
    if (!err) /* the URI has an address, or a path */
        err = godwit_options_set(options, "tls-hostname", "localhost", error);
    return err;
}

void demo_tls_remove(const char *folder)
{
    char path[PATH_SIZE];
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        path_of(folder, files[i], path);
        unlink(path);
    }
    path_of(folder, "", path);
    rmdir(path);
}
