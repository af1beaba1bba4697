/*
 * The threads that run a KVM guest's processors: one each. They answer the payload's question for work at a set rate,
 * and processor 0 keeps the guest's clock.
 */
#ifndef GUEST_KVM_THREADS_H
#define GUEST_KVM_THREADS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <godwit/error.h>

#include "guest/kvm_cpu.h"
#include "guest/kvm_plan.h"
#include "guest/process_clock.h"
#include "guest/process_pace.h"

struct kvm_threads;

struct kvm_thread {
    _Alignas(64) _Atomic uint64_t steps; /* written by the thread, or while it is parked */
    struct kvm_threads *all;
    const struct kvm_cpu *cpu;
    struct process_pace pace;
    uint64_t rate; /* pages per second, its share */
    pthread_t thread;
    char ended[96]; /* why it runs no more, "" while it does; written before it is counted parked */
};

struct kvm_threads {
    /* Constant while threads run. */
    const struct process_counters *plan;
    struct process_clock *clock;
    unsigned running; /* threads to join */

    /* Under lock; each processor's immediate_exit too. pause and quit are also read without it, as a hint to look. */
    pthread_mutex_t lock;
    pthread_cond_t wake;   /* pause or quit changed; CLOCK_MONOTONIC */
    pthread_cond_t parked; /* parked_count changed */
    unsigned parked_count;
    _Atomic bool pause;
    _Atomic bool quit;

    struct kvm_thread thread[KVM_CPUS_MAX];
};

/*
 * Lets plan->threads processors run, from plan's steps, which are only counted from there. Processors, plan and clock
 * outlive the threads; *threads is all zeros or was stopped before. NO_MEMORY, SYSTEM; no thread is left then.
 */
enum godwit_err kvm_threads_start(struct kvm_threads *threads, const struct kvm_cpu *cpus,
                                  const struct process_counters *plan, struct process_clock *clock,
                                  struct godwit_error *error);

/* Ends and joins the threads, parked or not. Does nothing when none were started. */
void kvm_threads_stop(struct kvm_threads *threads);

bool kvm_threads_started(const struct kvm_threads *threads);

/*
 * When park returns no processor runs until unpark, and each one's registers are whole. GUEST when one had ended by
 * itself before, with the reason; all are parked then too.
 */
enum godwit_err kvm_threads_park(struct kvm_threads *threads, struct godwit_error *error);
void kvm_threads_unpark(struct kvm_threads *threads);

/* The plan with the steps of now. Only while started. */
void kvm_threads_counters(const struct kvm_threads *threads, struct process_counters *out);

#endif
