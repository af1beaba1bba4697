/* Private to multifd/send.c and multifd/sender.c: one sender thread. */
#ifndef MULTIFD_SENDER_H
#define MULTIFD_SENDER_H

#include <pthread.h>

#include "multifd/counters.h"
#include "multifd/packet.h"
#include "multifd/queue.h"
#include "multifd/send.h"
#include "multifd/sort.h"

struct sender {
    const struct multifd_send_config *config;
    struct queue *queue;
    const atomic_bool *stopping; /* of all senders */
    unsigned index;
    pthread_t thread;
    struct counters counters;

    pthread_mutex_t lock;
    /* under lock; the sender thread, which alone changes them while it runs, reads them without */
    struct channel *channel;
    struct channel *ending; /* the one before, until the destination is done with it; else NULL */

    /* sender thread only */
    uint64_t since; /* counters.bytes when channel began */
    uint32_t sequence;
    struct sorter sorter;
    uint8_t head[PACKET_HEAD_MAX];
    struct iovec iov[BATCH_EXTENTS];
};

/* The thread: until the queue ends or the channel fails. */
void *sender_main(void *sender);

#endif
