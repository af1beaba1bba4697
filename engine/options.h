/* Private side of <godwit/options.h>. */
#ifndef ENGINE_OPTIONS_H
#define ENGINE_OPTIONS_H

#include <godwit/options.h>

/* A copy, or all defaults for NULL; NULL when memory is out. */
struct godwit_options *options_copy(const struct godwit_options *options);

/* The entry of the table, or NULL. */
const struct godwit_option *options_find(const char *name);

static inline int options_ms(const struct godwit_options *options, const char *name)
{
    return (int)godwit_options_get(options, name);
}

#endif
