/*
 * Private to tcp/: reading a file of credentials whole. The judgement is about the file itself, not about what it says:
 * it is there, it is a plain file with something in it, which not everybody may change, and, if it is secret, nobody but
 * its owner may read or change it.
 */
#ifndef TCP_TLS_FILES_H
#define TCP_TLS_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include <godwit/error.h>

enum { TLS_FILE_MAX = 4 << 20 }; /* a list of revoked certificates of 100,000 entries has about as much */

enum tls_file_secrecy { TLS_FILE_PUBLIC, TLS_FILE_SECRET };

struct tls_file {
    char *path;          /* for messages */
    unsigned char *data; /* size bytes, and a zero behind them */
    size_t size;
};

/* Is this a directory that can be used? */
enum godwit_err tls_directory_check(const char *directory, struct godwit_error *error);

/* Has the directory anything of that name? A link that leads nowhere counts: what an operator put there is not to be
 * overlooked, least of all a list of revoked certificates. */
enum godwit_err tls_file_exists(const char *directory, const char *name, bool *out, struct godwit_error *error);

/* directory NULL: name is a path. In either case tls_file_release is due, and path is there unless memory ran out. */
enum godwit_err tls_file_read(struct tls_file *file, const char *directory, const char *name,
                              enum tls_file_secrecy secrecy, struct godwit_error *error);
/* Overwrites what was read: it may be a key. */
void tls_file_release(struct tls_file *file);

#endif
