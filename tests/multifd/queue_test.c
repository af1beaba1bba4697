#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>

#include "multifd/queue.h"
#include "tests/lib/gate.h"
#include "transport/clock.h"

TestSuite(queue, .timeout = 60);

enum { SENDERS_MAX = 8, BATCHES = 6 };

/* A batch of epoch e may be taken exactly by those who have passed the marks of all epochs before e, and no others. */
struct model {
    struct queue *queue;
    unsigned senders, batches;
    uint32_t epoch; /* open; starts at 1, marks close it */
    uint32_t passed[SENDERS_MAX];
    unsigned waiting; /* batches pushed and not taken */
    unsigned out;     /* batches that are not in the queue's hands as empty ones */
    struct batch *taken[BATCHES];
    unsigned taken_count;
};

static void push(struct model *model)
{
    struct batch *batch = queue_take_empty(model->queue, 0);
    cr_assert_eq(batch != NULL, model->out < model->batches, "%u of %u are out", model->out, model->batches);
    if (batch == NULL)
        return;
    model->out++;
    model->waiting++;
    batch_reset(batch, model->epoch);
    queue_push(model->queue, batch);
}

static uint32_t lowest_passed(const struct model *model)
{
    uint32_t lowest = UINT32_MAX;
    for (unsigned i = 0; i < model->senders; i++)
        lowest = model->passed[i] < lowest ? model->passed[i] : lowest;
    return lowest;
}

static void mark(struct model *model)
{
    if (model->epoch - 1 - lowest_passed(model) >= QUEUE_MARKS)
        return; /* the engine would wait for acknowledgements now */
    queue_mark(model->queue, model->epoch++);
}

/* Sender index does its next thing, if there is one. */
static void next(struct model *model, unsigned index)
{
    if (model->waiting == 0 && model->passed[index] == model->epoch - 1)
        return; /* it would block */
    struct batch *batch = NULL;
    uint32_t epoch = 0;
    switch (queue_next(model->queue, index, &batch, &epoch)) {
    case QUEUE_BATCH:
        cr_assert_eq(batch->epoch, model->passed[index] + 1, "sender %u took a batch of epoch %u after mark %u", index,
                     batch->epoch, model->passed[index]);
        for (unsigned i = 0; i < model->taken_count; i++)
            cr_assert_neq(model->taken[i], batch, "nobody else has it");
        model->taken[model->taken_count++] = batch;
        model->waiting--;
        break;
    case QUEUE_MARK:
        cr_assert_eq(epoch, model->passed[index] + 1, "marks come in order, once");
        model->passed[index] = epoch;
        break;
    case QUEUE_END: cr_assert_fail("it has not ended");
    }
    cr_assert_eq(queue_passed(model->queue), lowest_passed(model));
}

static void recycle(struct model *model)
{
    if (model->taken_count == 0)
        return;
    unsigned which = (unsigned)rand() % model->taken_count;
    queue_recycle(model->queue, model->taken[which]);
    model->taken[which] = model->taken[--model->taken_count];
    model->out--;
}

Test(queue, marks_pass_between_batches_in_any_interleaving)
{
    srand(1);
    for (unsigned round = 0; round < 300; round++) {
        struct model model = {.senders = 1 + round % SENDERS_MAX, .batches = 1 + round % BATCHES, .epoch = 1};
        model.queue = queue_new(model.batches, model.senders);
        for (unsigned step = 0; step < 400; step++) {
            unsigned dice = (unsigned)rand() % 16;
            if (dice < 5)
                push(&model);
            else if (dice < 6)
                mark(&model);
            else if (dice < 12)
                next(&model, (unsigned)rand() % model.senders);
            else
                recycle(&model);
        }
        queue_end(model.queue);
        queue_free(model.queue);
    }
}

/* The same with threads, where only order within a sender and counts can be seen. */
struct crowd {
    struct queue *queue;
    struct gate marks;
    atomic_uint_fast64_t batches;
    atomic_uint wrong;
};

struct sender {
    struct crowd *crowd;
    unsigned index;
    pthread_t thread;
};

static void *sender_thread(void *opaque)
{
    struct sender *sender = opaque;
    struct crowd *crowd = sender->crowd;
    struct batch *batch;
    uint32_t epoch, passed = 0;
    enum queue_item item;
    while ((item = queue_next(crowd->queue, sender->index, &batch, &epoch)) != QUEUE_END) {
        if (item == QUEUE_MARK) {
            if (epoch != passed + 1)
                atomic_fetch_add(&crowd->wrong, 1);
            passed = epoch;
            gate_note(&crowd->marks, NULL);
        } else {
            if (batch->epoch != passed + 1)
                atomic_fetch_add(&crowd->wrong, 1);
            atomic_fetch_add(&crowd->batches, 1);
            queue_recycle(crowd->queue, batch);
        }
    }
    return NULL;
}

static void start(struct crowd *crowd, struct sender *senders, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        senders[i] = (struct sender){.crowd = crowd, .index = i};
        pthread_create(&senders[i].thread, NULL, sender_thread, &senders[i]);
    }
}

Test(queue, marks_pass_between_batches_with_threads)
{
    enum { EPOCHS = 1500 };
    for (unsigned count = 1; count <= SENDERS_MAX; count++) {
        struct crowd crowd = {.queue = queue_new(2 * count + 2, count), .marks = GATE_INIT};
        struct sender senders[SENDERS_MAX];
        uint64_t pushed = 0;
        srand(count);
        start(&crowd, senders, count);
        for (uint32_t epoch = 1; epoch <= EPOCHS; epoch++) {
            for (unsigned i = (unsigned)rand() % 12; i > 0; i--, pushed++) {
                struct batch *batch = queue_take_empty(crowd.queue, 10000);
                cr_assert_not_null(batch);
                batch_reset(batch, epoch);
                queue_push(crowd.queue, batch);
            }
            queue_mark(crowd.queue, epoch);
            if (epoch >= QUEUE_MARKS) /* this many may be on their way */
                cr_assert(gate_wait(&crowd.marks, count * (epoch - QUEUE_MARKS + 1), 10000));
            while (epoch >= QUEUE_MARKS && queue_passed(crowd.queue) < epoch - QUEUE_MARKS + 1)
                ;
        }
        cr_assert(gate_wait(&crowd.marks, count * EPOCHS, 10000), "%u of %u", gate_count(&crowd.marks), count * EPOCHS);
        cr_assert_eq(queue_passed(crowd.queue), EPOCHS);
        cr_assert_eq(crowd.batches, pushed, "everything before the last mark was taken");
        queue_end(crowd.queue);
        for (unsigned i = 0; i < count; i++)
            pthread_join(senders[i].thread, NULL);
        cr_assert_eq(gate_count(&crowd.marks), count * EPOCHS, "each passes each once");
        cr_assert_eq(crowd.wrong, 0);
        queue_free(crowd.queue);
    }
}

struct producer {
    struct queue *queue;
    struct gate done;
    struct batch *got;
};

static void *producer_thread(void *opaque)
{
    struct producer *producer = opaque;
    producer->got = queue_take_empty(producer->queue, 60000);
    gate_note(&producer->done, NULL);
    return NULL;
}

Test(queue, end_wakes_everyone_and_stays)
{
    struct crowd crowd = {.queue = queue_new(BATCHES, SENDERS_MAX), .marks = GATE_INIT};
    struct producer producer = {.queue = crowd.queue, .done = GATE_INIT};
    struct sender senders[SENDERS_MAX];
    struct batch *held[BATCHES];
    pthread_t thread;
    for (unsigned i = 0; i < BATCHES; i++)
        held[i] = queue_take_empty(crowd.queue, 0);
    pthread_create(&thread, NULL, producer_thread, &producer);
    start(&crowd, senders, SENDERS_MAX);
    cr_assert_not(gate_wait(&producer.done, 1, 50), "they all wait");
    queue_end(crowd.queue);
    queue_end(crowd.queue);
    pthread_join(thread, NULL);
    for (unsigned i = 0; i < SENDERS_MAX; i++)
        pthread_join(senders[i].thread, NULL);
    cr_assert_null(producer.got);
    struct batch *batch;
    uint32_t epoch;
    queue_push(crowd.queue, held[0]);
    queue_mark(crowd.queue, 1);
    queue_recycle(crowd.queue, held[1]);
    cr_assert_eq(queue_next(crowd.queue, 0, &batch, &epoch), QUEUE_END, "work that is left is not begun");
    cr_assert_null(queue_take_empty(crowd.queue, 60000));
    queue_free(crowd.queue);
}

Test(queue, producer_waits_for_a_batch_to_come_back)
{
    struct queue *queue = queue_new(1, 1);
    struct producer producer = {.queue = queue, .done = GATE_INIT};
    struct batch *only = queue_take_empty(queue, 0);
    pthread_t thread;
    uint64_t begin = clock_now_ms();
    cr_assert_null(queue_take_empty(queue, 30));
    cr_assert_geq(clock_now_ms() - begin + 1, 30);
    pthread_create(&thread, NULL, producer_thread, &producer);
    cr_assert_not(gate_wait(&producer.done, 1, 30));
    queue_recycle(queue, only);
    pthread_join(thread, NULL);
    cr_assert_eq(producer.got, only);
    queue_free(queue);
    queue_free(NULL);
}

Test(queue, producer_that_waits_sleeps_until_half_of_the_batches_are_back)
{
    struct queue *queue = queue_new(BATCHES, 1);
    struct producer producer = {.queue = queue, .done = GATE_INIT};
    struct batch *held[BATCHES];
    pthread_t thread;
    for (unsigned i = 0; i < BATCHES; i++)
        held[i] = queue_take_empty(queue, 0);
    pthread_create(&thread, NULL, producer_thread, &producer);
    cr_assert_not(gate_wait(&producer.done, 1, 30));
    for (unsigned i = 0; i < BATCHES / 2 - 1; i++)
        queue_recycle(queue, held[i]);
    cr_assert_not(gate_wait(&producer.done, 1, 30));
    queue_recycle(queue, held[BATCHES / 2 - 1]);
    cr_assert(gate_wait(&producer.done, 1, 10000));
    pthread_join(thread, NULL);
    cr_assert_not_null(producer.got);
    for (unsigned i = 0; i < BATCHES / 2 - 1; i++)
        cr_assert_not_null(queue_take_empty(queue, 0), "those who do not wait take what is there");
    queue_free(queue);
}

/* Takes one batch and no more, as a sender whose channel is slow. */
static void *holder_thread(void *opaque)
{
    struct sender *sender = opaque;
    struct batch *batch;
    uint32_t epoch;
    if (queue_next(sender->crowd->queue, sender->index, &batch, &epoch) == QUEUE_BATCH)
        gate_note(&sender->crowd->marks, NULL);
    return NULL;
}

Test(queue, every_sender_that_sleeps_is_woken_when_there_are_batches_enough)
{
    for (unsigned round = 0; round < 10; round++) {
        struct crowd crowd = {.queue = queue_new(SENDERS_MAX, SENDERS_MAX), .marks = GATE_INIT};
        struct sender senders[SENDERS_MAX];
        for (unsigned i = 0; i < SENDERS_MAX; i++) {
            senders[i] = (struct sender){.crowd = &crowd, .index = i};
            pthread_create(&senders[i].thread, NULL, holder_thread, &senders[i]);
        }
        cr_assert_not(gate_wait(&crowd.marks, 1, 20), "they wait");
        for (unsigned i = 0; i < SENDERS_MAX; i++)
            queue_push(crowd.queue, queue_take_empty(crowd.queue, 0));
        cr_assert(gate_wait(&crowd.marks, SENDERS_MAX, 10000), "%u of %u have a batch", gate_count(&crowd.marks),
                  SENDERS_MAX);
        for (unsigned i = 0; i < SENDERS_MAX; i++)
            pthread_join(senders[i].thread, NULL);
        queue_free(crowd.queue);
    }
}
