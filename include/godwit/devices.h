/*
 * The RDMA devices of this machine, for people who set one up: what each can do, and beside it what an operator would
 * trip over. Nothing here opens a connection or registers memory, and all of it works without privileges.
 *
 * A lookup that fails leaves its field unknown, 0 or "" unless the field says otherwise, and never costs the list.
 * The text fields are cut where they do not fit. A snapshot: it does not follow the machine.
 */
#ifndef GODWIT_DEVICES_H
#define GODWIT_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/api.h>
#include <godwit/error.h>

GODWIT_BEGIN

enum {
    GODWIT_DEVICE_NAME = 64,     /* of a device, a driver, a firmware, a network interface */
    GODWIT_DEVICE_ADDRESS = 56,  /* an IPv6 address with "/128" */
    GODWIT_DEVICE_ADDRESSES = 8, /* kept per network interface */
    GODWIT_HINT_TEXT = 384,
    GODWIT_HINTS_MAX = 8,
};

/* What is in the way, and the remedy, one line each. */
struct godwit_hints {
    unsigned count;
    char text[GODWIT_HINTS_MAX][GODWIT_HINT_TEXT];
};

/* Numbers as in the InfiniBand Architecture Specification, volume 1, PortInfo. */
enum godwit_port_state {
    GODWIT_PORT_UNKNOWN,
    GODWIT_PORT_DOWN,
    GODWIT_PORT_INIT,
    GODWIT_PORT_ARMED,
    GODWIT_PORT_ACTIVE, /* the only one that carries traffic */
    GODWIT_PORT_ACTIVE_DEFER,
};

enum godwit_physical_state {
    GODWIT_PHYSICAL_UNKNOWN,
    GODWIT_PHYSICAL_SLEEP,
    GODWIT_PHYSICAL_POLLING, /* looks for a partner: no cable, or nothing at its other end */
    GODWIT_PHYSICAL_DISABLED,
    GODWIT_PHYSICAL_TRAINING,
    GODWIT_PHYSICAL_LINK_UP,
    GODWIT_PHYSICAL_LINK_ERROR_RECOVERY,
    GODWIT_PHYSICAL_TEST,
};

enum godwit_link_layer {
    GODWIT_LINK_UNKNOWN,
    GODWIT_LINK_INFINIBAND,
    GODWIT_LINK_ETHERNET, /* RoCE, or iWARP */
};

enum godwit_gid_type {
    GODWIT_GID_INFINIBAND,
    GODWIT_GID_ROCE_V1, /* Ethernet frames of its own: never leaves the local network */
    GODWIT_GID_ROCE_V2, /* UDP, port 4791: what connections on Ethernet prefer */
};

/* Static storage: "ACTIVE", "LINK_UP", "Ethernet", "RoCE v2"; "unknown" for any other value. */
GODWIT_API const char *godwit_port_state_name(enum godwit_port_state state);
GODWIT_API const char *godwit_physical_state_name(enum godwit_physical_state state);
GODWIT_API const char *godwit_link_layer_name(enum godwit_link_layer layer);
GODWIT_API const char *godwit_gid_type_name(enum godwit_gid_type type);

/* On-demand paging: what a device does with memory that is not pinned. Bits of godwit_device.odp. */
enum godwit_odp {
    GODWIT_ODP_SUPPORTED = 1,
    GODWIT_ODP_IMPLICIT = 2, /* a whole address space as one region */
    GODWIT_ODP_SEND = 4,     /* these four: on reliable connections */
    GODWIT_ODP_RECV = 8,
    GODWIT_ODP_WRITE = 16,
    GODWIT_ODP_READ = 32,
    GODWIT_ODP_UNKNOWN = 64, /* alone: the device did not say */
};

struct godwit_device_gid {
    unsigned index; /* in the port's table */
    enum godwit_gid_type type;
    char address[GODWIT_DEVICE_ADDRESS]; /* as IPv6; "::ffff:192.0.2.1" stands for an IPv4 address */
    char netdev[GODWIT_DEVICE_NAME];     /* "": none */
};

struct godwit_device_netdev {
    char name[GODWIT_DEVICE_NAME];
    unsigned mtu; /* bytes */
    unsigned address_count;
    char addresses[GODWIT_DEVICE_ADDRESSES][GODWIT_DEVICE_ADDRESS]; /* "192.0.2.1/24" */
};

struct godwit_device_port {
    unsigned number; /* from 1 */
    enum godwit_port_state state;
    enum godwit_physical_state physical_state;
    enum godwit_link_layer link_layer;
    unsigned width;                  /* lanes */
    unsigned lane_mbps;              /* 10^6 bit/s of one lane; the port's rate is width times this */
    unsigned active_mtu, max_mtu;    /* bytes of payload in one packet */
    unsigned gid_count;
    struct godwit_device_gid *gids; /* the valid ones of the table, by index */
    unsigned netdev_count;
    struct godwit_device_netdev *netdevs;
    struct godwit_hints hints;
};

struct godwit_device {
    char name[GODWIT_DEVICE_NAME];
    char driver[GODWIT_DEVICE_NAME];
    const char *node_type; /* static storage: "channel adapter", "iWARP NIC"; NULL: unknown */
    char firmware[GODWIT_DEVICE_NAME];
    uint64_t node_guid;
    int numa_node;         /* -1: the machine has none, or it is unknown */
    unsigned odp;          /* enum godwit_odp */
    uint32_t max_qp, max_qp_wr, max_sge, max_cqe, max_mr, max_rd_atom;
    uint64_t max_mr_size;  /* bytes; drivers that know no limit say UINT64_MAX */
    unsigned port_count;
    struct godwit_device_port *ports;
    struct godwit_hints hints; /* of the device; those of its ports stand with them */
};

/*
 * At least one device: *out is an array of *count, owned by the caller until godwit_devices_free(). May block for as
 * long as a device's firmware takes to answer. No device: GODWIT_ERR_UNSUPPORTED, and error says what exactly is
 * missing and how a device is made.
 */
GODWIT_API enum godwit_err godwit_devices_list(struct godwit_device **out, unsigned *count,
                                               struct godwit_error *error);

/* NULL is allowed. */
GODWIT_API void godwit_devices_free(struct godwit_device *devices, unsigned count);

/* How much memory this process may register: all of a guest's, once per device. */
struct godwit_memlock {
    uint64_t limit;  /* RLIMIT_MEMLOCK, bytes; UINT64_MAX: none */
    bool privileged; /* CAP_IPC_LOCK in the first user namespace: the limit does not count */
    uint64_t ram;    /* bytes of the machine; 0: unknown */
    char hint[GODWIT_HINT_TEXT]; /* "": nothing is in the way */
};

GODWIT_API void godwit_memlock_query(struct godwit_memlock *out);

GODWIT_END

#endif
