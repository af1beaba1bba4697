/* Opening a userfaultfd under whatever this process is allowed. */
#ifndef GUEST_UFFD_H
#define GUEST_UFFD_H

#include <stdint.h>

#include <godwit/error.h>

/*
 * A non-blocking userfaultfd that has negotiated `features`, closed by the caller. Asked for in this order: the system
 * call, /dev/userfaultfd (Linux 6.1, by file permission), and the restricted kind that any user may have and that sees
 * no fault which the kernel itself makes. UNSUPPORTED when the kernel has none or not these features, SYSTEM when it
 * may not be used; `need` ends the sentence ("... needs Linux 6.7").
 */
enum godwit_err uffd_open(uint64_t features, const char *need, int *out, struct godwit_error *error);

#endif
