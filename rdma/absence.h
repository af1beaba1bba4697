/*
 * Why there is no RDMA device. From the kernel upwards: its support, a device, the module that hands devices to
 * programs, the library that drives this kind of device.
 */
#ifndef RDMA_ABSENCE_H
#define RDMA_ABSENCE_H

#include <stdbool.h>

#include <godwit/devices.h>

enum absence_module {
    ABSENCE_MODULE_UNKNOWN, /* no list of modules for this kernel: a container, or a kernel without modules */
    ABSENCE_MODULE_THERE,
    ABSENCE_MODULE_MISSING,
};

struct absence {
    bool core;                       /* /sys/class/infiniband: the kernel's support is loaded */
    char device[GODWIT_DEVICE_NAME]; /* one that the kernel has; "": none */
    bool uverbs;                     /* /sys/class/infiniband_verbs lists it */
    enum absence_module rxe;         /* soft-RoCE, for the kernel that runs */
    char release[GODWIT_DEVICE_NAME]; /* of that kernel */
};

void absence_probe(const char *root, struct absence *out);

/* Pure. Always GODWIT_ERR_UNSUPPORTED. */
enum godwit_err absence_error(const struct absence *absence, struct godwit_error *error);

#endif
