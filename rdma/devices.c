/*
 * The list of devices. Happy path: libibverbs lists them, each is opened, asked, and closed. A device that cannot be
 * opened keeps what /sys says of it and a hint that says why; a question that fails leaves its fields unknown. Only
 * memory that runs out, or a list that cannot be had, is an error.
 */
#include "rdma/devices.h"

#include <endian.h>
#include <errno.h>
#include <ifaddrs.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rdma/absence.h"
#include "rdma/device_hints.h"
#include "rdma/device_ports.h"
#include "rdma/numa.h"
#include "rdma/sysfs.h"
#include "transport/error.h"

static const char *node_type(enum ibv_node_type type)
{
    switch (type) {
    case IBV_NODE_CA: return "channel adapter";
    case IBV_NODE_SWITCH: return "switch";
    case IBV_NODE_ROUTER: return "router";
    case IBV_NODE_RNIC: return "iWARP NIC";
    case IBV_NODE_USNIC: return "usNIC";
    case IBV_NODE_USNIC_UDP: return "usNIC UDP";
    case IBV_NODE_UNSPECIFIED: return "unspecified";
    case IBV_NODE_UNKNOWN: break;
    }
    return NULL;
}

/* What is known of a device that cannot be opened, too. */
static void identify(const char *root, struct ibv_device *from, struct godwit_device *device)
{
    char parent[GODWIT_DEVICE_NAME];
    long node;
    snprintf(device->name, sizeof device->name, "%s", ibv_get_device_name(from));
    device->node_type = node_type(from->node_type);
    device->node_guid = be64toh(ibv_get_device_guid(from));
    device->odp = GODWIT_ODP_UNKNOWN;
    device->numa_node = -1;
    if (sysfs_number(&node, "%s/sys/class/infiniband/%s/device/numa_node", root, device->name))
        device->numa_node = (int)node;
    /* soft-RoCE alone has the attribute parent (drivers/infiniband/sw/rxe/rxe_verbs.c); its device is the one below. */
    if (sysfs_line(parent, sizeof parent, "%s/sys/class/infiniband/%s/parent", root, device->name))
        snprintf(device->driver, sizeof device->driver, "rdma_rxe");
    else
        sysfs_link(device->driver, sizeof device->driver, "%s/sys/class/infiniband/%s/device/driver", root,
                   device->name);
}

static unsigned odp_bits(const struct ibv_odp_caps *caps)
{
    uint32_t rc = caps->per_transport_caps.rc_odp_caps;
    return (caps->general_caps & IBV_ODP_SUPPORT ? GODWIT_ODP_SUPPORTED : 0u) |
           (caps->general_caps & IBV_ODP_SUPPORT_IMPLICIT ? GODWIT_ODP_IMPLICIT : 0u) |
           (rc & IBV_ODP_SUPPORT_SEND ? GODWIT_ODP_SEND : 0u) | (rc & IBV_ODP_SUPPORT_RECV ? GODWIT_ODP_RECV : 0u) |
           (rc & IBV_ODP_SUPPORT_WRITE ? GODWIT_ODP_WRITE : 0u) | (rc & IBV_ODP_SUPPORT_READ ? GODWIT_ODP_READ : 0u);
}

static uint32_t positive(int value)
{
    return value > 0 ? (uint32_t)value : 0;
}

static void keep_limits(const struct ibv_device_attr_ex *attr, struct godwit_device *device)
{
    const struct ibv_device_attr *limits = &attr->orig_attr;
    snprintf(device->firmware, sizeof device->firmware, "%.*s", (int)sizeof limits->fw_ver, limits->fw_ver);
    device->odp = odp_bits(&attr->odp_caps);
    device->max_qp = positive(limits->max_qp);
    device->max_qp_wr = positive(limits->max_qp_wr);
    device->max_sge = positive(limits->max_sge);
    device->max_cqe = positive(limits->max_cqe);
    device->max_mr = positive(limits->max_mr);
    device->max_rd_atom = positive(limits->max_qp_rd_atom);
    device->max_mr_size = limits->max_mr_size;
}

/* Asks an open device. */
static enum godwit_err interrogate(const struct device_machine *machine, struct ibv_context *context,
                                   struct godwit_device *device)
{
    struct ibv_device_attr_ex attr;
    memset(&attr, 0, sizeof attr);
    if (ibv_query_device_ex(context, NULL, &attr))
        return GODWIT_OK;
    keep_limits(&attr, device);
    return device_ports_read(machine, context, attr.orig_attr.phys_port_cnt, device);
}

static enum godwit_err describe(const struct device_machine *machine, struct ibv_device *from,
                                struct godwit_device *device)
{
    struct device_facts facts = {0};
    identify(machine->root, from, device);
    snprintf(facts.node, sizeof facts.node, "/dev/infiniband/%s", from->dev_name);
    facts.cm_errno = sysfs_usable("%s/dev/infiniband/rdma_cm", machine->root);
    facts.remote = numa_is_remote(machine->root, device->numa_node);

    enum godwit_err err = GODWIT_OK;
    errno = 0;
    struct ibv_context *context = ibv_open_device(from);
    if (context) {
        err = interrogate(machine, context, device);
        ibv_close_device(context);
    } else {
        int cause = errno ? errno : EIO;
        int seen = sysfs_usable("%s%s", machine->root, facts.node);
        facts.node_errno = seen ? seen : cause; /* libibverbs then looks elsewhere, and ends with ENOENT for all */
    }
    device_hints(device, &facts, &device->hints);
    return err;
}

static enum godwit_err describe_all(const char *root, struct ibv_device **list, unsigned count,
                                    struct godwit_device **out, struct godwit_error *error)
{
    struct godwit_device *devices = calloc(count, sizeof *devices);
    struct ifaddrs *interfaces = NULL;
    enum godwit_err err = devices ? GODWIT_OK : GODWIT_ERR_NO_MEMORY;
    if (getifaddrs(&interfaces))
        interfaces = NULL;
    struct device_machine machine = {.root = root, .interfaces = interfaces};
    for (unsigned i = 0; i < count && !err; i++)
        err = describe(&machine, list[i], &devices[i]);
    if (interfaces)
        freeifaddrs(interfaces);
    if (err) {
        godwit_devices_free(devices, count);
        return error_set(error, err, "out of memory for a list of %u RDMA devices", count);
    }
    *out = devices;
    return GODWIT_OK;
}

enum godwit_err devices_list(const char *root, struct godwit_device **out, unsigned *count,
                             struct godwit_error *error)
{
    int found = 0;
    errno = 0;
    struct ibv_device **list = ibv_get_device_list(&found);
    /* ENOSYS: the kernel's part of verbs is not loaded. */
    if (!list && errno && errno != ENOSYS)
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot list RDMA devices");
    enum godwit_err err;
    if (!list || found <= 0) {
        struct absence absence;
        absence_probe(root, &absence);
        err = absence_error(&absence, error);
    } else {
        err = describe_all(root, list, (unsigned)found, out, error);
        if (!err)
            *count = (unsigned)found;
    }
    if (list)
        ibv_free_device_list(list);
    return err;
}

enum godwit_err godwit_devices_list(struct godwit_device **out, unsigned *count, struct godwit_error *error)
{
    return devices_list("", out, count, error);
}

void godwit_devices_free(struct godwit_device *devices, unsigned count)
{
    for (unsigned i = 0; devices && i < count; i++)
        device_ports_free(&devices[i]);
    free(devices);
}
