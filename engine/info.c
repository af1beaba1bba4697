/* Names for what <godwit/info.h> counts. */
#include <godwit/info.h>

const char *godwit_status_name(enum godwit_status status)
{
    switch (status) {
    case GODWIT_STATUS_NONE: return "none";
    case GODWIT_STATUS_SETUP: return "setup";
    case GODWIT_STATUS_CANCELLING: return "cancelling";
    case GODWIT_STATUS_CANCELLED: return "cancelled";
    case GODWIT_STATUS_ACTIVE: return "active";
    case GODWIT_STATUS_DEVICE: return "device";
    case GODWIT_STATUS_COMPLETED: return "completed";
    case GODWIT_STATUS_FAILED: return "failed";
    }
    return "unknown";
}
