/* What is said where there is no device: one machine of files per missing piece. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "rdma/absence.h"
#include "tests/rdma/file_tree.h"

TestSuite(absence, .timeout = 10);

static void put_modules(const struct file_tree *tree, const char *text)
{
    struct utsname kernel;
    char path[192];
    cr_assert_eq(uname(&kernel), 0);
    snprintf(path, sizeof path, "/lib/modules/%s/modules.dep", kernel.release);
    file_tree_put(tree, path, text);
}

/* Removes the tree. */
static void expect(struct file_tree *tree, const char *cause, const char *remedy)
{
    struct absence absence;
    struct godwit_error error;
    absence_probe(tree->root, &absence);
    cr_assert_eq(absence_error(&absence, &error), GODWIT_ERR_UNSUPPORTED);
    cr_expect_eq(error.code, GODWIT_ERR_UNSUPPORTED);
    cr_expect(strstr(error.text, cause), "no \"%s\" in: %s", cause, error.text);
    cr_expect(strstr(error.text, remedy), "no \"%s\" in: %s", remedy, error.text);
    cr_expect(strlen(error.text) < GODWIT_ERROR_TEXT - 1, "cut: %s", error.text);
    file_tree_remove(tree);
}

Test(absence, a_kernel_without_support)
{
    struct file_tree tree;
    file_tree_make(&tree);
    expect(&tree, "/sys/class/infiniband is missing", "rdma link add rxe0 type rxe netdev eth0");
}

Test(absence, a_kernel_without_soft_roce_is_told_so)
{
    struct file_tree tree;
    file_tree_make(&tree);
    put_modules(&tree, "kernel/net/x.ko.xz: kernel/rdma_rxe.ko\nkernel/rdma_rxe_old.ko: \nkernel/y.ko:\n");
    expect(&tree, "boot a kernel with the module rdma_rxe", "linux-image-amd64");
}

Test(absence, a_kernel_with_soft_roce_is_not_told_to_be_replaced)
{
    struct file_tree tree;
    struct absence absence;
    file_tree_make(&tree);
    put_modules(&tree, "kernel/x.ko:\nkernel/drivers/infiniband/sw/rxe/rdma_rxe.ko.xz: kernel/a.ko.xz\n");
    absence_probe(tree.root, &absence);
    cr_expect_eq(absence.rxe, ABSENCE_MODULE_THERE);
    expect(&tree, "no RDMA support loaded", "or make a soft-RoCE device: modprobe -a rdma_rxe rdma_ucm");
}

Test(absence, support_without_a_device)
{
    struct file_tree tree;
    file_tree_make(&tree);
    file_tree_put(&tree, "/sys/class/infiniband/", "");
    expect(&tree, "/sys/class/infiniband is empty", "modprobe -a rdma_rxe rdma_ucm");
}

Test(absence, a_device_that_is_not_handed_to_programs)
{
    struct file_tree tree;
    file_tree_make(&tree);
    file_tree_put(&tree, "/sys/class/infiniband/mlx5_0/", "");
    file_tree_put(&tree, "/sys/class/infiniband_verbs/abi_version", "6\n");
    expect(&tree, "the kernel has mlx5_0", "modprobe ib_uverbs");
}

Test(absence, a_device_without_its_provider)
{
    struct file_tree tree;
    file_tree_make(&tree);
    file_tree_put(&tree, "/sys/class/infiniband/rxe0/", "");
    file_tree_put(&tree, "/sys/class/infiniband_verbs/abi_version", "6\n");
    file_tree_put(&tree, "/sys/class/infiniband_verbs/uverbs0/", "");
    expect(&tree, "no provider for it", "ibverbs-providers");
}
