/* The ports of an open device. */
#ifndef RDMA_DEVICE_PORTS_H
#define RDMA_DEVICE_PORTS_H

#include <ifaddrs.h>
#include <infiniband/verbs.h>

#include <godwit/devices.h>

/* Where lookups outside of verbs are made. */
struct device_machine {
    const char *root;                  /* of /sys, /proc and /dev; "" for the machine's own */
    const struct ifaddrs *interfaces; /* NULL: addresses are unknown */
};

/*
 * Fills device->ports, count of them, hints included. device->name is set. NO_MEMORY is the only failure; what was
 * filled by then is freed with the device.
 */
enum godwit_err device_ports_read(const struct device_machine *machine, struct ibv_context *context, unsigned count,
                                  struct godwit_device *device);

void device_ports_free(struct godwit_device *device);

#endif
