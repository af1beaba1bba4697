/* What an operator would trip over, as pure functions of what was found. */
#ifndef RDMA_DEVICE_HINTS_H
#define RDMA_DEVICE_HINTS_H

#include <stdbool.h>

#include <godwit/devices.h>

/* What a hint needs and the public description does not keep. */
struct device_facts {
    char node[GODWIT_DEVICE_NAME * 2]; /* "/dev/infiniband/uverbs0" */
    int node_errno;                    /* of opening it; 0: it was opened */
    int cm_errno;                      /* of the connection manager's; 0: it may be opened */
    bool remote;                       /* this process may run on processors that are not at the device's node */
};

/* Adds one line; beyond GODWIT_HINTS_MAX it is dropped. */
__attribute__((format(printf, 2, 3))) void hints_add(struct godwit_hints *hints, const char *format, ...);

/* The device's own. */
void device_hints(const struct godwit_device *device, const struct device_facts *facts, struct godwit_hints *out);

/* One port's. */
void port_hints(const struct godwit_device_port *port, struct godwit_hints *out);

#endif
