/* Jansson takes NULL references as "memory is out" and passes them up: only the last one is checked. */
#include "cli/devices.h"

#include <inttypes.h>
#include <jansson.h>

static json_t *text(const char *value)
{
    return value && *value ? json_string(value) : json_null();
}

static json_t *number(uint64_t value)
{
    return value ? json_integer((json_int_t)value) : json_null();
}

/* For numbers that say "no limit" by being too large for a JSON integer. */
static json_t *size(uint64_t value)
{
    return value == UINT64_MAX ? json_string("unlimited") : number(value);
}

/* NULL when memory is out: append then fails too, and the array is given up. */
static json_t *append(json_t *array, json_t *value)
{
    if (array && json_array_append_new(array, value) == 0)
        return array;
    json_decref(array);
    return NULL;
}

static json_t *hints_json(const struct godwit_hints *hints)
{
    json_t *array = json_array();
    for (unsigned i = 0; array && i < hints->count; i++)
        array = append(array, json_string(hints->text[i]));
    return array;
}

static json_t *netdev_json(const struct godwit_device_netdev *netdev)
{
    json_t *addresses = json_array();
    for (unsigned i = 0; addresses && i < netdev->address_count; i++)
        addresses = append(addresses, json_string(netdev->addresses[i]));
    return json_pack("{ss so so}", "name", netdev->name, "mtu", number(netdev->mtu), "addresses", addresses);
}

static json_t *gid_json(const struct godwit_device_gid *gid)
{
    return json_pack("{si ss ss so}", "index", (int)gid->index, "type", godwit_gid_type_name(gid->type), "gid",
                     gid->address, "netdev", text(gid->netdev));
}

static json_t *rate_json(unsigned mbps)
{
    return mbps ? json_real(mbps / 1e3) : json_null();
}

static json_t *port_json(const struct godwit_device_port *port)
{
    json_t *netdevs = json_array(), *gids = json_array();
    for (unsigned i = 0; netdevs && i < port->netdev_count; i++)
        netdevs = append(netdevs, netdev_json(&port->netdevs[i]));
    for (unsigned i = 0; gids && i < port->gid_count; i++)
        gids = append(gids, gid_json(&port->gids[i]));
    return json_pack("{si ss ss ss so so so so so so so so}",
                     "port", (int)port->number,
                     "state", godwit_port_state_name(port->state),
                     "phys-state", godwit_physical_state_name(port->physical_state),
                     "link-layer", godwit_link_layer_name(port->link_layer),
                     "active-width", number(port->width),
                     "active-speed", rate_json(port->lane_mbps),
                     "rate", rate_json(port->width * port->lane_mbps),
                     "active-mtu", number(port->active_mtu),
                     "max-mtu", number(port->max_mtu),
                     "netdevs", netdevs,
                     "gids", gids,
                     "hints", hints_json(&port->hints));
}

static json_t *odp_json(unsigned odp)
{
    if (odp & GODWIT_ODP_UNKNOWN)
        return json_null();
    return json_pack("{sb sb sb sb sb sb}",
                     "supported", (int)(odp & GODWIT_ODP_SUPPORTED),
                     "implicit", (int)(odp & GODWIT_ODP_IMPLICIT),
                     "rc-send", (int)(odp & GODWIT_ODP_SEND),
                     "rc-recv", (int)(odp & GODWIT_ODP_RECV),
                     "rc-write", (int)(odp & GODWIT_ODP_WRITE),
                     "rc-read", (int)(odp & GODWIT_ODP_READ));
}

static json_t *guid_json(uint64_t guid)
{
    char digits[20];
    snprintf(digits, sizeof digits, "%04x:%04x:%04x:%04x", (unsigned)(guid >> 48), (unsigned)(guid >> 32) & 0xffff,
             (unsigned)(guid >> 16) & 0xffff, (unsigned)guid & 0xffff);
    return guid ? json_string(digits) : json_null();
}

static json_t *device_json(const struct godwit_device *device)
{
    json_t *ports = json_array();
    for (unsigned i = 0; ports && i < device->port_count; i++)
        ports = append(ports, port_json(&device->ports[i]));
    return json_pack("{ss so so so so so so so so so so so so so so so}",
                     "name", device->name,
                     "driver", text(device->driver),
                     "node-type", text(device->node_type),
                     "fw-ver", text(device->firmware),
                     "node-guid", guid_json(device->node_guid),
                     "numa-node", device->numa_node >= 0 ? json_integer(device->numa_node) : json_null(),
                     "max-qp", number(device->max_qp),
                     "max-qp-wr", number(device->max_qp_wr),
                     "max-sge", number(device->max_sge),
                     "max-cqe", number(device->max_cqe),
                     "max-mr", number(device->max_mr),
                     "max-mr-size", size(device->max_mr_size),
                     "max-qp-rd-atom", number(device->max_rd_atom),
                     "odp-caps", odp_json(device->odp),
                     "ports", ports,
                     "hints", hints_json(&device->hints));
}

static json_t *memlock_json(const struct godwit_memlock *memlock)
{
    return json_pack("{so sb so}", "limit", size(memlock->limit), "cap-ipc-lock", memlock->privileged, "ram",
                     number(memlock->ram));
}

static json_t *list_json(const struct devices_report *report)
{
    json_t *devices = json_array(), *hints = json_array();
    for (unsigned i = 0; devices && i < report->count; i++)
        devices = append(devices, device_json(&report->devices[i]));
    if (report->error)
        hints = append(hints, json_string(report->error->text));
    if (report->memlock.hint[0])
        hints = append(hints, json_string(report->memlock.hint));
    return json_pack("{so so so}", "devices", devices, "memlock", memlock_json(&report->memlock), "hints", hints);
}

bool devices_print_json(const struct devices_report *report, FILE *out)
{
    json_t *object = list_json(report);
    bool whole = object && json_dumpf(object, out, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6)) == 0;
    fputc('\n', out);
    json_decref(object);
    return whole;
}
