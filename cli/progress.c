#include "cli/progress.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/amount.h"

enum { LINE_MAX_TEXT = 256, TERMINAL_INTERVAL_MS = 200, PLAIN_INTERVAL_MS = 1000, TERMINAL_COLUMNS = 80 };

void progress_init(struct progress *progress, enum progress_side side)
{
    *progress = (struct progress){.side = side, .terminal = isatty(STDERR_FILENO) != 0};
    pthread_mutex_init(&progress->lock, NULL);
}

void progress_fini(struct progress *progress)
{
    progress_reset(progress);
    pthread_mutex_destroy(&progress->lock);
}

static void erase_locked(struct progress *progress)
{
    if (progress->drawn)
        fputs("\r\033[K", stderr);
    progress->drawn = false;
}

void progress_reset(struct progress *progress)
{
    pthread_mutex_lock(&progress->lock);
    erase_locked(progress);
    pthread_mutex_unlock(&progress->lock);
}

void progress_say(struct progress *progress, const char *format, ...)
{
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);

    pthread_mutex_lock(&progress->lock);
    erase_locked(progress);
    fprintf(stderr, "%s\n", text);
    pthread_mutex_unlock(&progress->lock);
}

/* Bytes per second: as measured, and on average where nothing was, which is the first second and the destination. */
static double throughput(const struct godwit_info *info)
{
    uint64_t ms = info->total_time_ms > info->setup_time_ms ? info->total_time_ms - info->setup_time_ms : 0;
    if (info->ram.mbps > 0 || ms == 0)
        return info->ram.mbps * 1e6 / 8;
    return (double)info->ram.transferred * 1000 / (double)ms;
}

/* Bytes left, at the rate by which sending outruns the guest; a guest that outruns us has no time left to show. */
static void time_left(const struct godwit_ram_info *ram, double sent, char text[AMOUNT_TEXT])
{
    double dirtied = (double)ram->dirty_pages_rate * (double)ram->page_size;
    if (sent <= dirtied || sent <= 0)
        snprintf(text, AMOUNT_TEXT, "?");
    else
        amount_ms_short((uint64_t)((double)ram->remaining / (sent - dirtied) * 1000), text);
}

/* Fits 80 columns. */
static void source_line(const struct godwit_info *info, char *text, size_t size)
{
    const struct godwit_ram_info *ram = &info->ram;
    char rate[AMOUNT_TEXT], remaining[AMOUNT_TEXT], dirty[AMOUNT_TEXT], downtime[AMOUNT_TEXT], left[AMOUNT_TEXT];
    uint64_t done = ram->total > ram->remaining ? ram->total - ram->remaining : 0;
    amount_bytes_short((uint64_t)throughput(info), rate);
    amount_bytes_short(ram->remaining, remaining);
    amount_bytes_short(ram->dirty_pages_rate * ram->page_size, dirty);
    amount_ms_short(info->expected_downtime_ms, downtime);
    time_left(ram, throughput(info), left);
    double percent = ram->total ? 100.0 * (double)done / (double)ram->total : 0;
    snprintf(text, size, "%3.0f%% %s/s, remaining %s, pass %" PRIu64 ", dirty %s/s, downtime %s, left %s", percent,
             rate, remaining, ram->dirty_sync_count, dirty, downtime, left);
}

static void destination_line(const struct godwit_info *info, char *text, size_t size)
{
    char received[AMOUNT_TEXT], total[AMOUNT_TEXT], per_second[AMOUNT_TEXT];
    amount_bytes_short(info->ram.transferred, received);
    amount_bytes_short(info->ram.total, total);
    amount_bytes_short((uint64_t)throughput(info), per_second);
    snprintf(text, size, "received %s of a guest of %s, %s/s", received, total, per_second);
}

/* A line that wraps cannot be updated in place: cut it to the terminal's width. */
static void draw_locked(struct progress *progress, const char *line)
{
    struct winsize window;
    int columns = TERMINAL_COLUMNS;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1)
        columns = window.ws_col;
    fprintf(stderr, "\r%.*s\033[K", columns - 1, line);
    progress->drawn = true;
}

static bool is_under_way(enum godwit_status status)
{
    return status == GODWIT_STATUS_ACTIVE || status == GODWIT_STATUS_DEVICE || status == GODWIT_STATUS_CANCELLING;
}

int progress_interval_ms(const struct progress *progress)
{
    return progress->terminal ? TERMINAL_INTERVAL_MS : PLAIN_INTERVAL_MS;
}

void progress_look(struct progress *progress, const struct godwit_info *info)
{
    char line[LINE_MAX_TEXT];
    if (!is_under_way(info->status))
        return;
    if (progress->side == PROGRESS_SOURCE)
        source_line(info, line, sizeof line);
    else
        destination_line(info, line, sizeof line);

    pthread_mutex_lock(&progress->lock);
    if (progress->terminal)
        draw_locked(progress, line);
    else
        fprintf(stderr, "%s: %s\n", godwit_status_name(info->status), line);
    pthread_mutex_unlock(&progress->lock);
}
