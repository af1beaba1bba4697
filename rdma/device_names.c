/* Names for the enums of <godwit/devices.h>, in the spelling of `rdma link show` and ibv_devinfo. */
#include <stddef.h>

#include <godwit/devices.h>

static const char *name_of(const char *const names[], size_t count, unsigned value)
{
    return value < count && names[value] ? names[value] : "unknown";
}

#define NAME_OF(names, value) name_of((names), sizeof(names) / sizeof *(names), (unsigned)(value))

const char *godwit_port_state_name(enum godwit_port_state state)
{
    static const char *const names[] = {
        [GODWIT_PORT_DOWN] = "DOWN",     [GODWIT_PORT_INIT] = "INIT",
        [GODWIT_PORT_ARMED] = "ARMED",   [GODWIT_PORT_ACTIVE] = "ACTIVE",
        [GODWIT_PORT_ACTIVE_DEFER] = "ACTIVE_DEFER",
    };
    return NAME_OF(names, state);
}

const char *godwit_physical_state_name(enum godwit_physical_state state)
{
    static const char *const names[] = {
        [GODWIT_PHYSICAL_SLEEP] = "SLEEP",       [GODWIT_PHYSICAL_POLLING] = "POLLING",
        [GODWIT_PHYSICAL_DISABLED] = "DISABLED", [GODWIT_PHYSICAL_TRAINING] = "TRAINING",
        [GODWIT_PHYSICAL_LINK_UP] = "LINK_UP",   [GODWIT_PHYSICAL_LINK_ERROR_RECOVERY] = "LINK_ERROR_RECOVERY",
        [GODWIT_PHYSICAL_TEST] = "TEST",
    };
    return NAME_OF(names, state);
}

const char *godwit_link_layer_name(enum godwit_link_layer layer)
{
    static const char *const names[] = {
        [GODWIT_LINK_INFINIBAND] = "InfiniBand",
        [GODWIT_LINK_ETHERNET] = "Ethernet",
    };
    return NAME_OF(names, layer);
}

const char *godwit_gid_type_name(enum godwit_gid_type type)
{
    static const char *const names[] = {
        [GODWIT_GID_INFINIBAND] = "InfiniBand",
        [GODWIT_GID_ROCE_V1] = "RoCE v1",
        [GODWIT_GID_ROCE_V2] = "RoCE v2",
    };
    return NAME_OF(names, type);
}
