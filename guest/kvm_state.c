/*
 * One table names every field that travels, in order; encoding and decoding walk it. Fields of the kernel's structs
 * that are padding stay zero.
 *
 * mxcsr is not in the table: KVM_GET_FPU does not read it and KVM_SET_FPU does not write it.
 */
#include "guest/kvm_state.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "guest/guest_error.h"
#include "guest/kvm_payload.h"
#include "guest/state_codec.h"

enum { CPUS_VERSION = 1, CLOCK_VERSION = 1 };

struct field {
    size_t offset; /* within struct kvm_cpu_state */
    unsigned size; /* of an element */
    unsigned count;
    uint64_t most; /* largest value an element may have */
};

#define SIZE_OF(member) (unsigned)sizeof(((struct kvm_cpu_state *)0)->member)
#define UP_TO(member, most) {offsetof(struct kvm_cpu_state, member), SIZE_OF(member), 1, most}
#define ANY(member) UP_TO(member, UINT64_MAX)
#define ARRAY(member, element, most) \
    {offsetof(struct kvm_cpu_state, member), sizeof(element), SIZE_OF(member) / sizeof(element), most}
#define SEGMENT(name)                                                                                              \
    ANY(sregs.name.base), ANY(sregs.name.limit), ANY(sregs.name.selector), UP_TO(sregs.name.type, 15),             \
        UP_TO(sregs.name.present, 1), UP_TO(sregs.name.dpl, 3), UP_TO(sregs.name.db, 1), UP_TO(sregs.name.s, 1),   \
        UP_TO(sregs.name.l, 1), UP_TO(sregs.name.g, 1), UP_TO(sregs.name.avl, 1), UP_TO(sregs.name.unusable, 1)

static const struct field fields[] = {
    ANY(regs.rax), ANY(regs.rbx), ANY(regs.rcx), ANY(regs.rdx), ANY(regs.rsi), ANY(regs.rdi), ANY(regs.rsp),
    ANY(regs.rbp), ANY(regs.r8), ANY(regs.r9), ANY(regs.r10), ANY(regs.r11), ANY(regs.r12), ANY(regs.r13),
    ANY(regs.r14), ANY(regs.r15), ANY(regs.rip), ANY(regs.rflags),
    SEGMENT(cs), SEGMENT(ds), SEGMENT(es), SEGMENT(fs), SEGMENT(gs), SEGMENT(ss), SEGMENT(tr), SEGMENT(ldt),
    ANY(sregs.gdt.base), ANY(sregs.gdt.limit), ANY(sregs.idt.base), ANY(sregs.idt.limit),
    ANY(sregs.cr0), ANY(sregs.cr2), ANY(sregs.cr3), ANY(sregs.cr4), UP_TO(sregs.cr8, 15), ANY(sregs.efer),
    ANY(sregs.apic_base), ARRAY(sregs.interrupt_bitmap, uint64_t, 0), /* nothing interrupts the payload */
    ARRAY(fpu.fpr, uint8_t, UINT64_MAX), ANY(fpu.fcw), ANY(fpu.fsw), ANY(fpu.ftwx), ANY(fpu.last_opcode),
    ANY(fpu.last_ip), ANY(fpu.last_dp), ARRAY(fpu.xmm, uint8_t, UINT64_MAX),
    UP_TO(mp.mp_state, KVM_MP_STATE_RUNNABLE), /* the payload never halts */
};

enum { FIELDS = sizeof fields / sizeof fields[0] };

_Static_assert(KVM_MP_STATE_RUNNABLE == 0, "the largest allowed state is the only one");

static uint64_t take_number(const void *at, unsigned size)
{
    switch (size) {
    case 1: return *(const uint8_t *)at;
    case 2: return *(const uint16_t *)at;
    case 4: return *(const uint32_t *)at;
    default: return *(const uint64_t *)at;
    }
}

static void place_number(void *at, unsigned size, uint64_t value)
{
    switch (size) {
    case 1: *(uint8_t *)at = (uint8_t)value; break;
    case 2: *(uint16_t *)at = (uint16_t)value; break;
    case 4: *(uint32_t *)at = (uint32_t)value; break;
    default: *(uint64_t *)at = value;
    }
}

size_t kvm_cpus_state_size(unsigned cpus)
{
    size_t size = 0;
    for (unsigned i = 0; i < FIELDS; i++)
        size += (size_t)fields[i].size * fields[i].count;
    return 4 + 4 + cpus * size;
}

void kvm_cpus_encode(const struct kvm_cpu_state *states, unsigned cpus, uint8_t *out)
{
    struct state_cursor cursor = {out, out + kvm_cpus_state_size(cpus), false};
    state_put(&cursor, CPUS_VERSION, 4);
    state_put(&cursor, cpus, 4);
    for (unsigned cpu = 0; cpu < cpus; cpu++)
        for (const struct field *field = fields; field < fields + FIELDS; field++)
            for (unsigned i = 0; i < field->count; i++)
                state_put(&cursor,
                          take_number((const char *)&states[cpu] + field->offset + i * field->size, field->size),
                          field->size);
    assert(!cursor.bad && cursor.at == cursor.end && "the size is the sum of the fields");
}

/* False: a field is out of its range. */
static bool decode_cpu(struct kvm_cpu_state *state, struct state_reader *reader)
{
    *state = (struct kvm_cpu_state){0};
    bool good = true;
    for (const struct field *field = fields; field < fields + FIELDS; field++)
        for (unsigned i = 0; i < field->count; i++) {
            uint64_t value = state_get(reader, field->size);
            good = good && value <= field->most;
            place_number((char *)state + field->offset + i * field->size, field->size, value);
        }
    return good;
}

enum godwit_err kvm_cpus_decode(struct kvm_cpu_state *states, uint64_t *steps, const struct process_counters *plan,
                                const void *data, size_t size, struct godwit_error *error)
{
    struct state_reader reader = {data, (const uint8_t *)data + size, false};
    uint64_t version = state_get(&reader, 4), cpus = state_get(&reader, 4);
    if (!reader.bad && version != CPUS_VERSION)
        return guest_fail(error, GODWIT_ERR_GUEST,
                          "the guest's processors have state of version %" PRIu64 ", this side knows %d", version,
                          CPUS_VERSION);
    if (reader.bad || cpus != plan->threads || size != kvm_cpus_state_size(plan->threads))
        return guest_fail(error, GODWIT_ERR_GUEST,
                          "the state of the guest's processors has %zu bytes for %" PRIu64
                          " of them; the machine has %u, which take %zu",
                          size, cpus, plan->threads, kvm_cpus_state_size(plan->threads));
    for (unsigned cpu = 0; cpu < plan->threads; cpu++)
        if (!decode_cpu(&states[cpu], &reader) || !kvm_payload_steps(plan, cpu, &states[cpu].regs, &steps[cpu]))
            return guest_fail(error, GODWIT_ERR_GUEST, "processor %u of the guest has impossible registers", cpu);
    assert(state_done(&reader) && "the size was checked");
    return GODWIT_OK;
}

void kvm_clock_encode(uint64_t kvm_ns, const struct process_clock *clock, uint8_t out[KVM_CLOCK_STATE])
{
    struct state_cursor cursor = {out, out + KVM_CLOCK_STATE, false};
    uint8_t own[PROCESS_CLOCK_STATE];
    process_clock_save(clock, own);
    state_put(&cursor, CLOCK_VERSION, 4);
    state_put(&cursor, kvm_ns, 8);
    state_put_bytes(&cursor, own, sizeof own);
}

enum godwit_err kvm_clock_decode(uint64_t *kvm_ns, struct process_clock *clock, const void *data, size_t size,
                                 uint64_t now_ns, struct godwit_error *error)
{
    struct state_reader reader = {data, (const uint8_t *)data + size, false};
    uint8_t own[PROCESS_CLOCK_STATE];
    uint64_t version = state_get(&reader, 4), value = state_get(&reader, 8);
    state_get_bytes(&reader, own, sizeof own);
    if (!state_done(&reader))
        return guest_fail(error, GODWIT_ERR_GUEST, "the KVM clock has %zu bytes of state instead of %d", size,
                          KVM_CLOCK_STATE);
    if (version != CLOCK_VERSION || value > INT64_MAX)
        return guest_fail(error, GODWIT_ERR_GUEST,
                          "the KVM clock has state of version %" PRIu64 ", or an impossible time", version);
    enum godwit_err err = process_clock_load(clock, own, sizeof own, now_ns, error);
    if (!err)
        *kvm_ns = value;
    return err;
}
