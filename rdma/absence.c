#include "rdma/absence.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "rdma/sysfs.h"
#include "transport/error.h"

#define SOFT_ROCE "modprobe -a rdma_rxe rdma_ucm; rdma link add rxe0 type rxe netdev eth0"

/* depmod's index has a line per module, "path/to/name.ko[.xz]: what it needs". */
static enum absence_module find_module(const char *root, const char *release, const char *name)
{
    char path[PATH_MAX], line[4096];
    snprintf(path, sizeof path, "%s/lib/modules/%s/modules.dep", root, release);
    FILE *index = fopen(path, "re");
    if (!index)
        return ABSENCE_MODULE_UNKNOWN;
    enum absence_module found = ABSENCE_MODULE_MISSING;
    while (found == ABSENCE_MODULE_MISSING && fgets(line, sizeof line, index)) {
        line[strcspn(line, ":")] = '\0';
        const char *file = strrchr(line, '/');
        size_t length = strlen(name);
        if (file && strncmp(file + 1, name, length) == 0 && strncmp(file + 1 + length, ".ko", 3) == 0)
            found = ABSENCE_MODULE_THERE;
    }
    fclose(index);
    return found;
}

void absence_probe(const char *root, struct absence *out)
{
    struct utsname kernel;
    memset(out, 0, sizeof *out);
    out->core = sysfs_entries(out->device, sizeof out->device, "%s/sys/class/infiniband", root) >= 0;
    /* Beside the devices stands the file abi_version. */
    char first[GODWIT_DEVICE_NAME];
    out->uverbs = sysfs_entries(first, sizeof first, "%s/sys/class/infiniband_verbs", root) > 1;
    if (uname(&kernel) == 0)
        snprintf(out->release, sizeof out->release, "%s", kernel.release);
    out->rxe = find_module(root, out->release, "rdma_rxe");
}

static enum godwit_err no_device(const struct absence *absence, const char *cause, struct godwit_error *error)
{
    if (absence->rxe == ABSENCE_MODULE_MISSING)
        return error_set(error, GODWIT_ERR_UNSUPPORTED,
                         "no RDMA device: %s: load the adapter's driver, or boot a kernel with the module rdma_rxe "
                         "(%s has none; Debian's cloud kernels lack it, linux-image-amd64 has it) and make a "
                         "soft-RoCE device: " SOFT_ROCE,
                         cause, absence->release);
    return error_set(error, GODWIT_ERR_UNSUPPORTED,
                     "no RDMA device: %s: load the adapter's driver, or make a soft-RoCE device: " SOFT_ROCE, cause);
}

enum godwit_err absence_error(const struct absence *absence, struct godwit_error *error)
{
    if (!absence->core)
        return no_device(absence, "the kernel has no RDMA support loaded (/sys/class/infiniband is missing)", error);
    if (!absence->device[0])
        return no_device(absence, "no driver has made one (/sys/class/infiniband is empty)", error);
    if (!absence->uverbs)
        return error_set(error, GODWIT_ERR_UNSUPPORTED,
                         "no RDMA device for programs: the kernel has %s, but not the module that hands it out "
                         "(/sys/class/infiniband_verbs has no device): modprobe ib_uverbs",
                         absence->device);
    return error_set(error, GODWIT_ERR_UNSUPPORTED,
                     "no RDMA device for programs: the kernel has %s, but libibverbs has no provider for it: install "
                     "ibverbs-providers (each is a line in /etc/libibverbs.d and a library; IBV_SHOW_WARNINGS=1 names "
                     "the one that is missing)",
                     absence->device);
}
