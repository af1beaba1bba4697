/* Device state of a KVM guest as bytes: the streams "cpu" and "clock". Big-endian, versioned, without padding. */
#ifndef GUEST_KVM_STATE_H
#define GUEST_KVM_STATE_H

#include <stddef.h>
#include <stdint.h>

#include <godwit/error.h>

#include "guest/kvm_cpu.h"
#include "guest/kvm_plan.h"
#include "guest/process_clock.h"

enum { KVM_CLOCK_STATE = 4 + 8 + PROCESS_CLOCK_STATE };

/* Bytes of the stream for so many processors. */
size_t kvm_cpus_state_size(unsigned cpus);

/* out has kvm_cpus_state_size(cpus) bytes. */
void kvm_cpus_encode(const struct kvm_cpu_state *states, unsigned cpus, uint8_t *out);

/*
 * Foreign bytes: as many processors as the plan has, every field in its range, and registers that the payload can have;
 * whether a processor accepts the rest is for the kernel to say. GUEST; *states and *steps are undefined then.
 */
enum godwit_err kvm_cpus_decode(struct kvm_cpu_state *states, uint64_t *steps, const struct process_counters *plan,
                                const void *data, size_t size, struct godwit_error *error);

/* kvm_ns: the machine's kvmclock. */
void kvm_clock_encode(uint64_t kvm_ns, const struct process_clock *clock, uint8_t out[KVM_CLOCK_STATE]);
enum godwit_err kvm_clock_decode(uint64_t *kvm_ns, struct process_clock *clock, const void *data, size_t size,
                                 uint64_t now_ns, struct godwit_error *error);

#endif
