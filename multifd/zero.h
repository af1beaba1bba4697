/* Is a page all zeros? One vector version chosen at run time, one portable; both see live memory, so their answer is
 * only as old as the read: a page that is written meanwhile is in the dirty log. */
#ifndef MULTIFD_ZERO_H
#define MULTIFD_ZERO_H

#include <stdbool.h>

typedef bool zero_test(const void *page);

/* The fastest test this processor has. */
zero_test *zero_test_select(void);
zero_test zero_test_portable;

#endif
