#include "cli/devices.h"

#include <inttypes.h>

#include "cli/amount.h"

enum { GIDS_SHOWN = 16 }; /* soft-RoCE and virtual functions can have hundreds; --json lists all */

static const char *or_unknown(const char *text)
{
    return text && *text ? text : "unknown";
}

static void put_hints(FILE *out, const struct godwit_hints *hints)
{
    for (unsigned i = 0; i < hints->count; i++)
        fprintf(out, "  hint      %s\n", hints->text[i]);
}

static void put_rate(FILE *out, const struct godwit_device_port *port)
{
    if (port->width && port->lane_mbps)
        fprintf(out, "%g Gb/s (%u x %g)", port->width * port->lane_mbps / 1e3, port->width, port->lane_mbps / 1e3);
    else
        fputs("unknown rate", out);
}

static void put_netdev(FILE *out, const struct godwit_device_netdev *netdev)
{
    fprintf(out, "  netdev    %s, ", netdev->name);
    fputs(netdev->mtu ? "MTU " : "MTU unknown", out);
    if (netdev->mtu)
        fprintf(out, "%u", netdev->mtu);
    for (unsigned i = 0; i < netdev->address_count; i++)
        fprintf(out, "%s%s", i ? " " : ": ", netdev->addresses[i]);
    fputs(netdev->address_count ? "\n" : ", no address\n", out);
}

static void put_gids(FILE *out, const struct godwit_device_port *port)
{
    unsigned shown = port->gid_count < GIDS_SHOWN ? port->gid_count : GIDS_SHOWN;
    for (unsigned i = 0; i < shown; i++) {
        const struct godwit_device_gid *gid = &port->gids[i];
        fprintf(out, "  gid %-5u %-11s %s%s%s\n", gid->index, godwit_gid_type_name(gid->type), gid->address,
                *gid->netdev ? "  " : "", gid->netdev);
    }
    if (shown < port->gid_count)
        fprintf(out, "            and %u more (--json lists all)\n", port->gid_count - shown);
}

static void put_port(FILE *out, const struct godwit_device_port *port)
{
    fprintf(out, "  port %-4u %s, %s, %s, ", port->number, godwit_port_state_name(port->state),
            godwit_physical_state_name(port->physical_state), godwit_link_layer_name(port->link_layer));
    put_rate(out, port);
    if (port->active_mtu)
        fprintf(out, ", MTU %u of %u\n", port->active_mtu, port->max_mtu);
    else
        fputs(", MTU unknown\n", out);
    for (unsigned i = 0; i < port->netdev_count; i++)
        put_netdev(out, &port->netdevs[i]);
    put_gids(out, port);
    put_hints(out, &port->hints);
}

static void put_odp(FILE *out, unsigned odp)
{
    static const struct {
        enum godwit_odp bit;
        const char *name;
    } names[] = {
        {GODWIT_ODP_IMPLICIT, "implicit"}, {GODWIT_ODP_SEND, "send"}, {GODWIT_ODP_RECV, "recv"},
        {GODWIT_ODP_WRITE, "write"},       {GODWIT_ODP_READ, "read"},
    };
    fputs("  odp       ", out);
    if (!(odp & GODWIT_ODP_SUPPORTED)) {
        fputs(odp & GODWIT_ODP_UNKNOWN ? "unknown\n" : "no: memory is pinned\n", out);
        return;
    }
    fputs("yes", out);
    const char *separator = ": ";
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (odp & names[i].bit) {
            fprintf(out, "%s%s", separator, names[i].name);
            separator = ", ";
        }
    fputc('\n', out);
}

/* They come in one answer of the device: all of them are known, or none. */
static void put_limits(FILE *out, const struct godwit_device *device)
{
    fputs("  limits    ", out);
    if (!device->max_qp) {
        fputs("unknown\n", out);
        return;
    }
    char size[AMOUNT_TEXT];
    amount_bytes(device->max_mr_size, size);
    fprintf(out,
            "%" PRIu32 " queue pairs of %" PRIu32 " requests of %" PRIu32 " segments, %" PRIu32
            " completions per queue, %" PRIu32 " reads at once\n"
            "            %" PRIu32 " memory regions of %s\n",
            device->max_qp, device->max_qp_wr, device->max_sge, device->max_cqe, device->max_rd_atom, device->max_mr,
            device->max_mr_size == UINT64_MAX ? "any size" : size);
}

static void put_device(FILE *out, const struct godwit_device *device)
{
    fprintf(out, "%s\n  device    driver %s, %s, firmware %s\n", device->name, or_unknown(device->driver),
            or_unknown(device->node_type), or_unknown(device->firmware));
    uint64_t guid = device->node_guid;
    if (guid)
        fprintf(out, "            node GUID %04x:%04x:%04x:%04x", (unsigned)(guid >> 48),
                (unsigned)(guid >> 32) & 0xffff, (unsigned)(guid >> 16) & 0xffff, (unsigned)guid & 0xffff);
    else
        fputs("            node GUID unknown", out);
    if (device->numa_node >= 0)
        fprintf(out, ", NUMA node %d", device->numa_node);
    fputc('\n', out);
    put_hints(out, &device->hints);
    for (unsigned i = 0; i < device->port_count; i++)
        put_port(out, &device->ports[i]);
    put_limits(out, device);
    put_odp(out, device->odp);
}

static void put_memlock(FILE *out, const struct godwit_memlock *memlock)
{
    char limit[AMOUNT_TEXT], ram[AMOUNT_TEXT];
    amount_bytes(memlock->limit, limit);
    amount_bytes(memlock->ram, ram);
    fputs("this process\n  memlock   ", out);
    if (memlock->privileged)
        fputs("unlimited: it has CAP_IPC_LOCK", out);
    else
        fputs(memlock->limit == UINT64_MAX ? "unlimited" : limit, out);
    if (memlock->ram)
        fprintf(out, "; the machine has %s of RAM", ram);
    fputc('\n', out);
    if (memlock->hint[0])
        fprintf(out, "  hint      %s\n", memlock->hint);
}

void devices_print_text(const struct devices_report *report, FILE *out)
{
    for (unsigned i = 0; i < report->count; i++)
        put_device(out, &report->devices[i]);
    put_memlock(out, &report->memlock);
}
