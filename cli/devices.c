/*
 * `godwit devices`: the RDMA devices of this machine, and what is in the way of using them.
 *
 * Happy path: a block of lines per device and port, or one JSON object; exit 0. No device: one line on stderr says what
 * exactly is missing and how a soft-RoCE device is made; with --json the object has an empty list and the line as a
 * hint. Exit 1.
 */
#include "cli/devices.h"

#include "cli/command.h"

struct devices_settings {
    bool json;
};

static const struct arg_spec devices_specs[] = {
    {.name = "json", .kind = ARG_FLAG, .offset = offsetof(struct devices_settings, json),
     .summary = "one JSON object on stdout instead of the text"},
};

static const struct arg_command devices_args = {
    .name = "devices",
    .synopsis = "[--json]",
    .summary = "Lists the RDMA devices of this machine: what they can do, and what is in the way of using them.",
    .groups = {{.title = "Devices:", .specs = devices_specs, .count = sizeof devices_specs / sizeof *devices_specs}},
    .group_count = 1,
};

static bool print(const struct devices_report *report, bool json)
{
    bool whole = true;
    if (json)
        whole = devices_print_json(report, stdout);
    else if (report->count)
        devices_print_text(report, stdout);
    whole = fflush(stdout) == 0 && !ferror(stdout) && whole;
    if (!whole)
        command_complain("the list could not be written to stdout");
    return whole;
}

static int devices_run(int argc, char *const argv[])
{
    struct devices_settings settings = {0};
    struct arg_command args = devices_args;
    args.groups[0].settings = &settings;
    struct args_result result;
    int code = COMMAND_FAILED;
    if (!command_begin(&args, argc, argv, &result, &code))
        return code;

    struct godwit_error error = {0};
    struct devices_report report = {0};
    struct godwit_device *devices = NULL;
    enum godwit_err err = godwit_devices_list(&devices, &report.count, &error);
    report.devices = devices;
    report.error = err ? &error : NULL;
    godwit_memlock_query(&report.memlock);
    bool printed = print(&report, settings.json);
    if (err)
        command_complain("%s", error.text);
    godwit_devices_free(devices, report.count);
    return err || !printed ? COMMAND_FAILED : COMMAND_DONE;
}

const struct command devices_command = {.args = &devices_args, .run = devices_run};
