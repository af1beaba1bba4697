#include "rdma/hints.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "rdma/absence.h"
#include "rdma/cm.h"
#include "transport/error.h"

static const char *completion_hint(enum ibv_wc_status status)
{
    switch (status) {
    case IBV_WC_LOC_LEN_ERR:
        return "a message is larger than the device or its receive buffer takes";
    case IBV_WC_LOC_QP_OP_ERR:
        return "the device could not carry out the request: is its network interface up, and is there a route?";
    case IBV_WC_LOC_PROT_ERR:
        return "local memory is not registered any more";
    case IBV_WC_LOC_ACCESS_ERR:
        return "local memory is registered without the right to write";
    case IBV_WC_WR_FLUSH_ERR:
        return "the connection was ended before";
    case IBV_WC_BAD_RESP_ERR:
        return "the peer's device answered against the protocol";
    case IBV_WC_REM_INV_REQ_ERR:
        return "the peer's device refused the request: the peer has ended the connection, its receive buffer is too "
               "small, or the operation forbidden";
    case IBV_WC_REM_ACCESS_ERR:
        return "the peer's memory is not registered, its key was revoked, or the range leaves it";
    case IBV_WC_REM_OP_ERR:
        return "the peer's device could not finish the request";
    case IBV_WC_RETRY_EXC_ERR:
        return "no answer from the peer's device: the host is down, the link or route is broken, UDP port 4791 is "
               "blocked, or a hop has a smaller MTU than both ends (small messages pass, large ones do not)";
    case IBV_WC_RNR_RETRY_EXC_ERR:
        return "the peer had no receive posted";
    case IBV_WC_REM_ABORT_ERR:
    case IBV_WC_FATAL_ERR:
    case IBV_WC_GENERAL_ERR:
    case IBV_WC_RESP_TIMEOUT_ERR:
        return "the device failed: look at the kernel log";
    default:
        return "unexpected";
    }
}

void hint_completion(const struct ibv_wc *wc, const char *what, char *text, size_t size)
{
    snprintf(text, size, "%s failed: %s (status %d, vendor 0x%x): %s", what, ibv_wc_status_str(wc->status),
             (int)wc->status, wc->vendor_err, completion_hint(wc->status));
}

/* Reasons of the InfiniBand communication manager (specification, volume 1, table of REJ reasons; rdma/ib_cm.h). */
enum {
    REJECT_NO_RESOURCES = 3,
    REJECT_NO_LISTENER = 8,
    REJECT_STALE = 10,
    REJECT_MTU = 26,
    REJECT_BY_OWNER = 28,
};

static enum godwit_err rejected(const struct rdma_cm_event *event, const char *address, struct godwit_error *error)
{
    struct cm_refusal refusal;
    switch (event->status) {
    case REJECT_NO_LISTENER:
        return error_set(error, GODWIT_ERR_REFUSED,
                         "cannot connect to %s: connection refused (nothing listens there for RDMA)", address);
    case REJECT_STALE:
        return error_set(error, GODWIT_ERR_BUSY, "cannot connect to %s: the peer still knows an older connection",
                         address);
    case REJECT_NO_RESOURCES:
        return error_set(error, GODWIT_ERR_UNREACHABLE, "cannot connect to %s: the peer's device is out of resources",
                         address);
    case REJECT_MTU:
        return error_set(error, GODWIT_ERR_UNREACHABLE,
                         "cannot connect to %s: the peer's path MTU is smaller: give both ends the same MTU", address);
    case REJECT_BY_OWNER:
        if (cm_refusal_decode(event->param.conn.private_data, event->param.conn.private_data_len, &refusal))
            return error_set(error, refusal.code, "%s refused the connection: %s", address, refusal.text);
        return error_set(error, GODWIT_ERR_NOT_ADMITTED,
                         "%s refused the connection without a reason: what listens there is not godwit, or it stopped",
                         address);
    default:
        return error_set(error, GODWIT_ERR_UNREACHABLE, "%s rejected the connection, reason %d", address,
                         event->status);
    }
}

static enum godwit_err address_failed(int status, const char *address, struct godwit_error *error)
{
    switch (-status) {
    case ENODEV:
        return error_set(error, GODWIT_ERR_UNREACHABLE,
                         "cannot connect to %s: the interface that leads there has no RDMA device (see godwit devices)",
                         address);
    case ETIMEDOUT:
        return error_set(error, GODWIT_ERR_UNREACHABLE,
                         "cannot connect to %s: no answer to address resolution (ARP or ND): is the host up, and in "
                         "this network?",
                         address);
    default:
        return error_set_sys(error, GODWIT_ERR_UNREACHABLE, -status, "cannot connect to %s", address);
    }
}

enum godwit_err hint_cm_event(const struct rdma_cm_event *event, enum cm_step step, const char *address,
                              struct godwit_error *error)
{
    switch (event->event) {
    case RDMA_CM_EVENT_ADDR_ERROR:
        return address_failed(event->status, address, error);
    case RDMA_CM_EVENT_ROUTE_ERROR:
        return error_set_sys(error, GODWIT_ERR_UNREACHABLE, event->status < 0 ? -event->status : ENETUNREACH,
                             "cannot find a path to %s: is the interface up, with an MTU of at least 512?", address);
    case RDMA_CM_EVENT_REJECTED:
        return rejected(event, address, error);
    case RDMA_CM_EVENT_UNREACHABLE:
        return error_set(error, GODWIT_ERR_UNREACHABLE,
                         "cannot connect to %s: no answer from the peer's connection manager: is UDP port 4791 open "
                         "both ways?",
                         address);
    case RDMA_CM_EVENT_CONNECT_ERROR:
        return error_set_sys(error, GODWIT_ERR_UNREACHABLE, event->status < 0 ? -event->status : ECONNABORTED,
                             "cannot connect to %s", address);
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        return error_set(error, GODWIT_ERR_RESET, "the RDMA device that leads to %s was removed", address);
    case RDMA_CM_EVENT_DISCONNECTED:
        return error_set(error, GODWIT_ERR_RESET, "%s closed the connection while it was made", address);
    default:
        return error_set(error, GODWIT_ERR_PROTOCOL, "unexpected %s in step %d of connecting to %s",
                         rdma_event_str(event->event), (int)step, address);
    }
}

enum godwit_err hint_resource(int cause, const char *what, uint64_t bytes, struct godwit_error *error)
{
    struct rlimit limit;
    bool limited = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
    char size[48] = "";
    if (bytes > 0)
        snprintf(size, sizeof size, " of %llu KiB", (unsigned long long)(bytes >> 10));
    switch (cause) {
    case ENOMEM:
        if (limited)
            return error_set_sys(error, GODWIT_ERR_NO_MEMORY, cause,
                                 "cannot %s%s: this process may lock %llu KiB of memory (RLIMIT_MEMLOCK): raise it "
                                 "with ulimit -l unlimited or LimitMEMLOCK=infinity, or give it CAP_IPC_LOCK",
                                 what, size, (unsigned long long)(limit.rlim_cur >> 10));
        return error_set_sys(error, GODWIT_ERR_NO_MEMORY, cause, "cannot %s%s", what, size);
    case EFAULT:
        return error_set_sys(error, GODWIT_ERR_INVALID, cause,
                             "cannot %s%s: the device has to write this memory, and it is mapped for reading only, not "
                             "there, or of a file system that allows no pinning: use memfd, tmpfs or hugetlbfs",
                             what, size);
    case EOPNOTSUPP:
        return error_set_sys(error, GODWIT_ERR_UNSUPPORTED, cause,
                             "cannot %s%s: memory of this kind cannot be pinned: use memfd, tmpfs, hugetlbfs or "
                             "anonymous memory",
                             what, size);
    default:
        return error_set_sys(error, GODWIT_ERR_SYSTEM, cause, "cannot %s%s", what, size);
    }
}

const char *hint_async(enum ibv_event_type type)
{
    switch (type) {
    case IBV_EVENT_QP_FATAL:
        return "the RDMA device gave the queue pair up";
    case IBV_EVENT_QP_REQ_ERR:
        return "the peer sent an invalid request";
    case IBV_EVENT_QP_ACCESS_ERR:
        return "the peer tried to reach memory that is not registered for it";
    case IBV_EVENT_CQ_ERR:
        return "a completion queue of the RDMA device overflowed";
    default:
        return NULL;
    }
}

enum godwit_err hint_no_rdma(int cause, struct godwit_error *error)
{
    if (cause == EACCES || cause == EPERM)
        return error_set_sys(error, GODWIT_ERR_SYSTEM, cause,
                             "cannot open /dev/infiniband/rdma_cm: give this user the right to read and write it");
    struct absence absence;
    absence_probe("", &absence);
    if (absence.uverbs)
        return error_set(error, GODWIT_ERR_UNSUPPORTED,
                         "the kernel's RDMA connection manager is not there: modprobe rdma_ucm");
    return absence_error(&absence, error);
}
