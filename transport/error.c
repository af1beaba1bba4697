/*
 * Error texts. The happy path never comes here. A text that does not fit is cut at the end: the cause stands first, so
 * what is lost is the least useful part.
 */
#include "transport/error.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ERROR_LIST(X)                                                        \
    X(GODWIT_OK, "no error")                                                 \
    X(GODWIT_ERR_INVALID, "invalid argument")                                \
    X(GODWIT_ERR_UNSUPPORTED, "not supported here")                          \
    X(GODWIT_ERR_TOO_BIG, "larger than the maximum")                         \
    X(GODWIT_ERR_TIMEOUT, "timed out")                                       \
    X(GODWIT_ERR_CANCELLED, "cancelled")                                     \
    X(GODWIT_ERR_NO_MEMORY, "out of memory")                                 \
    X(GODWIT_ERR_BUSY, "in use")                                             \
    X(GODWIT_ERR_SYSTEM, "a system call failed")                             \
    X(GODWIT_ERR_CLOSED, "closed by this side")                              \
    X(GODWIT_ERR_PEER_CLOSED, "closed by the peer")                          \
    X(GODWIT_ERR_RESET, "connection broken")                                 \
    X(GODWIT_ERR_REFUSED, "connection refused")                              \
    X(GODWIT_ERR_UNREACHABLE, "unreachable")                                 \
    X(GODWIT_ERR_STALLED, "stalled in the middle of a message")              \
    X(GODWIT_ERR_PROTOCOL, "the peer broke the protocol")                    \
    X(GODWIT_ERR_NOT_ADMITTED, "not admitted by the peer")                   \
    X(GODWIT_ERR_MISMATCH, "the two sides do not match")                     \
    X(GODWIT_ERR_PEER_FAILED, "the peer reported a failure")                 \
    X(GODWIT_ERR_PEER_DEAD, "no sign of life from the peer")                 \
    X(GODWIT_ERR_GUEST, "a guest operation failed")                          \
    X(GODWIT_ERR_SWITCHOVER_TIMEOUT, "the switchover took too long")         \
    X(GODWIT_ERR_OUTCOME_UNKNOWN, "the outcome of the switchover is unknown") \
    X(GODWIT_ERR_NOT_RESUMED, "the guest could not be resumed")

const char *godwit_err_text(enum godwit_err code)
{
    switch (code) {
#define ERROR_CASE(name, text) \
    case name:                 \
        return text;
        ERROR_LIST(ERROR_CASE)
#undef ERROR_CASE
    }
    return "unknown error";
}

/* Texts quote addresses and peers' words: whatever they contain, one line is promised. */
static void keep_one_line(struct godwit_error *error)
{
    for (char *at = error->text; *at; at++) {
        if (iscntrl((unsigned char)*at))
            *at = ' ';
    }
    if (!error->text[0])
        snprintf(error->text, sizeof error->text, "%s", godwit_err_text(error->code));
}

enum godwit_err error_set(struct godwit_error *error, enum godwit_err code, const char *format, ...)
{
    if (!error)
        return code;
    va_list args;
    va_start(args, format);
    /* Built apart: the arguments may point into error->text. */
    char text[GODWIT_ERROR_TEXT];
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    error->code = code;
    error->sys_errno = 0;
    memcpy(error->text, text, sizeof text);
    keep_one_line(error);
    return code;
}

enum godwit_err error_set_sys(struct godwit_error *error, enum godwit_err code, int sys_errno, const char *format, ...)
{
    if (!error)
        return code;
    va_list args;
    va_start(args, format);
    char text[GODWIT_ERROR_TEXT];
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    char buffer[128];
    const char *cause = strerror_r(sys_errno, buffer, sizeof buffer); /* the GNU one: always a string */
    error->code = code;
    error->sys_errno = sys_errno;
    snprintf(error->text, sizeof error->text, "%s: %s", text, cause);
    keep_one_line(error);
    return code;
}

enum godwit_err error_prefix(struct godwit_error *error, const char *format, ...)
{
    if (!error)
        return GODWIT_ERR_SYSTEM;
    va_list args;
    va_start(args, format);
    char prefix[GODWIT_ERROR_TEXT];
    vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    char text[GODWIT_ERROR_TEXT];
    memcpy(text, error->text, sizeof text);
    snprintf(error->text, sizeof error->text, "%s: %s", prefix, text);
    keep_one_line(error);
    return error->code;
}
