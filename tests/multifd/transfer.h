/* Two memories and the senders and receivers between them, put together as the engine does it. */
#ifndef TESTS_MULTIFD_TRANSFER_H
#define TESTS_MULTIFD_TRANSFER_H

#include "multifd/recv.h"
#include "multifd/registrar.h"
#include "multifd/send.h"
#include "tests/lib/gate.h"
#include "tests/lib/pair.h"

enum { TRANSFER_BLOCKS = 2, TRANSFER_CHANNELS = 8, TRANSFER_SOON_MS = 20000 };

struct transfer_setup {
    enum pair_kind kind;
    unsigned channels;
    bool placed;
    bool keys_late; /* placed: registered and announced, but the keys come by transfer_give_key() */
    bool zeros; /* senders look for zero pages */
    bool used;  /* the destination's blocks held something before */
    uint64_t pages[TRANSFER_BLOCKS];
    int progress_ms;        /* 0: long */
    uint64_t limit;         /* bytes per second, 0: none */
    struct fault_plan plan; /* of the channels of faulty_side; start from transfer_setup() */
    enum { FAULTY_NONE, FAULTY_SENDER, FAULTY_RECEIVER } faulty;
    unsigned faulty_channel; /* TRANSFER_CHANNELS: all of them */
    bool no_receivers;       /* the far ends stay in transfer->ends and nobody reads them */

    uint64_t lifetime, own_lifetime; /* bytes after which a channel is replaced, by config and limits; 0: none */
    unsigned replaced;  /* what becomes of the replacement of this number and all after it, from 0 */
    enum { REPLACED_WELL, REPLACED_BY_NONE, REPLACED_UNATTACHED, REPLACED_LATE } how;
};

struct transfer {
    struct transfer_setup setup;
    struct pair pair; /* its a and b are not used */
    struct domain *domain;
    struct placement *placement;
    struct registrar *registrars[2]; /* source, destination */
    struct channel *ends[TRANSFER_CHANNELS];
    struct ram *source, *destination;
    int fds[TRANSFER_BLOCKS]; /* of the destination's memory */
    struct migration_rate *rate;
    struct multifd_send *send;
    struct multifd_recv *recv;

    struct gate send_failed, recv_failed, markers;
    atomic_uint send_reports[TRANSFER_CHANNELS], recv_reports[TRANSFER_CHANNELS]; /* failures that name the channel */
    atomic_uint marked[TRANSFER_CHANNELS]; /* per channel: markers in the right order */
    atomic_uint disorder;                  /* the others */

    pthread_mutex_t connecting; /* senders ask for connections at once, and the pair makes one at a time */
    atomic_uint replacements;   /* asked for */
    struct gate asked;
};

/* Loop, two channels, two small blocks, no faults. */
struct transfer_setup transfer_setup(void);

/* Asserts its way through. The source is random with zero pages; the destination zero, or 0xaa where used. */
void transfer_open(struct transfer *transfer, const struct transfer_setup *setup);
/* Placed: what the source does when this KEY arrives. */
void transfer_give_key(struct transfer *transfer, unsigned block, uint32_t slice);

/* Frees everything; asserts that it takes no time. */
void transfer_close(struct transfer *transfer);

/* Hands the pages that are set in maps (of the blocks; NULL: every page) to the senders, in runs and batches of odd sizes.
 * False: the senders took no batch any more. */
bool transfer_pages(struct transfer *transfer, uint32_t epoch, uint64_t *const maps[TRANSFER_BLOCKS]);
/* One extent of zeros. */
bool transfer_zeros(struct transfer *transfer, uint32_t epoch, unsigned block, uint64_t first, uint32_t pages);
/* Ends the epoch, and asserts that its marker arrives on every channel. */
void transfer_mark(struct transfer *transfer, uint32_t epoch);

/* Counters of all channels; of one side. */
struct godwit_channel_info transfer_sent(const struct transfer *transfer);
struct godwit_channel_info transfer_received(const struct transfer *transfer);

bool transfer_equal(const struct transfer *transfer, unsigned block, uint64_t page);
/* Asserts it for every page, and that every page was announced. */
void transfer_expect_equal(const struct transfer *transfer);
/* Bytes that back the destination's block. */
uint64_t transfer_allocated(const struct transfer *transfer, unsigned block);

/* Random content; every third page or so is zero. */
void transfer_scribble(uint8_t *addr, uint64_t pages);

#endif
