/* A program with 64 MiB of memory that moves to another process, or host, while a thread keeps changing it:
 *     embed recv tcp::4444        embed send tcp:HOST:4444
 * The receiver goes on counting where the sender stopped. */
#include <godwit/godwit.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 64 << 20 };
static struct godwit_block block = {.id = "ram", .size = SIZE, .page_size = 4096, .fd = -1};
static struct godwit_tracker *tracker;
static pthread_mutex_t running = PTHREAD_MUTEX_INITIALIZER; /* held: the guest is stopped */
static unsigned long steps;                                  /* its device state */

static void *work(void *unused)
{
    for (;; usleep(100)) {
        pthread_mutex_lock(&running);
        memcpy((char *)block.addr + steps * 4096 % SIZE, &steps, sizeof steps);
        steps++;
        pthread_mutex_unlock(&running);
    }
    return unused;
}

static enum godwit_err log_start(void *self, struct godwit_error *error)
{
    return godwit_tracker_start(tracker, error);
}
static enum godwit_err log_sync(void *self, unsigned index, uint64_t *bitmap, struct godwit_error *error)
{
    return godwit_tracker_sync(tracker, block.addr, SIZE, bitmap, error);
}
static void log_stop(void *self) { godwit_tracker_stop(tracker); }
static enum godwit_err stop(void *self, struct godwit_error *error)
{
    return pthread_mutex_lock(&running), GODWIT_OK;
}
static enum godwit_err resume(void *self, struct godwit_error *error)
{
    return pthread_mutex_unlock(&running), GODWIT_OK;
}
static enum godwit_err save(void *self, unsigned stream, struct godwit_state_writer *to, struct godwit_error *error)
{
    return godwit_state_write(to, &steps, sizeof steps);
}
static enum godwit_err load(void *self, const char *stream, const void *data, size_t size, struct godwit_error *error)
{
    return size == sizeof steps ? memcpy(&steps, data, size), GODWIT_OK : GODWIT_ERR_GUEST;
}

int main(int argc, char **argv)
{
    static const struct godwit_guest_ops ops = {
        .dirty_start = log_start, .dirty_sync = log_sync, .dirty_stop = log_stop,
        .stop = stop, .resume = resume, .save_rest = save, .load = load,
    };
    static const char *const streams[] = {"steps"};
    struct godwit_guest guest = {
        .ops = &ops, .blocks = &block, .block_count = 1, .streams = streams, .stream_count = 1,
    };
    struct godwit_source *source;
    struct godwit_destination *destination;
    struct godwit_error error = {0};
    pthread_t worker;
    int send = argc == 3 && strcmp(argv[1], "send") == 0;

    block.addr = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (argc != 3 || block.addr == MAP_FAILED)
        return 2;
    if (!send)
        pthread_mutex_lock(&running); /* nothing runs here before RUN */
    pthread_create(&worker, NULL, work, NULL);
    if (send) {
        if (godwit_tracker_new(&tracker, &error) || godwit_tracker_add(tracker, block.addr, SIZE, &error) ||
            godwit_source_new(&guest, NULL, NULL, NULL, &source, &error) ||
            godwit_source_migrate(source, argv[2], &error))
            return fprintf(stderr, "%s\n", error.text), 1;
        return printf("sent after %lu steps\n", steps), 0;
    }
    if (godwit_destination_new(&guest, NULL, NULL, NULL, &destination, &error) ||
        godwit_destination_listen(destination, argv[2], NULL, 0, &error) ||
        godwit_destination_serve(destination, &error))
        return fprintf(stderr, "%s\n", error.text), 1;
    printf("running on from %lu steps\n", steps);
    return 0;
}
