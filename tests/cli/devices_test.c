/* What `godwit devices` prints, of a device of which all is known and of one of which nothing is. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/devices.h"

TestSuite(devices, .timeout = 10);

static struct godwit_device_netdev netdevs[] = {
    {.name = "eth2", .mtu = 1500, .address_count = 2, .addresses = {"192.0.2.1/24", "fe80::1/64"}},
    {.name = "eth2.7"},
};
static struct godwit_device_gid gids[20] = {
    {.index = 0, .type = GODWIT_GID_ROCE_V1, .address = "fe80::1", .netdev = "eth2"},
    {.index = 1, .type = GODWIT_GID_ROCE_V2, .address = "::ffff:192.0.2.1", .netdev = "eth2"},
    {.index = 12, .type = GODWIT_GID_ROCE_V2, .address = "2001:db8::1"},
};
static struct godwit_device_port ports[] = {
    {.number = 1, .state = GODWIT_PORT_ACTIVE, .physical_state = GODWIT_PHYSICAL_LINK_UP,
     .link_layer = GODWIT_LINK_ETHERNET, .width = 4, .lane_mbps = 25000, .active_mtu = 1024, .max_mtu = 4096,
     .gid_count = 3, .gids = gids, .netdev_count = 2, .netdevs = netdevs,
     .hints = {.count = 1, .text = {"raise the MTU"}}},
    {.number = 2},
};
static struct godwit_device devices[] = {
    {.name = "mlx5_0", .driver = "mlx5_core", .node_type = "channel adapter", .firmware = "16.35.2000",
     .node_guid = 0x506b4b0300cbd1e0, .numa_node = 1, .odp = GODWIT_ODP_SUPPORTED | GODWIT_ODP_SEND | GODWIT_ODP_WRITE,
     .max_qp = 262144, .max_qp_wr = 32768, .max_sge = 30, .max_cqe = 4194303, .max_mr = 16777216, .max_rd_atom = 16,
     .max_mr_size = UINT64_MAX, .port_count = 2, .ports = ports,
     .hints = {.count = 1, .text = {"start it with numactl"}}},
    {.name = "rxe0", .numa_node = -1, .odp = GODWIT_ODP_UNKNOWN},
};

static struct devices_report full_report(void)
{
    return (struct devices_report){.devices = devices, .count = 2,
                                   .memlock = {.limit = 8 << 20, .ram = (uint64_t)32 << 30, .hint = "ulimit -l"}};
}

/* The caller frees it. */
static char *printed(const struct devices_report *report, bool json)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    cr_assert_not_null(out);
    if (json)
        cr_assert(devices_print_json(report, out));
    else
        devices_print_text(report, out);
    cr_assert_eq(fclose(out), 0);
    return text;
}

Test(devices, text_shows_what_is_known_and_says_what_is_not)
{
    struct devices_report report = full_report();
    char *text = printed(&report, false);
    cr_expect_str_eq(text,
                     "mlx5_0\n"
                     "  device    driver mlx5_core, channel adapter, firmware 16.35.2000\n"
                     "            node GUID 506b:4b03:00cb:d1e0, NUMA node 1\n"
                     "  hint      start it with numactl\n"
                     "  port 1    ACTIVE, LINK_UP, Ethernet, 100 Gb/s (4 x 25), MTU 1024 of 4096\n"
                     "  netdev    eth2, MTU 1500: 192.0.2.1/24 fe80::1/64\n"
                     "  netdev    eth2.7, MTU unknown, no address\n"
                     "  gid 0     RoCE v1     fe80::1  eth2\n"
                     "  gid 1     RoCE v2     ::ffff:192.0.2.1  eth2\n"
                     "  gid 12    RoCE v2     2001:db8::1\n"
                     "  hint      raise the MTU\n"
                     "  port 2    unknown, unknown, unknown, unknown rate, MTU unknown\n"
                     "  limits    262144 queue pairs of 32768 requests of 30 segments, 4194303 completions per queue, "
                     "16 reads at once\n"
                     "            16777216 memory regions of any size\n"
                     "  odp       yes: send, write\n"
                     "rxe0\n"
                     "  device    driver unknown, unknown, firmware unknown\n"
                     "            node GUID unknown\n"
                     "  limits    unknown\n"
                     "  odp       unknown\n"
                     "this process\n"
                     "  memlock   8.00 MiB; the machine has 32.0 GiB of RAM\n"
                     "  hint      ulimit -l\n");
    free(text);
}

Test(devices, text_keeps_a_long_table_short)
{
    struct devices_report report = full_report();
    report.count = 1;
    ports[0].gid_count = 20;
    char *text = printed(&report, false);
    cr_expect(strstr(text, "and 4 more (--json lists all)"), "%s", text);
    free(text);
}

Test(devices, text_tells_the_kinds_of_memlock_and_paging_apart)
{
    struct devices_report report = full_report();
    report.memlock.privileged = true;
    devices[1].odp = 0;
    char *text = printed(&report, false);
    cr_expect(strstr(text, "memlock   unlimited: it has CAP_IPC_LOCK; "), "%s", text);
    cr_expect(strstr(text, "odp       no: memory is pinned\n"), "%s", text);
    free(text);
    report.memlock = (struct godwit_memlock){.limit = UINT64_MAX};
    text = printed(&report, false);
    cr_expect(strstr(text, "memlock   unlimited\n"), "%s", text);
    free(text);
}

/* The caller drops the reference. */
static json_t *parsed(const struct devices_report *report)
{
    char *text = printed(report, true);
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    cr_assert_not_null(object, "%s", text);
    free(text);
    return object;
}

Test(devices, an_object_holds_what_is_known)
{
    struct devices_report report = full_report();
    json_t *object = parsed(&report), *device, *port;
    const char *name, *driver, *guid, *state, *address, *gid, *type, *hint, *size;
    int active_mtu, numa, implicit, write, index;
    double rate, speed;
    cr_assert_eq(json_unpack(object, "{s[ooo!]}", "devices", &device, &port, &port), -1, "two devices");
    cr_assert_eq(json_unpack(object, "{s[o,o!]}", "devices", &device, &port), 0);
    cr_assert_eq(json_unpack(device, "{ss ss ss si ss s{sb sb} s[s]}", "name", &name, "driver", &driver, "node-guid",
                             &guid, "numa-node", &numa, "max-mr-size", &size, "odp-caps", "implicit", &implicit,
                             "rc-write", &write, "hints", &hint), 0);
    cr_expect_str_eq(name, "mlx5_0");
    cr_expect_str_eq(driver, "mlx5_core");
    cr_expect_str_eq(guid, "506b:4b03:00cb:d1e0");
    cr_expect_str_eq(size, "unlimited");
    cr_expect_str_eq(hint, "start it with numactl");
    cr_expect(numa == 1 && !implicit && write);
    cr_assert_eq(json_unpack(device, "{s[o,o!]}", "ports", &port, &device), 0);
    cr_assert_eq(json_unpack(port, "{ss si sF sF s[s] s[{s[s]}] s[o,{si ss ss}]}", "state", &state, "active-mtu",
                             &active_mtu, "rate", &rate, "active-speed", &speed, "hints", &hint, "netdevs", "addresses",
                             &address, "gids", &device, "index", &index, "type", &type, "gid", &gid), 0);
    cr_expect_str_eq(state, "ACTIVE");
    cr_expect_str_eq(address, "192.0.2.1/24");
    cr_expect_str_eq(type, "RoCE v2");
    cr_expect_str_eq(gid, "::ffff:192.0.2.1");
    cr_expect(active_mtu == 1024 && rate == 100 && speed == 25 && index == 1);
    json_decref(object);
}

Test(devices, an_object_has_null_for_what_is_unknown)
{
    static const char *const fields[] = {"driver", "node-type", "fw-ver", "node-guid", "numa-node", "max-qp",
                                         "max-qp-wr", "max-sge", "max-cqe", "max-mr", "max-mr-size", "max-qp-rd-atom",
                                         "odp-caps"};
    struct devices_report report = full_report();
    json_t *object = parsed(&report), *device = json_array_get(json_object_get(object, "devices"), 1);
    for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++)
        cr_expect(json_is_null(json_object_get(device, fields[i])), "%s", fields[i]);
    cr_expect_eq(json_array_size(json_object_get(device, "ports")), 0);
    json_decref(object);
}

Test(devices, no_device_is_an_empty_list_and_a_hint)
{
    struct godwit_error error = {.code = GODWIT_ERR_UNSUPPORTED, .text = "no RDMA device"};
    struct devices_report report = {.error = &error, .memlock = {.limit = UINT64_MAX}};
    char *text = printed(&report, true);
    cr_expect_str_eq(text, "{\"devices\":[],\"memlock\":{\"limit\":\"unlimited\",\"cap-ipc-lock\":false,\"ram\":null},"
                           "\"hints\":[\"no RDMA device\"]}\n");
    free(text);
}
