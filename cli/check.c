#include "cli/check.h"

enum godwit_err check_process(struct process_guest *guest, struct report_check *out, struct godwit_error *error)
{
    const struct godwit_guest *interface = process_guest_interface(guest);
    enum godwit_err err = interface->ops->stop(interface->self, error);
    if (err)
        return err;
    struct process_counters counters;
    struct process_check check;
    struct process_view view = process_guest_image(guest);
    process_guest_counters(guest, &counters);
    err = process_guest_check(&view, &counters, &check, error);
    out->pages = check.pages;
    out->skipped = check.skipped;
    out->wrong = check.wrong;
    return err;
}
