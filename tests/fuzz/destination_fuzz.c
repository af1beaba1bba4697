/*
 * What a destination makes of the control records of a source, one after another: OFFER, STATE, COMMIT, RUN, BYE and
 * what should not come. Input: type (2 bytes), length (2 bytes), body, repeated.
 */
#include <string.h>

#include "engine/destination.h"
#include "tests/fuzz/fuzz.h"

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
    struct godwit_error error;
    while (size >= 4) {
        struct record_header header = {.type = fuzz_get_u16(data), .size = fuzz_get_u16(data + 2)};
        data += 4;
        size -= 4;
        header.size = header.size < size ? header.size : (uint32_t)size;
        if (records_take(&session, &header, data, &error) != GODWIT_OK)
            break;
        fuzz_require(header.type != RECORD_RUN || session.loaded, "RUN is refused before LOADED");
        session.recv = session.offered ? (struct multifd_recv *)&session : NULL; /* never looked into here */
        session.loaded = session.committed;
        data += header.size;
        size -= header.size;
    }
    fuzz_require(past.fate == FATE_UNDECIDED || past.fate == FATE_RUN_TAKEN, "records decide for RUN alone");
    state_set_clear(&session.states);
    pthread_cond_destroy(&destination.changed);
    pthread_mutex_destroy(&destination.lock);
    return 0;
}
