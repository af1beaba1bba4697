#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <string.h>

#include "engine/guest.h"
#include "engine/state.h"

TestSuite(guest, .timeout = 20);

static _Alignas(GODWIT_PAGE_SIZE) uint8_t memory[8 * GODWIT_PAGE_SIZE];

static struct godwit_block block_of(const char *id, uint64_t pages)
{
    struct godwit_block block = {.addr = memory, .size = pages * GODWIT_PAGE_SIZE, .fd = -1};
    memcpy(block.id, id, strlen(id));
    return block;
}

static enum godwit_err refused(void *self, struct godwit_error *error)
{
    return GODWIT_ERR_GUEST;
}

Test(guest, operations_left_out_get_the_defaults_of_the_header)
{
    struct godwit_block block = block_of("ram", 8);
    struct godwit_guest given = {.blocks = &block, .block_count = 1};
    struct guest guest;
    struct godwit_error error = {0};
    uint64_t bitmap[1] = {0}, first, pages;
    cr_assert_eq(guest_resolve(&given, &guest, &error), GODWIT_OK, "%s", error.text);
    cr_assert_eq(guest.ops.dirty_start(guest.self, &error), GODWIT_OK);
    cr_assert_eq(guest.ops.dirty_sync(guest.self, 0, bitmap, &error), GODWIT_OK);
    cr_assert_eq(bitmap[0], 0);
    cr_assert_null(guest.ops.dirty_clear);
    guest.ops.dirty_stop(guest.self);
    cr_assert_eq(guest.ops.stop(guest.self, &error), GODWIT_OK);
    cr_assert_eq(guest.ops.resume(guest.self, &error), GODWIT_OK);
    cr_assert_eq(guest.ops.release(guest.self, &error), GODWIT_OK);
    cr_assert_eq(guest.ops.reclaim(guest.self, &error), GODWIT_OK);
    cr_assert_eq(guest.ops.state_pending(guest.self, 0), 0);
    struct godwit_state_writer writer = {0};
    cr_assert_eq(guest.ops.save_some(guest.self, 0, 100, &writer, &error), GODWIT_OK);
    cr_assert_eq(guest.ops.save_rest(guest.self, 0, &writer, &error), GODWIT_OK);
    cr_assert_eq(writer.size, 0);
    cr_assert(guest.ops.switchover_ready(guest.self));
    guest.ops.discard(guest.self);
    cr_assert_eq(guest_next_data(&guest, 0, 3, &first, &pages, &error), GODWIT_OK);
    cr_assert(first == 3 && pages == 5);
}

Test(guest, default_load_refuses_and_names_the_stream)
{
    struct godwit_block block = block_of("ram", 8);
    struct godwit_guest given = {.blocks = &block, .block_count = 1};
    struct guest guest;
    struct godwit_error error = {0};
    cr_assert_eq(guest_resolve(&given, &guest, &error), GODWIT_OK);
    cr_assert_eq(guest.ops.load(guest.self, "timer", NULL, 0, &error), GODWIT_ERR_GUEST);
    cr_assert_not_null(strstr(error.text, "timer"));
}

Test(guest, operations_given_are_kept)
{
    static const struct godwit_guest_ops ops = {.stop = refused};
    struct godwit_block block = block_of("ram", 8);
    struct godwit_guest given = {.ops = &ops, .self = &block, .blocks = &block, .block_count = 1};
    struct guest guest;
    cr_assert_eq(guest_resolve(&given, &guest, NULL), GODWIT_OK);
    cr_assert_eq(guest.ops.stop, refused);
    cr_assert_eq(guest.self, &block);
}

enum wrong_guest {
    NO_NAME,
    NAME_WITHOUT_END,
    SIZE_OF_ZERO,
    SIZE_OF_HALF_A_PAGE,
    CROOKED_ADDRESS,
    SAME_BLOCK_TWICE,
    TOO_MANY_BLOCKS,
    TOO_MANY_STREAMS,
    STREAM_WITHOUT_NAME,
    STREAM_NAME_TOO_LONG,
    SAME_STREAM_TWICE,
    WRONG_GUESTS
};

ParameterizedTestParameters(guest, wrong_guests_are_refused_in_words)
{
    static unsigned kinds[WRONG_GUESTS];
    for (unsigned i = 0; i < WRONG_GUESTS; i++)
        kinds[i] = i;
    return cr_make_param_array(unsigned, kinds, WRONG_GUESTS);
}

ParameterizedTest(unsigned *kind, guest, wrong_guests_are_refused_in_words)
{
    static char long_name[GODWIT_STATE_NAME_MAX + 2];
    struct godwit_block blocks[3] = {block_of("a", 1), block_of("b", 2), block_of("c", 3)};
    const char *streams[3] = {"x", "y", "z"};
    struct godwit_guest given = {.blocks = blocks, .block_count = 3, .streams = streams, .stream_count = 3};
    const char *word = NULL;
    memset(long_name, 'n', sizeof long_name - 1);
    switch ((enum wrong_guest)*kind) {
    case NO_NAME: blocks[1].id[0] = 0; word = "block 1"; break;
    case NAME_WITHOUT_END: memset(blocks[2].id, 'q', sizeof blocks[2].id); word = "block 2"; break;
    case SIZE_OF_ZERO: blocks[1].size = 0; word = "block b"; break;
    case SIZE_OF_HALF_A_PAGE: blocks[1].size += 2048; word = "block b"; break;
    case CROOKED_ADDRESS: blocks[2].addr = memory + 1; word = "block c"; break;
    case SAME_BLOCK_TWICE: blocks[2] = blocks[0]; word = "called a"; break;
    case TOO_MANY_BLOCKS: given.block_count = GODWIT_BLOCKS_MAX + 1; word = "1024"; break;
    case TOO_MANY_STREAMS: given.stream_count = GODWIT_STATES_MAX + 1; word = "256"; break;
    case STREAM_WITHOUT_NAME: streams[1] = ""; word = "state 1"; break;
    case STREAM_NAME_TOO_LONG: streams[2] = long_name; word = "state 2"; break;
    case SAME_STREAM_TWICE: streams[2] = "x"; word = "called x"; break;
    case WRONG_GUESTS: break;
    }
    struct guest guest;
    struct godwit_error error = {0};
    cr_assert_eq(guest_resolve(&given, &guest, &error), GODWIT_ERR_INVALID, "case %u was taken", *kind);
    cr_assert_not_null(strstr(error.text, word), "'%s' does not say %s", error.text, word);
}

Test(guest, longest_names_are_accepted)
{
    char name[GODWIT_STATE_NAME_MAX + 1];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    struct godwit_block block = block_of(name, 1);
    const char *streams[] = {name};
    struct godwit_guest given = {.blocks = &block, .block_count = 1, .streams = streams, .stream_count = 1};
    struct guest guest;
    cr_assert_eq(guest_resolve(&given, &guest, NULL), GODWIT_OK);
}

Test(guest, default_accept_gives_own_blocks_in_the_order_of_the_offer)
{
    struct godwit_block own[] = {block_of("a", 1), block_of("b", 2)}, mine[2];
    struct godwit_block offered[] = {block_of("b", 2), block_of("a", 1)};
    own[0].addr = memory + GODWIT_PAGE_SIZE;
    own[0].content = GODWIT_BLOCK_USED;
    offered[0].addr = offered[1].addr = NULL;
    struct godwit_guest given = {.blocks = own, .block_count = 2};
    struct guest guest;
    struct godwit_error error = {0};
    cr_assert_eq(guest_resolve(&given, &guest, NULL), GODWIT_OK);
    cr_assert_eq(guest_accept(&guest, offered, 2, mine, &error), GODWIT_OK, "%s", error.text);
    cr_assert_eq(mine[0].addr, own[1].addr);
    cr_assert_eq(mine[1].addr, own[0].addr);
    cr_assert_eq(mine[1].content, GODWIT_BLOCK_USED);
}

Test(guest, default_accept_names_what_does_not_match)
{
    struct godwit_block own[] = {block_of("a", 1), block_of("b", 2)}, mine[3];
    struct godwit_block fewer[] = {block_of("a", 1)};
    struct godwit_block other[] = {block_of("a", 1), block_of("rom", 2)};
    struct godwit_block larger[] = {block_of("a", 1), block_of("b", 3)};
    struct godwit_guest given = {.blocks = own, .block_count = 2};
    struct guest guest;
    struct godwit_error error = {0};
    cr_assert_eq(guest_resolve(&given, &guest, NULL), GODWIT_OK);
    cr_assert_eq(guest_accept(&guest, fewer, 1, mine, &error), GODWIT_ERR_MISMATCH);
    cr_assert(strstr(error.text, "1 blocks") && strstr(error.text, "2"), "%s", error.text);
    cr_assert_eq(guest_accept(&guest, other, 2, mine, &error), GODWIT_ERR_MISMATCH);
    cr_assert_not_null(strstr(error.text, "rom"), "%s", error.text);
    cr_assert_eq(guest_accept(&guest, larger, 2, mine, &error), GODWIT_ERR_MISMATCH);
    cr_assert(strstr(error.text, "12288") && strstr(error.text, "8192"), "%s", error.text);
}
