/*
 * The state of the fake: start, stop, counts, the rules for faults, and what all parts need. A substitute for libraries
 * that have global state has to have it too: it is one object, `fake`, and nothing else is shared.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/rdma/fake_private.h"
#include "transport/clock.h"

struct fake fake = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .work = PTHREAD_COND_INITIALIZER};

void fake_setup_init(struct fake_setup *setup)
{
    *setup = (struct fake_setup){
        .seed = 1,
        .limits = {.max_qp_wr = 1 << 20,
                   .max_sge = FAKE_MAX_SGE,
                   .max_cqe = 32767,
                   .max_rd_atomic = 128,
                   .max_inline = 512,
                   .max_msg = 8 << 20,
                   .max_pinned = UINT64_MAX},
        .devices =
            {{.name = "fake0", .addresses = {"127.0.0.1", "::1"}, .mtu = IBV_MTU_4096, .state = IBV_PORT_ACTIVE}},
        .delay_us = 200,
        .retry_ms = 60,
        .rnr_ms = 1,
        .cm_delay_us = 500,
        .cm_resend_ms = 200,
        .cm_resends = 15,
    };
}

static void start(const struct fake_setup *setup)
{
    fake.started = true;
    fake.stopping = false;
    fake.setup = *setup;
    fake.random = setup->seed;
    fake.next_key = 0x101; /* not 0, and not the numbers of queue pairs */
    fake.next_qp = 0x11;
    fake.next_id = 1;
    fake.next_port = 40000;
    fake.hole_at = FAKE_NEVER;
    fake.removed = false;
    fake_devices_init();
}

void fake_verbs_start(const struct fake_setup *setup)
{
    pthread_mutex_lock(&fake.lock);
    if (fake.started)
        fake_die("started twice");
    start(setup);
    pthread_mutex_unlock(&fake.lock);
}

void fake_enter(void)
{
    pthread_mutex_lock(&fake.lock);
    if (fake.started)
        return;
    struct fake_setup setup;
    fake_setup_init(&setup);
    start(&setup);
}

void fake_leave(void)
{
    pthread_mutex_unlock(&fake.lock);
}

static unsigned total(const struct fake_living *l)
{
    return l->contexts + l->pds + l->mrs + l->comp_channels + l->cqs + l->qps + l->event_channels + l->ids + l->unacked;
}

void fake_verbs_stop(void)
{
    pthread_mutex_lock(&fake.lock);
    const struct fake_living *l = &fake.living;
    if (total(l))
        fake_die("left behind: %u contexts, %u PDs, %u MRs, %u completion channels, %u CQs, %u QPs, %u event channels, "
                 "%u ids, %u unacknowledged events",
                 l->contexts, l->pds, l->mrs, l->comp_channels, l->cqs, l->qps, l->event_channels, l->ids, l->unacked);
    if (fake.started) {
        fake_wire_stop();
        fake_messages_drop(NULL);
        fake_devices_fini();
        assert(LIST_EMPTY(&fake.ids) && "a request that was not fetched went with its listener");
        fake.started = false;
        fake.cm_silent = false;
        fake.rnr = 0;
        memset(fake.executed, 0, sizeof fake.executed);
        memset(fake.call_rules, 0, sizeof fake.call_rules);
        memset(fake.wr_rules, 0, sizeof fake.wr_rules);
        memset(fake.step_rules, 0, sizeof fake.step_rules);
    }
    pthread_mutex_unlock(&fake.lock);
}

struct fake_living fake_verbs_living(void)
{
    fake_enter();
    struct fake_living living = fake.living;
    fake_leave();
    return living;
}

unsigned fake_verbs_living_total(void)
{
    struct fake_living living = fake_verbs_living();
    return total(&living);
}

uint64_t fake_verbs_rnr_count(void)
{
    fake_enter();
    uint64_t count = fake.rnr;
    fake_leave();
    return count;
}

uint64_t fake_verbs_executed(enum fake_wr_kind kind)
{
    fake_enter();
    uint64_t count = 0;
    for (unsigned i = 0; i < FAKE_WR_ANY; i++)
        count += kind == FAKE_WR_ANY || kind == i ? fake.executed[i] : 0;
    fake_leave();
    return count;
}

void fake_fail_call(enum fake_call call, uint64_t skip, uint64_t times, int error)
{
    fake_enter();
    struct fake_call_rule *rule = &fake.call_rules[call];
    rule->skip = skip;
    rule->times = times;
    rule->error = error;
    fake_leave();
}

uint64_t fake_calls(enum fake_call call)
{
    fake_enter();
    uint64_t calls = fake.call_rules[call].calls;
    fake_leave();
    return calls;
}

int fake_call(enum fake_call call)
{
    struct fake_call_rule *rule = &fake.call_rules[call];
    rule->calls++;
    if (!rule->times)
        return 0;
    if (rule->skip) {
        rule->skip--;
        return 0;
    }
    if (rule->times != FAKE_NEVER)
        rule->times--;
    return rule->error;
}

void fake_fail_wr(enum fake_wr_kind kind, uint64_t skip, enum ibv_wc_status status)
{
    fake_enter();
    fake.wr_rules[kind] = (struct fake_wr_rule){true, skip, status};
    fake_leave();
}

void fake_black_hole(uint64_t skip)
{
    fake_enter();
    fake.hole_at = skip;
    fake_wire_wake();
    fake_leave();
}

void fake_answer_step(enum fake_step step, int event, int status, const void *data, size_t size)
{
    fake_enter();
    struct fake_step_rule *rule = &fake.step_rules[step];
    *rule = (struct fake_step_rule){.set = true, .event = event, .status = status, .size = size};
    if (size)
        memcpy(rule->data, data, size);
    fake_leave();
}

void fake_cm_silent(bool silent)
{
    fake_enter();
    fake.cm_silent = silent;
    fake_leave();
}

uint64_t fake_random(uint64_t below)
{
    uint64_t z = fake.random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return below ? (z ^ z >> 31) % below : 0;
}

void fake_await_acks(const unsigned *count, const char *whose)
{
    struct timespec until = clock_timespec(clock_now_ns() + (uint64_t)FAKE_ACK_PATIENCE_MS * 1000000u);
    while (*count) {
        if (pthread_cond_clockwait(&fake.changed, &fake.lock, CLOCK_MONOTONIC, &until) == ETIMEDOUT)
            fake_die("destroying %s waits for %u events that nobody acknowledges", whose, *count);
    }
}

void fake_die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("fake verbs: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

int fake_fd_new(void)
{
    return eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
}

void fake_fd_post(int fd)
{
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) != sizeof one)
        fake_die("cannot post to descriptor %d: was it closed?", fd);
}

int fake_fd_take(int fd)
{
    uint64_t one;
    return read(fd, &one, sizeof one) == sizeof one ? 0 : -1;
}
