/*
 * Credentials that several threads share, for ThreadSanitizer: every thread lets clients meet servers all the time, good
 * ones and one that is revoked, with certificates and with pre-shared keys.
 *
 *   tls_credentials_stress [ROUNDS]    exit 0: nothing was wrong
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/lib/pki.h"
#include "tests/tcp/tls_meeting.h"

enum { ROUNDS = 20, THREADS = 4 };

/* One meeting that all threads repeat. */
struct occasion {
    struct tls_credentials *client, *server;
    enum godwit_err expected; /* the server's verdict */
};

struct worker {
    pthread_t thread;
    const struct occasion *occasions;
    unsigned count, rounds;
    unsigned wrong;
};

static struct tls_credentials *load(const char *directory, enum tls_side side, const char *authz)
{
    struct tls_config config = tls_config_of(directory);
    struct tls_credentials *credentials = NULL;
    struct godwit_error error;
    config.authz = authz;
    if (tls_credentials_load(&config, side, &credentials, &error) != GODWIT_OK) {
        fprintf(stderr, "%s\n", error.text);
        exit(1);
    }
    return credentials;
}

static void *meet_all(void *argument)
{
    struct worker *worker = argument;
    for (unsigned i = 0; i < worker->rounds * worker->count; i++) {
        const struct occasion *occasion = &worker->occasions[i % worker->count];
        struct meeting meeting;
        tls_meet(occasion->client, occasion->server, "localhost", &meeting);
        if (meeting.client.err != GODWIT_OK || meeting.server.err != occasion->expected) {
            fprintf(stderr, "client: %s\nserver: %s\n", meeting.client.error.text, meeting.server.error.text);
            worker->wrong++;
        }
    }
    return NULL;
}

static unsigned run(const struct occasion *occasions, unsigned count, unsigned rounds)
{
    struct worker workers[THREADS];
    unsigned wrong = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.occasions = occasions, .count = count, .rounds = rounds};
        if (pthread_create(&workers[i].thread, NULL, meet_all, &workers[i]) != 0)
            abort();
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        wrong += workers[i].wrong;
    }
    return wrong;
}

int main(int argc, char *argv[])
{
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : ROUNDS;
    struct pki pki;
    char keys[PKI_PATH_MAX];
    pki_new(&pki);
    pki_directory_new(keys);
    pki_write_text(keys, "keys.psk", "alice:ffeeddccbbaa99887766554433221100\nqemu:00112233445566778899aabbccddeeff\n",
                   0600);

    struct occasion occasions[] = {
        {.client = load(pki.directory, TLS_CLIENT, ""),
         .server = load(pki.directory, TLS_SERVER, "CN=nobody;*CN=source*")},
        {.client = load(pki.directory, TLS_CLIENT, ""), .expected = GODWIT_ERR_NOT_ADMITTED},
        {.client = load(keys, TLS_CLIENT, ""), .server = load(keys, TLS_SERVER, "")},
    };
    pki_write_revocations(pki.directory, &pki.authority, &pki.client, -10, PKI_HOUR);
    occasions[1].server = load(pki.directory, TLS_SERVER, "CN=nobody;*CN=source*");

    unsigned count = sizeof occasions / sizeof occasions[0];
    unsigned wrong = run(occasions, count, rounds);
    for (unsigned i = 0; i < count; i++) {
        tls_credentials_free(occasions[i].client);
        tls_credentials_free(occasions[i].server);
    }
    pki_directory_remove(keys);
    pki_end(&pki);
    printf("%u meetings, %u went wrong\n", THREADS * rounds * count, wrong);
    return wrong == 0 ? 0 : 1;
}
