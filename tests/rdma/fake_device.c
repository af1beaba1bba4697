/*
 * Devices: listing, opening, and what can be asked of them.
 *
 * Contexts are of two kinds: those that callers open, and librdmacm's own, one per device, which callers meet as
 * id->verbs and must not close.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/rdma/fake_private.h"

enum { PHYS_LINK_UP = 5, PHYS_DISABLED = 3, WIDTH_4X = 2, SPEED_EDR = 32, COMP_VECTORS = 2 };

struct fake_context *fake_context_of(struct ibv_context *context)
{
    return FAKE_OF(context, struct fake_context, verbs.context);
}

static struct fake_device *device_of(const struct ibv_context *context)
{
    return FAKE_OF(context->device, struct fake_device, base);
}

void fake_devices_init(void)
{
    for (unsigned i = 0; i < FAKE_MAX_DEVICES; i++) {
        struct fake_device *device = &fake.devices[i];
        *device = (struct fake_device){.setup = NULL};
        if (!fake.setup.devices[i].name)
            continue;
        device->setup = &fake.setup.devices[i];
        device->base.node_type = IBV_NODE_CA;
        device->base.transport_type = IBV_TRANSPORT_IB;
        snprintf(device->base.name, sizeof device->base.name, "%s", device->setup->name);
        snprintf(device->base.dev_name, sizeof device->base.dev_name, "uverbs%u", i);
        snprintf(device->base.dev_path, sizeof device->base.dev_path, "/nonexistent/uverbs%u", i);
        snprintf(device->base.ibdev_path, sizeof device->base.ibdev_path, "/nonexistent/%s", device->setup->name);
    }
}

/* --- the operations that inline functions of the header call through the context --- */

static int query_port(struct ibv_context *context, uint8_t port, struct ibv_port_attr *attr, size_t size)
{
    const struct fake_device_setup *setup = device_of(context)->setup;
    fake_enter();
    int err = fake_call(FAKE_CALL_QUERY_PORT);
    fake_leave();
    if (err || port != 1)
        return err ? err : EINVAL;
    bool active = setup->state == IBV_PORT_ACTIVE;
    struct ibv_port_attr all = {.state = setup->state,
                                .max_mtu = IBV_MTU_4096,
                                .active_mtu = setup->mtu,
                                .gid_tbl_len = 1024,
                                .max_msg_sz = fake.setup.limits.max_msg,
                                .pkey_tbl_len = 1,
                                .active_width = WIDTH_4X,
                                .active_speed = SPEED_EDR,
                                .phys_state = active ? PHYS_LINK_UP : PHYS_DISABLED,
                                .link_layer = setup->infiniband ? IBV_LINK_LAYER_INFINIBAND : IBV_LINK_LAYER_ETHERNET};
    memcpy(attr, &all, size < sizeof all ? size : sizeof all);
    return 0;
}

static void fill_attributes(struct ibv_device_attr *attr)
{
    const struct fake_limits *limits = &fake.setup.limits;
    *attr = (struct ibv_device_attr){.node_guid = htobe64(0xfa4e),
                                     .max_mr_size = UINT64_MAX,
                                     .page_size_cap = 0xfffff000,
                                     .max_qp = 65536,
                                     .max_qp_wr = limits->max_qp_wr,
                                     .max_sge = limits->max_sge,
                                     .max_sge_rd = limits->max_sge,
                                     .max_cq = 65536,
                                     .max_cqe = limits->max_cqe,
                                     .max_mr = 524288,
                                     .max_pd = 1 << 20,
                                     .max_qp_rd_atom = limits->max_rd_atomic,
                                     .max_qp_init_rd_atom = limits->max_rd_atomic,
                                     .max_pkeys = 1,
                                     .local_ca_ack_delay = 15,
                                     .phys_port_cnt = 1};
    snprintf(attr->fw_ver, sizeof attr->fw_ver, "fake");
}

static int query_device_ex(struct ibv_context *context, const struct ibv_query_device_ex_input *input,
                           struct ibv_device_attr_ex *attr, size_t size)
{
    (void)input;
    struct ibv_device_attr_ex all = {.phys_port_cnt_ex = 1};
    int err = ibv_query_device(context, &all.orig_attr);
    if (!err)
        memcpy(attr, &all, size < sizeof all ? size : sizeof all);
    return err;
}

static int advise_mr(struct ibv_pd *pd, enum ibv_advise_mr_advice advice, uint32_t flags, struct ibv_sge *sges,
                     uint32_t count)
{
    (void)pd, (void)advice, (void)flags, (void)sges, (void)count;
    return EOPNOTSUPP; /* prefetching is for on-demand paging, which soft-RoCE of Linux 6.1 has not */
}

static struct ibv_qp *create_qp_ex(struct ibv_context *context, struct ibv_qp_init_attr_ex *attr)
{
    fake_enter();
    struct fake_qp *qp = fake_qp_new(fake_context_of(context), attr);
    fake_leave();
    return qp ? &qp->ex.qp_base : NULL;
}

/* --- contexts --- */

static struct fake_context *context_new(struct fake_device *device, bool cm_owned)
{
    struct fake_context *context = calloc(1, sizeof *context);
    int fd = context ? fake_fd_new() : -1;
    if (fd < 0) {
        free(context);
        return NULL;
    }
    context->device = device;
    context->cm_owned = cm_owned;
    STAILQ_INIT(&context->async);
    context->verbs.sz = sizeof context->verbs;
    context->verbs.query_port = query_port;
    context->verbs.query_device_ex = query_device_ex;
    context->verbs.advise_mr = advise_mr;
    context->verbs.create_qp_ex = create_qp_ex;
    struct ibv_context *base = &context->verbs.context;
    base->device = &device->base;
    base->cmd_fd = -1;
    base->async_fd = fd;
    base->num_comp_vectors = COMP_VECTORS;
    base->abi_compat = __VERBS_ABI_IS_EXTENDED;
    base->ops.poll_cq = fake_poll_cq;
    base->ops.req_notify_cq = fake_req_notify_cq;
    base->ops.post_send = fake_post_send;
    base->ops.post_recv = fake_post_recv;
    pthread_mutex_init(&base->mutex, NULL);
    LIST_INSERT_HEAD(&fake.contexts, context, link);
    fake.living.contexts += !cm_owned;
    return context;
}

static void context_free(struct fake_context *context)
{
    struct fake_async *event;
    while ((event = STAILQ_FIRST(&context->async))) {
        STAILQ_REMOVE_HEAD(&context->async, link);
        free(event);
    }
    LIST_REMOVE(context, link);
    fake.living.contexts -= !context->cm_owned;
    close(context->verbs.context.async_fd);
    pthread_mutex_destroy(&context->verbs.context.mutex);
    free(context);
}

struct fake_context *fake_cm_context(struct fake_device *device)
{
    if (!device->cm_context)
        device->cm_context = context_new(device, true);
    return device->cm_context;
}

void fake_devices_fini(void)
{
    for (unsigned i = 0; i < FAKE_MAX_DEVICES; i++) {
        if (fake.devices[i].cm_context)
            context_free(fake.devices[i].cm_context);
        fake.devices[i].cm_context = NULL;
    }
}

struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    fake_enter();
    errno = fake_call(FAKE_CALL_OPEN_DEVICE);
    struct fake_context *context = errno ? NULL : context_new(FAKE_OF(device, struct fake_device, base), false);
    fake_leave();
    return context ? &context->verbs.context : NULL;
}

int ibv_close_device(struct ibv_context *base)
{
    fake_enter();
    struct fake_context *context = fake_context_of(base);
    if (context->cm_owned)
        fake_die("ibv_close_device of a context that belongs to librdmacm");
    if (context->objects)
        fake_die("a device is closed under %u objects of it", context->objects);
    context_free(context);
    fake_leave();
    return 0;
}

/* --- lists --- */

/* An array of as many pointers as there are devices, and a null one. */
static void **list_new(int *count)
{
    void **list = calloc(FAKE_MAX_DEVICES + 1, sizeof *list);
    int n = 0;
    for (unsigned i = 0; list && i < FAKE_MAX_DEVICES; i++) {
        if (fake.devices[i].setup)
            list[n++] = &fake.devices[i];
    }
    if (count)
        *count = n;
    return list;
}

struct ibv_device **ibv_get_device_list(int *count)
{
    fake_enter();
    errno = fake_call(FAKE_CALL_GET_DEVICES);
    void **list = errno ? NULL : list_new(count);
    for (unsigned i = 0; list && list[i]; i++)
        list[i] = &((struct fake_device *)list[i])->base;
    fake_leave();
    return (struct ibv_device **)list;
}

void ibv_free_device_list(struct ibv_device **list)
{
    free(list);
}

struct ibv_context **rdma_get_devices(int *count)
{
    fake_enter();
    errno = fake_call(FAKE_CALL_GET_DEVICES);
    void **list = errno ? NULL : list_new(count);
    if (list && !list[0]) {
        free(list); /* no devices are an error of librdmacm, but not of libibverbs */
        list = NULL;
        errno = ENODEV;
    }
    for (unsigned i = 0; list && list[i]; i++) {
        struct fake_context *context = fake_cm_context(list[i]);
        if (!context)
            fake_die("no memory");
        list[i] = &context->verbs.context;
    }
    fake_leave();
    return (struct ibv_context **)list;
}

void rdma_free_devices(struct ibv_context **list)
{
    free(list);
}

/* --- questions --- */

const char *ibv_get_device_name(struct ibv_device *device)
{
    return device->name;
}

__be64 ibv_get_device_guid(struct ibv_device *device)
{
    return htobe64(0xfa4e00u + (uint64_t)(FAKE_OF(device, struct fake_device, base) - fake.devices));
}

int ibv_get_device_index(struct ibv_device *device)
{
    return (int)(FAKE_OF(device, struct fake_device, base) - fake.devices);
}

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *attr)
{
    fake_enter();
    int err = fake_call(FAKE_CALL_QUERY_DEVICE);
    if (!err) {
        fill_attributes(attr);
        attr->node_guid = ibv_get_device_guid(context->device);
    }
    fake_leave();
    return err;
}

#undef ibv_query_port
int ibv_query_port(struct ibv_context *context, uint8_t port, struct _compat_ibv_port_attr *attr)
{
    return query_port(context, port, (struct ibv_port_attr *)attr, offsetof(struct ibv_port_attr, port_cap_flags2));
}

static void gid_of(const char *address, union ibv_gid *gid)
{
    memset(gid, 0, sizeof *gid);
    if (inet_pton(AF_INET6, address, gid->raw) == 1)
        return;
    gid->raw[10] = gid->raw[11] = 0xff; /* IPv4-mapped */
    inet_pton(AF_INET, address, gid->raw + 12);
}

int _ibv_query_gid_ex(struct ibv_context *context, uint32_t port, uint32_t index, struct ibv_gid_entry *entry,
                      uint32_t flags, size_t size)
{
    const struct fake_device_setup *setup = device_of(context)->setup;
    if (port != 1 || flags || size != sizeof *entry)
        return EINVAL;
    if (index >= FAKE_MAX_ADDRESSES || !setup->addresses[index])
        return ENODATA;
    *entry = (struct ibv_gid_entry){
        .gid_index = index, .port_num = port, .gid_type = setup->infiniband ? IBV_GID_TYPE_IB : IBV_GID_TYPE_ROCE_V2};
    gid_of(setup->addresses[index], &entry->gid);
    return 0;
}

ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries, size_t most, uint32_t flags,
                             size_t size)
{
    ssize_t count = 0;
    for (uint32_t i = 0; i < FAKE_MAX_ADDRESSES && (size_t)count < most; i++)
        count += !_ibv_query_gid_ex(context, 1, i, &entries[count], flags, size);
    return count;
}

int ibv_query_gid(struct ibv_context *context, uint8_t port, int index, union ibv_gid *gid)
{
    struct ibv_gid_entry entry;
    if (port != 1 || index < 0 || index >= 1024)
        return -1;
    if (_ibv_query_gid_ex(context, port, (uint32_t)index, &entry, 0, sizeof entry))
        memset(&entry.gid, 0, sizeof entry.gid);
    *gid = entry.gid;
    return 0;
}

int ibv_fork_init(void)
{
    return 0;
}

enum ibv_fork_status ibv_is_fork_initialized(void)
{
    return IBV_FORK_UNNEEDED;
}
