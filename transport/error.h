/* Filling a caller's struct godwit_error. A NULL error is allowed everywhere: only the code is returned then. */
#ifndef TRANSPORT_ERROR_H
#define TRANSPORT_ERROR_H

#include <godwit/error.h>

/* Sets code and text (printf); returns code, so that `return error_set(...)` reads as one step. */
enum godwit_err error_set(struct godwit_error *error, enum godwit_err code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same with ": strerror(sys_errno)" appended. */
enum godwit_err error_set_sys(struct godwit_error *error, enum godwit_err code, int sys_errno, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/*
 * Puts "<formatted>: " before the text that is there. Returns the code that is there. Where error may be NULL the
 * caller keeps the code itself: nothing is there then, and GODWIT_ERR_SYSTEM comes back so that a failure stays a
 * failure.
 */
enum godwit_err error_prefix(struct godwit_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
