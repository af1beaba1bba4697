#include "cli/amount.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void amount_bytes(uint64_t bytes, char text[AMOUNT_TEXT])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    unsigned unit = 0;
    while (value >= 1000 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    int decimals = unit == 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
    snprintf(text, AMOUNT_TEXT, "%.*f %s", decimals, value, units[unit]);
}

void amount_ms(uint64_t ms, char text[AMOUNT_TEXT])
{
    if (ms < 10 * 1000)
        snprintf(text, AMOUNT_TEXT, "%" PRIu64 " ms", ms);
    else if (ms < 100 * 1000)
        snprintf(text, AMOUNT_TEXT, "%.1f s", (double)ms / 1000);
    else if (ms < 100 * 60 * 1000)
        snprintf(text, AMOUNT_TEXT, "%" PRIu64 " min %" PRIu64 " s", ms / 60000, ms / 1000 % 60);
    else
        snprintf(text, AMOUNT_TEXT, "%" PRIu64 " h %" PRIu64 " min", ms / 3600000, ms / 60000 % 60);
}

/* "1.50 GiB" becomes "1.50G", "12 B" becomes "12B". */
void amount_bytes_short(uint64_t bytes, char text[AMOUNT_TEXT])
{
    amount_bytes(bytes, text);
    char *space = strchr(text, ' ');
    space[0] = space[1];
    space[1] = '\0';
}

void amount_ms_short(uint64_t ms, char text[AMOUNT_TEXT])
{
    if (ms < 1000)
        snprintf(text, AMOUNT_TEXT, "%" PRIu64 "ms", ms);
    else if (ms < 100 * 1000)
        snprintf(text, AMOUNT_TEXT, "%.1fs", (double)ms / 1000);
    else
        snprintf(text, AMOUNT_TEXT, "%" PRIu64 "min", ms / 60000);
}
