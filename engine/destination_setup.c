/*
 * From a control connection to receivers that wait for their channels: start the control thread, check the OFFER, have
 * the guest give its memory, make ready to register it where the transport wants that, issue tokens, ACCEPT.
 *
 * Failure modes: whatever is wrong with the offer, the memory or the system is one error, which the source's user reads
 * too.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/destination.h"
#include "engine/host_memory.h"
#include "transport/error.h"
#include "transport/wire.h"

enum godwit_err session_start_control(struct session *session, struct godwit_error *error)
{
    struct godwit_destination *destination = session->destination;
    pthread_mutex_lock(&destination->lock);
    struct channel *channel = session->channel;
    session->channel = NULL;
    pthread_mutex_unlock(&destination->lock);
    strcpy(session->local_host, channel_local_host(channel));
    struct control_config config = {
        .channel = channel,
        .heartbeat_ms = (int)destination_option(destination, "heartbeat-interval"),
        .peer_timeout_ms = (int)destination_option(destination, "peer-timeout"),
        .record = records_take,
        .check = records_check,
        .progress = records_progress,
        .ended = records_ended,
        .opaque = session,
    };
    enum godwit_err err = control_start(&config, &session->control, error);
    if (err != GODWIT_OK)
        channel_free(channel);
    return err;
}

static enum godwit_err check_memory_given(const struct godwit_block *offered, const struct godwit_block *mine,
                                          unsigned count, struct godwit_error *error)
{
    for (unsigned i = 0; i < count; i++)
        if (strcmp(offered[i].id, mine[i].id) != 0 || offered[i].size != mine[i].size ||
            (uintptr_t)mine[i].addr % GODWIT_PAGE_SIZE != 0 || mine[i].addr == NULL)
            return error_set(error, GODWIT_ERR_GUEST, "the destination's guest gave no fitting memory for block %s",
                             offered[i].id);
    return GODWIT_OK;
}

static enum godwit_err accept_memory(struct session *session, struct ram **out, struct godwit_error *error)
{
    const struct guest *guest = &session->destination->guest;
    const struct offer *offer = &session->offer;
    unsigned count = offer->block_count;
    struct godwit_block *offered = calloc(2u * count, sizeof *offered);
    if (offered == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for %u blocks", count);
    struct godwit_block *mine = offered + count;
    for (unsigned i = 0; i < count; i++) {
        offered[i] = (struct godwit_block){
            .size = offer->blocks[i].size, .page_size = offer->blocks[i].page_size, .fd = -1};
        memcpy(offered[i].id, offer->blocks[i].id, sizeof offered[i].id);
    }
    uint64_t available = host_memory_available();
    enum godwit_err err = guest_accept(guest, offered, count, mine, error);
    if (err == GODWIT_OK) {
        session->accepted_memory = true;
        err = check_memory_given(offered, mine, count, error);
    }
    if (err == GODWIT_OK && guest->ops.accept != NULL)
        err = host_memory_check(mine, count, offer->populated, available, error);
    if (err == GODWIT_OK && (*out = ram_new(mine, count, true)) == NULL)
        err = error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for the received bitmaps");
    free(offered);
    return err;
}

static enum godwit_err issue_tokens(struct session *session, struct godwit_error *error)
{
    struct acceptance *acceptance = &session->acceptance;
    enum godwit_err err = GODWIT_OK;
    for (unsigned i = 0; i <= session->offer.channels && err == GODWIT_OK; i++) {
        bool data = i < session->offer.channels;
        err = token_issue(&acceptance->tokens[i], data ? HELLO_DATA : HELLO_CONTROL, data ? (uint16_t)i : 0,
                          data ? 0 : 1, error);
    }
    acceptance->token_count = session->offer.channels + 1;
    return err;
}

static enum godwit_err send_accept(struct session *session, struct godwit_error *error)
{
    struct acceptance *acceptance = &session->acceptance;
    uint8_t bytes[ACCEPT_SIZE_MAX];
    pthread_mutex_lock(&session->destination->lock);
    acceptance->channels = session->offer.channels;
    acceptance->block_count = session->offer.block_count;
    for (unsigned i = 0; i < session->ram->count; i++)
        acceptance->fresh[i] = session->ram->blocks[i].fresh;
    struct iovec body = {bytes, acceptance_encode(acceptance, bytes)};
    pthread_mutex_unlock(&session->destination->lock);
    return control_send(session->control, RECORD_ACCEPT, &body, 1, error);
}

enum godwit_err session_answer_offer(struct session *session, struct godwit_error *error)
{
    struct godwit_destination *destination = session->destination;
    pthread_mutex_lock(&destination->lock);
    unsigned channels = godwit_options_is_set(destination->options, "multifd-channels")
                            ? (unsigned)godwit_options_get(destination->options, "multifd-channels")
                            : 0;
    pthread_mutex_unlock(&destination->lock);
    bool rdma = transports_rdma(&destination->transports);
    enum godwit_err err =
        offer_check(&session->offer, channels, rdma, destination->transports.data_address.scheme, error);
    if (err == GODWIT_OK)
        err = issue_tokens(session, error);
    if (err != GODWIT_OK)
        return err;
    session->acceptance.features = rdma ? FEATURE_RDMA : 0;
    struct ram *ram = NULL;
    err = accept_memory(session, &ram, error);
    if (err != GODWIT_OK)
        return err;
    pthread_mutex_lock(&destination->lock);
    session->ram = ram;
    pthread_mutex_unlock(&destination->lock);
    err = session_register(session, error);
    if (err != GODWIT_OK)
        return err;
    struct multifd_recv_config config = {
        .ram = ram,
        .count = session->offer.channels,
        .placed = (session->acceptance.features & FEATURE_PLACED) != 0,
        .progress_ms = (int)destination_option(destination, "progress-timeout"),
        .marker = records_marker,
        .failed = records_receiver_failed,
        .opaque = session,
    };
    struct multifd_recv *recv = multifd_recv_new(&config);
    pthread_mutex_lock(&destination->lock);
    session->recv = recv;
    if (recv != NULL)
        past_add(destination, session, &session->acceptance.tokens[session->offer.channels]);
    pthread_mutex_unlock(&destination->lock);
    if (recv == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for %u receivers", config.count);
    return send_accept(session, error);
}
