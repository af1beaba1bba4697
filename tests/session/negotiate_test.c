#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session/negotiate.h"

TestSuite(negotiate, .timeout = 60);

enum { PAGE = 4096 };

/* Too large for a stack frame; every test runs in a process of its own. */
static struct offer offer, decoded;
static struct acceptance acceptance, answered;
static uint8_t bytes[OFFER_SIZE_MAX + ACCEPT_SIZE_MAX];

static void make_offer(unsigned blocks)
{
    offer = (struct offer){.features = UINT64_C(0x8000000000000001),
                           .channels = 4,
                           .page_size = PAGE,
                           .populated = UINT64_C(0x123456789a),
                           .slice_size = 8 << 20,
                           .compression = "none",
                           .block_count = (uint16_t)blocks};
    for (unsigned i = 0; i < blocks; i++) {
        struct offer_block *block = &offer.blocks[i];
        /* As long as an id may be. */
        snprintf(block->id, sizeof block->id, "%0*u", NEGOTIATE_NAME_MAX, i);
        block->size = (uint64_t)(i + 1) * PAGE;
        block->page_size = i % 2 ? PAGE : 2 << 20;
    }
}

static size_t encode_offer(void)
{
    size_t size = offer_encode(&offer, bytes);
    cr_assert_leq(size, OFFER_SIZE_MAX);
    return size;
}

static void expect_malformed(const char *what)
{
    struct godwit_error error = {0};
    cr_assert_eq(offer_decode(bytes, encode_offer(), &decoded, &error), GODWIT_ERR_PROTOCOL, "%s", what);
    cr_assert(strstr(error.text, "malformed OFFER"), "%s: %s", what, error.text);
}

Test(negotiate, offers_of_one_and_of_all_blocks_survive)
{
    for (unsigned blocks = 1; blocks <= NEGOTIATE_BLOCKS_MAX; blocks += NEGOTIATE_BLOCKS_MAX - 1) {
        struct godwit_error error;
        make_offer(blocks);
        size_t size = encode_offer();
        cr_assert_eq(offer_decode(bytes, size, &decoded, &error), GODWIT_OK, "%s", error.text);
        cr_assert_eq(decoded.features, offer.features);
        cr_assert_eq(decoded.channels, offer.channels);
        cr_assert_eq(decoded.page_size, offer.page_size);
        cr_assert_eq(decoded.populated, offer.populated);
        cr_assert_eq(decoded.slice_size, offer.slice_size);
        cr_assert_str_eq(decoded.compression, "none");
        cr_assert_eq(decoded.block_count, blocks);
        for (unsigned i = 0; i < blocks; i++) {
            cr_assert_str_eq(decoded.blocks[i].id, offer.blocks[i].id);
            cr_assert_eq(decoded.blocks[i].size, offer.blocks[i].size);
            cr_assert_eq(decoded.blocks[i].page_size, offer.blocks[i].page_size);
        }
    }
}

Test(negotiate, offer_that_ends_early_or_late_is_refused_at_every_length)
{
    for (unsigned blocks = 1; blocks <= 3; blocks++) {
        make_offer(blocks);
        size_t whole = encode_offer();
        memset(bytes + whole, 0, 64);
        for (size_t size = 0; size <= whole + 64; size++) {
            /* A copy of just this size: reading on is found out by the address sanitizer. */
            uint8_t *copy = malloc(size + !size);
            memcpy(copy, bytes, size);
            cr_assert_eq(offer_decode(copy, size, &decoded, NULL), size == whole ? GODWIT_OK : GODWIT_ERR_PROTOCOL,
                         "%zu of %zu bytes", size, whole);
            free(copy);
        }
    }
    make_offer(NEGOTIATE_BLOCKS_MAX);
    size_t whole = encode_offer();
    for (size_t size = 0; size < whole; size += 499)
        cr_assert_eq(offer_decode(bytes, size, &decoded, NULL), GODWIT_ERR_PROTOCOL);
}

Test(negotiate, blocks_without_a_sane_size_or_name_are_refused)
{
    static const uint64_t sizes[] = {
        0, 1, PAGE - 1, PAGE + 1, (UINT64_C(1) << 52) + PAGE, UINT64_MAX, UINT64_MAX - PAGE + 1};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        make_offer(3);
        offer.blocks[2].size = sizes[i];
        expect_malformed("size");
    }
    make_offer(3);
    offer.blocks[1].id[0] = 0;
    expect_malformed("no name");
    make_offer(1);
    offer.blocks[0].size = UINT64_C(1) << 52;
    cr_assert_eq(offer_decode(bytes, encode_offer(), &decoded, NULL), GODWIT_OK, "the largest there may be");
}

Test(negotiate, two_blocks_of_one_name_are_refused_wherever_they_stand)
{
    static const unsigned at[][2] = {{0, 1}, {0, 1023}, {1022, 1023}, {500, 700}};
    for (unsigned i = 0; i < 4; i++) {
        struct godwit_error error;
        make_offer(NEGOTIATE_BLOCKS_MAX);
        memcpy(offer.blocks[at[i][1]].id, offer.blocks[at[i][0]].id, sizeof offer.blocks[0].id);
        cr_assert_eq(offer_decode(bytes, encode_offer(), &decoded, &error), GODWIT_ERR_PROTOCOL);
        cr_assert(strstr(error.text, offer.blocks[at[i][0]].id), "%s", error.text);
    }
}

Test(negotiate, counts_out_of_range_are_refused)
{
    static const unsigned channels[][2] = {{0, 0}, {1, 1}, {255, 1}, {256, 0}, {65535, 0}};
    for (unsigned i = 0; i < 5; i++) {
        make_offer(1);
        offer.channels = (uint16_t)channels[i][0];
        cr_assert_eq(offer_decode(bytes, encode_offer(), &decoded, NULL),
                     channels[i][1] ? GODWIT_OK : GODWIT_ERR_PROTOCOL, "%u channels", channels[i][0]);
    }
    make_offer(0);
    expect_malformed("no block");
    /* The count alone: nothing behind it may be looked for. */
    make_offer(1);
    size_t size = encode_offer();
    for (unsigned count = NEGOTIATE_BLOCKS_MAX + 1; count <= UINT16_MAX; count += 257) {
        bytes[10] = (uint8_t)(count >> 8);
        bytes[11] = (uint8_t)count;
        cr_assert_eq(offer_decode(bytes, size, &decoded, NULL), GODWIT_ERR_PROTOCOL, "%u blocks", count);
    }
}

Test(negotiate, slices_are_of_a_few_sizes_and_for_placing_only)
{
    static const uint32_t good[] = {2 << 20, 4 << 20, 8 << 20, 16 << 20};
    static const uint32_t bad[] = {0,       1,       PAGE,    1 << 20,  (2 << 20) - 1, (2 << 20) + PAGE,
                                   3 << 20, 6 << 20, 32 << 20, UINT32_MAX};
    make_offer(1);
    for (unsigned i = 0; i < sizeof good / sizeof *good; i++) {
        offer.slice_size = good[i];
        cr_assert_eq(offer_decode(bytes, encode_offer(), &decoded, NULL), GODWIT_OK, "%u", good[i]);
    }
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        offer.slice_size = bad[i];
        expect_malformed("slice size");
    }
    offer.features &= ~(uint64_t)FEATURE_PLACED;
    offer.slice_size = 2 << 20;
    expect_malformed("slices without placing");
    offer.slice_size = 0;
    cr_assert_eq(offer_decode(bytes, encode_offer(), &decoded, NULL), GODWIT_OK);
}

Test(negotiate, random_damage_never_does_harm)
{
    srand(1);
    for (unsigned round = 0; round < 20000; round++) {
        make_offer(2);
        size_t size = encode_offer();
        for (unsigned i = 0; i < 1 + round % 5; i++)
            bytes[(size_t)rand() % size] = (uint8_t)rand();
        if (offer_decode(bytes, size, &decoded, NULL) != GODWIT_OK)
            continue;
        cr_assert(decoded.block_count == 2 && decoded.channels >= 1 && decoded.channels <= NEGOTIATE_CHANNELS_MAX);
        for (unsigned i = 0; i < 2; i++)
            cr_assert(decoded.blocks[i].id[0] && decoded.blocks[i].size && decoded.blocks[i].size % PAGE == 0);
    }
}

Test(negotiate, demands_of_the_destination_are_worded_for_both_users)
{
    struct godwit_error error = {0};
    make_offer(1);
    cr_assert_eq(offer_check(&offer, 0, false, "tcp", &error), GODWIT_OK, "adopts the source's channels");
    cr_assert_eq(offer_check(&offer, 4, false, "tcp", &error), GODWIT_OK);
    cr_assert_eq(offer_check(&offer, 7, false, "tcp", &error), GODWIT_ERR_MISMATCH);
    cr_assert(strstr(error.text, "multifd-channels mismatch: source 4, destination 7"), "%s", error.text);
    offer.page_size = 65536;
    cr_assert_eq(offer_check(&offer, 0, false, "tcp", &error), GODWIT_ERR_MISMATCH);
    cr_assert(strstr(error.text, "page size") && strstr(error.text, "65536") && strstr(error.text, "4096"), "%s",
              error.text);
    make_offer(1);
    strcpy(offer.compression, "zstd");
    cr_assert_eq(offer_check(&offer, 0, false, "tcp", &error), GODWIT_ERR_MISMATCH);
    cr_assert(strstr(error.text, "multifd-compression") && strstr(error.text, "zstd"), "%s", error.text);
}

/* What a destination answers to make_offer(blocks) with so many channels. */
static void make_acceptance(unsigned blocks, unsigned channels)
{
    make_offer(blocks);
    offer.channels = (uint16_t)channels;
    acceptance = (struct acceptance){.features = 1,
                                     .channels = (uint16_t)channels,
                                     .block_count = (uint16_t)blocks,
                                     .token_count = (uint16_t)(channels + 1)};
    for (unsigned i = 0; i < blocks; i++)
        acceptance.fresh[i] = i % 3 == 0;
    for (unsigned i = 0; i <= channels; i++) {
        bool data = i < channels;
        cr_assert_eq(
            token_issue(&acceptance.tokens[i], data ? HELLO_DATA : HELLO_CONTROL, data ? (uint16_t)i : 0, !data, NULL),
            GODWIT_OK);
    }
}

Test(negotiate, smallest_and_largest_acceptance_survive)
{
    for (unsigned large = 0; large < 2; large++) {
        struct godwit_error error;
        make_acceptance(large ? NEGOTIATE_BLOCKS_MAX : 1, large ? NEGOTIATE_CHANNELS_MAX : 1);
        size_t size = acceptance_encode(&acceptance, bytes);
        cr_assert_leq(size, ACCEPT_SIZE_MAX);
        cr_assert_eq(acceptance_decode(bytes, size, &answered, &error), GODWIT_OK, "%s", error.text);
        cr_assert_eq(answered.features, acceptance.features);
        cr_assert_eq(answered.channels, acceptance.channels);
        cr_assert_eq(answered.block_count, acceptance.block_count);
        cr_assert_arr_eq(answered.fresh, acceptance.fresh, acceptance.block_count);
        cr_assert_eq(answered.token_count, acceptance.token_count);
        for (unsigned i = 0; i < acceptance.token_count; i++) {
            cr_assert_eq(answered.tokens[i].role, acceptance.tokens[i].role);
            cr_assert_eq(answered.tokens[i].channel, acceptance.tokens[i].channel);
            cr_assert_eq(answered.tokens[i].epoch, acceptance.tokens[i].epoch);
            cr_assert_arr_eq(answered.tokens[i].bytes, acceptance.tokens[i].bytes, TOKEN_SIZE);
        }
        cr_assert_eq(acceptance_check(&answered, &offer, &error), GODWIT_OK, "%s", error.text);
    }
}

Test(negotiate, acceptance_that_ends_early_or_late_is_refused_at_every_length)
{
    make_acceptance(3, 2);
    size_t whole = acceptance_encode(&acceptance, bytes);
    memset(bytes + whole, 0, 64);
    for (size_t size = 0; size <= whole + 64; size++) {
        uint8_t *copy = malloc(size + !size);
        memcpy(copy, bytes, size);
        cr_assert_eq(acceptance_decode(copy, size, &answered, NULL), size == whole ? GODWIT_OK : GODWIT_ERR_PROTOCOL,
                     "%zu of %zu bytes", size, whole);
        free(copy);
    }
}

Test(negotiate, acceptance_with_counts_beyond_its_arrays_is_refused)
{
    make_acceptance(1, 1);
    size_t size = acceptance_encode(&acceptance, bytes);
    for (unsigned field = 10; field <= 12; field += 2) {
        unsigned first = field == 10 ? NEGOTIATE_BLOCKS_MAX + 1 : NEGOTIATE_CHANNELS_MAX + 2;
        uint8_t saved[2] = {bytes[field], bytes[field + 1]};
        for (unsigned count = first; count <= UINT16_MAX; count += 89) {
            bytes[field] = (uint8_t)(count >> 8);
            bytes[field + 1] = (uint8_t)count;
            cr_assert_eq(acceptance_decode(bytes, sizeof bytes, &answered, NULL), GODWIT_ERR_PROTOCOL);
        }
        memcpy(bytes + field, saved, 2);
    }
    cr_assert_eq(acceptance_decode(bytes, size, &answered, NULL), GODWIT_OK);
}

Test(negotiate, block_of_an_acceptance_is_fresh_or_used)
{
    make_acceptance(3, 1);
    for (unsigned value = 0; value <= UINT8_MAX; value++) {
        acceptance.fresh[2] = (uint8_t)value;
        size_t size = acceptance_encode(&acceptance, bytes);
        cr_assert_eq(acceptance_decode(bytes, size, &answered, NULL), value <= 1 ? GODWIT_OK : GODWIT_ERR_PROTOCOL);
    }
}

static void expect_no_answer(const char *what)
{
    struct godwit_error error = {0};
    cr_assert_eq(acceptance_check(&acceptance, &offer, &error), GODWIT_ERR_PROTOCOL, "%s", what);
    cr_assert(strstr(error.text, "ACCEPT"), "%s", error.text);
    make_acceptance(2, 3);
    cr_assert_eq(acceptance_check(&acceptance, &offer, &error), GODWIT_OK, "%s", error.text);
}

Test(negotiate, rdma_is_for_both_sides_or_none)
{
    struct godwit_error error;
    make_offer(1);
    cr_assert_eq(offer_check(&offer, 0, true, "rdma", &error), GODWIT_ERR_MISMATCH);
    cr_assert(strstr(error.text, "rdma:") && strstr(error.text, "tcp:"), "%s", error.text);
    offer.features |= FEATURE_RDMA;
    cr_assert_eq(offer_check(&offer, 0, false, "unix", &error), GODWIT_ERR_MISMATCH);
    cr_assert(strstr(error.text, "rdma:") && strstr(error.text, "unix:"), "%s", error.text);
    cr_assert_eq(offer_check(&offer, 0, true, "rdma", NULL), GODWIT_OK);
    make_acceptance(1, 1);
    offer.features |= FEATURE_RDMA;
    acceptance.features = FEATURE_PLACED;
    cr_assert_eq(acceptance_check(&acceptance, &offer, &error), GODWIT_ERR_MISMATCH, "it never heard of it");
    acceptance.features |= FEATURE_RDMA;
    cr_assert_eq(acceptance_check(&acceptance, &offer, &error), GODWIT_OK, "%s", error.text);
}

Test(negotiate, acceptance_must_answer_the_offer_that_was_made)
{
    make_acceptance(2, 3);
    acceptance.features = 2;
    expect_no_answer("a feature that was not offered");
    acceptance.features = 0;
    cr_assert_eq(acceptance_check(&acceptance, &offer, NULL), GODWIT_OK, "fewer features are fine");
    acceptance.channels = 2;
    expect_no_answer("other channels");
    acceptance.block_count = 1;
    expect_no_answer("other blocks");
    acceptance.token_count = 3;
    expect_no_answer("no token for the next control connection");
    acceptance.token_count = 0;
    expect_no_answer("no tokens");
    for (unsigned i = 0; i < 4; i++) {
        acceptance.tokens[i].role = i < 3 ? HELLO_CONTROL : HELLO_DATA;
        expect_no_answer("a token of another role");
        acceptance.tokens[i].channel++;
        expect_no_answer("a token of another channel");
        acceptance.tokens[i].epoch ^= 1;
        expect_no_answer("a token of another epoch");
    }
}
