/*
 * The program that runs in a KVM guest, the machine it expects, and what its registers mean.
 *
 * 64-bit mode, paging on, memory mapped one to one by 2 MiB pages, no interrupts, no stack. It asks the host, by
 * reading 32 bits from a port, how many pages are due; zero means: ask again. So the host paces it, and each question
 * is a sign of life. x86-64 hosts only.
 */
#ifndef GUEST_KVM_PAYLOAD_H
#define GUEST_KVM_PAYLOAD_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#include "guest/kvm_plan.h"

enum { KVM_PAYLOAD_PORT = 0x600 };

/* What a page (4096 bytes, 8-byte aligned) holds before the guest runs. */
void kvm_payload_page(const struct process_counters *plan, uint64_t page, void *out);

/* The same for memory that reads as zero so far; pages of pattern zero stay holes. In parallel. */
enum godwit_err kvm_payload_fill(const struct process_counters *plan, void *addr, int fd, struct godwit_error *error);

/* Registers of a processor before its first step. *sregs holds what KVM gave the processor. */
void kvm_payload_start(const struct process_counters *plan, unsigned cpu, struct kvm_regs *regs,
                       struct kvm_sregs *sregs);

/*
 * How many pages the processor has incremented. False for registers that the payload cannot have, which is how
 * foreign ones are recognised.
 */
bool kvm_payload_steps(const struct process_counters *plan, unsigned cpu, const struct kvm_regs *regs, uint64_t *steps);

#endif
