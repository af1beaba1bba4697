/*
 * Export marker shared by every public header. The library is built with hidden visibility: what carries GODWIT_API is
 * the whole of its binary interface.
 */
#ifndef GODWIT_API_H
#define GODWIT_API_H

#define GODWIT_API __attribute__((visibility("default")))
#define GODWIT_MUST_CHECK __attribute__((warn_unused_result))

#ifdef __cplusplus
#define GODWIT_BEGIN extern "C" {
#define GODWIT_END }
#else
#define GODWIT_BEGIN
#define GODWIT_END
#endif

#endif
