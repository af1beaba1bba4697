/*
 * A guest of any size that needs next to no memory: one window of 256 MiB of random bytes, mapped again and again. For
 * long runs over slow links and under rate limits, where what is measured is not the reading of memory.
 *
 *     folded_guest URI BYTES [OPTION=VALUE ...]         options as those of the tool, such as multifd-channels=4
 *
 * Migrates it with the public interface and prints one JSON object: seconds from the first moment at which pages may be
 * sent until the destination has said that it runs the guest, bytes of pages, bytes in all.
 */
#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include <godwit/godwit.h>

enum { WINDOW = 256 << 20, RANDOM_STEP = 1 << 20 };

static uint64_t active_ns; /* when the status became active */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void on_event(void *opaque, const struct godwit_event *event)
{
    if (event->kind == GODWIT_EVENT_MIGRATION && event->value == GODWIT_STATUS_ACTIVE)
        active_ns = now_ns();
}

/* Only in whole windows, but for the last. */
static void *map_folded(uint64_t size)
{
    int fd = memfd_create("folded-guest", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, WINDOW) < 0)
        err(1, "cannot make the window");
    char *addr = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (addr == MAP_FAILED)
        err(1, "cannot reserve %" PRIu64 " bytes", size);
    for (uint64_t at = 0; at < size; at += WINDOW) {
        uint64_t part = size - at < WINDOW ? size - at : WINDOW;
        if (mmap(addr + at, part, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            err(1, "cannot map the window");
    }
    uint64_t filled = size < WINDOW ? size : WINDOW;
    for (uint64_t at = 0; at < filled;) {
        ssize_t n = getrandom(addr + at, filled - at < RANDOM_STEP ? filled - at : RANDOM_STEP, 0);
        if (n < 0)
            err(1, "getrandom");
        at += (uint64_t)n;
    }
    close(fd);
    return addr;
}

static struct godwit_options *read_options(int count, char *words[])
{
    struct godwit_error error = {0};
    struct godwit_options *options = godwit_options_new();
    if (options == NULL)
        errx(1, "out of memory");
    for (int i = 0; i < count; i++) {
        char *value = strchr(words[i], '=');
        if (value == NULL)
            errx(2, "%s is not OPTION=VALUE", words[i]);
        *value++ = '\0';
        if (godwit_options_set(options, words[i], value, &error) != GODWIT_OK)
            errx(2, "%s", error.text);
    }
    return options;
}

int main(int argc, char *argv[])
{
    struct godwit_error error = {0};
    uint64_t size;
    if (argc < 3 || godwit_parse_size(argv[2], &size, &error) != GODWIT_OK)
        errx(2, "usage: folded_guest URI BYTES [OPTION=VALUE ...]");
    size -= size % GODWIT_PAGE_SIZE;
    struct godwit_options *options = read_options(argc - 3, argv + 3);
    struct godwit_block block = {.id = "folded", .addr = map_folded(size), .size = size,
                                 .page_size = GODWIT_PAGE_SIZE, .fd = -1};
    static const struct godwit_guest_ops ops = {0}; /* memory that nobody writes: the defaults */
    struct godwit_guest guest = {.ops = &ops, .blocks = &block, .block_count = 1};
    struct godwit_source *source;
    if (godwit_source_new(&guest, options, on_event, NULL, &source, &error) != GODWIT_OK ||
        godwit_source_migrate(source, argv[1], &error) != GODWIT_OK)
        errx(1, "%s", error.text);
    double seconds = (double)(now_ns() - active_ns) / 1e9;
    struct godwit_info *info = malloc(sizeof *info);
    if (info == NULL)
        errx(1, "out of memory");
    godwit_source_query(source, info);
    printf("{\"seconds\": %.6f, \"normal-bytes\": %" PRIu64 ", \"transferred\": %" PRIu64 "}\n", seconds,
           info->ram.normal_bytes, info->ram.transferred);
    free(info);
    godwit_source_free(source);
    godwit_options_free(options);
    return 0;
}
