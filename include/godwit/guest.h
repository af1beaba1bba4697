/*
 * The guest: what an embedder tells the library about the thing that is migrated. One struct of memory blocks and one
 * table of operations; the same table serves source and destination.
 *
 * All operations are called from one thread at a time, the one inside godwit_source_migrate() or
 * godwit_destination_serve(), never from a sender or receiver thread. They may block; while they do, heartbeats go on.
 * A NULL operation means the default stated with it. One that fails returns a code, and should fill *error, which is
 * never NULL, with the cause; its code alone is enough.
 */
#ifndef GODWIT_GUEST_H
#define GODWIT_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <godwit/api.h>
#include <godwit/error.h>

GODWIT_BEGIN

enum {
    GODWIT_PAGE_SIZE = 4096,   /* granularity of dirty bitmaps and of the wire, whatever backs the memory */
    GODWIT_BLOCK_ID_MAX = 63,  /* bytes, as in QEMU's stream where a length byte precedes the name */
    GODWIT_BLOCKS_MAX = 1024,
    GODWIT_STATE_NAME_MAX = 63,
    GODWIT_STATES_MAX = 256,
};

enum godwit_block_content {
    GODWIT_BLOCK_FRESH,   /* reads as zero everywhere: zero pages need not be stored */
    GODWIT_BLOCK_USED,    /* anything: every zero page is stored */
    GODWIT_BLOCK_SCRATCH, /* nobody will read it, and it may take less room than it shows: as for FRESH */
};

enum godwit_block_presence {
    GODWIT_BLOCK_ON_DEMAND, /* a page comes into being when it is stored to: the library populates it first, so that
                               running out of memory is an error of the migration and not a SIGBUS */
    GODWIT_BLOCK_PRESENT,   /* every page is mapped for writing, by MADV_POPULATE_WRITE or the like, and stays: a store
                               cannot fail, and nothing need be asked of the kernel before it */
};

/*
 * One contiguous range of guest RAM. The caller keeps addr mapped (and fd open) for the life of the migration. With RDMA
 * the memory is registered, which ties the device to the pages that are there then: from godwit_source_migrate to its
 * return, and from accept until godwit_destination_serve returns, nobody may replace them (balloon, MADV_DONTNEED,
 * MADV_REMOVE, punching holes, mapping anew). The processor would see the new page and the device the old one.
 */
struct godwit_block {
    char id[GODWIT_BLOCK_ID_MAX + 1]; /* unique, NUL terminated, equal on both sides */
    void *addr;                       /* page aligned */
    uint64_t size;                    /* bytes, a multiple of GODWIT_PAGE_SIZE, not 0 */
    uint32_t page_size;               /* bytes of the backing page: 4096, 2 MiB, 1 GiB; informative */
    int fd;                           /* memfd or file that addr maps shared; -1 for private memory */
    uint64_t fd_offset;               /* of addr within fd, bytes */
    enum godwit_block_content content;   /* read on the destination only */
    enum godwit_block_presence presence; /* read on the destination only */
};

/* Where save_some and save_rest put device state. Copies; fails with GODWIT_ERR_TOO_BIG beyond 256 MiB a stream. */
struct godwit_state_writer;
GODWIT_API enum godwit_err godwit_state_write(struct godwit_state_writer *writer, const void *data, size_t size);

struct godwit_guest_ops {
    /*
     * Source, memory. dirty_start arms the log: a write after its return is reported by a later dirty_sync. dirty_sync
     * ORs into bitmap (bit n of word n/64: page n of the block) every page written since it was last reported, and
     * re-arms those pages before it returns, or leaves that to dirty_clear. dirty_clear, where set, is called for every
     * range just before the library reads it. dirty_stop disarms; it is called once for each successful dirty_start.
     * Default of the first two: nothing ever writes the memory. Default of dirty_clear: nothing to do.
     */
    enum godwit_err (*dirty_start)(void *self, struct godwit_error *error);
    enum godwit_err (*dirty_sync)(void *self, unsigned block, uint64_t *bitmap, struct godwit_error *error);
    enum godwit_err (*dirty_clear)(void *self, unsigned block, uint64_t first_page, uint64_t pages,
                                   struct godwit_error *error);
    void (*dirty_stop)(void *self);

    /*
     * Source. The next run of pages at or after page `from` that may hold something other than zeros; *pages is 0 when
     * there is none; a long run may be given in parts. Asked after dirty_start, so a page that comes into being later
     * is in the dirty log. Of private memory (fd -1) that is to be registered with a device it is asked before
     * dirty_start too: that answer decides what is registered, which pins it and may look like a write. Default: all of
     * the block. godwit_memory_next_data() serves most guests.
     */
    enum godwit_err (*next_data)(void *self, unsigned block, uint64_t from, uint64_t *first, uint64_t *pages,
                                 struct godwit_error *error);

    /*
     * Both sides. After stop returns nobody writes guest memory until resume. The source calls stop once and resume
     * only when the migration ends without the guest having run elsewhere; the destination calls resume once, at RUN. A
     * resume that fails leaves the guest stopped. Default: a guest that does not run.
     */
    enum godwit_err (*stop)(void *self, struct godwit_error *error);
    enum godwit_err (*resume)(void *self, struct godwit_error *error);

    /*
     * Source, device state: one stream per name in struct godwit_guest. state_pending: bytes that save_some could send
     * now, 0 for streams that are saved at the end only (the default). save_some, guest running, writes about budget
     * bytes. save_rest, guest stopped, writes all that is left and must not write guest memory.
     * Defaults: nothing.
     */
    uint64_t (*state_pending)(void *self, unsigned stream);
    enum godwit_err (*save_some)(void *self, unsigned stream, uint64_t budget, struct godwit_state_writer *writer,
                                 struct godwit_error *error);
    enum godwit_err (*save_rest)(void *self, unsigned stream, struct godwit_state_writer *writer,
                                 struct godwit_error *error);

    /* Source: may the guest be stopped now? Asked before every switchover. Default: yes. */
    bool (*switchover_ready)(void *self);

    /*
     * Both sides: external resources of the guest, such as disk locks. The source calls release before it lets the
     * destination run and reclaim before it resumes the guest itself after that; the destination calls reclaim before
     * resume, and release when either fails. Each may be called after the other has failed half-way. Default: none.
     */
    enum godwit_err (*release)(void *self, struct godwit_error *error);
    enum godwit_err (*reclaim)(void *self, struct godwit_error *error);

    /*
     * Destination. accept: the source offers these blocks (id, size and page_size set); provide addr, fd, fd_offset and
     * content for each in mine[], which arrives as a copy of offered[], or refuse with an error that the source's user
     * will read. Called once per migration, blocks live until the migration has ended. Default: the blocks of struct
     * godwit_guest, which must then match by id and size. load: the whole of one stream, in the order of the source's
     * names, after all memory has arrived, before resume. data is valid during the call. Default: refuses any stream.
     * discard: the migration failed after accept and the guest will never run here: give the memory back. Default:
     * none.
     */
    enum godwit_err (*accept)(void *self, const struct godwit_block *offered, unsigned count, struct godwit_block *mine,
                              struct godwit_error *error);
    enum godwit_err (*load)(void *self, const char *stream, const void *data, size_t size, struct godwit_error *error);
    void (*discard)(void *self);
};

struct godwit_guest {
    const struct godwit_guest_ops *ops;
    void *self; /* handed to every operation */
    const struct godwit_block *blocks;
    unsigned block_count; /* at most GODWIT_BLOCKS_MAX */
    const char *const *streams; /* names of device state, each at most GODWIT_STATE_NAME_MAX bytes */
    unsigned stream_count;      /* at most GODWIT_STATES_MAX */
};

GODWIT_END

#endif
