#include "guest/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/guest_error.h"
#include "guest/uffd_abi.h"

static int uffd_from_device(void)
{
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return -1;
    int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    close(device);
    return fd;
}

/* errno is the answer of the last way that was tried. */
static int uffd_create(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == EPERM)
        fd = uffd_from_device();
    else
        return fd;
    return fd >= 0 ? fd : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
}

enum godwit_err uffd_open(uint64_t features, const char *need, int *out, struct godwit_error *error)
{
    int fd = uffd_create();
    if (fd < 0 && errno == ENOSYS)
        return guest_fail(error, GODWIT_ERR_UNSUPPORTED, "this kernel has no userfaultfd; %s", need);
    if (fd < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno,
                              "userfaultfd is not allowed here; run as root, set vm.unprivileged_userfaultfd=1, give "
                              "access to /dev/userfaultfd or allow the call in the container's seccomp profile");
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    if (ioctl(fd, UFFDIO_API, &api) < 0) {
        int cause = errno;
        close(fd);
        return guest_fail_sys(error, GODWIT_ERR_UNSUPPORTED, cause, "this kernel's userfaultfd is too old; %s", need);
    }
    *out = fd;
    return GODWIT_OK;
}
