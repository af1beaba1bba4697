/* What `godwit devices` prints: for people, a line for each thing with the hints below it; for programs, one object. */
#ifndef CLI_DEVICES_H
#define CLI_DEVICES_H

#include <stdbool.h>
#include <stdio.h>

#include <godwit/devices.h>

struct devices_report {
    const struct godwit_device *devices;
    unsigned count;
    const struct godwit_error *error; /* why there are none; NULL: there are */
    struct godwit_memlock memlock;
};

void devices_print_text(const struct devices_report *report, FILE *out);

/* Names are those of ibv_devinfo, with hyphens; what is unknown is null. False: not all of it was written. */
bool devices_print_json(const struct devices_report *report, FILE *out);

#endif
