/* The report as one JSON object. */
#ifndef CLI_REPORT_JSON_H
#define CLI_REPORT_JSON_H

#include <jansson.h>

#include "cli/report.h"

/* A new reference; NULL when memory is out. */
json_t *report_json(const struct report *report);

/* Time a channel worked, of the time there was work to do: 0 to 1. */
double report_busy_share(const struct godwit_info *info, unsigned channel);

/* The status to show: a failure before the engine began has no status of its own. */
const char *report_status(const struct report *report);

#endif
