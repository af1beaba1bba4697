/*
 * Registering the guest's memory at the destination: what the source will put pages into, in the order in which it says
 * so (REGISTER), by threads beside the receivers; each slice's KEY goes out as soon as it is there, and nobody waits
 * for it.
 *
 * Before LOADED the source loses its access: no put can land once the data channels are shut down. Channels and
 * registrations are freed when the guest runs: letting go of queue pairs and gigabytes takes long, and would be
 * downtime.
 *
 * Failure modes: memory that cannot be had or pinned fails the migration, with the block's name. Slices beyond
 * max-pinned are answered by a KEY without a key, and their pages come inline.
 */
#include "engine/destination.h"

#include <string.h>

#include "session/registration.h"
#include "transport/error.h"

static void slice_done(void *opaque, struct slice *slice)
{
    struct session *session = opaque;
    if (!slice->announced) /* registered up front; what the queue handed over makes it visible here */
        return;
    struct slice_key key = {.block = slice->block, .slice = slice_index(session->ram, slice)};
    uint8_t bytes[KEY_SIZE_MAX];
    if (slice->mr != NULL)
        mr_export(slice->mr, &key.key);
    struct iovec body = {bytes, slice_key_encode(&key, bytes)};
    control_send(session->control, RECORD_KEY, &body, 1, NULL); /* a failure ends the control connection too */
}

static void slice_failed(void *opaque, const struct godwit_error *error)
{
    session_fail(opaque, error);
}

/* The domain of the rail on which the source reached us. */
static enum godwit_err make_domain(struct session *session, struct godwit_error *error)
{
    struct godwit_destination *destination = session->destination;
    struct address address = destination->transports.data_address;
    struct domain *domain;
    if (session->local_host[0] != 0)
        memcpy(address.host, session->local_host, sizeof address.host);
    enum godwit_err err = transport_domain(destination->transports.data, &address, &domain, error);
    if (err != GODWIT_OK)
        return err;
    pthread_mutex_lock(&destination->lock);
    session->domain = domain;
    pthread_mutex_unlock(&destination->lock);
    return GODWIT_OK;
}

static enum godwit_err register_all(struct session *session, struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    for (uint32_t i = 0; i < session->ram->slice_count; i++)
        registrar_queue(session->registrar, &session->ram->slices[i]);
    while (err == GODWIT_OK && !registrar_wait(session->registrar, DESTINATION_TICK_MS))
        err = session_check(session, error);
    return err;
}

enum godwit_err session_register(struct session *session, struct godwit_error *error)
{
    struct godwit_destination *destination = session->destination;
    enum godwit_err err = make_domain(session, error);
    if (err == GODWIT_ERR_UNSUPPORTED)
        return GODWIT_OK;
    if (err != GODWIT_OK || (session->offer.features & FEATURE_PLACED) == 0)
        return err;
    if (!ram_cut(session->ram, session->offer.slice_size))
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to register memory");
    struct registrar_config config = {
        .ram = session->ram,
        .domain = session->domain,
        .access = REGION_REMOTE_WRITE,
        .populate = true,
        .max_pinned = destination_option(destination, "max-pinned"),
        .done = slice_done,
        .failed = slice_failed,
        .opaque = session,
    };
    struct registrar *registrar;
    err = registrar_start(&config, &registrar, error);
    if (err != GODWIT_OK)
        return err;
    pthread_mutex_lock(&destination->lock);
    session->registrar = registrar;
    session->acceptance.features |= FEATURE_PLACED;
    pthread_mutex_unlock(&destination->lock);
    return destination_option(destination, "rdma-pin-all") ? register_all(session, error) : GODWIT_OK;
}

/* Once per slice: who asks twice is not in control of what it puts where. */
static enum godwit_err take_run(struct session *session, const struct register_run *run, struct godwit_error *error)
{
    const struct ram *ram = session->ram;
    uint32_t count = run->block < ram->count ? ram->blocks[run->block].slice_count : 0;
    if (run->first >= count || run->slices > count - run->first)
        return error_set(error, GODWIT_ERR_PROTOCOL, "REGISTER of slices outside block %u", run->block);
    for (uint32_t i = 0; i < run->slices; i++) {
        struct slice *slice = &ram->blocks[run->block].slices[run->first + i];
        if (slice->announced)
            return error_set(error, GODWIT_ERR_PROTOCOL, "REGISTER of slice %u of block %u, a second time",
                             run->first + i, run->block);
        slice->announced = true;
        registrar_queue(session->registrar, slice);
    }
    return GODWIT_OK;
}

enum godwit_err session_take_register(struct session *session, const uint8_t *body, uint32_t size,
                                      struct godwit_error *error)
{
    struct register_run runs[REGISTER_RUNS_MAX];
    unsigned count = 0;
    if (session->recv == NULL || session->committed || (session->acceptance.features & FEATURE_PLACED) == 0)
        return error_set(error, GODWIT_ERR_PROTOCOL, "REGISTER without an agreement to place pages");
    enum godwit_err err = register_decode(body, size, runs, &count, error);
    for (unsigned i = 0; i < count && err == GODWIT_OK; i++)
        err = take_run(session, &runs[i], error);
    return err;
}
