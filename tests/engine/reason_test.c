#include <criterion/criterion.h>

#include "engine/reason.h"

TestSuite(reason, .timeout = 10);

Test(reason, the_first_that_says_why_stands)
{
    cr_assert(reason_is_better(GODWIT_ERR_GUEST, GODWIT_OK));
    cr_assert_not(reason_is_better(GODWIT_ERR_PEER_FAILED, GODWIT_ERR_GUEST));
    cr_assert_not(reason_is_better(GODWIT_OK, GODWIT_ERR_GUEST));
    cr_assert_not(reason_is_better(GODWIT_ERR_RESET, GODWIT_ERR_GUEST));
}

Test(reason, whatever_says_why_beats_a_connection_that_ended)
{
    cr_assert(reason_is_better(GODWIT_ERR_PEER_FAILED, GODWIT_ERR_RESET));
    cr_assert(reason_is_better(GODWIT_ERR_PEER_DEAD, GODWIT_ERR_NOT_ADMITTED));
    cr_assert_not(reason_is_better(GODWIT_ERR_PEER_CLOSED, GODWIT_ERR_RESET));
}

/* This side closes what it has when something has happened: that comes first, if only as a connection that ended. */
Test(reason, that_this_side_closed_says_least)
{
    cr_assert(reason_is_better(GODWIT_ERR_PEER_CLOSED, GODWIT_ERR_CLOSED));
    cr_assert(reason_is_better(GODWIT_ERR_GUEST, GODWIT_ERR_CLOSED));
    cr_assert_not(reason_is_better(GODWIT_ERR_CLOSED, GODWIT_ERR_RESET));
    cr_assert_not(reason_is_better(GODWIT_ERR_CLOSED, GODWIT_ERR_CLOSED));
}
