#include "tests/engine/tap.h"

#include <stdlib.h>
#include <string.h>

#include "session/record.h"
#include "transport/error.h"

struct tap_channel {
    struct channel base;
    struct channel *inner;
    struct tap *tap;
    struct hello hello;
    bool greeted; /* sending thread: the hello has passed */
    atomic_bool lost;

    /* receiving thread: the answer, then records, however they are cut into calls */
    bool answered, cut_next;
    uint8_t bytes[ANSWER_SIZE];
    size_t have, skip; /* bytes of a head so far; bytes of text or body still to come */
};

static enum godwit_err cut(struct tap_channel *self)
{
    channel_shutdown(self->inner);
    return GODWIT_ERR_RESET;
}

static enum tap_verdict judge(struct tap_channel *self, bool received, const uint8_t *head, size_t size)
{
    struct tap_event event = {.hello = self->hello, .received = received, .inner = self->inner, .head = head};
    struct record_header header;
    if (!self->tap->rule)
        return TAP_PASS;
    if (self->hello.role == HELLO_DATA) {
        if (size < PACKET_HEADER_SIZE || packet_decode(head, &event.packet, NULL) != GODWIT_OK)
            return TAP_PASS;
        event.type = (uint16_t)event.packet.type;
    } else {
        if (size != RECORD_HEADER_SIZE || record_header_decode(head, &header, NULL) != GODWIT_OK)
            return TAP_PASS;
        event.type = header.type;
    }
    return self->tap->rule(self->tap->opaque, &event);
}

static enum godwit_err tap_send(struct channel *channel, const void *head, size_t head_size,
                                const struct iovec *payload, unsigned count, int timeout_ms)
{
    struct tap_channel *self = (struct tap_channel *)channel;
    enum tap_verdict verdict = TAP_PASS;
    if (!self->greeted)
        self->greeted = head_size == HELLO_SIZE && hello_decode(head, &self->hello, NULL) == GODWIT_OK;
    else
        verdict = judge(self, false, head, head_size);
    if (verdict == TAP_SWALLOW)
        return GODWIT_OK;
    if (verdict == TAP_CUT)
        return cut(self);
    if (verdict == TAP_LOSE)
        atomic_store(&self->lost, true);
    if (atomic_load(&self->lost))
        return GODWIT_ERR_RESET;
    enum godwit_err err = channel_send(self->inner, head, head_size, payload, count, timeout_ms);
    if (verdict == TAP_CUT_AFTER && !err)
        err = channel_flush(self->inner, timeout_ms);
    return verdict == TAP_CUT_AFTER ? cut(self) : err;
}

/* A head is complete. Returns what the rule says of a record. */
static enum tap_verdict take_head(struct tap_channel *self)
{
    struct record_header header = {.size = 0};
    size_t size = self->have;
    self->have = 0;
    if (!self->answered) {
        self->answered = true;
        hello_answer_text_size(self->bytes, &self->skip, NULL);
        return TAP_PASS;
    }
    record_header_decode(self->bytes, &header, NULL);
    self->skip = header.size;
    return judge(self, true, self->bytes, size);
}

/* Follows the stream of a control connection. */
static enum tap_verdict follow(struct tap_channel *self, const uint8_t *bytes, size_t size)
{
    enum tap_verdict verdict = TAP_PASS;
    while (size > 0 && verdict == TAP_PASS) {
        size_t step = size < self->skip ? size : self->skip;
        self->skip -= step;
        bytes += step;
        size -= step;
        size_t whole = self->answered ? RECORD_HEADER_SIZE : ANSWER_SIZE;
        for (; size > 0 && self->skip == 0 && self->have < whole; size--)
            self->bytes[self->have++] = *bytes++;
        if (self->have == whole)
            verdict = take_head(self);
    }
    return verdict;
}

static enum godwit_err tap_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    struct tap_channel *self = (struct tap_channel *)channel;
    struct iovec first = iov[0]; /* the array is scratch space */
    if (self->cut_next)
        return cut(self);
    if (atomic_load(&self->lost))
        return GODWIT_ERR_RESET;
    enum godwit_err err = channel_recv(self->inner, iov, count, timeout_ms);
    if (err || self->hello.role == HELLO_DATA)
        return err;
    enum tap_verdict verdict = follow(self, first.iov_base, first.iov_len);
    self->cut_next = verdict == TAP_CUT_AFTER;
    return verdict == TAP_CUT ? cut(self) : GODWIT_OK;
}

static enum godwit_err tap_put(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                               const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    return channel_put(((struct tap_channel *)channel)->inner, mr, mr_offset, remote, remote_offset, size);
}

static enum godwit_err tap_get(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                               const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    return channel_get(((struct tap_channel *)channel)->inner, mr, mr_offset, remote, remote_offset, size);
}

static enum godwit_err tap_flush(struct channel *channel, int timeout_ms)
{
    struct tap_channel *self = (struct tap_channel *)channel;
    if (self->tap->before_flush)
        self->tap->before_flush(self->tap->opaque, &self->hello);
    return channel_flush(self->inner, timeout_ms);
}

static void tap_shutdown(struct channel *channel)
{
    struct tap_channel *self = (struct tap_channel *)channel;
    if (!atomic_load(&self->lost)) /* else its reader looks for itself before long */
        channel_shutdown(self->inner);
}

static void tap_free(struct channel *channel)
{
    struct tap_channel *self = (struct tap_channel *)channel;
    if (atomic_load(&self->lost))
        atomic_store(&self->tap->lost, self->inner);
    else
        channel_free(self->inner);
    free(channel);
}

static const struct channel_ops tap_channel_ops = {
    .name = "tap",
    .handshake = channel_handshake_wrapped,
    .send = tap_send,
    .recv = tap_recv,
    .recv_some = channel_recv_one_byte,
    .put = tap_put,
    .get = tap_get,
    .flush = tap_flush,
    .shutdown = tap_shutdown,
    .free = tap_free,
};

static enum godwit_err tap_connect(void *context, const struct address *address,
                                   const struct introduction *introduction, int timeout_ms, const atomic_bool *cancel,
                                   struct channel **out, struct godwit_error *error)
{
    struct tap *tap = context;
    if (tap->before_connect)
        tap->before_connect(tap->opaque, cancel);
    if (atomic_load(&tap->refuse))
        return error_set(error, GODWIT_ERR_REFUSED, "nobody is there any more");
    struct tap_channel *self = calloc(1, sizeof *self);
    enum godwit_err err = transport_connect(tap->inner, address, introduction, timeout_ms, cancel, &self->inner, error);
    if (err) {
        free(self);
        return err;
    }
    self->base.ops = &tap_channel_ops;
    self->base.limits = self->inner->limits;
    self->base.wrapped = self->inner;
    memcpy(self->base.name, self->inner->name, sizeof self->base.name);
    self->tap = tap;
    *out = &self->base;
    return GODWIT_OK;
}

static enum godwit_err tap_listen(void *context, const struct address *address, unsigned backlog, struct listener **out,
                                  struct backlog_warning *warning, struct godwit_error *error)
{
    return transport_listen(((struct tap *)context)->inner, address, backlog, out, warning, error);
}

static enum godwit_err tap_domain(void *context, const struct address *address, struct domain **out,
                                  struct godwit_error *error)
{
    const struct tap *tap = context;
    enum godwit_err err = transport_domain(tap->inner, address, out, error);
    if (err || !tap->watch)
        return err;
    *out = watched_domain_new(*out, tap->watch, tap->watch_opaque);
    return *out ? GODWIT_OK : error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a domain");
}

void tap_init(struct tap *tap, const struct transport *inner, tap_rule *rule, void *opaque)
{
    *tap = (struct tap){.inner = inner, .rule = rule, .opaque = opaque};
    tap->ops = (struct transport_ops){
        .scheme = inner->ops->scheme, .connect = tap_connect, .listen = tap_listen, .domain = tap_domain};
    tap->transport = (struct transport){&tap->ops, tap};
    atomic_init(&tap->refuse, false);
}

void tap_fini(struct tap *tap)
{
    channel_free(atomic_exchange(&tap->lost, NULL));
}
