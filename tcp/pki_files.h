/* Private to tcp/: several files that come into being together or not at all. */
#ifndef TCP_PKI_FILES_H
#define TCP_PKI_FILES_H

#include <stdbool.h>
#include <stddef.h>

#include <godwit/error.h>

enum { PKI_FILES_MAX = 8 };

enum pki_secrecy { PKI_PUBLIC, PKI_SECRET }; /* 0644, 0600 */

struct pki_files {
    const char *directory; /* borrowed */
    int fd;
    bool made;      /* the directory, by us */
    bool published; /* all of it */
    unsigned count;
    struct {
        const char *name; /* static storage */
        bool linked;      /* it has its name */
    } files[PKI_FILES_MAX];
};

/* Makes the directory if need be, and locks it: BUSY when somebody else has. Closed by pki_files_close() also after a
 * failure. */
enum godwit_err pki_files_open(struct pki_files *files, const char *directory, struct godwit_error *error);

/* Is there anything of this name? False only where it surely is not. */
bool pki_files_exist(const char *directory, const char *name);

/* Writes NAME.partial, down to the disk. data is not kept. */
enum godwit_err pki_files_stage(struct pki_files *files, const char *name, enum pki_secrecy secrecy, const void *data,
                                size_t size, struct godwit_error *error);

/* Gives what is staged its names, in the order of staging. BUSY when one is taken: then none is given. */
enum godwit_err pki_files_publish(struct pki_files *files, struct godwit_error *error);

/* The same for a single file, whose name may be taken: what had it before is gone. */
enum godwit_err pki_files_replace(struct pki_files *files, struct godwit_error *error);

/* Unless all was published, removes what was made. */
void pki_files_close(struct pki_files *files);

#endif
