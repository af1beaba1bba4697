/*
 * One write() of one record to a file opened for appending: whole or not at all also when the process is killed, in
 * order also when two processes share the file, and in the page cache once it returned. Rejected: a mapped ring, which
 * loses what it overwrites, and which a full disk turns into SIGBUS.
 */
#include "guest/witness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "guest/guest_error.h"
#include "guest/pattern.h"
#include "guest/state_codec.h"

enum { TICK_NS = 1000000, VERSION = 1 };

static const char witness_magic[8] = "GWITNESS";

struct witness {
    int fd;
    enum witness_side side;
    uint64_t life;   /* random: tells one process's guest from another's */
    uint64_t number; /* of the next record */
    uint64_t last_ns;
};

enum godwit_err witness_open(const char *path, enum witness_side side, struct witness **out,
                             struct godwit_error *error)
{
    struct witness *witness = calloc(1, sizeof *witness);
    if (!witness)
        return guest_fail(error, GODWIT_ERR_NO_MEMORY, "no memory for a witness");
    witness->side = side;
    witness->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (witness->fd < 0) {
        enum godwit_err err = guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot open the witness file %s", path);
        free(witness);
        return err;
    }
    if (getrandom(&witness->life, sizeof witness->life, 0) != (ssize_t)sizeof witness->life)
        witness->life = (uint64_t)getpid();
    *out = witness;
    return GODWIT_OK;
}

void witness_close(struct witness *witness)
{
    if (!witness)
        return;
    close(witness->fd);
    free(witness);
}

static uint64_t witness_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Order matters: a damaged record, or a piece of one, is found out. */
static uint64_t witness_check(const uint64_t *words, unsigned count)
{
    uint64_t check = 0;
    for (unsigned i = 0; i < count; i++)
        check = pattern_mix(check ^ words[i]);
    return check;
}

enum godwit_err witness_note(struct witness *witness, enum witness_kind kind, uint64_t ticks, uint64_t steps,
                             struct godwit_error *error)
{
    uint8_t bytes[WITNESS_RECORD];
    struct state_cursor cursor = {bytes, bytes + sizeof bytes, false};
    uint64_t now = witness_now();
    uint64_t head = (uint64_t)VERSION << 48 | (uint64_t)kind << 40 | (uint64_t)witness->side << 32 | (uint32_t)getpid();
    const uint64_t words[] = {head, witness->life, witness->number, ticks, steps, now};
    enum { WORDS = sizeof words / sizeof *words };
    state_put_bytes(&cursor, witness_magic, sizeof witness_magic);
    for (unsigned i = 0; i < WORDS; i++)
        state_put(&cursor, words[i], 8);
    state_put(&cursor, witness_check(words, WORDS), 8);
    if (write(witness->fd, bytes, sizeof bytes) != (ssize_t)sizeof bytes)
        return guest_fail_sys(error, GODWIT_ERR_SYSTEM, errno, "cannot write to the witness file");
    witness->number++;
    witness->last_ns = now;
    return GODWIT_OK;
}

bool witness_due(const struct witness *witness, uint64_t now_ns)
{
    return now_ns - witness->last_ns >= TICK_NS;
}
