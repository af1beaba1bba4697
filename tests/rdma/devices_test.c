/*
 * The list of devices on the fake verbs, with /sys and /dev as files of the test's own. Whatever lookup fails costs its
 * field and nothing else.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "rdma/devices.h"
#include "tests/rdma/fake_verbs.h"
#include "tests/rdma/file_tree.h"

static struct fake_setup setup;
static struct file_tree tree;

/* Two devices: fake0 on two interfaces, of which one is another port's, and fake1, a soft-RoCE device without any. */
static void begin(void)
{
    fake_setup_init(&setup);
    setup.devices[0] = (struct fake_device_setup){.name = "fake0", .mtu = IBV_MTU_1024, .state = IBV_PORT_ACTIVE,
                                                  .addresses = {"fe80::1", "192.0.2.7", "2001:db8::7"}};
    setup.devices[1] = (struct fake_device_setup){.name = "fake1", .mtu = IBV_MTU_4096, .state = IBV_PORT_DOWN,
                                                  .addresses = {"fe80::2"}};
    file_tree_make(&tree);
    file_tree_put(&tree, "/dev/infiniband/rdma_cm", "");
    file_tree_put(&tree, "/dev/infiniband/uverbs0", "");
    file_tree_put(&tree, "/sys/class/infiniband/fake0/device/numa_node", "0\n");
    file_tree_link(&tree, "/sys/class/infiniband/fake0/device/driver", "../../../bus/pci/drivers/fake_core");
    file_tree_put(&tree, "/sys/class/infiniband/fake0/device/net/lo/", "");
    file_tree_put(&tree, "/sys/class/infiniband/fake0/device/net/second/", "");
    file_tree_put(&tree, "/sys/class/net/lo/dev_port", "0\n");
    file_tree_put(&tree, "/sys/class/net/lo/mtu", "1500\n");
    file_tree_put(&tree, "/sys/class/net/second/dev_port", "1\n");
    file_tree_put(&tree, "/sys/class/infiniband/fake1/parent", "eth0\n");
    fake_verbs_start(&setup);
}

static void end(void)
{
    fake_verbs_stop();
    file_tree_remove(&tree);
}

TestSuite(devices, .init = begin, .fini = end, .timeout = 20);

/* Both devices; the caller frees them. */
static struct godwit_device *list(void)
{
    struct godwit_device *devices = NULL;
    struct godwit_error error = {0};
    unsigned count = 0;
    cr_assert_eq(devices_list(tree.root, &devices, &count, &error), GODWIT_OK, "%s", error.text);
    cr_assert_eq(count, 2);
    cr_assert_str_eq(devices[0].name, "fake0");
    cr_assert_str_eq(devices[1].name, "fake1");
    return devices;
}

static bool hinted(const struct godwit_hints *hints, const char *words)
{
    for (unsigned i = 0; i < hints->count; i++)
        if (strstr(hints->text[i], words))
            return true;
    return false;
}

Test(devices, a_device_is_described)
{
    struct godwit_device *devices = list(), *device = &devices[0];
    cr_expect_str_eq(device->driver, "fake_core");
    cr_expect_str_eq(device->node_type, "channel adapter");
    cr_expect_str_eq(device->firmware, "fake");
    cr_expect_eq(device->node_guid, 0xfa4e00);
    cr_expect_eq(device->numa_node, 0);
    cr_expect_eq(device->odp, 0, "it said that it cannot");
    cr_expect_eq(device->max_qp, 65536);
    cr_expect_eq(device->max_qp_wr, (uint32_t)setup.limits.max_qp_wr);
    cr_expect_eq(device->max_sge, (uint32_t)setup.limits.max_sge);
    cr_expect_eq(device->max_cqe, (uint32_t)setup.limits.max_cqe);
    cr_expect_eq(device->max_rd_atom, (uint32_t)setup.limits.max_rd_atomic);
    cr_expect_eq(device->max_mr_size, UINT64_MAX);
    cr_expect_eq(device->hints.count, 0, "%s", device->hints.text[0]);
    godwit_devices_free(devices, 2);
}

Test(devices, a_port_is_described)
{
    struct godwit_device *devices = list();
    cr_assert_eq(devices[0].port_count, 1);
    struct godwit_device_port *port = &devices[0].ports[0];
    cr_expect_eq(port->number, 1);
    cr_expect_eq(port->state, GODWIT_PORT_ACTIVE);
    cr_expect_eq(port->physical_state, GODWIT_PHYSICAL_LINK_UP);
    cr_expect_eq(port->link_layer, GODWIT_LINK_ETHERNET);
    cr_expect_eq(port->width, 4);
    cr_expect_eq(port->lane_mbps, 25000);
    cr_expect_eq(port->active_mtu, 1024);
    cr_expect_eq(port->max_mtu, 4096);
    cr_assert_eq(port->gid_count, 3);
    cr_expect_eq(port->gids[1].index, 1);
    cr_expect_eq(port->gids[1].type, GODWIT_GID_ROCE_V2);
    cr_expect_str_eq(port->gids[1].address, "::ffff:192.0.2.7");
    cr_expect_str_eq(port->gids[2].address, "2001:db8::7");
    cr_expect_eq(port->hints.count, 1);
    cr_expect(hinted(&port->hints, "raise the MTU of lo"), "%s", port->hints.text[0]);
    godwit_devices_free(devices, 2);
}

Test(devices, the_interface_of_this_port_and_no_other_is_the_ports)
{
    struct godwit_device *devices = list();
    struct godwit_device_port *port = &devices[0].ports[0];
    cr_assert_eq(port->netdev_count, 1);
    cr_expect_str_eq(port->netdevs[0].name, "lo");
    cr_expect_eq(port->netdevs[0].mtu, 1500);
    bool found = false;
    for (unsigned i = 0; i < port->netdevs[0].address_count; i++)
        found = found || strcmp(port->netdevs[0].addresses[i], "127.0.0.1/8") == 0;
    cr_expect(found, "this machine's own lo has its address");
    godwit_devices_free(devices, 2);
}

Test(devices, a_port_that_is_down_and_a_device_without_files_are_listed)
{
    struct godwit_device *devices = list(), *device = &devices[1];
    cr_expect_str_eq(device->driver, "rdma_rxe");
    cr_expect_eq(device->numa_node, -1);
    cr_assert_eq(device->port_count, 1);
    cr_expect_eq(device->ports[0].state, GODWIT_PORT_DOWN);
    cr_expect_eq(device->ports[0].netdev_count, 0);
    cr_expect(hinted(&device->ports[0].hints, "the port is DOWN"));
    cr_expect(hinted(&device->ports[0].hints, "link-local"));
    godwit_devices_free(devices, 2);
}

Test(devices, infiniband_is_told_from_ethernet)
{
    fake_verbs_stop();
    setup.devices[0].infiniband = true;
    fake_verbs_start(&setup);
    struct godwit_device *devices = list();
    cr_expect_eq(devices[0].ports[0].link_layer, GODWIT_LINK_INFINIBAND);
    cr_expect_eq(devices[0].ports[0].gids[0].type, GODWIT_GID_INFINIBAND);
    godwit_devices_free(devices, 2);
}

Test(devices, one_that_cannot_be_opened_keeps_what_is_known_of_it)
{
    fake_fail_call(FAKE_CALL_OPEN_DEVICE, 0, 1, EACCES);
    struct godwit_device *devices = list();
    cr_expect_str_eq(devices[0].driver, "fake_core");
    cr_expect_eq(devices[0].node_guid, 0xfa4e00);
    cr_expect_eq(devices[0].odp, GODWIT_ODP_UNKNOWN);
    cr_expect_eq(devices[0].max_qp, 0);
    cr_expect_eq(devices[0].port_count, 0);
    cr_expect(hinted(&devices[0].hints, "/dev/infiniband/uverbs0 may not be opened: Permission denied"));
    cr_expect_eq(devices[1].port_count, 1, "the other one is asked");
    godwit_devices_free(devices, 2);
}

Test(devices, why_it_cannot_be_opened_is_looked_up_where_the_library_does_not_know)
{
    fake_fail_call(FAKE_CALL_OPEN_DEVICE, 0, 2, EBUSY);
    struct godwit_device *devices = list();
    cr_expect(hinted(&devices[0].hints, "cannot be opened: Device or resource busy"), "%s", devices[0].hints.text[0]);
    cr_expect(hinted(&devices[1].hints, "/dev/infiniband/uverbs1 is missing"), "%s", devices[1].hints.text[0]);
    godwit_devices_free(devices, 2);
}

Test(devices, one_that_does_not_answer_keeps_what_is_known_of_it)
{
    fake_fail_call(FAKE_CALL_QUERY_DEVICE, 0, 1, EIO);
    struct godwit_device *devices = list();
    cr_expect_str_eq(devices[0].driver, "fake_core");
    cr_expect_eq(devices[0].odp, GODWIT_ODP_UNKNOWN);
    cr_expect_eq(devices[0].port_count, 0);
    cr_expect_eq(devices[1].max_qp, 65536);
    godwit_devices_free(devices, 2);
}

Test(devices, a_port_that_does_not_answer_is_unknown)
{
    fake_fail_call(FAKE_CALL_QUERY_PORT, 0, FAKE_NEVER, EIO);
    struct godwit_device *devices = list();
    cr_assert_eq(devices[0].port_count, 1);
    cr_expect_eq(devices[0].ports[0].state, GODWIT_PORT_UNKNOWN);
    cr_expect_eq(devices[0].ports[0].active_mtu, 0);
    cr_expect_eq(devices[0].ports[0].hints.count, 0);
    cr_expect_eq(devices[0].max_qp, 65536);
    godwit_devices_free(devices, 2);
}

Test(devices, a_missing_connection_manager_is_every_devices_trouble)
{
    char path[256];
    file_tree_path(&tree, "/dev/infiniband/rdma_cm", path);
    cr_assert_eq(unlink(path), 0);
    struct godwit_device *devices = list();
    cr_expect(hinted(&devices[0].hints, "modprobe rdma_ucm"));
    cr_expect(hinted(&devices[1].hints, "modprobe rdma_ucm"));
    godwit_devices_free(devices, 2);
}

static void expect_failure(enum godwit_err expected, const char *words)
{
    struct godwit_device *devices = (void *)&tree;
    struct godwit_error error = {0};
    unsigned count = 7;
    cr_expect_eq(devices_list(tree.root, &devices, &count, &error), expected);
    cr_expect(strstr(error.text, words), "%s", error.text);
    cr_expect(devices == (void *)&tree && count == 7, "outputs are written on success only");
}

Test(devices, none_is_an_error_that_says_why)
{
    fake_verbs_stop();
    memset(setup.devices, 0, sizeof setup.devices);
    fake_verbs_start(&setup);
    expect_failure(GODWIT_ERR_UNSUPPORTED, "modprobe ib_uverbs"); /* the files say that the kernel has some */
}

Test(devices, a_kernel_without_verbs_is_no_device)
{
    fake_fail_call(FAKE_CALL_GET_DEVICES, 0, 1, ENOSYS);
    expect_failure(GODWIT_ERR_UNSUPPORTED, "no RDMA device");
}

Test(devices, a_list_that_cannot_be_had_says_why)
{
    fake_fail_call(FAKE_CALL_GET_DEVICES, 0, 1, ENOMEM);
    expect_failure(GODWIT_ERR_SYSTEM, "Cannot allocate memory");
}
