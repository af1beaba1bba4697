/*
 * Registering the guest's memory at the source, where the transport puts pages straight into the destination's.
 *
 * Only slices in which a page exists are registered, in the order in which the first pass walks them, while it walks
 * them; the destination is told in the same order (REGISTER) and registers its side. A slice in which a page comes into
 * being later follows after the dirty log sync that shows it. No slice is registered for the stop phase: a registration
 * takes longer than the few pages that are left.
 *
 * The order of registering and tracking. A device that pins memory asks the kernel for a writable page, so pinning
 * takes a write fault like any store, and a tracker that sits in the page tables of the guest's mapping (write
 * protection, or soft-dirty marks) sees a page written that nobody wrote; a fault tracker without privileges even lets
 * the pin fail. So what is registered is a second mapping of the same memory, made here: same pages, page tables of its
 * own, of which no tracker knows. Nothing is written through it. A KVM dirty log is in the nested page tables and sees
 * neither. Then registering may overlap with tracking and sending. Private anonymous memory can be mapped once only.
 * There whatever exists before the log is armed is registered before it is armed; what comes into being later travels
 * inline. Registering makes the pages of a slice that did not exist: they read as zeros, which is what was announced of
 * them. So which pages exist is asked before, where that can be: a page that a pin made would have to be looked at.
 * With rdma-pin-all, too, only slices in which a page exists are announced: whether the others come into being at the
 * destination is for it to say.
 *
 * Failure modes: memory that cannot be pinned (RLIMIT_MEMLOCK, a file system that does not allow it) fails the
 * migration with the words of the transport. Going on inline would hide that the link is used at a fraction of its
 * speed.
 */
#include "engine/slices.h"
#include "engine/source.h"
#include "session/registration.h"
#include "transport/error.h"

static void slice_done(void *opaque, struct slice *slice)
{
    struct godwit_source *source = opaque;
    placement_registered(source->placement, slice);
}

static void slice_failed(void *opaque, const struct godwit_error *error)
{
    source_fail(opaque, error);
}

static bool pins_all(struct godwit_source *source)
{
    return source_option(source, "rdma-pin-all") != 0;
}

/* Small ones use a bound on pinned memory best; and which pages exist is not known early of every block. */
static uint32_t slice_size(struct godwit_source *source, bool early)
{
    uint64_t bytes = source->ram->pages << PAGE_SHIFT, bound = source_option(source, "max-pinned");
    bool all = pins_all(source);
    if ((bound != 0 && bound < bytes) || (early && !all))
        return slices_size_least(bytes);
    return slices_size(source->dirty, all);
}

/* Cuts the memory, and starts who registers it. */
static enum godwit_err start_registrar(struct godwit_source *source, bool early, struct godwit_error *error)
{
    struct ram *ram = source->ram;
    /* Waiting for a key is no progress: it ends long before that is missed. */
    uint64_t most = source_option(source, "progress-timeout") / 4;
    struct placement *placement = placement_new(most < PLACEMENT_PATIENCE_MS ? (unsigned)most : PLACEMENT_PATIENCE_MS);
    bool cut = placement != NULL && ram_cut(ram, slice_size(source, early));
    pthread_mutex_lock(&source->lock);
    source->placement = placement; /* freed by the cleanup, also on failure */
    pthread_mutex_unlock(&source->lock);
    if (!cut)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory to register memory");
    struct registrar_config config = {
        .ram = ram,
        .domain = source->domain,
        .access = REGION_LOCAL,
        .max_pinned = source_option(source, "max-pinned"),
        .done = slice_done,
        .failed = slice_failed,
        .opaque = source,
    };
    struct registrar *registrar;
    enum godwit_err err = registrar_start(&config, &registrar, error);
    if (err != GODWIT_OK)
        return err;
    pthread_mutex_lock(&source->lock);
    source->registrar = registrar;
    pthread_mutex_unlock(&source->lock);
    return GODWIT_OK;
}

static bool holds_data(const struct godwit_source *source, const struct slice *slice)
{
    return bitmap_any(source->dirty->blocks[slice->block].bits, slice_first(source->ram, slice),
                      slice_pages(source->ram, slice));
}

static void queue_block(struct godwit_source *source, struct ram_block *block)
{
    bool all = pins_all(source);
    for (uint32_t i = 0; i < block->slice_count; i++)
        if (!block->slices[i].queued && (all || holds_data(source, &block->slices[i])))
            registrar_queue(source->registrar, &block->slices[i]);
}

static enum godwit_err wait_registered(struct godwit_source *source, struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    while (err == GODWIT_OK && !registrar_wait(source->registrar, SOURCE_TICK_MS))
        err = source_check(source, error);
    return err;
}

enum godwit_err source_register_early(struct godwit_source *source, struct godwit_error *error)
{
    struct domain *domain;
    enum godwit_err err = transport_domain(source->transports.data, &source->transports.data_address, &domain, error);
    if (err == GODWIT_ERR_UNSUPPORTED)
        return GODWIT_OK;
    if (err != GODWIT_OK)
        return err;
    pthread_mutex_lock(&source->lock);
    source->domain = domain; /* freed by the cleanup */
    pthread_mutex_unlock(&source->lock);
    bool early = false;
    for (unsigned i = 0; i < source->ram->count; i++)
        early |= !ram_map_again(&source->ram->blocks[i]);
    if (!early)
        return GODWIT_OK;
    err = start_registrar(source, true, error);
    for (unsigned i = 0; i < source->ram->count && err == GODWIT_OK; i++) {
        struct ram_block *block = &source->ram->blocks[i];
        if (block->alias != NULL)
            continue;
        if (!pins_all(source))
            err = dirty_find_block_data(source->dirty, &source->guest, i, error);
        if (err == GODWIT_OK)
            queue_block(source, block);
    }
    return err == GODWIT_OK ? wait_registered(source, error) : err;
}

enum godwit_err source_register(struct godwit_source *source, struct godwit_error *error)
{
    enum godwit_err err = GODWIT_OK;
    if (source->domain == NULL)
        return GODWIT_OK;
    if (source->registrar == NULL)
        err = start_registrar(source, false, error);
    if (err != GODWIT_OK)
        return err;
    source_register_found(source);
    if (!pins_all(source))
        return GODWIT_OK;
    err = wait_registered(source, error);
    uint64_t found; /* what the guest wrote meanwhile goes in the first pass, not in the first and the second */
    return err == GODWIT_OK ? dirty_sync(source->dirty, &source->guest, &found, error) : err;
}

void source_register_found(struct godwit_source *source)
{
    for (unsigned i = 0; source->registrar != NULL && i < source->ram->count; i++)
        if (source->ram->blocks[i].alias != NULL)
            queue_block(source, &source->ram->blocks[i]);
}

/* ---- what the destination is told ---- */

struct announcement {
    struct register_run runs[REGISTER_RUNS_MAX];
    unsigned count;
};

static enum godwit_err send_runs(struct godwit_source *source, struct announcement *said, struct godwit_error *error)
{
    uint8_t bytes[REGISTER_SIZE_MAX];
    if (said->count == 0)
        return GODWIT_OK;
    struct iovec body = {bytes, register_encode(said->runs, said->count, bytes)};
    said->count = 0;
    return control_send(source->control, RECORD_REGISTER, &body, 1, error);
}

static enum godwit_err say(struct godwit_source *source, struct announcement *said, struct slice *slice,
                           struct godwit_error *error)
{
    uint32_t index = slice_index(source->ram, slice);
    struct register_run *last = said->count > 0 ? &said->runs[said->count - 1] : NULL;
    enum godwit_err err = GODWIT_OK;
    placement_announce(source->placement, slice);
    if (last != NULL && last->block == slice->block && last->first + last->slices == index) {
        last->slices++;
        return GODWIT_OK;
    }
    if (said->count == REGISTER_RUNS_MAX)
        err = send_runs(source, said, error);
    said->runs[said->count++] = (struct register_run){.block = slice->block, .first = index, .slices = 1};
    return err;
}

/* The destination wants everything inline. */
static void give_up_placing(struct godwit_source *source)
{
    pthread_mutex_lock(&source->lock);
    struct registrar *registrar = source->registrar;
    source->registrar = NULL;
    pthread_mutex_unlock(&source->lock);
    registrar_free(registrar);
}

enum godwit_err source_announce_slices(struct godwit_source *source, struct godwit_error *error)
{
    struct announcement said = {.count = 0};
    enum godwit_err err = GODWIT_OK;
    if ((source->acceptance.features & FEATURE_PLACED) == 0) {
        give_up_placing(source);
        return GODWIT_OK;
    }
    for (uint32_t i = 0; i < source->ram->slice_count && err == GODWIT_OK; i++) {
        struct slice *slice = &source->ram->slices[i];
        if (slice->queued && !slice->barred && !slice->announced && holds_data(source, slice))
            err = say(source, &said, slice, error);
    }
    return err == GODWIT_OK ? send_runs(source, &said, error) : err;
}

enum godwit_err source_take_key(struct godwit_source *source, const uint8_t *body, uint32_t size,
                                struct godwit_error *error)
{
    struct slice_key key;
    enum godwit_err err = slice_key_decode(body, size, &key, error);
    if (err != GODWIT_OK)
        return err;
    bool placing = source->accepted && (source->acceptance.features & FEATURE_PLACED) != 0;
    if (!placing || key.block >= source->ram->count || key.slice >= source->ram->blocks[key.block].slice_count)
        return error_set(error, GODWIT_ERR_PROTOCOL, "KEY for slice %u of block %u, which there is not", key.slice,
                         key.block);
    struct slice *slice = &source->ram->blocks[key.block].slices[key.slice];
    struct remote *remote = NULL;
    if (key.key.size > 0)
        err = domain_import(source->domain, &key.key, &remote, error);
    if (err == GODWIT_OK && remote != NULL && remote_size(remote) != slice_pages(source->ram, slice) << PAGE_SHIFT)
        err = error_set(error, GODWIT_ERR_PROTOCOL, "KEY for slice %u of block %u of another size", key.slice,
                        key.block);
    if (err == GODWIT_OK && !placement_take_key(source->placement, slice, remote))
        err = error_set(error, GODWIT_ERR_PROTOCOL, "KEY for slice %u of block %u, which has none to come", key.slice,
                        key.block);
    if (err != GODWIT_OK)
        remote_free(remote);
    return err;
}
