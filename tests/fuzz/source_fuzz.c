/*
 * What a source makes of the control records of a destination: ACCEPT, KEY (imported by the loop transport), EPOCH_ACK,
 * LOADED, RUNNING. source_setup.c is included for take_record(). Input: a byte that says how far the source is, then
 * type (2 bytes), length (2 bytes), body, repeated. A KEY whose key begins with ones opens the real region.
 */
#include "engine/source_setup.c"

#include <stdlib.h>

#include "session/registration.h"
#include "tests/fuzz/fuzz.h"
#include "transport/loop.h"

enum { PAGES = 4, COMMITTED = 1 << 0, RUN_WRITTEN = 1 << 1, CLOSED = 1 << 2, NOT_ANNOUNCED = 1 << 3 };

struct stage {
    struct loop_net *net;
    struct domain *domain;
    struct mr *mr;
    struct region_key key;
    struct ram *ram;
    struct godwit_source source;
};

static void set_up(struct stage *stage)
{
    static uint8_t memory[PAGES * PAGE_SIZE] __attribute__((aligned(4096)));
    struct godwit_error error;
    struct address address;
    struct region region = {memory, sizeof memory, -1, 0};
    struct godwit_block blocks[2] = {{.id = "a", .addr = memory, .size = sizeof memory, .fd = -1},
                                     {.id = "b", .addr = memory, .size = PAGE_SIZE, .fd = -1}};
    stage->net = loop_net_new(1);
    fuzz_require(stage->net != NULL && address_parse("loop:a", &address, &error) == GODWIT_OK &&
                     transport_domain(loop_net_transport(stage->net), &address, &stage->domain, &error) == GODWIT_OK &&
                     domain_register(stage->domain, &region, REGION_REMOTE_WRITE, &stage->mr, &error) == GODWIT_OK,
                 "cannot set up");
    mr_export(stage->mr, &stage->key);
    stage->ram = ram_new(blocks, 2, false);
    fuzz_require(stage->ram != NULL && ram_cut(stage->ram, SLICE_SIZE_MIN), "no memory");
    pthread_mutex_init(&stage->source.lock, NULL);
    pthread_cond_init(&stage->source.changed, NULL);
}

static void set_state(struct stage *stage, uint8_t how)
{
    struct godwit_source *source = &stage->source;
    source->domain = stage->domain;
    source->ram = stage->ram;
    source->placement = placement_new(PLACEMENT_PATIENCE_MS);
    fuzz_require(source->placement != NULL, "no memory");
    for (uint32_t i = 0; i < stage->ram->slice_count && (how & NOT_ANNOUNCED) == 0; i++)
        placement_announce(source->placement, &stage->ram->slices[i]);
    source->acceptance.features = FEATURE_PLACED;
    source->accepted = source->loaded = source->running = false;
    source->committed = (how & COMMITTED) != 0;
    source->run_written = (how & RUN_WRITTEN) != 0;
    source->offer.channels = (uint16_t)(how >> 4);
    source->offer.block_count = 2;
    source->offer.features = FEATURE_PLACED;
    ledger_init(&source->ledger);
    if (how & CLOSED) {
        ledger_open(&source->ledger, 1);
        ledger_close(&source->ledger);
    }
}

static void clear_keys(struct stage *stage)
{
    for (uint32_t i = 0; i < stage->ram->slice_count; i++) {
        struct slice *slice = &stage->ram->slices[i];
        struct remote *remote = slice->remote;
        if (remote != NULL)
            fuzz_require(slice->announced && remote_size(remote) == slice_pages(stage->ram, slice) << PAGE_SHIFT,
                         "a key fits a slice that was announced");
        remote_free(remote);
        *slice = (struct slice){.block = slice->block};
    }
    placement_free(stage->source.placement);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct stage stage;
    if (stage.net == NULL)
        set_up(&stage);
    if (size == 0)
        return 0;
    set_state(&stage, data[0]);
    data++;
    size--;
    struct godwit_error error;
    while (size >= 4) {
        struct record_header header = {.type = fuzz_get_u16(data), .size = fuzz_get_u16(data + 2)};
        data += 4;
        size -= 4;
        header.size = header.size < size ? header.size : (uint32_t)size;
        uint8_t *body = malloc(header.size + 1u);
        fuzz_require(body != NULL, "no memory");
        memcpy(body, data, header.size);
        if (header.type == RECORD_KEY && header.size == (uint32_t)KEY_HEAD_SIZE + stage.key.size &&
            memcmp(body + KEY_HEAD_SIZE, "\377\377\377\377", 4) == 0)
            memcpy(body + KEY_HEAD_SIZE, stage.key.bytes, stage.key.size);
        enum godwit_err err = take_record(&stage.source, &header, body, &error);
        free(body);
        if (err != GODWIT_OK)
            break;
        data += header.size;
        size -= header.size;
    }
    fuzz_require(!stage.source.running || stage.source.run_written, "RUNNING is refused before RUN");
    clear_keys(&stage);
    return 0;
}
