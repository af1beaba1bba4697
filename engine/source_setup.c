/*
 * From a URI to running senders: connect and greet the control connection, arm the dirty log, find the holes, register
 * memory where the transport wants that (source_register.c), offer, wait for the acceptance, connect the data channels
 * with its tokens (source_channels.c).
 *
 * Order matters: holes are found after the log is armed, so a page that comes into being later is in the log.
 *
 * Failure modes: nothing here has touched the guest but the dirty log; the error says which step failed and why.
 */
#include <poll.h>
#include <string.h>

#include "engine/source.h"
#include "engine/transports.h"
#include "transport/clock.h"
#include "transport/error.h"
#include "transport/wire.h"

enum { RETRY_PAUSE_MS = 50, HANDSHAKE_TRIES = 3 };

/* By a copy: another thread may be setting options, and credentials come from a disk, for which nobody else waits. */
static enum godwit_err protect(struct godwit_source *source, struct godwit_error *error)
{
    pthread_mutex_lock(&source->lock);
    struct godwit_options *options = options_copy(source->options);
    pthread_mutex_unlock(&source->lock);
    if (options == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a migration");
    enum godwit_err err = transports_protect(&source->transports, options, GODWIT_SIDE_SOURCE, error);
    godwit_options_free(options);
    return err;
}

enum godwit_err source_address(struct godwit_source *source, const char *uri, struct godwit_error *error)
{
    struct address address;
    enum godwit_err err = address_parse(uri, &address, error);
    if (err != GODWIT_OK)
        return err;
    transports_release(&source->transports); /* of an attempt that failed */
    if (source->control_override == NULL)
        err = transports_find(&address, &source->transports, error);
    else
        transports_use(source->control_override, source->data_override, &address, &source->transports);
    if (err == GODWIT_OK)
        err = protect(source, error);
    if (err == GODWIT_OK && transports_unprotected(&source->transports) != NULL)
        source_emit(source, GODWIT_EVENT_WARNING, 0, transports_unprotected(&source->transports));
    return err;
}

/* Failures of a greeting that a second try may cure: the listener was short of something for a moment. A connection
 * that showed a ticket has used it up. */
static bool worth_retry(enum godwit_err err)
{
    return err == GODWIT_ERR_RESET || err == GODWIT_ERR_PEER_CLOSED || err == GODWIT_ERR_TIMEOUT;
}

static enum godwit_err greet(struct channel *channel, const struct hello *hello, int timeout_ms,
                             const atomic_bool *cancel, struct godwit_error *error)
{
    enum godwit_err err = hello_greet(channel, hello, timeout_ms, cancel, error);
    if (err != GODWIT_OK && channel_detail(channel)[0] != 0)
        error_set(error, err, "%s", channel_detail(channel));
    return err != GODWIT_OK ? error_prefix(error, "%s", channel_name(channel)) : err;
}

enum godwit_err source_connect(struct godwit_source *source, const struct hello *hello,
                               const struct introduction *introduction, int timeout_ms, const atomic_bool *cancel,
                               struct channel **out, struct godwit_error *error)
{
    const struct transports *to = &source->transports;
    bool data = hello->role == HELLO_DATA;
    int handshake = (int)source_option(source, "handshake-timeout");
    uint64_t deadline = clock_now_ms() + (uint64_t)timeout_ms;
    unsigned cut = 0; /* handshakes; a listener that cuts them all will not have us */
    for (*out = NULL;; *out = NULL) {
        enum godwit_err err =
            transport_connect(data ? to->data : to->control, data ? &to->data_address : &to->control_address,
                              introduction, clock_left_ms(deadline), cancel, out, error);
        if (err != GODWIT_OK && (!worth_retry(err) || ++cut == HANDSHAKE_TRIES))
            return err;
        if (err == GODWIT_OK)
            err = greet(*out, hello, handshake, cancel, error);
        if (err == GODWIT_OK)
            return err;
        if (!worth_retry(err) || introduction != NULL || clock_left_ms(deadline) == 0 || atomic_load(cancel))
            return err;
        channel_free(*out);
        poll(NULL, 0, RETRY_PAUSE_MS);
    }
}

/* ---- what the control thread reports ---- */

static enum godwit_err take_accept(struct godwit_source *source, const uint8_t *body, uint32_t size,
                                   struct godwit_error *error)
{
    if (source->accepted || source->offer.channels == 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "a second ACCEPT, or one before the OFFER");
    enum godwit_err err = acceptance_decode(body, size, &source->acceptance, error);
    if (err == GODWIT_OK)
        err = acceptance_check(&source->acceptance, &source->offer, error);
    source->accepted = err == GODWIT_OK;
    return err;
}

static enum godwit_err take_ack(struct godwit_source *source, const uint8_t *body, uint32_t size,
                                struct godwit_error *error)
{
    struct wire_in in = wire_in(body, size);
    uint32_t epoch = wire_get_u32(&in);
    uint64_t arrived = wire_get_u64(&in);
    /* Closed is not enough: an epoch whose marker some channel has not even sent cannot have arrived. */
    bool sent = source->send == NULL || epoch <= multifd_send_marked(source->send);
    if (in.failed || wire_left(&in) != 0 || !sent || !ledger_ack(&source->ledger, epoch, arrived, clock_now_ns()))
        return error_set(error, GODWIT_ERR_PROTOCOL, "EPOCH_ACK %u for an epoch that cannot have arrived", epoch);
    return GODWIT_OK;
}

/* A record without a body that must come at its time. */
static enum godwit_err take_signal(bool due, uint32_t size, bool *flag, uint16_t type, struct godwit_error *error)
{
    if (!due || *flag || size != 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "unexpected %s", record_name(type));
    *flag = true;
    return GODWIT_OK;
}

static enum godwit_err take_record(void *opaque, const struct record_header *header, const uint8_t *body,
                                   struct godwit_error *error)
{
    struct godwit_source *source = opaque;
    enum godwit_err err = GODWIT_OK;
    pthread_mutex_lock(&source->lock);
    switch (header->type) {
    case RECORD_ACCEPT:
        err = take_accept(source, body, header->size, error);
        break;
    case RECORD_KEY:
        err = source_take_key(source, body, header->size, error);
        break;
    case RECORD_EPOCH_ACK:
        err = take_ack(source, body, header->size, error);
        break;
    case RECORD_LOADED:
        err = take_signal(source->committed, header->size, &source->loaded, header->type, error);
        break;
    case RECORD_RUNNING:
        err = take_signal(source->run_written, header->size, &source->running, header->type, error);
        break;
    default:
        if (header->type < RECORD_OPTIONAL)
            err = error_set(error, GODWIT_ERR_PROTOCOL, "%s (type %u) from a destination", record_name(header->type),
                            header->type);
    }
    pthread_cond_broadcast(&source->changed);
    pthread_mutex_unlock(&source->lock);
    return err;
}

/* A thread of ours sits in control_send(): may it go on? */
static enum godwit_err check_sending(void *opaque, struct godwit_error *error)
{
    struct godwit_source *source = opaque;
    pthread_mutex_lock(&source->lock);
    enum godwit_err err = source_check_locked(source, error);
    pthread_mutex_unlock(&source->lock);
    return err;
}

static uint64_t own_progress(void *opaque)
{
    return 0; /* a destination does not ask for ours */
}

static void control_ended(void *opaque, const struct godwit_error *error)
{
    source_fail(opaque, error);
}

static void sender_failed(void *opaque, const struct godwit_error *error)
{
    source_fail(opaque, error);
}

/* ---- the steps ---- */

static enum godwit_err connect_control(struct godwit_source *source, struct godwit_error *error)
{
    struct hello hello = {.version = PROTOCOL_VERSION, .oldest = PROTOCOL_OLDEST, .role = HELLO_CONTROL};
    enum godwit_err err = token_random(source->session, sizeof source->session, error);
    if (err != GODWIT_OK)
        return err;
    memcpy(hello.session, source->session, sizeof hello.session);
    struct channel *channel;
    err = source_connect(source, &hello, NULL, (int)source_option(source, "connect-timeout"), &source->cancel,
                         &channel, error);
    if (err != GODWIT_OK) {
        channel_free(channel);
        return err;
    }
    struct control_config config = {
        .channel = channel,
        .heartbeat_ms = (int)source_option(source, "heartbeat-interval"),
        .peer_timeout_ms = (int)source_option(source, "peer-timeout"),
        .record = take_record,
        .check = check_sending,
        .progress = own_progress,
        .ended = control_ended,
        .opaque = source,
    };
    /* A name may have several addresses: data goes where control went. */
    if (transports_split(&source->transports) && source->transports.data_address.host[0] != '\0' &&
        channel_peer_host(channel)[0] != '\0')
        strcpy(source->transports.data_address.host, channel_peer_host(channel));
    err = control_start(&config, &source->control, error);
    if (err != GODWIT_OK)
        channel_free(channel);
    return err;
}

static enum godwit_err prepare_memory(struct godwit_source *source, struct godwit_error *error)
{
    struct ram *ram = ram_new(source->guest.blocks, source->guest.block_count, false);
    struct dirty *dirty = ram != NULL ? dirty_new(ram) : NULL;
    pthread_mutex_lock(&source->lock);
    source->ram = ram; /* freed by the cleanup, also on failure */
    source->dirty = dirty;
    if (dirty != NULL)
        source->info.ram.total = ram->pages << PAGE_SHIFT;
    pthread_mutex_unlock(&source->lock);
    if (dirty == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for the dirty bitmaps");

    enum godwit_err err = source_register_early(source, error);
    if (err == GODWIT_OK)
        err = guest_checked(source->guest.ops.dirty_start(source->guest.self, error), error,
                            "cannot start the dirty log");
    if (err != GODWIT_OK)
        return err;
    source->tracking = true;
    err = dirty_find_data(dirty, &source->guest, error);
    return err == GODWIT_OK ? source_register(source, error) : err;
}

static enum godwit_err make_offer(struct godwit_source *source, struct godwit_error *error)
{
    const struct ram *ram = source->ram;
    pthread_mutex_lock(&source->lock); /* take_accept() compares with it */
    source->offer = (struct offer){
        .features = (source->domain != NULL ? FEATURE_PLACED : 0u) |
                    (transports_rdma(&source->transports) ? FEATURE_RDMA : 0u),
        .channels = (uint16_t)godwit_options_get(source->options, "multifd-channels"),
        .page_size = GODWIT_PAGE_SIZE,
        .populated = source->dirty->pages << PAGE_SHIFT,
        .slice_size = ram->slice_size,
        .compression = "none",
        .block_count = (uint16_t)ram->count,
    };
    for (unsigned i = 0; i < ram->count; i++) {
        struct offer_block *block = &source->offer.blocks[i];
        memcpy(block->id, ram->blocks[i].id, sizeof block->id);
        block->size = ram->blocks[i].pages << PAGE_SHIFT;
        block->page_size = source->guest.blocks[i].page_size;
    }
    uint8_t bytes[OFFER_SIZE_MAX];
    struct iovec body = {bytes, offer_encode(&source->offer, bytes)};
    pthread_mutex_unlock(&source->lock);
    return control_send(source->control, RECORD_OFFER, &body, 1, error);
}

static enum godwit_err wait_accept(struct godwit_source *source, struct godwit_error *error)
{
    uint64_t deadline = clock_now_ms() + source_option(source, "setup-timeout");
    enum godwit_err err = GODWIT_OK;
    bool accepted = false;
    while (!accepted && err == GODWIT_OK) {
        pthread_mutex_lock(&source->lock);
        if (!source->accepted)
            source_wait_tick(source);
        accepted = source->accepted;
        pthread_mutex_unlock(&source->lock);
        err = source_check(source, error);
        if (err == GODWIT_OK && !accepted && clock_left_ms(deadline) == 0)
            err = error_set(error, GODWIT_ERR_TIMEOUT,
                            "the destination did not prepare its memory within setup-timeout");
    }
    if (err == GODWIT_OK)
        source->outcome_token = source->acceptance.tokens[source->offer.channels];
    return err;
}

static enum godwit_err start_senders(struct godwit_source *source, struct godwit_error *error)
{
    struct multifd_send_config config = {
        .ram = source->ram,
        .channels = source->channels,
        .count = source->channel_count,
        .rate = source->rate,
        .zero = source_option(source, "zero-page-detection") ? zero_test_select() : NULL,
        .placement = (source->acceptance.features & FEATURE_PLACED) != 0 ? source->placement : NULL,
        .progress_ms = (int)source_option(source, "progress-timeout"),
        .replace = transports_rdma(&source->transports) ? NULL : source_replace_data, /* docs/protocol.md §3.6 */
        .lifetime = source_option(source, "x-channel-lifetime"),
        .failed = sender_failed,
        .opaque = source,
    };
    struct multifd_send *send;
    enum godwit_err err = multifd_send_start(&config, &send, error);
    if (err != GODWIT_OK)
        return err;
    pthread_mutex_lock(&source->lock);
    source->send = send;
    source->info.channel_count = source->channel_count;
    source->channel_count = 0; /* they are the senders' now */
    pthread_mutex_unlock(&source->lock);
    return GODWIT_OK;
}

enum godwit_err source_setup(struct godwit_source *source, struct godwit_error *error)
{
    enum godwit_err err = connect_control(source, error);
    if (err == GODWIT_OK)
        err = prepare_memory(source, error);
    if (err == GODWIT_OK)
        err = make_offer(source, error);
    if (err == GODWIT_OK)
        err = wait_accept(source, error);
    if (err == GODWIT_OK)
        err = source_announce_slices(source, error);
    if (err == GODWIT_OK)
        err = source_connect_channels(source, error);
    if (err == GODWIT_OK)
        err = start_senders(source, error);
    return err;
}
