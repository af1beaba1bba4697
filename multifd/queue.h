/*
 * The hand-over between the engine (single producer) and N senders (consumers): a bounded set of batches that
 * circulate, full in one direction and empty in the other, and marks. A mark divides the stream of batches: each sender
 * passes it once, after every batch that was pushed before it has been taken by somebody and the sender's own are sent,
 * and before it takes any batch that was pushed after it.
 *
 * A slow sender takes fewer batches and passes its mark later; nobody waits for it except who waits for the mark.
 */
#ifndef MULTIFD_QUEUE_H
#define MULTIFD_QUEUE_H

#include "multifd/batch.h"

struct queue;

enum queue_item { QUEUE_END, QUEUE_BATCH, QUEUE_MARK };

enum { QUEUE_MARKS = 4 /* marks that may be on their way at once */ };

struct queue *queue_new(unsigned batches, unsigned senders); /* NULL when memory is out */
void queue_free(struct queue *queue);                        /* NULL allowed; nobody is inside a call */

/* Producer. An empty batch; NULL when there was none for timeout_ms, and after queue_end. Once it waits it does so
 * until half of the batches are back, or timeout_ms. */
struct batch *queue_take_empty(struct queue *queue, int timeout_ms);
/* Producer. Hands a batch over; never blocks: there are no more batches than places. */
void queue_push(struct queue *queue, struct batch *batch);
/* Producer. At most QUEUE_MARKS may be unpassed by some sender. */
void queue_mark(struct queue *queue, uint32_t epoch);

/* The epoch of the last mark that every sender has passed; 0: none. A sender passes its mark just before it acts on
 * it. */
uint32_t queue_passed(struct queue *queue);

/* Sender `index`: its next thing to do; blocks until there is one. */
enum queue_item queue_next(struct queue *queue, unsigned index, struct batch **batch, uint32_t *epoch);
/* Anybody: an empty batch back. */
void queue_recycle(struct queue *queue, struct batch *batch);

/* Any thread, repeatedly: every blocked and later call returns NULL or QUEUE_END. */
void queue_end(struct queue *queue);

#endif
