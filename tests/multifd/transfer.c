#include "tests/multifd/transfer.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "multifd/bitmap.h"
#include "transport/channel_ops.h"
#include "transport/clock.h"
#include "transport/error.h"

struct transfer_setup transfer_setup(void)
{
    return (struct transfer_setup){
        .kind = PAIR_LOOP,
        .channels = 2,
        .zeros = true,
        .pages = {700, 1300},
        .plan = fault_plan_none(),
        .faulty_channel = TRANSFER_CHANNELS,
        .replaced = UINT_MAX,
    };
}

void transfer_scribble(uint8_t *addr, uint64_t pages)
{
    for (uint64_t page = 0; page < pages; page++, addr += PAGE_SIZE) {
        memset(addr, 0, PAGE_SIZE);
        unsigned dice = (unsigned)rand() % 6;
        if (dice == 0) /* one byte of it */
            addr[rand() % PAGE_SIZE] = 1;
        for (unsigned i = 0; dice > 2 && i < PAGE_SIZE; i += 4)
            memcpy(addr + i, &(uint32_t){(uint32_t)rand()}, 4);
    }
}

static void note_marker(void *opaque, unsigned channel, uint32_t epoch)
{
    struct transfer *transfer = opaque;
    if (epoch == transfer->marked[channel] + 1)
        transfer->marked[channel]++;
    else
        transfer->disorder++;
    gate_note(&transfer->markers, NULL);
}

static void note_report(atomic_uint reports[TRANSFER_CHANNELS], const struct godwit_error *error)
{
    unsigned channel;
    if (sscanf(error->text, "data channel %u", &channel) == 1 && channel < TRANSFER_CHANNELS)
        reports[channel]++;
}

static void note_send_failed(void *opaque, const struct godwit_error *error)
{
    struct transfer *transfer = opaque;
    note_report(transfer->send_reports, error);
    gate_note(&transfer->send_failed, error);
}

static void note_recv_failed(void *opaque, const struct godwit_error *error)
{
    struct transfer *transfer = opaque;
    note_report(transfer->recv_reports, error);
    gate_note(&transfer->recv_failed, error);
}

static struct ram *make_ram(struct transfer *transfer, bool destination)
{
    struct godwit_block blocks[TRANSFER_BLOCKS] = {0};
    for (unsigned i = 0; i < TRANSFER_BLOCKS; i++) {
        struct godwit_block *block = &blocks[i];
        snprintf(block->id, sizeof block->id, "block%u", i);
        block->size = transfer->setup.pages[i] << PAGE_SHIFT;
        block->fd = destination ? memfd_create("destination", MFD_CLOEXEC) : -1;
        if (destination)
            cr_assert_eq(ftruncate(block->fd, (off_t)block->size), 0);
        block->addr = mmap(NULL, block->size, PROT_READ | PROT_WRITE,
                           destination ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, block->fd, 0);
        cr_assert_neq(block->addr, MAP_FAILED);
        block->content = transfer->setup.used ? GODWIT_BLOCK_USED : GODWIT_BLOCK_FRESH;
        if (destination)
            transfer->fds[i] = block->fd;
        if (destination && transfer->setup.used)
            memset(block->addr, 0xaa, block->size);
        if (!destination && block->size < 1 << 30)
            transfer_scribble(block->addr, transfer->setup.pages[i]);
    }
    struct ram *ram = ram_new(blocks, TRANSFER_BLOCKS, destination);
    cr_assert_not_null(ram);
    return ram;
}

/* ---- what a source and a destination do with domains and keys ---- */

void transfer_give_key(struct transfer *transfer, unsigned block, uint32_t slice)
{
    struct region_key key;
    struct remote *remote;
    mr_export(transfer->destination->blocks[block].slices[slice].mr, &key);
    cr_assert_eq(domain_import(transfer->domain, &key, &remote, NULL), GODWIT_OK);
    cr_assert(placement_take_key(transfer->placement, &transfer->source->blocks[block].slices[slice], remote));
}

static void source_registered(void *opaque, struct slice *slice)
{
    placement_registered(((struct transfer *)opaque)->placement, slice);
}

static void destination_registered(void *opaque, struct slice *slice)
{
    struct transfer *transfer = opaque;
    if (!transfer->setup.keys_late)
        transfer_give_key(transfer, slice->block, slice_index(transfer->destination, slice));
}

static void cannot_register(void *opaque, const struct godwit_error *error)
{
    cr_assert_fail("%s", error->text);
}

static void start_registrar(struct transfer *transfer, unsigned side, struct ram *ram)
{
    struct registrar_config config = {
        .ram = ram,
        .domain = transfer->domain,
        .access = side == 0 ? REGION_LOCAL : REGION_REMOTE_WRITE,
        .populate = side == 1,
        .done = side == 0 ? source_registered : destination_registered,
        .failed = cannot_register,
        .opaque = transfer,
    };
    cr_assert(ram_cut(ram, SLICE_SIZE_MIN));
    cr_assert_eq(registrar_start(&config, &transfer->registrars[side], NULL), GODWIT_OK);
}

static void make_reachable(struct transfer *transfer)
{
    cr_assert_eq(transport_domain(transfer->pair.transport, &transfer->pair.address, &transfer->domain, NULL),
                 GODWIT_OK);
    transfer->placement = placement_new(PLACEMENT_PATIENCE_MS);
    cr_assert_not_null(transfer->placement);
    start_registrar(transfer, 0, transfer->source);
    start_registrar(transfer, 1, transfer->destination);
    for (uint32_t i = 0; i < transfer->source->slice_count; i++)
        placement_announce(transfer->placement, &transfer->source->slices[i]);
    for (uint32_t i = 0; i < transfer->source->slice_count; i++) {
        registrar_queue(transfer->registrars[0], &transfer->source->slices[i]);
        registrar_queue(transfer->registrars[1], &transfer->destination->slices[i]);
    }
    for (unsigned side = 0; side < 2; side++)
        cr_assert(registrar_wait(transfer->registrars[side], TRANSFER_SOON_MS));
}

static struct channel *maybe_faulty(const struct transfer_setup *setup, unsigned index, unsigned side,
                                    struct channel *channel)
{
    if (setup->faulty != side || (setup->faulty_channel != index && setup->faulty_channel != TRANSFER_CHANNELS))
        return channel;
    struct channel *wrapped = fault_channel_wrap(channel, &setup->plan);
    cr_assert_not_null(wrapped);
    return wrapped;
}

static void connect_one(struct transfer *transfer, unsigned index, struct channel **near, struct channel **far)
{
    cr_assert_eq(pair_connect(&transfer->pair), GODWIT_OK, "%s", transfer->pair.error.text);
    *near = maybe_faulty(&transfer->setup, index, FAULTY_SENDER, transfer->pair.a);
    *far = maybe_faulty(&transfer->setup, index, FAULTY_RECEIVER, transfer->pair.b);
    transfer->pair.a = transfer->pair.b = NULL;
    (*near)->limits.lifetime = transfer->setup.own_lifetime;
}

/* What the engine does for a sender whose channel is worn. */
static enum godwit_err replace(void *opaque, unsigned channel, const atomic_bool *stop, struct channel **out,
                               struct godwit_error *error)
{
    struct transfer *transfer = opaque;
    const struct transfer_setup *setup = &transfer->setup;
    bool well = atomic_fetch_add(&transfer->replacements, 1) < setup->replaced;
    struct channel *far;
    gate_note(&transfer->asked, NULL);
    while (!well && setup->how == REPLACED_LATE && !atomic_load(stop))
        sched_yield();
    if (!well && (setup->how == REPLACED_BY_NONE || setup->how == REPLACED_LATE))
        return error_set(error, GODWIT_ERR_REFUSED, "data channel %u: nobody is there", channel);
    pthread_mutex_lock(&transfer->connecting);
    connect_one(transfer, channel, out, &far);
    if (!well && setup->how == REPLACED_UNATTACHED) {
        channel_free(transfer->ends[channel]);
        transfer->ends[channel] = far;
    }
    pthread_mutex_unlock(&transfer->connecting);
    if (!well && setup->how == REPLACED_UNATTACHED)
        return GODWIT_OK;
    enum godwit_err err = multifd_recv_attach(transfer->recv, channel, far, error);
    if (err != GODWIT_OK)
        channel_free(*out);
    return err;
}

void transfer_open(struct transfer *transfer, const struct transfer_setup *setup)
{
    *transfer = (struct transfer){.setup = *setup,
                                  .send_failed = GATE_INIT,
                                  .recv_failed = GATE_INIT,
                                  .markers = GATE_INIT,
                                  .asked = GATE_INIT,
                                  .connecting = PTHREAD_MUTEX_INITIALIZER};
    int progress_ms = setup->progress_ms ? setup->progress_ms : TRANSFER_SOON_MS;
    cr_assert_eq(pair_listen(&transfer->pair, setup->kind), GODWIT_OK, "%s", transfer->pair.error.text);
    transfer->source = make_ram(transfer, false);
    transfer->destination = make_ram(transfer, true);
    if (setup->placed)
        make_reachable(transfer);
    transfer->rate = migration_rate_new();
    migration_rate_set(transfer->rate, setup->limit);
    struct multifd_recv_config recv_config = {
        .ram = transfer->destination,
        .count = setup->channels,
        .placed = setup->placed,
        .progress_ms = progress_ms,
        .marker = note_marker,
        .failed = note_recv_failed,
        .opaque = transfer,
    };
    transfer->recv = multifd_recv_new(&recv_config);
    cr_assert_not_null(transfer->recv);
    struct channel *channels[TRANSFER_CHANNELS];
    for (unsigned i = 0; i < setup->channels; i++) {
        connect_one(transfer, i, &channels[i], &transfer->ends[i]);
        if (setup->no_receivers)
            continue;
        cr_assert_eq(multifd_recv_attach(transfer->recv, i, transfer->ends[i], NULL), GODWIT_OK);
        transfer->ends[i] = NULL;
    }
    struct multifd_send_config send_config = {
        .ram = transfer->source,
        .channels = channels,
        .count = setup->channels,
        .rate = transfer->rate,
        .zero = setup->zeros ? zero_test_select() : NULL,
        .placement = transfer->placement,
        .progress_ms = progress_ms,
        .replace = replace,
        .lifetime = setup->lifetime,
        .failed = note_send_failed,
        .opaque = transfer,
    };
    cr_assert_eq(multifd_send_start(&send_config, &transfer->send, NULL), GODWIT_OK);
}

static void free_ram(struct ram *ram)
{
    void *addr[TRANSFER_BLOCKS];
    uint64_t pages[TRANSFER_BLOCKS];
    for (unsigned i = 0; i < TRANSFER_BLOCKS; i++) {
        addr[i] = ram->blocks[i].addr;
        pages[i] = ram->blocks[i].pages;
    }
    ram_free(ram); /* registered memory stays mapped until then */
    for (unsigned i = 0; i < TRANSFER_BLOCKS; i++)
        munmap(addr[i], pages[i] << PAGE_SHIFT);
}

void transfer_close(struct transfer *transfer)
{
    uint64_t start = clock_now_ms();
    multifd_send_free(transfer->send);
    multifd_recv_free(transfer->recv);
    cr_assert_lt(clock_now_ms() - start, TRANSFER_SOON_MS / 4, "freeing waits for something");
    cr_assert_eq(transfer->disorder, 0);
    cr_assert_leq(gate_count(&transfer->send_failed), transfer->setup.channels, "once per channel at most");
    cr_assert_leq(gate_count(&transfer->recv_failed), transfer->setup.channels, "once per channel at most");
    for (unsigned i = 0; i < TRANSFER_CHANNELS; i++)
        channel_free(transfer->ends[i]);
    for (unsigned side = 0; side < 2; side++)
        registrar_free(transfer->registrars[side]);
    placement_free(transfer->placement);
    migration_rate_free(transfer->rate);
    free_ram(transfer->source);
    free_ram(transfer->destination);
    for (unsigned i = 0; i < TRANSFER_BLOCKS; i++)
        close(transfer->fds[i]);
    domain_free(transfer->domain);
    pair_close(&transfer->pair);
}

/* A batch that has room; submits the full one. False: there are no more. */
static bool need_room(struct transfer *transfer, uint32_t epoch, struct batch **batch)
{
    if (*batch != NULL && batch_room(*batch) > 0)
        return true;
    if (*batch != NULL)
        multifd_send_submit(transfer->send, *batch);
    *batch = multifd_send_batch(transfer->send, epoch, TRANSFER_SOON_MS);
    return *batch != NULL;
}

bool transfer_pages(struct transfer *transfer, uint32_t epoch, uint64_t *const maps[TRANSFER_BLOCKS])
{
    struct batch *batch = NULL;
    for (unsigned i = 0; i < TRANSFER_BLOCKS; i++) {
        uint64_t pages = transfer->source->blocks[i].pages;
        for (uint64_t from = 0; from < pages;) {
            if (!need_room(transfer, epoch, &batch))
                return false;
            uint64_t most = 1 + (uint64_t)rand() % batch_room(batch);
            struct run run = {from, pages - from < most ? pages - from : most};
            if (maps != NULL)
                run = bitmap_next_run(maps[i], NULL, pages, from, most);
            if (run.pages == 0)
                break;
            batch_add(batch, i, run.first, (uint32_t)run.pages, EXTENT_NORMAL);
            from = run.first + run.pages;
            if (rand() % 8 == 0) { /* not every batch is full */
                multifd_send_submit(transfer->send, batch);
                batch = NULL;
            }
        }
    }
    if (batch != NULL)
        multifd_send_submit(transfer->send, batch);
    return true;
}

bool transfer_zeros(struct transfer *transfer, uint32_t epoch, unsigned block, uint64_t first, uint32_t pages)
{
    struct batch *batch = multifd_send_batch(transfer->send, epoch, TRANSFER_SOON_MS);
    if (batch == NULL)
        return false;
    batch_add(batch, block, first, pages, EXTENT_ZERO);
    multifd_send_submit(transfer->send, batch);
    return true;
}

void transfer_mark(struct transfer *transfer, uint32_t epoch)
{
    multifd_send_mark(transfer->send, epoch);
    cr_assert(gate_wait(&transfer->markers, epoch * transfer->setup.channels, TRANSFER_SOON_MS), "%u of %u; %s; %s",
              gate_count(&transfer->markers), epoch * transfer->setup.channels, transfer->send_failed.last.text,
              transfer->recv_failed.last.text);
    for (unsigned i = 0; i < transfer->setup.channels; i++)
        cr_assert_eq(transfer->marked[i], epoch, "channel %u", i);
    cr_assert_eq(multifd_send_marked(transfer->send), epoch);
}

static void add(struct godwit_channel_info *sum, const struct godwit_channel_info *info)
{
    sum->bytes += info->bytes;
    sum->inline_bytes += info->inline_bytes;
    sum->placed_bytes += info->placed_bytes;
    sum->normal += info->normal;
    sum->duplicate += info->duplicate;
    sum->packets += info->packets;
    sum->replacements += info->replacements;
}

struct godwit_channel_info transfer_sent(const struct transfer *transfer)
{
    struct godwit_channel_info sum = {0}, info;
    for (unsigned i = 0; i < transfer->setup.channels; i++) {
        multifd_send_info(transfer->send, i, &info);
        add(&sum, &info);
    }
    return sum;
}

struct godwit_channel_info transfer_received(const struct transfer *transfer)
{
    struct godwit_channel_info sum = {0}, info;
    for (unsigned i = 0; i < transfer->setup.channels; i++) {
        multifd_recv_info(transfer->recv, i, &info);
        add(&sum, &info);
    }
    return sum;
}

bool transfer_equal(const struct transfer *transfer, unsigned block, uint64_t page)
{
    return memcmp(transfer->source->blocks[block].addr + (page << PAGE_SHIFT),
                  transfer->destination->blocks[block].addr + (page << PAGE_SHIFT), PAGE_SIZE) == 0;
}

void transfer_expect_equal(const struct transfer *transfer)
{
    for (unsigned i = 0; i < TRANSFER_BLOCKS; i++) {
        struct ram_block *block = &transfer->destination->blocks[i];
        for (uint64_t page = 0; page < block->pages; page++)
            cr_assert(transfer_equal(transfer, i, page), "block %u, page %llu", i, (unsigned long long)page);
        cr_assert(bitmap_all_atomic(block->received, 0, block->pages), "block %u", i);
    }
}

uint64_t transfer_allocated(const struct transfer *transfer, unsigned block)
{
    struct stat stat;
    cr_assert_eq(fstat(transfer->fds[block], &stat), 0);
    return (uint64_t)stat.st_blocks * 512;
}
