/*
 * What a destination makes of the control records of a source, one after another: OFFER, REGISTER, STATE, COMMIT, RUN,
 * BYE and what should not come. Input: type (2 bytes), length (2 bytes), body, repeated.
 */
#include <string.h>

#include "engine/destination.h"
#include "tests/fuzz/fuzz.h"

enum { SLICES = 3 }; /* of two blocks */

static struct ram *memory(void)
{
    static struct godwit_block blocks[2] = {{.id = "a", .size = 2 * SLICE_SIZE_MIN, .fd = -1},
                                            {.id = "b", .size = GODWIT_PAGE_SIZE, .fd = -1}};
    struct ram *ram = ram_new(blocks, 2, false);
    fuzz_require(ram != NULL && ram_cut(ram, SLICE_SIZE_MIN) && ram->slice_count == SLICES, "no memory");
    return ram;
}

static void done(void *opaque, struct slice *slice)
{
    (void)opaque;
    fuzz_require(slice->announced, "only what was asked for is registered");
}

static void failed(void *opaque, const struct godwit_error *error)
{
    (void)opaque, (void)error;
}

/* A registrar whose bound keeps it from registering anything. */
static struct registrar *idle_registrar(struct ram *ram)
{
    struct registrar_config config = {.ram = ram, .max_pinned = 1, .done = done, .failed = failed};
    struct registrar *registrar = NULL;
    fuzz_require(registrar_start(&config, &registrar, NULL) == GODWIT_OK, "no threads");
    return registrar;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct godwit_destination destination;
    static struct session session;
    struct past past = {.fate = FATE_UNDECIDED};
    pthread_mutex_init(&destination.lock, NULL);
    pthread_cond_init(&destination.changed, NULL);
    destination.session = &session;
    session.destination = &destination;
    session.past = &past;
    session.offered = session.committed = session.loaded = session.bye = false;
    /* From the second record on the serving thread has answered the offer, as far as records can tell. */
    session.recv = NULL;
    session.ram = memory();
    session.registrar = NULL;
    session.acceptance.features = FEATURE_PLACED;
    struct godwit_error error;
    while (size >= 4) {
        struct record_header header = {.type = fuzz_get_u16(data), .size = fuzz_get_u16(data + 2)};
        data += 4;
        size -= 4;
        header.size = header.size < size ? header.size : (uint32_t)size;
        if (header.type == RECORD_REGISTER && session.registrar == NULL)
            session.registrar = idle_registrar(session.ram); /* not for every input: it has threads */
        if (records_take(&session, &header, data, &error) != GODWIT_OK)
            break;
        fuzz_require(header.type != RECORD_RUN || session.loaded, "RUN is refused before LOADED");
        session.recv = session.offered ? (struct multifd_recv *)&session : NULL; /* never looked into here */
        session.loaded = session.committed;
        data += header.size;
        size -= header.size;
    }
    fuzz_require(past.fate == FATE_UNDECIDED || past.fate == FATE_RUN_TAKEN, "records decide for RUN alone");
    registrar_free(session.registrar);
    ram_free(session.ram);
    state_set_clear(&session.states);
    pthread_cond_destroy(&destination.changed);
    pthread_mutex_destroy(&destination.lock);
    return 0;
}
