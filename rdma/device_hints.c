/*
 * Order: what keeps the device from working at all comes first. An unknown field gives no hint: silence is better than
 * advice about nothing.
 */
#include "rdma/device_hints.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    FAST_MBPS = 10000,
    MTU_WANTED = 4096,
    /* The kernel takes the largest packet that fits the interface's MTU less the headers: 96 bytes reserved by rdma_cm
     * (include/rdma/ib_addr.h). 4200 is the round number that adapter vendors give. */
    NETDEV_MTU_NEEDED = MTU_WANTED + 96,
    NETDEV_MTU_ADVISED = 4200,
    /* Around the payload of a RoCE v2 packet over IPv4: preamble 8, Ethernet 14, IPv4 20, UDP 8, BTH 12, ICRC 4, FCS 4,
     * gap 12. */
    PACKET_OVERHEAD = 82,
};

void hints_add(struct godwit_hints *hints, const char *format, ...)
{
    if (hints->count == GODWIT_HINTS_MAX)
        return;
    va_list list;
    va_start(list, format);
    vsnprintf(hints->text[hints->count++], GODWIT_HINT_TEXT, format, list);
    va_end(list);
}

static void add_unusable(struct godwit_hints *out, const char *node, int error, const char *module)
{
    char buffer[128];
    const char *cause = strerror_r(error, buffer, sizeof buffer); /* the GNU one: always a string */
    if (error == ENOENT)
        hints_add(out, "%s is missing: modprobe %s; a container needs to be given it (--device %s)", node, module,
                  node);
    else if (error == EACCES || error == EPERM)
        hints_add(out,
                  "%s may not be opened: %s: its mode is 0666 unless a udev rule changes it; a container needs to be "
                  "given it (--device %s)",
                  node, cause, node);
    else
        hints_add(out, "%s cannot be opened: %s", node, cause);
}

void device_hints(const struct godwit_device *device, const struct device_facts *facts, struct godwit_hints *out)
{
    if (facts->node_errno)
        add_unusable(out, facts->node, facts->node_errno, "ib_uverbs");
    if (facts->cm_errno)
        add_unusable(out, "/dev/infiniband/rdma_cm", facts->cm_errno, "rdma_ucm");
    if (facts->remote && device->numa_node >= 0)
        hints_add(out,
                  "the device is at NUMA node %d and this process may run on processors of other nodes: start it with "
                  "numactl --cpunodebind=%d",
                  device->numa_node, device->numa_node);
}

static const char *first_netdev(const struct godwit_device_port *port)
{
    return port->netdev_count ? port->netdevs[0].name : "the network interface";
}

static void add_state(const struct godwit_device_port *port, struct godwit_hints *out)
{
    if (port->state == GODWIT_PORT_UNKNOWN || port->state == GODWIT_PORT_ACTIVE)
        return;
    const char *state = godwit_port_state_name(port->state);
    if (port->link_layer == GODWIT_LINK_INFINIBAND && port->state != GODWIT_PORT_DOWN)
        hints_add(out, "the port is %s: no subnet manager has activated it: start opensm, or ask the one of the switch",
                  state);
    else if (port->physical_state == GODWIT_PHYSICAL_DISABLED)
        hints_add(out, "the port is %s and disabled: ip link set dev %s up", state, first_netdev(port));
    else
        hints_add(out, "the port is %s (%s): check the cable and the switch's port", state,
                  godwit_physical_state_name(port->physical_state));
}

/* In tenths of a percent of the line. */
static unsigned header_share(unsigned mtu)
{
    return (PACKET_OVERHEAD * 1000 + (mtu + PACKET_OVERHEAD) / 2) / (mtu + PACKET_OVERHEAD);
}

static void add_mtu(const struct godwit_device_port *port, struct godwit_hints *out)
{
    unsigned mbps = port->width * port->lane_mbps;
    if (mbps < FAST_MBPS || !port->active_mtu || port->active_mtu >= MTU_WANTED || port->max_mtu < MTU_WANTED)
        return;
    char fact[GODWIT_HINT_TEXT / 2];
    unsigned now = header_share(port->active_mtu), then = header_share(MTU_WANTED);
    snprintf(fact, sizeof fact, "active MTU %u on %u Gb/s: headers take %u.%u %% of the line, with 4096 %u.%u %%",
             port->active_mtu, mbps / 1000, now / 10, now % 10, then / 10, then % 10);
    const struct godwit_device_netdev *netdev = port->netdev_count ? &port->netdevs[0] : NULL;
    if (port->link_layer != GODWIT_LINK_ETHERNET)
        hints_add(out, "%s: the subnet manager or the switch limits it", fact);
    else if (netdev && netdev->mtu >= NETDEV_MTU_NEEDED)
        hints_add(out, "%s: %s has MTU %u, which is enough: the device, or what lies below %s, keeps it small", fact,
                  netdev->name, netdev->mtu, netdev->name);
    else
        hints_add(out, "%s: raise the MTU of %s, of the peer's and of every switch between them to %u or more: "
                  "ip link set dev %s mtu %u",
                  fact, first_netdev(port), NETDEV_MTU_ADVISED, netdev ? netdev->name : "eth0", NETDEV_MTU_ADVISED);
}

static bool is_link_local(const struct godwit_device_gid *gid)
{
    return strncmp(gid->address, "fe80:", 5) == 0;
}

/* Connections are made by IP address; the device takes part with the GIDs that its interface's addresses give. */
static void add_gids(const struct godwit_device_port *port, struct godwit_hints *out)
{
    bool v2 = false;
    for (unsigned i = 0; i < port->gid_count; i++) {
        const struct godwit_device_gid *gid = &port->gids[i];
        if (gid->type == GODWIT_GID_INFINIBAND)
            return; /* InfiniBand, or iWARP: addresses live elsewhere */
        if (gid->type == GODWIT_GID_ROCE_V2 && !is_link_local(gid))
            return;
        v2 = v2 || gid->type == GODWIT_GID_ROCE_V2;
    }
    if (v2)
        hints_add(out, "all GIDs are link-local: %s has no address: ip address add 192.0.2.1/24 dev %s",
                  first_netdev(port), port->netdev_count ? port->netdevs[0].name : "eth0");
    else if (port->gid_count)
        hints_add(out,
                  "no GID is of RoCE v2, and RoCE v1 does not cross a router: see what firmware and driver can do");
}

void port_hints(const struct godwit_device_port *port, struct godwit_hints *out)
{
    add_state(port, out);
    add_mtu(port, out);
    add_gids(port, out);
}
