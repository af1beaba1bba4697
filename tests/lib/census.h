/* What this process holds: counted before and after, it shows what was left behind. */
#ifndef TESTS_LIB_CENSUS_H
#define TESTS_LIB_CENSUS_H

unsigned census_fds(void);

/* A joined thread may be listed by the kernel for a moment still: waits up to a second for no more than `most`,
 * UINT_MAX: not at all. */
unsigned census_threads(unsigned most);

#endif
