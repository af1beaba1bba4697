/*
 * Filling a caller's struct godwit_error, for this folder, which sees nothing but the public headers. NULL is allowed.
 */
#ifndef GUEST_GUEST_ERROR_H
#define GUEST_GUEST_ERROR_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <godwit/error.h>

/* Sets code, errno (0: no system call is to blame; otherwise ": strerror" is appended) and text; returns code. */
__attribute__((format(printf, 4, 5))) static inline enum godwit_err guest_fail_sys(struct godwit_error *error,
                                                                                   enum godwit_err code, int sys_errno,
                                                                                   const char *format, ...)
{
    if (!error)
        return code;
    error->code = code;
    error->sys_errno = sys_errno;
    va_list args;
    va_start(args, format);
    int used = vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    if (sys_errno && used >= 0 && (size_t)used < sizeof error->text) {
        char reason[128];
        snprintf(error->text + used, sizeof error->text - (size_t)used, ": %s",
                 strerror_r(sys_errno, reason, sizeof reason));
    }
    return code;
}

#define guest_fail(error, code, ...) guest_fail_sys((error), (code), 0, __VA_ARGS__)

#endif
