/*
 * Private to tcp/: pre-shared keys, and the file that GnuTLS's psktool writes:
 *
 *   USER:KEY       the key in hexadecimal digits, 16 to 512 bytes
 *   #USER:KEY      the user in hexadecimal digits too; any other line that begins with # is a comment
 *
 * Empty lines apart, every other line is an error that names its number.
 */
#ifndef TCP_TLS_PSK_H
#define TCP_TLS_PSK_H

#include <stddef.h>

#include <godwit/error.h>

enum {
    TLS_PSK_KEY_MIN = 16, /* a shorter key can be guessed by whoever pretends to be the destination once */
    TLS_PSK_KEY_MAX = 512,
};

struct tls_psk_user {
    const unsigned char *name;
    size_t name_size;
    const unsigned char *key;
    size_t key_size;
    unsigned line;
};

struct tls_psk;

/* text: size bytes of the file called path. Copies them. */
enum godwit_err tls_psk_parse(const char *path, const unsigned char *text, size_t size, struct tls_psk **out,
                              struct godwit_error *error);
void tls_psk_free(struct tls_psk *psk); /* NULL allowed; overwrites the keys */

/* NULL: no such user. Lives as long as psk. */
const struct tls_psk_user *tls_psk_find(const struct tls_psk *psk, const void *name, size_t size);

#endif
