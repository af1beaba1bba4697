/* What godwit_devices_list() does, below a root that tests may choose: "" for this machine's own. */
#ifndef RDMA_DEVICES_H
#define RDMA_DEVICES_H

#include <godwit/devices.h>

enum godwit_err devices_list(const char *root, struct godwit_device **out, unsigned *count,
                             struct godwit_error *error);

#endif
