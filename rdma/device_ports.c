/*
 * A port's state comes from verbs, its GIDs from the kernel's table, which names the network interface of each, and the
 * interface's addresses and MTU from the system. Where no GID names one (InfiniBand), the interface is looked up as the
 * device's in /sys: of the several that a card with several ports has, the one whose dev_port this is.
 */
#include "rdma/device_ports.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rdma/device_hints.h"
#include "rdma/sysfs.h"

enum { GIDS_MAX = 65536 }; /* a table is a few hundred entries; whoever says more is not believed */

/* The lane's speed code and the width code are single bits; the lanes' rates are those the kernel prints in `rate`. */
static unsigned lane_mbps(uint8_t code)
{
    switch (code) {
    case 1: return 2500;
    case 2: return 5000;
    case 4: return 10000;
    case 8: return 10000; /* FDR10 */
    case 16: return 14000;
    case 32: return 25000;
    case 64: return 50000;
    case 128: return 100000;
    }
    return 0;
}

static unsigned lane_count(uint8_t code)
{
    switch (code) {
    case 1: return 1;
    case 2: return 4;
    case 4: return 8;
    case 8: return 12;
    case 16: return 2;
    }
    return 0;
}

static unsigned mtu_bytes(enum ibv_mtu code)
{
    return code >= IBV_MTU_256 && code <= IBV_MTU_4096 ? 128u << code : 0;
}

static void read_state(struct ibv_context *context, struct godwit_device_port *port)
{
    struct ibv_port_attr attr;
    memset(&attr, 0, sizeof attr);
    if (ibv_query_port(context, (uint8_t)port->number, &attr))
        return;
    port->state = attr.state <= IBV_PORT_ACTIVE_DEFER ? (enum godwit_port_state)attr.state : GODWIT_PORT_UNKNOWN;
    port->physical_state = attr.phys_state <= GODWIT_PHYSICAL_TEST ? (enum godwit_physical_state)attr.phys_state
                                                                   : GODWIT_PHYSICAL_UNKNOWN;
    /* Drivers of before Ethernet do not set it. */
    port->link_layer = attr.link_layer == IBV_LINK_LAYER_ETHERNET ? GODWIT_LINK_ETHERNET : GODWIT_LINK_INFINIBAND;
    port->width = lane_count(attr.active_width);
    port->lane_mbps = lane_mbps(attr.active_speed);
    port->active_mtu = mtu_bytes(attr.active_mtu);
    port->max_mtu = mtu_bytes(attr.max_mtu);
}

static void format_address(int family, const void *address, char text[GODWIT_DEVICE_ADDRESS])
{
    if (!inet_ntop(family, address, text, GODWIT_DEVICE_ADDRESS))
        text[0] = '\0';
}

static const void *ip_of(const void *socket_address, int family)
{
    return family == AF_INET ? (const void *)&((const struct sockaddr_in *)socket_address)->sin_addr
                             : (const void *)&((const struct sockaddr_in6 *)socket_address)->sin6_addr;
}

static unsigned prefix_length(const struct sockaddr *mask, int family)
{
    const uint8_t *bytes = ip_of(mask, family);
    unsigned length = 0;
    for (unsigned i = 0; i < (family == AF_INET ? 4u : 16u); i++)
        length += (unsigned)__builtin_popcount(bytes[i]);
    return length;
}

static void add_address(const struct ifaddrs *interface, struct godwit_device_netdev *netdev)
{
    int family = interface->ifa_addr ? interface->ifa_addr->sa_family : AF_UNSPEC;
    if ((family != AF_INET && family != AF_INET6) || netdev->address_count == GODWIT_DEVICE_ADDRESSES)
        return;
    char *text = netdev->addresses[netdev->address_count++];
    format_address(family, ip_of(interface->ifa_addr, family), text);
    if (interface->ifa_netmask) {
        size_t used = strlen(text);
        snprintf(text + used, GODWIT_DEVICE_ADDRESS - used, "/%u", prefix_length(interface->ifa_netmask, family));
    }
}

/* Each interface once. */
static enum godwit_err add_netdev(const struct device_machine *machine, const char *name,
                                  struct godwit_device_port *port)
{
    for (unsigned i = 0; i < port->netdev_count; i++)
        if (strcmp(port->netdevs[i].name, name) == 0)
            return GODWIT_OK;
    struct godwit_device_netdev *grown = reallocarray(port->netdevs, port->netdev_count + 1, sizeof *grown);
    if (!grown)
        return GODWIT_ERR_NO_MEMORY;
    port->netdevs = grown;
    struct godwit_device_netdev *netdev = &grown[port->netdev_count++];
    memset(netdev, 0, sizeof *netdev);
    snprintf(netdev->name, sizeof netdev->name, "%s", name);
    long mtu = 0;
    if (sysfs_number(&mtu, "%s/sys/class/net/%s/mtu", machine->root, name) && mtu > 0)
        netdev->mtu = (unsigned)mtu;
    for (const struct ifaddrs *at = machine->interfaces; at; at = at->ifa_next)
        if (strcmp(at->ifa_name, name) == 0)
            add_address(at, netdev);
    return GODWIT_OK;
}

static enum godwit_err add_netdevs_of_device(const struct device_machine *machine, const char *device,
                                             struct godwit_device_port *port)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/sys/class/infiniband/%s/device/net", machine->root, device);
    DIR *folder = opendir(path);
    if (!folder)
        return GODWIT_OK;
    enum godwit_err err = GODWIT_OK;
    for (struct dirent *entry; !err && (entry = readdir(folder));) {
        long dev_port = 0; /* from 0 */
        if (entry->d_name[0] != '.' &&
            sysfs_number(&dev_port, "%s/sys/class/net/%s/dev_port", machine->root, entry->d_name) &&
            dev_port + 1 == (long)port->number)
            err = add_netdev(machine, entry->d_name, port);
    }
    closedir(folder);
    return err;
}

static enum godwit_err add_gid(const struct device_machine *machine, const struct ibv_gid_entry *entry,
                               struct godwit_device_port *port)
{
    struct godwit_device_gid *gid = &port->gids[port->gid_count++];
    gid->index = entry->gid_index;
    gid->type = (enum godwit_gid_type)entry->gid_type;
    format_address(AF_INET6, entry->gid.raw, gid->address);
    char name[IF_NAMESIZE];
    if (!entry->ndev_ifindex || !if_indextoname(entry->ndev_ifindex, name))
        return GODWIT_OK;
    snprintf(gid->netdev, sizeof gid->netdev, "%s", name);
    return add_netdev(machine, name, port);
}

static enum godwit_err read_gids(const struct device_machine *machine, const struct ibv_gid_entry *table, size_t size,
                                 struct godwit_device_port *port)
{
    unsigned count = 0;
    for (size_t i = 0; i < size; i++)
        count += table[i].port_num == port->number;
    port->gids = calloc(count + 1, sizeof *port->gids); /* one more: calloc of nothing may be NULL */
    if (!port->gids)
        return GODWIT_ERR_NO_MEMORY;
    enum godwit_err err = GODWIT_OK;
    for (size_t i = 0; i < size && !err; i++)
        if (table[i].port_num == port->number)
            err = add_gid(machine, &table[i], port);
    return err;
}

/* The valid entries of all ports; *size 0 where the kernel does not give them. The caller frees *table. */
static enum godwit_err query_gids(struct ibv_context *context, unsigned ports, struct ibv_gid_entry **table,
                                  size_t *size)
{
    size_t most = 0;
    for (unsigned number = 1; number <= ports; number++) {
        struct ibv_port_attr attr;
        memset(&attr, 0, sizeof attr);
        if (ibv_query_port(context, (uint8_t)number, &attr) == 0 && attr.gid_tbl_len > 0)
            most += (size_t)attr.gid_tbl_len;
    }
    most = most < GIDS_MAX ? most : GIDS_MAX;
    *size = 0;
    *table = calloc(most + 1, sizeof **table);
    if (!*table)
        return GODWIT_ERR_NO_MEMORY;
    ssize_t count = most ? ibv_query_gid_table(context, *table, most, 0) : 0;
    if (count > 0)
        *size = (size_t)count;
    return GODWIT_OK;
}

enum godwit_err device_ports_read(const struct device_machine *machine, struct ibv_context *context, unsigned count,
                                  struct godwit_device *device)
{
    struct ibv_gid_entry *table;
    size_t size;
    device->ports = calloc(count + 1, sizeof *device->ports);
    if (!device->ports || query_gids(context, count, &table, &size))
        return GODWIT_ERR_NO_MEMORY;
    device->port_count = count;
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i < count && !err; i++) {
        struct godwit_device_port *port = &device->ports[i];
        port->number = i + 1;
        read_state(context, port);
        err = read_gids(machine, table, size, port);
        if (!err && !port->netdev_count)
            err = add_netdevs_of_device(machine, device->name, port);
        if (!err)
            port_hints(port, &port->hints);
    }
    free(table);
    return err;
}

void device_ports_free(struct godwit_device *device)
{
    for (unsigned i = 0; i < device->port_count; i++) {
        free(device->ports[i].gids);
        free(device->ports[i].netdevs);
    }
    free(device->ports);
}
