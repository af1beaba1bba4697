/* The list of what every channel must do. Each case gets a pair of its kind: connected, or only a listener. */
#ifndef TESTS_CONFORMANCE_CASES_H
#define TESTS_CONFORMANCE_CASES_H

#include "tests/lib/pair.h"

struct conformance_case {
    const char *name;
    void (*run)(struct pair *pair);
    enum { CASE_LISTENING, CASE_CONNECTED, CASE_ONE_SIDED, CASE_LOOP } needs; /* CASE_LOOP: promised by it alone */
};

extern const struct conformance_case connect_cases[];
extern const struct conformance_case stream_cases[];
extern const struct conformance_case one_sided_cases[];

/* Each list ends with a name of NULL. */

#endif
