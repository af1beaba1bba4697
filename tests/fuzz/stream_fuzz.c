/*
 * A whole data channel: what a receiver thread does with one byte after another, into real memory. recv.c is included
 * for take_record(). CRCs of the records, and their sequence numbers and epochs where the first input byte says so, are
 * made right as the bytes are read. Another connection of the channel waits for its turn where the first byte says so;
 * it carries the rest of the input. Pages outside of the blocks are guarded by AddressSanitizer or by the kernel.
 */
#include "multifd/recv.c"

#include <string.h>
#include <sys/mman.h>

#include "tests/fuzz/fuzz.h"
#include "transport/channel_ops.h"
#include "transport/wire.h"

enum { BLOCKS = 2, PAGES = 4 };

struct script {
    struct channel base;
    const uint8_t *at, *end;
    uint32_t sequence, epoch;
    bool mend;
};

/* The head of the next record, made right: its CRC covers extents that follow in the input. */
static void mend(struct script *script, uint8_t head[PACKET_HEADER_SIZE])
{
    if (script->mend) {
        fuzz_put_u32(head + 4, script->epoch);
        fuzz_put_u32(head + 8, script->sequence);
    }
    size_t extents = (size_t)fuzz_get_u16(head + 12) * PACKET_EXTENT_SIZE;
    if (extents > (size_t)(script->end - script->at))
        return;
    fuzz_put_u32(head + 28, wire_crc32(wire_crc32(0, head, 28), script->at, extents));
    script->sequence++;
    script->epoch += fuzz_get_u16(head) == PACKET_MARKER;
}

static enum godwit_err script_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    struct script *script = (struct script *)channel;
    for (unsigned i = 0; i < count; i++) {
        if ((size_t)(script->end - script->at) < iov[i].iov_len)
            return GODWIT_ERR_PEER_CLOSED;
        memcpy(iov[i].iov_base, script->at, iov[i].iov_len);
        script->at += iov[i].iov_len;
        if (count == 1 && iov[i].iov_len == PACKET_HEADER_SIZE)
            mend(script, iov[i].iov_base);
    }
    return GODWIT_OK;
}

static void script_shutdown(struct channel *channel)
{
}

static const struct channel_ops script_ops = {.name = "script", .recv = script_recv, .shutdown = script_shutdown,
                                              .free = script_shutdown};

static uint32_t marked;

static void marker(void *opaque, unsigned channel, uint32_t epoch)
{
    fuzz_require(epoch == marked + 1, "epochs are marked in order");
    marked = epoch;
}

/* Two blocks, of which one is fresh, with a forbidden page around each. */
static struct ram *make_ram(void)
{
    struct godwit_block blocks[BLOCKS] = {
        {.id = "fresh", .size = PAGES * PAGE_SIZE, .fd = -1, .page_size = PAGE_SIZE, .content = GODWIT_BLOCK_FRESH},
        {.id = "used", .size = PAGES * PAGE_SIZE, .fd = -1, .page_size = PAGE_SIZE, .content = GODWIT_BLOCK_USED}};
    for (unsigned i = 0; i < BLOCKS; i++) {
        uint8_t *addr = mmap(NULL, (PAGES + 2) * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        fuzz_require(addr != MAP_FAILED && mprotect(addr + PAGE_SIZE, PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE) == 0,
                     "no memory");
        blocks[i].addr = addr + PAGE_SIZE;
    }
    return ram_new(blocks, BLOCKS, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ram *ram;
    static struct multifd_recv *recv;
    if (size == 0)
        return 0;
    if (ram == NULL) {
        ram = make_ram();
        recv = calloc(1, sizeof *recv + sizeof recv->receivers[0]);
        fuzz_require(ram != NULL && recv != NULL, "no memory");
        *recv = (struct multifd_recv){.config = {.ram = ram, .count = 1, .progress_ms = 1, .marker = marker},
                                      .is_zero = zero_test_select()};
    }
    struct script script = {.base = {.ops = &script_ops, .limits = {.max_iov = BATCH_EXTENTS}},
                            .at = data + 1,
                            .end = data + size,
                            .epoch = 1,
                            .mend = (data[0] & 1) != 0};
    recv->config.placed = (data[0] & 2) != 0;
    recv->receivers[0] = (struct receiver){
        .recv = recv, .channel = &script.base, .successor = (data[0] & 4) != 0 ? &script.base : NULL};
    marked = 0;
    struct godwit_error error;
    while (take_record(&recv->receivers[0], &error) == GODWIT_OK)
        ;
    return 0;
}
