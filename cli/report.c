#include "cli/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/amount.h"
#include "cli/report_json.h"

enum { TABLE_CHANNELS_MAX = 16 };

static void put_times(const struct report *report)
{
    const struct godwit_info *info = report->info;
    char total[AMOUNT_TEXT], setup[AMOUNT_TEXT], down[AMOUNT_TEXT], expected[AMOUNT_TEXT], gap[AMOUNT_TEXT];
    amount_ms(info->total_time_ms, total);
    amount_ms(info->setup_time_ms, setup);
    amount_ms(info->downtime_ms, down);
    amount_ms(info->expected_downtime_ms, expected);
    printf("total time   %s, of it setup %s\n", total, setup);
    if (report->side == REPORT_DESTINATION || report->error)
        return;
    printf("downtime     %s (expected %s)", down, expected);
    if (report->guest_gap_ms >= 0) {
        amount_ms((uint64_t)report->guest_gap_ms, gap);
        printf("; longest pause by the guest's clock %s", gap);
    }
    putchar('\n');
}

static void put_ram(const struct report *report)
{
    const struct godwit_ram_info *ram = &report->info->ram;
    char total[AMOUNT_TEXT], transferred[AMOUNT_TEXT], rate[AMOUNT_TEXT];
    amount_bytes(ram->total, total);
    amount_bytes(ram->transferred, transferred);
    amount_bytes((uint64_t)(ram->mbps * 1e6 / 8), rate);
    if (report->side == REPORT_DESTINATION)
        printf("memory       %s, received %s\n", total, transferred);
    else
        printf("memory       %s, transferred %s in %" PRIu64 " passes, %s/s (%.0f Mbit/s)\n", total, transferred,
               ram->dirty_sync_count, rate, ram->mbps);
    printf("pages        %" PRIu64 " with content, %" PRIu64 " zero\n", ram->normal, ram->duplicate);
}

static void put_channels(const struct godwit_info *info)
{
    unsigned shown = info->channel_count < TABLE_CHANNELS_MAX ? info->channel_count : TABLE_CHANNELS_MAX;
    for (unsigned id = 0; id < shown; id++) {
        char bytes[AMOUNT_TEXT];
        amount_bytes(info->channels[id].bytes, bytes);
        printf("channel %-4u %-10s busy %3.0f%%\n", id, bytes, 100 * report_busy_share(info, id));
    }
    if (shown < info->channel_count)
        printf("             and %u more (--json lists all)\n", info->channel_count - shown);
}

static void put_table(const struct report *report)
{
    printf("status       %s\n", report_status(report));
    if (report->info->status != GODWIT_STATUS_NONE) {
        put_times(report);
        put_ram(report);
        put_channels(report->info);
    }
    if (report->dump && !report->error)
        printf("dump         %s\n", report->dump);
    if (report->check)
        printf("checked      %" PRIu64 " pages, %" PRIu64 " wrong; the guest %s\n", report->check->pages,
               report->check->wrong, report->check->runs ? "runs" : "stands still");
    if (report->proof) {
        char time[AMOUNT_TEXT];
        amount_ms(report->proof->verify_time_ms, time);
        printf("verified     %s: %s (in %s)\n", report->proof->verified ? "yes" : "NO", report->proof->text, time);
    }
}

static bool put_json(const struct report *report)
{
    json_t *object = report_json(report);
    bool whole = object && json_dumpf(object, stdout, JSON_COMPACT | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6)) == 0;
    putchar('\n');
    json_decref(object);
    return whole;
}

bool report_print(const struct report *report, bool json)
{
    bool whole = true;
    if (json)
        whole = put_json(report);
    else
        put_table(report);
    whole = fflush(stdout) == 0 && !ferror(stdout) && whole;
    if (!whole)
        fputs("godwit: the report could not be written to stdout\n", stderr);
    return whole;
}
