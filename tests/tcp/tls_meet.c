/*
 * tls_meet CLIENT-DIRECTORY SERVER-DIRECTORY HOST: loads the credentials of both sides and lets them shake hands. Exit
 * code 0 and version and cipher if both are content, else 1 and what each side says.
 */
#include <stdio.h>

#include "tests/tcp/tls_meeting.h"

static struct tls_credentials *load(const char *directory, enum tls_side side)
{
    struct tls_config config = tls_config_of(directory);
    struct tls_credentials *credentials = NULL;
    struct godwit_error error;
    if (tls_credentials_load(&config, side, &credentials, &error) != GODWIT_OK)
        printf("%s: %s\n", side == TLS_CLIENT ? "client" : "server", error.text);
    return credentials;
}

static bool tell(const char *side, const struct attendee *attendee)
{
    if (attendee->err == GODWIT_OK)
        printf("%s: %s %s\n", side, attendee->version, attendee->cipher);
    else
        printf("%s: %s\n", side, attendee->error.text);
    return attendee->err == GODWIT_OK;
}

int main(int argc, char *argv[])
{
    if (argc != 4) {
        fprintf(stderr, "usage: tls_meet CLIENT-DIRECTORY SERVER-DIRECTORY HOST\n");
        return 2;
    }
    struct meeting meeting;
    bool good = false;
    struct tls_credentials *client = load(argv[1], TLS_CLIENT), *server = load(argv[2], TLS_SERVER);
    if (client != NULL && server != NULL) {
        tls_meet(client, server, argv[3], &meeting);
        good = tell("client", &meeting.client);
        good = tell("server", &meeting.server) && good;
    }
    tls_credentials_free(client);
    tls_credentials_free(server);
    return good ? 0 : 1;
}
