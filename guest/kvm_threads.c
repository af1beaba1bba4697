/*
 * Running processors.
 *
 * Happy path: KVM_RUN until the payload asks for work; the answer is what its rate allows, after a sleep of at most a
 * slice where that is nothing. To park, `pause` and immediate_exit are set and a signal is sent. A thread parks only
 * after KVM_RUN said EINTR: an answer that was given is complete in the registers by then, which is what the kernel
 * demands before they are saved.
 *
 * The signal is blocked in these threads for good, and let through by KVM_SET_SIGNAL_MASK inside KVM_RUN only, where
 * the kernel returns instead of delivering it. So no handler is installed and the process's dispositions stay its own.
 * SIGSTKFLT is one that nothing uses, and unlike a real-time signal it needs no room in a queue. Should a kick get lost
 * all the same, park repeats it.
 *
 * Failure modes: an exit that the payload cannot cause (its memory was damaged, or a stranger sent it), or an error of
 * KVM_RUN: the thread says why and waits for the end; park and the guest's users report it.
 */
#include "guest/kvm_threads.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "guest/guest_error.h"
#include "guest/kvm_payload.h"
#include "guest/process_workers.h"

enum {
    THREADS_KICK = SIGSTKFLT,
    THREADS_BATCH = 64,        /* pages an answer: well under a millisecond even where each is a first write */
    THREADS_SLICE_NS = 500000, /* the clock is to tick at least once a millisecond */
    THREADS_KICK_NS = 2000000,
    KERNEL_SIGSET = 8, /* bytes of a signal set in the kernel's interface */
};

static bool thread_called(const struct kvm_threads *threads)
{
    return atomic_load_explicit(&threads->pause, memory_order_relaxed) ||
           atomic_load_explicit(&threads->quit, memory_order_relaxed);
}

static struct timespec at_ns(uint64_t ns)
{
    return (struct timespec){(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
}

/* Sleeps a slice, or until it is called. */
static void thread_sleep(struct kvm_threads *threads, uint64_t deadline)
{
    struct timespec until = at_ns(deadline);
    pthread_mutex_lock(&threads->lock);
    if (!thread_called(threads))
        pthread_cond_timedwait(&threads->wake, &threads->lock, &until);
    pthread_mutex_unlock(&threads->lock);
}

/* Waits out a pause; false: quit. A processor that has ended is parked until then. */
static bool thread_park(struct kvm_thread *self)
{
    struct kvm_threads *threads = self->all;
    pthread_mutex_lock(&threads->lock);
    threads->parked_count++;
    pthread_cond_signal(&threads->parked);
    while ((threads->pause || self->ended[0]) && !threads->quit)
        pthread_cond_wait(&threads->wake, &threads->lock);
    threads->parked_count--;
    bool go_on = !threads->quit;
    pthread_mutex_unlock(&threads->lock);
    return go_on;
}

static uint64_t thread_due(struct kvm_thread *self)
{
    uint64_t now = process_now();
    if (self->cpu->index == 0)
        process_clock_tick(self->all->clock, now);
    uint64_t due = process_pace_due(&self->pace, now);
    if (due == 0)
        thread_sleep(self->all, now + THREADS_SLICE_NS);
    return due < THREADS_BATCH ? due : THREADS_BATCH;
}

/* The payload has done what it was given, and asks again. */
static void thread_answer(struct kvm_thread *self)
{
    struct kvm_run *run = self->cpu->run;
    struct kvm_regs regs;
    uint64_t steps;
    if (kvm_vm_ioctl(self->cpu->fd, KVM_GET_REGS, &regs) == 0 &&
        kvm_payload_steps(self->all->plan, self->cpu->index, &regs, &steps))
        atomic_store_explicit(&self->steps, steps, memory_order_relaxed);
    uint32_t pages = thread_called(self->all) ? 0 : (uint32_t)thread_due(self);
    process_pace_account(&self->pace, pages);
    memcpy((char *)run + run->io.data_offset, &pages, sizeof pages);
}

static bool is_question(const struct kvm_run *run, size_t run_size)
{
    return run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN && run->io.port == KVM_PAYLOAD_PORT &&
           run->io.size == sizeof(uint32_t) && run->io.count == 1 && run->io.data_offset <= run_size - sizeof(uint32_t);
}

/* Takes the signal that made KVM_RUN return, if it was one. */
static void eat_kick(void)
{
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, THREADS_KICK);
    while (sigtimedwait(&kick, NULL, &(struct timespec){0}) > 0)
        continue;
}

/* Until KVM_RUN was interrupted, true, or cannot go on. */
static bool thread_run(struct kvm_thread *self)
{
    struct kvm_run *run = self->cpu->run;
    for (;;) {
        if (ioctl(self->cpu->fd, KVM_RUN, 0) == 0) {
            if (is_question(run, self->cpu->run_size)) {
                thread_answer(self);
                continue;
            }
            snprintf(self->ended, sizeof self->ended, "it left its program (KVM exit %u)", run->exit_reason);
            return false;
        }
        if (errno == EINTR) {
            eat_kick();
            return true;
        }
        if (errno == EAGAIN)
            continue;
        snprintf(self->ended, sizeof self->ended, "KVM_RUN failed (errno %d)", errno);
        return false;
    }
}

static void *thread_main(void *argument)
{
    struct kvm_thread *self = argument;
    do
        while (thread_run(self) && !thread_called(self->all))
            continue;
    while (thread_park(self));
    return NULL;
}

static void threads_prepare(struct kvm_threads *threads, const struct kvm_cpu *cpus,
                            const struct process_counters *plan, struct process_clock *clock)
{
    *threads = (struct kvm_threads){.plan = plan, .clock = clock};
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&threads->lock, NULL);
    pthread_cond_init(&threads->wake, &monotonic);
    pthread_cond_init(&threads->parked, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (unsigned i = 0; i < plan->threads; i++) {
        struct kvm_thread *thread = &threads->thread[i];
        thread->all = threads;
        thread->cpu = &cpus[i];
        thread->rate = plan->rate * (i + 1) / plan->threads - plan->rate * i / plan->threads;
        process_pace_init(&thread->pace, thread->rate, process_now());
        atomic_store_explicit(&thread->steps, plan->steps[i], memory_order_relaxed);
        __atomic_store_n(&thread->cpu->run->immediate_exit, 0, __ATOMIC_RELAXED);
    }
}

/* The thread inherits a mask in which every signal is blocked; inside KVM_RUN the kick is not. */
static enum godwit_err thread_start(struct kvm_thread *thread, struct godwit_error *error)
{
    struct {
        struct kvm_signal_mask head;
        uint8_t set[KERNEL_SIGSET];
    } mask = {.head.len = KERNEL_SIGSET};
    sigset_t all, inside, before;
    sigfillset(&all);
    inside = all;
    sigdelset(&inside, THREADS_KICK);
    memcpy(mask.set, &inside, KERNEL_SIGSET);
    if (kvm_vm_ioctl(thread->cpu->fd, KVM_SET_SIGNAL_MASK, &mask) < 0)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot make processor %u of the guest interruptible",
                              thread->cpu->index);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int cause = pthread_create(&thread->thread, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (cause)
        return guest_fail_sys(error, GODWIT_ERR_NO_MEMORY, cause,
                              "cannot start the thread of processor %u of the guest", thread->cpu->index);
    return GODWIT_OK;
}

enum godwit_err kvm_threads_start(struct kvm_threads *threads, const struct kvm_cpu *cpus,
                                  const struct process_counters *plan, struct process_clock *clock,
                                  struct godwit_error *error)
{
    threads_prepare(threads, cpus, plan, clock);
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i < plan->threads && !err; i++) {
        err = thread_start(&threads->thread[i], error);
        threads->running += !err;
    }
    if (err)
        kvm_threads_stop(threads);
    return err;
}

/* Under lock. */
static void threads_kick(struct kvm_threads *threads)
{
    for (unsigned i = 0; i < threads->running; i++)
        pthread_kill(threads->thread[i].thread, THREADS_KICK);
}

static void threads_call(struct kvm_threads *threads, bool pause, bool quit)
{
    pthread_mutex_lock(&threads->lock);
    atomic_store_explicit(&threads->pause, pause, memory_order_relaxed);
    atomic_store_explicit(&threads->quit, quit, memory_order_relaxed);
    for (unsigned i = 0; i < threads->running; i++)
        __atomic_store_n(&threads->thread[i].cpu->run->immediate_exit, pause || quit, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&threads->wake);
    if (pause || quit)
        threads_kick(threads);
    pthread_mutex_unlock(&threads->lock);
}

static void threads_wait_parked(struct kvm_threads *threads)
{
    pthread_mutex_lock(&threads->lock);
    while (threads->parked_count < threads->running) {
        struct timespec until = at_ns(process_now() + THREADS_KICK_NS);
        if (pthread_cond_timedwait(&threads->parked, &threads->lock, &until) == ETIMEDOUT)
            threads_kick(threads);
    }
    pthread_mutex_unlock(&threads->lock);
}

void kvm_threads_stop(struct kvm_threads *threads)
{
    if (!threads->plan)
        return;
    /* First parked: a thread that runs could miss a lost kick, and nothing would repeat it during a join. */
    threads_call(threads, true, false);
    threads_wait_parked(threads);
    threads_call(threads, true, true);
    for (unsigned i = 0; i < threads->running; i++)
        pthread_join(threads->thread[i].thread, NULL);
    threads->running = 0;
    threads->plan = NULL;
    pthread_cond_destroy(&threads->parked);
    pthread_cond_destroy(&threads->wake);
    pthread_mutex_destroy(&threads->lock);
}

bool kvm_threads_started(const struct kvm_threads *threads)
{
    return threads->running > 0;
}

/* Steps since the last question, from the registers. */
static void thread_count(struct kvm_thread *thread)
{
    struct kvm_regs regs;
    uint64_t steps;
    if (kvm_vm_ioctl(thread->cpu->fd, KVM_GET_REGS, &regs) == 0 &&
        kvm_payload_steps(thread->all->plan, thread->cpu->index, &regs, &steps))
        atomic_store_explicit(&thread->steps, steps, memory_order_relaxed);
}

enum godwit_err kvm_threads_park(struct kvm_threads *threads, struct godwit_error *error)
{
    if (!kvm_threads_started(threads))
        return GODWIT_OK;
    threads_call(threads, true, false);
    threads_wait_parked(threads);
    for (unsigned i = 0; i < threads->running; i++)
        thread_count(&threads->thread[i]);
    for (unsigned i = 0; i < threads->running; i++)
        if (threads->thread[i].ended[0])
            return guest_fail(error, GODWIT_ERR_GUEST, "processor %u of the guest had ended: %s", i,
                              threads->thread[i].ended);
    return GODWIT_OK;
}

void kvm_threads_unpark(struct kvm_threads *threads)
{
    if (kvm_threads_started(threads))
        threads_call(threads, false, false);
}

void kvm_threads_counters(const struct kvm_threads *threads, struct process_counters *out)
{
    *out = *threads->plan;
    for (unsigned i = 0; i < out->threads; i++)
        out->steps[i] = atomic_load_explicit(&threads->thread[i].steps, memory_order_relaxed);
}
