/*
 * JSON under the names of QEMU's query-migrate. Numbers are integers in the unit of the name's documentation, except
 * mbps and busy-share. A value that is not known is null, not absent, so that a reader need not guess. Jansson takes
 * NULL references as "memory is out" and passes them up: only the last one is checked.
 */
#include "cli/report_json.h"

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

const char *report_status(const struct report *report)
{
    if (report->error && report->info->status == GODWIT_STATUS_NONE)
        return godwit_status_name(report->error->code == GODWIT_ERR_CANCELLED ? GODWIT_STATUS_CANCELLED
                                                                              : GODWIT_STATUS_FAILED);
    return godwit_status_name(report->info->status);
}

double report_busy_share(const struct godwit_info *info, unsigned channel)
{
    uint64_t span_ms = info->total_time_ms > info->setup_time_ms ? info->total_time_ms - info->setup_time_ms : 0;
    double share = span_ms ? (double)info->channels[channel].busy_ns / ((double)span_ms * 1e6) : 0;
    return share > 1 ? 1 : share; /* total-time is in whole milliseconds, busy time is not */
}

static json_t *ram_json(const struct godwit_ram_info *ram)
{
    return json_pack("{so so so so so so so sf so so so so so so}",
                     "transferred", number(ram->transferred),
                     "remaining", number(ram->remaining),
                     "total", number(ram->total),
                     "duplicate", number(ram->duplicate),
                     "normal", number(ram->normal),
                     "normal-bytes", number(ram->normal_bytes),
                     "dirty-pages-rate", number(ram->dirty_pages_rate),
                     "mbps", ram->mbps,
                     "pages-per-second", number(ram->pages_per_second),
                     "dirty-sync-count", number(ram->dirty_sync_count),
                     "page-size", number(ram->page_size),
                     "multifd-bytes", number(ram->multifd_bytes),
                     "precopy-bytes", number(ram->precopy_bytes),
                     "downtime-bytes", number(ram->downtime_bytes));
}

static json_t *channel_json(const struct godwit_info *info, unsigned id)
{
    const struct godwit_channel_info *channel = &info->channels[id];
    bool device = channel->device[0] != '\0', tls = channel->tls_version[0] != '\0';
    return json_pack("{so so so so so so so sf so so so so so so}",
                     "id", number(id),
                     "bytes", number(channel->bytes),
                     "inline-bytes", number(channel->inline_bytes),
                     "placed-bytes", number(channel->placed_bytes),
                     "normal", number(channel->normal),
                     "duplicate", number(channel->duplicate),
                     "packets", number(channel->packets),
                     "busy-share", report_busy_share(info, id),
                     "replacements", number(channel->replacements),
                     "device", text_or_null(device ? channel->device : NULL),
                     "queue-pair", device ? number(channel->queue_pair) : json_null(),
                     "tls-version", text_or_null(tls ? channel->tls_version : NULL),
                     "tls-cipher", text_or_null(tls ? channel->tls_cipher : NULL),
                     "tls-kernel", tls ? json_boolean(channel->tls_kernel) : json_null());
}

static json_t *channels_json(const struct godwit_info *info)
{
    json_t *channels = json_array();
    for (unsigned id = 0; channels && id < info->channel_count; id++) {
        if (json_array_append_new(channels, channel_json(info, id)) == 0)
            continue;
        json_decref(channels);
        return NULL;
    }
    return channels;
}

static json_t *guest_json(const struct report_guest *guest)
{
    if (!guest)
        return json_null();
    if (!guest->backing)
        return json_pack("{ss so}", "type", guest->type, "ram", number(guest->ram));
    return json_pack("{ss so so so so ss ss so so}",
                     "type", guest->type,
                     "ram", number(guest->ram),
                     "dirty-rate-target", number(guest->dirty_rate_target),
                     "hot-set", number(guest->hot_set),
                     "cpus", guest->cpus ? number(guest->cpus) : json_null(),
                     "backing", guest->backing,
                     "pattern", guest->pattern,
                     "memory-from", text_or_null(guest->memory_from),
                     "tracker", text_or_null(guest->tracker));
}

static json_t *check_json(const struct report_check *check)
{
    if (!check)
        return json_null();
    return json_pack("{sb so so so}", "runs", check->runs, "pages", number(check->pages), "skipped",
                     number(check->skipped), "wrong", number(check->wrong));
}

/* What only the source knows: how long the guest stood still, and whether the copy is the original. */
static int add_source(json_t *object, const struct report *report)
{
    const struct godwit_info *info = report->info;
    const struct report_proof *proof = report->proof;
    int failed = json_object_set_new(object, "setup-time", number(info->setup_time_ms));
    failed |= json_object_set_new(object, "downtime", number(info->downtime_ms));
    failed |= json_object_set_new(object, "expected-downtime", number(info->expected_downtime_ms));
    failed |= json_object_set_new(object, "verified", proof ? json_boolean(proof->verified) : json_null());
    failed |= json_object_set_new(object, "verify-time", proof ? number(proof->verify_time_ms) : json_null());
    failed |= json_object_set_new(object, "verify-desc", text_or_null(proof ? proof->text : NULL));
    failed |= json_object_set_new(object, "guest-gap",
                                  report->guest_gap_ms < 0 ? json_null() : number((uint64_t)report->guest_gap_ms));
    return failed;
}

json_t *report_json(const struct report *report)
{
    json_t *object = json_object();
    int failed = json_object_set_new(object, "status", json_string(report_status(report)));
    if (report->error)
        failed |= json_object_set_new(object, "error-desc", json_string(report->error->text));
    if (report->error && report->error->code == GODWIT_ERR_OUTCOME_UNKNOWN)
        failed |= json_object_set_new(object, "outcome", json_string("unknown"));
    failed |= json_object_set_new(object, "total-time", number(report->info->total_time_ms));
    if (report->side == REPORT_SOURCE)
        failed |= add_source(object, report);
    failed |= json_object_set_new(object, "pinned-bytes", number(report->info->pinned_bytes));
    failed |= json_object_set_new(object, "ram", ram_json(&report->info->ram));
    failed |= json_object_set_new(object, "channels", channels_json(report->info));
    failed |= json_object_set_new(object, "guest", guest_json(report->guest));
    if (report->side == REPORT_DESTINATION)
        failed |= json_object_set_new(object, "dump", text_or_null(report->dump));
    failed |= json_object_set_new(object, "check", check_json(report->check));
    if (!failed)
        return object;
    json_decref(object);
    return NULL;
}
