/*
 * The KVM guest: a real virtual machine with several processors and a program of ours, no firmware and no operating
 * system. Each processor increments the first byte of every page of its share of memory, for ever, at a set rate.
 * Device state is the machine's plan, the processors' registers, and the clock. It plays both roles, source and
 * destination.
 *
 * Source: new, start, migrate, then kvm_guest_counters() is the truth at switchover. Destination: new, serve, then
 * kvm_guest_check() of kvm_guest_image() against kvm_guest_loaded(). Calls on one guest come from one thread at a time,
 * except that kvm_guest_gap(), kvm_guest_counters() and kvm_guest_alive() may be called from any thread while it runs.
 *
 * Where /dev/kvm cannot be used both kinds of new fail, naming it, the cause and the remedy.
 */
#ifndef GUEST_KVM_H
#define GUEST_KVM_H

#include <stdbool.h>
#include <stdint.h>

#include <godwit/guest.h>

#include "guest/incoming.h"
#include "guest/memory.h"
#include "guest/pattern.h"
#include "guest/process_check.h"
#include "guest/process_clock.h"
#include "guest/process_plan.h"

enum {
    KVM_GUEST_CPUS_MAX = PROCESS_WORKERS_MAX, /* the host may allow fewer */
    KVM_GUEST_CPUS = 2,
};

struct kvm_guest;

/* How the dirty log is cleared: the best the host offers, but no better than this. For tests. */
enum kvm_guest_clearing { KVM_GUEST_CLEARED_EAGERLY, KVM_GUEST_CLEARED_LAZILY, KVM_GUEST_CLEARED_BEST };

struct kvm_guest_config {
    uint64_t ram;         /* bytes, whole pages, at most 512 GiB */
    enum pattern pattern; /* not PATTERN_FILE; the first byte of every page is 0 */
    uint64_t dirty_rate;  /* bytes per second, as for a process guest; 0: the payload only asks */
    enum memory_backing backing;
    unsigned cpus; /* 1 to KVM_GUEST_CPUS_MAX */
    uint64_t seed;
    bool prealloc;
    enum kvm_guest_clearing clearing;
};

/* ram unset, random, no writes, memfd, KVM_GUEST_CPUS, seed 1. */
void kvm_guest_config_init(struct kvm_guest_config *config);

/* What new_source would say about the numbers, without making anything: INVALID with the remedy. */
enum godwit_err kvm_guest_config_check(const struct kvm_guest_config *config, struct godwit_error *error);

/* Allocates and fills memory, makes the machine: may block for long. INVALID, NO_MEMORY, SYSTEM, UNSUPPORTED. */
enum godwit_err kvm_guest_new_source(struct kvm_guest **out, const struct kvm_guest_config *config,
                                     struct godwit_error *error);

/* Memory comes with the migration's offer: exactly one block, "pc.ram". */
enum godwit_err kvm_guest_new_destination(struct kvm_guest **out, const struct incoming_config *config,
                                          struct godwit_error *error);

/* Source: lets the processors run. Once. */
enum godwit_err kvm_guest_start(struct kvm_guest *guest, struct godwit_error *error);

/* Ends the machine and gives the memory back. NULL is allowed. Not while a migration runs. */
void kvm_guest_free(struct kvm_guest *guest);

/* What the migration works on. Valid until kvm_guest_free. A destination's has no blocks: it accepts them. */
const struct godwit_guest *kvm_guest_interface(const struct kvm_guest *guest);

/*
 * The plan, a processor's steps for each thread's, no hot set. Exact when the guest is stopped, otherwise some pages
 * old.
 */
void kvm_guest_counters(const struct kvm_guest *guest, struct process_counters *out);

/* Destination: the counters the guest arrived with, false before they were loaded. */
bool kvm_guest_loaded(const struct kvm_guest *guest, struct process_counters *out);

/*
 * Destination: of each processor that has a rate, the first byte of the page that was its next on arrival has changed
 * in the memory that the machine runs on. False before it was resumed, and for a rate of 0.
 */
bool kvm_guest_alive(const struct kvm_guest *guest);

/* The memory that is migrated (source) or received into (destination); addr NULL before a destination has accepted. */
struct process_view kvm_guest_image(const struct kvm_guest *guest);

/* First byte of the memory that the machine runs on: a view of its own where the image is kept. */
void *kvm_guest_memory(const struct kvm_guest *guest);

void kvm_guest_gap(const struct kvm_guest *guest, struct process_gap *out);

/*
 * Is this memory what a guest with these counters leaves behind? QEMU's single-step rule for each processor's share;
 * then whether its place and the counters are those that the steps in the registers imply; then every page whole
 * against its initial content. *out is always written; MISMATCH describes the first that fails. Nobody writes the view
 * meanwhile. In as many threads as processors online.
 */
enum godwit_err kvm_guest_check(const struct process_view *view, const struct process_counters *counters,
                                struct process_check *out, struct godwit_error *error);

#endif
