#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "rdma/numa.h"
#include "rdma/sysfs.h"
#include "tests/rdma/file_tree.h"

TestSuite(sysfs, .timeout = 10);

Test(sysfs, a_line_is_read_without_its_end_and_cut_to_size)
{
    struct file_tree tree;
    char text[8];
    file_tree_make(&tree);
    file_tree_put(&tree, "/sys/a", "eth0\nsecond\n");
    file_tree_put(&tree, "/sys/long", "0123456789\n");
    file_tree_put(&tree, "/sys/empty", "");
    cr_expect(sysfs_line(text, sizeof text, "%s/sys/a", tree.root));
    cr_expect_str_eq(text, "eth0");
    cr_expect(sysfs_line(text, sizeof text, "%s/sys/long", tree.root));
    cr_expect_str_eq(text, "0123456");
    cr_expect_not(sysfs_line(text, sizeof text, "%s/sys/empty", tree.root));
    cr_expect_not(sysfs_line(text, sizeof text, "%s/sys/none", tree.root));
    cr_expect_str_empty(text);
    cr_expect_not(sysfs_line(text, sizeof text, "%s/sys", tree.root), "a folder");
    file_tree_remove(&tree);
}

Test(sysfs, a_number_is_whole_or_none)
{
    struct file_tree tree;
    long number = 7;
    file_tree_make(&tree);
    file_tree_put(&tree, "/minus", "-1\n");
    file_tree_put(&tree, "/words", "12 apples\n");
    file_tree_put(&tree, "/blank", "\n");
    cr_expect(sysfs_number(&number, "%s/minus", tree.root));
    cr_expect_eq(number, -1);
    cr_expect_not(sysfs_number(&number, "%s/words", tree.root));
    cr_expect_not(sysfs_number(&number, "%s/blank", tree.root));
    cr_expect_not(sysfs_number(&number, "%s/none", tree.root));
    cr_expect_eq(number, -1, "untouched");
    file_tree_remove(&tree);
}

Test(sysfs, links_folders_and_nodes)
{
    struct file_tree tree;
    char text[32];
    file_tree_make(&tree);
    file_tree_link(&tree, "/driver", "../../bus/pci/drivers/mlx5_core");
    file_tree_put(&tree, "/folder/one", "");
    file_tree_put(&tree, "/none/", "");
    cr_expect(sysfs_link(text, sizeof text, "%s/driver", tree.root));
    cr_expect_str_eq(text, "mlx5_core");
    cr_expect_not(sysfs_link(text, sizeof text, "%s/folder", tree.root));
    cr_expect_eq(sysfs_entries(text, sizeof text, "%s/folder", tree.root), 1);
    cr_expect_str_eq(text, "one");
    cr_expect_eq(sysfs_entries(NULL, 0, "%s/none", tree.root), 0);
    cr_expect_eq(sysfs_entries(NULL, 0, "%s/absent", tree.root), -1);
    cr_expect_eq(sysfs_usable("%s/folder/one", tree.root), 0);
    cr_expect_eq(sysfs_usable("%s/folder/two", tree.root), ENOENT);
    file_tree_remove(&tree);
}

Test(sysfs, a_list_of_processors_is_understood)
{
    cr_expect(numa_list_has("0-3,8", 0));
    cr_expect(numa_list_has("0-3,8", 3));
    cr_expect(numa_list_has("0-3,8", 8));
    cr_expect_not(numa_list_has("0-3,8", 4));
    cr_expect_not(numa_list_has("0-3,8", 80));
    cr_expect_not(numa_list_has("", 0));
    cr_expect_not(numa_list_has("rubbish", 0));
}

Test(sysfs, a_process_that_may_run_elsewhere_is_remote)
{
    struct file_tree tree;
    cpu_set_t allowed;
    char here[32];
    cr_assert_eq(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    int cpu = 0;
    while (!CPU_ISSET(cpu, &allowed))
        cpu++;
    CPU_ZERO(&allowed);
    CPU_SET(cpu, &allowed);
    cr_assert_eq(sched_setaffinity(0, sizeof allowed, &allowed), 0);

    file_tree_make(&tree);
    snprintf(here, sizeof here, "%d\n", cpu);
    file_tree_put(&tree, "/sys/devices/system/node/node0/cpulist", here);
    file_tree_put(&tree, "/sys/devices/system/node/node1/cpulist", "1000-1001\n");
    file_tree_put(&tree, "/sys/devices/system/node/node2/cpulist", "\n");
    cr_expect_not(numa_is_remote(tree.root, 0));
    cr_expect(numa_is_remote(tree.root, 1));
    cr_expect_not(numa_is_remote(tree.root, 2), "a node of memory alone");
    cr_expect_not(numa_is_remote(tree.root, 3), "unknown");
    cr_expect_not(numa_is_remote(tree.root, -1));
    file_tree_remove(&tree);
}
