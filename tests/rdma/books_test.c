/* The pure parts of rdma/: books of the send queue, credits, frames, and what travels in private data. */
#include <criterion/criterion.h>
#include <string.h>

#include "rdma/cm.h"
#include "rdma/credits.h"
#include "rdma/frame.h"
#include "rdma/queue.h"

TestSuite(rdma_books, .timeout = 30);

Test(rdma_books, one_completion_retires_all_requests_up_to_its_own)
{
    struct queue queue = {0};
    cr_assert(queue_idle(&queue));
    for (unsigned i = 1; i <= 10; i++)
        cr_assert_eq(queue_post(&queue, 100, i % 2), i);
    cr_assert_not(queue_idle(&queue));
    cr_assert(queue_retire(&queue, 7));
    cr_assert_eq(queue.posted_bytes - queue.retired_bytes, 300);
    cr_assert_eq(queue.posted_buffers - queue.retired_buffers, 1);
    cr_assert_not(queue_retire(&queue, 7), "a second time");
    cr_assert_not(queue_retire(&queue, 3), "an older one");
    cr_assert_not(queue_retire(&queue, 11), "one that was not posted");
    cr_assert_not(queue_retire(&queue, 0));
    cr_assert(queue_retire(&queue, 10));
    cr_assert(queue_idle(&queue));
}

Test(rdma_books, room_ends_before_the_reserve_and_the_reserve_at_the_depth)
{
    struct queue queue = {0};
    for (unsigned i = 0; i < QUEUE_DEPTH - QUEUE_RESERVE; i++) {
        cr_assert(queue_has_room(&queue, 1, 0));
        queue_post(&queue, 0, 0);
    }
    cr_assert_not(queue_has_room(&queue, 1, 0));
    for (unsigned i = 0; i < QUEUE_RESERVE; i++) {
        cr_assert(queue_has_reserve(&queue));
        queue_post(&queue, 0, 0);
    }
    cr_assert_not(queue_has_reserve(&queue));
    cr_assert(queue_retire(&queue, QUEUE_LIST + QUEUE_RESERVE));
    cr_assert(queue_has_room(&queue, QUEUE_LIST, 0));
    cr_assert_not(queue_has_room(&queue, QUEUE_LIST + 1, 0));
}

Test(rdma_books, bytes_under_way_are_bounded_but_one_request_may_always_go)
{
    struct queue queue = {0};
    cr_assert(queue_has_room(&queue, 1, QUEUE_BYTES + 1));
    queue_post(&queue, QUEUE_BYTES - 100, 0);
    cr_assert(queue_has_room(&queue, 1, 100));
    cr_assert_not(queue_has_room(&queue, 1, 101));
}

/* As a channel does it: one list after the other, whenever there is room. */
static unsigned signals_of_lists(unsigned lists, unsigned requests, uint64_t size)
{
    struct queue queue = {0};
    unsigned signals = 0;
    for (unsigned i = 0; i < lists; i++) {
        while (!queue_has_room(&queue, requests + 1, requests * size)) {
            cr_assert_gt(queue.signalled, queue.retired, "no room, and no completion to come");
            cr_assert(queue_retire(&queue, queue.signalled));
        }
        for (unsigned k = 0; k < requests; k++)
            queue_post(&queue, size, 0);
        if (queue_owes_signal(&queue)) {
            queue_signal(&queue);
            signals++;
        }
        cr_assert_not(queue_owes_signal(&queue));
    }
    return signals;
}

Test(rdma_books, completions_are_rare_and_there_is_always_one_where_there_is_no_room)
{
    cr_assert_eq(signals_of_lists(400, 16, 4096), 100, "one in 64 pages");
    cr_assert_eq(signals_of_lists(400, 1, 1 << 20), 200, "one in 2 MiB");
    for (unsigned requests = 1; requests <= QUEUE_LIST; requests++)
        for (uint64_t size = 4096; size <= (QUEUE_LIST_BYTES + (1 << 20)) / requests; size += 4096)
            signals_of_lists(100, requests, size);
}

Test(rdma_books, books_stay_right_for_very_long)
{
    struct queue queue = {.posted_buffers = UINT32_MAX - 5, .retired_buffers = UINT32_MAX - 5};
    for (unsigned i = 0; i < 10 * QUEUE_DEPTH; i++) {
        uint64_t id = queue_post(&queue, 1 << 20, 1);
        cr_assert_eq((uint32_t)(queue.posted_buffers - queue.retired_buffers), 1);
        cr_assert(queue_retire(&queue, id));
        cr_assert(queue_idle(&queue) && queue.posted_bytes == queue.retired_bytes);
    }
}

Test(rdma_books, credits_count_modulo_2_to_the_32)
{
    struct credits credits = {.sent = UINT32_MAX - 2, .granted = UINT32_MAX - 2};
    for (unsigned i = 0; i < CREDITS_RING; i++) {
        cr_assert(credits_may_send(&credits));
        credits.sent++;
    }
    cr_assert_not(credits_may_send(&credits));
    cr_assert_not(credits_take(&credits, credits.sent + 1, true), "more than was sent");
    cr_assert(credits_take(&credits, credits.sent - 10, true));
    cr_assert_not(credits_take(&credits, credits.sent - 11, true), "it never goes back");
    cr_assert(credits_take(&credits, credits.sent - 10, true), "but may be repeated");
    cr_assert_not(credits_take(&credits, credits.sent - 10, false), "with something else only");
    cr_assert(credits_may_send(&credits));
}

Test(rdma_books, credits_are_told_by_half_a_ring)
{
    struct credits credits = {.returned = 5, .announced = 5};
    for (unsigned i = 1; i < CREDITS_RING / 2; i++) {
        credits.returned++;
        cr_assert_not(credits_due(&credits));
    }
    credits.returned++;
    cr_assert(credits_due(&credits));
}

Test(rdma_books, frames_come_back_as_they_went)
{
    static const struct frame frames[] = {
        {0, 0, false}, {UINT32_MAX, 1, false}, {7, FRAME_DATA, false}, {0, 0, true}, {9, 0, true}};
    static uint8_t message[FRAME_SIZE + 1];
    for (unsigned i = 0; i < sizeof frames / sizeof *frames; i++) {
        struct frame got;
        frame_encode(&frames[i], message);
        cr_assert(frame_decode(message, FRAME_HEADER + frames[i].size, &got));
        cr_assert(got.credits == frames[i].credits && got.size == frames[i].size && got.end == frames[i].end);
        cr_assert_not(frame_decode(message, FRAME_HEADER + frames[i].size + 1, &got));
        cr_assert_not(frame_decode(message, FRAME_HEADER + frames[i].size - 1, &got));
    }
}

Test(rdma_books, requests_are_recognised_with_their_padding_and_nothing_else)
{
    uint8_t ticket[TICKET_SIZE], got[TICKET_SIZE], bytes[CM_REQUEST_SIZE + 40] = {0};
    for (unsigned i = 0; i < TICKET_SIZE; i++)
        ticket[i] = (uint8_t)(i + 1);
    cm_request_encode(ticket, bytes);
    cr_assert(cm_request_decode(bytes, sizeof bytes, got));
    cr_assert_arr_eq(got, ticket, TICKET_SIZE);
    cr_assert(cm_request_decode(bytes, CM_REQUEST_SIZE, got));
    cr_assert_not(cm_request_decode(bytes, CM_REQUEST_SIZE - 1, got));
    cr_assert_not(cm_request_decode(NULL, 0, got));
    for (unsigned byte = 0; byte < 8; byte++) {
        bytes[byte] ^= 0x20;
        cr_assert_not(cm_request_decode(bytes, sizeof bytes, got), "byte %u", byte);
        bytes[byte] ^= 0x20;
    }
}

static bool refusal(enum godwit_err code, const char *text, struct cm_refusal *got)
{
    uint8_t bytes[CM_REFUSAL_SIZE];
    struct cm_refusal sent = {.code = code};
    strncpy(sent.text, text, TICKET_TEXT_MAX);
    cm_refusal_encode(&sent, bytes);
    return cm_refusal_decode(bytes, sizeof bytes, got);
}

Test(rdma_books, refusals_bring_their_words_and_one_of_two_codes)
{
    struct cm_refusal got;
    cr_assert(refusal(GODWIT_ERR_NOT_ADMITTED, "not you", &got));
    cr_assert_eq(got.code, GODWIT_ERR_NOT_ADMITTED);
    cr_assert_str_eq(got.text, "not you");
    cr_assert(refusal(GODWIT_ERR_BUSY, "later", &got));
    cr_assert_eq(got.code, GODWIT_ERR_BUSY);
    cr_assert(refusal(GODWIT_ERR_PROTOCOL, "\033[2Jwiped\n", &got));
    cr_assert_eq(got.code, GODWIT_ERR_NOT_ADMITTED, "a stranger does not choose how we fail");
    cr_assert_str_eq(got.text, "?[2Jwiped?", "nor what our terminal does");
    cr_assert_not(refusal(GODWIT_OK, "no code", &got));
    cr_assert_not(refusal(GODWIT_ERR_NOT_ADMITTED, "", &got));
    uint8_t bytes[CM_REFUSAL_SIZE];
    memset(bytes, 0, sizeof bytes);
    cr_assert_not(cm_refusal_decode(bytes, sizeof bytes, &got));
    cr_assert_not(cm_refusal_decode(NULL, 0, &got));
}
