/* Every hint, where it is due and where it is not. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rdma/device_hints.h"

TestSuite(device_hints, .timeout = 10);

/* A port of 100 Gb/s with nothing in its way. */
struct good_port {
    struct godwit_device_netdev netdev;
    struct godwit_device_gid gids[2];
    struct godwit_device_port port;
};

static void good_port_init(struct good_port *good)
{
    *good = (struct good_port){
        .netdev = {.name = "eth2", .mtu = 9000, .address_count = 1, .addresses = {"192.0.2.1/24"}},
        .gids = {{.index = 0, .type = GODWIT_GID_ROCE_V1, .address = "fe80::1"},
                 {.index = 3, .type = GODWIT_GID_ROCE_V2, .address = "::ffff:192.0.2.1"}},
        .port = {.number = 1, .state = GODWIT_PORT_ACTIVE, .physical_state = GODWIT_PHYSICAL_LINK_UP,
                 .link_layer = GODWIT_LINK_ETHERNET, .width = 4, .lane_mbps = 25000, .active_mtu = 4096,
                 .max_mtu = 4096, .netdev_count = 1, .gid_count = 2},
    };
    good->port.netdevs = &good->netdev;
    good->port.gids = good->gids;
}

static void expect_none(const struct godwit_device_port *port)
{
    struct godwit_hints hints = {0};
    port_hints(port, &hints);
    cr_expect_eq(hints.count, 0, "%s", hints.text[0]);
}

/* Exactly one hint, which has all the words, up to a NULL. */
static void expect_one(const struct godwit_device_port *port, const char *const words[])
{
    struct godwit_hints hints = {0};
    port_hints(port, &hints);
    cr_assert_eq(hints.count, 1, "%u hints", hints.count);
    for (unsigned i = 0; words[i]; i++)
        cr_expect(strstr(hints.text[0], words[i]), "no \"%s\" in: %s", words[i], hints.text[0]);
}

#define EXPECT_ONE(port, ...) expect_one((port), (const char *const[]){__VA_ARGS__, NULL})

Test(device_hints, a_good_port_has_none)
{
    struct good_port good;
    good_port_init(&good);
    expect_none(&good.port);
}

Test(device_hints, a_port_of_which_nothing_is_known_has_none)
{
    expect_none(&(struct godwit_device_port){.number = 1});
}

Test(device_hints, a_small_mtu_on_a_fast_link_costs_bandwidth)
{
    struct good_port good;
    good_port_init(&good);
    good.port.active_mtu = 1024;
    good.netdev.mtu = 1500;
    EXPECT_ONE(&good.port, "active MTU 1024 on 100 Gb/s", "7.4 %", "2.0 %", "ip link set dev eth2 mtu 4200", "switch");
    good.port.active_mtu = 2048;
    EXPECT_ONE(&good.port, "active MTU 2048", "3.8 %");
    good.port.netdev_count = 0;
    EXPECT_ONE(&good.port, "the network interface", "4200");
}

Test(device_hints, a_small_mtu_under_a_large_one_is_not_the_interfaces_fault)
{
    struct good_port good;
    good_port_init(&good);
    good.port.active_mtu = 1024;
    good.netdev.mtu = 4192;
    EXPECT_ONE(&good.port, "eth2 has MTU 4192, which is enough");
    good.netdev.mtu = 4191;
    EXPECT_ONE(&good.port, "raise the MTU of eth2");
}

Test(device_hints, a_small_mtu_on_infiniband_is_the_fabrics)
{
    struct good_port good;
    good_port_init(&good);
    good.port.link_layer = GODWIT_LINK_INFINIBAND;
    good.port.gid_count = 0;
    good.port.active_mtu = 2048;
    EXPECT_ONE(&good.port, "subnet manager");
}

Test(device_hints, a_small_mtu_does_not_matter_on_a_slow_link_or_where_there_is_no_larger)
{
    struct good_port good;
    good_port_init(&good);
    good.port.active_mtu = 1024;
    good.port.width = 1;
    good.port.lane_mbps = 2500;
    expect_none(&good.port);
    good.port.lane_mbps = 10000;
    EXPECT_ONE(&good.port, "10 Gb/s");
    good.port.max_mtu = 2048;
    expect_none(&good.port);
}

Test(device_hints, a_port_that_is_not_active_says_what_to_look_at)
{
    struct good_port good;
    good_port_init(&good);
    good.port.state = GODWIT_PORT_DOWN;
    good.port.physical_state = GODWIT_PHYSICAL_POLLING;
    EXPECT_ONE(&good.port, "DOWN", "POLLING", "cable");
    good.port.physical_state = GODWIT_PHYSICAL_DISABLED;
    EXPECT_ONE(&good.port, "ip link set dev eth2 up");
    good.port.link_layer = GODWIT_LINK_INFINIBAND;
    good.port.physical_state = GODWIT_PHYSICAL_LINK_UP;
    good.port.state = GODWIT_PORT_INIT;
    EXPECT_ONE(&good.port, "INIT", "opensm");
}

Test(device_hints, a_port_without_an_address_needs_one)
{
    struct good_port good;
    good_port_init(&good);
    strcpy(good.gids[1].address, "fe80::2");
    EXPECT_ONE(&good.port, "link-local", "ip address add", "dev eth2");
    good.gids[1].type = GODWIT_GID_ROCE_V1;
    strcpy(good.gids[1].address, "::ffff:192.0.2.1");
    EXPECT_ONE(&good.port, "RoCE v2");
    good.gids[0].type = GODWIT_GID_INFINIBAND; /* iWARP */
    expect_none(&good.port);
    good.port.gid_count = 0; /* not known */
    expect_none(&good.port);
}

Test(device_hints, troubles_add_up)
{
    struct good_port good;
    struct godwit_hints hints = {0};
    good_port_init(&good);
    good.port.state = GODWIT_PORT_DOWN;
    good.port.active_mtu = 1024;
    good.port.gid_count = 1;
    port_hints(&good.port, &hints);
    cr_expect_eq(hints.count, 3);
}

static const struct godwit_device device = {.name = "mlx5_0", .numa_node = 1};

static void expect_device(const struct device_facts *facts, unsigned count, const char *words)
{
    struct godwit_hints hints = {0};
    device_hints(&device, facts, &hints);
    cr_assert_eq(hints.count, count, "%u hints", hints.count);
    cr_expect(!words || strstr(hints.text[0], words), "no \"%s\" in: %s", words, hints.text[0]);
}

Test(device_hints, a_device_that_opens_and_is_near_has_none)
{
    expect_device(&(struct device_facts){.node = "/dev/infiniband/uverbs0"}, 0, NULL);
}

Test(device_hints, a_node_that_cannot_be_opened_names_its_remedy)
{
    struct device_facts facts = {.node = "/dev/infiniband/uverbs0", .node_errno = ENOENT};
    expect_device(&facts, 1, "/dev/infiniband/uverbs0 is missing: modprobe ib_uverbs");
    facts.node_errno = EACCES;
    expect_device(&facts, 1, "Permission denied");
    facts.node_errno = EPERM;
    expect_device(&facts, 1, "--device /dev/infiniband/uverbs0");
    facts.node_errno = EIO;
    expect_device(&facts, 1, "cannot be opened: Input/output error");
}

Test(device_hints, a_connection_manager_that_cannot_be_opened_names_its_remedy)
{
    struct device_facts facts = {.cm_errno = ENOENT};
    expect_device(&facts, 1, "/dev/infiniband/rdma_cm is missing: modprobe rdma_ucm");
    facts.cm_errno = EACCES;
    expect_device(&facts, 1, "/dev/infiniband/rdma_cm may not be opened");
}

Test(device_hints, a_device_at_another_node_names_it)
{
    expect_device(&(struct device_facts){.remote = true}, 1, "--cpunodebind=1");
    struct godwit_hints hints = {0};
    device_hints(&(struct godwit_device){.numa_node = -1}, &(struct device_facts){.remote = true}, &hints);
    cr_expect_eq(hints.count, 0);
}

Test(device_hints, more_than_fit_are_dropped)
{
    struct godwit_hints hints = {0};
    for (int i = 0; i <= GODWIT_HINTS_MAX; i++)
        hints_add(&hints, "%d", i);
    cr_expect_eq(hints.count, GODWIT_HINTS_MAX);
    cr_expect_str_eq(hints.text[GODWIT_HINTS_MAX - 1], "7");
}

Test(device_hints, the_longest_hint_fits)
{
    struct good_port good;
    struct godwit_hints hints = {0};
    good_port_init(&good);
    memset(good.netdev.name, 'n', 15); /* IFNAMSIZ less its NUL */
    good.netdev.name[15] = '\0';
    good.netdev.mtu = 1500;
    good.port.active_mtu = 1024;
    good.port.width = 12;
    good.port.lane_mbps = 100000;
    port_hints(&good.port, &hints);
    cr_assert_eq(hints.count, 1);
    cr_expect(strlen(hints.text[0]) < GODWIT_HINT_TEXT - 1, "%s", hints.text[0]);
}

Test(device_hints, every_value_has_a_name)
{
    cr_expect_str_eq(godwit_port_state_name(GODWIT_PORT_ACTIVE), "ACTIVE");
    cr_expect_str_eq(godwit_port_state_name(GODWIT_PORT_UNKNOWN), "unknown");
    cr_expect_str_eq(godwit_port_state_name((enum godwit_port_state)99), "unknown");
    cr_expect_str_eq(godwit_physical_state_name(GODWIT_PHYSICAL_LINK_UP), "LINK_UP");
    cr_expect_str_eq(godwit_physical_state_name((enum godwit_physical_state)-1), "unknown");
    cr_expect_str_eq(godwit_link_layer_name(GODWIT_LINK_ETHERNET), "Ethernet");
    cr_expect_str_eq(godwit_gid_type_name(GODWIT_GID_ROCE_V2), "RoCE v2");
    for (int state = GODWIT_PORT_DOWN; state <= GODWIT_PORT_ACTIVE_DEFER; state++)
        cr_expect_str_neq(godwit_port_state_name((enum godwit_port_state)state), "unknown");
    for (int state = GODWIT_PHYSICAL_SLEEP; state <= GODWIT_PHYSICAL_TEST; state++)
        cr_expect_str_neq(godwit_physical_state_name((enum godwit_physical_state)state), "unknown");
}
