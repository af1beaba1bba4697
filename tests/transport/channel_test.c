/* The wrappers of channel.c over a channel that does nothing but note what reached it. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "transport/channel_ops.h"
#include "transport/error.h"

TestSuite(channel, .timeout = 10);

struct note {
    struct channel base;
    unsigned sends, recvs, puts, gets, flushes, shutdowns, frees;
};

static enum godwit_err note_send(struct channel *channel, const void *head, size_t head_size,
                                 const struct iovec *payload, unsigned count, int timeout_ms)
{
    ((struct note *)channel)->sends++;
    return GODWIT_OK;
}

static enum godwit_err note_recv(struct channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    ((struct note *)channel)->recvs++;
    return GODWIT_OK;
}

static enum godwit_err note_put(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    ((struct note *)channel)->puts++;
    return GODWIT_OK;
}

static enum godwit_err note_get(struct channel *channel, const struct mr *mr, uint64_t mr_offset,
                                const struct remote *remote, uint64_t remote_offset, uint64_t size)
{
    ((struct note *)channel)->gets++;
    return GODWIT_OK;
}

static enum godwit_err note_flush(struct channel *channel, int timeout_ms)
{
    ((struct note *)channel)->flushes++;
    return GODWIT_OK;
}

static void note_shutdown(struct channel *channel)
{
    ((struct note *)channel)->shutdowns++;
}

static void note_free(struct channel *channel)
{
    ((struct note *)channel)->frees++;
}

static const struct channel_ops note_ops = {
    .name = "note",
    .handshake = channel_handshake_nothing,
    .send = note_send,
    .recv = note_recv,
    .recv_some = channel_recv_one_byte,
    .put = note_put,
    .get = note_get,
    .flush = note_flush,
    .shutdown = note_shutdown,
    .free = note_free,
};

static struct note note_make(void)
{
    struct channel_limits limits = {.max_iov = 64, .max_put = 4096, .put_align = 512, .one_sided = true};
    return (struct note){.base = {&note_ops, limits, "note x"}};
}

Test(channel, calls_within_the_limits_reach_the_transport)
{
    struct note n = note_make();
    struct iovec iov[64] = {{0}};
    cr_assert_eq(channel_send(&n.base, "h", 1, iov, 64, 0), GODWIT_OK);
    cr_assert_eq(channel_send(&n.base, NULL, 0, NULL, 0, CHANNEL_FOREVER), GODWIT_OK);
    cr_assert_eq(channel_recv(&n.base, iov, 64, 0), GODWIT_OK);
    cr_assert_eq(channel_recv_exact(&n.base, iov, 1, 0), GODWIT_OK);
    cr_assert_eq(channel_flush(&n.base, 0), GODWIT_OK);
    cr_assert(n.sends == 2 && n.recvs == 2 && n.flushes == 1);
    cr_assert_str_eq(channel_name(&n.base), "note x");
    cr_assert_eq(channel_limits(&n.base)->max_put, 4096);
}

Test(channel, too_many_iovs_are_refused_and_not_split)
{
    struct note n = note_make();
    struct iovec iov[65] = {{0}};
    cr_assert_eq(channel_send(&n.base, NULL, 0, iov, 65, 0), GODWIT_ERR_INVALID);
    cr_assert_eq(channel_recv(&n.base, iov, 65, 0), GODWIT_ERR_INVALID);
    cr_assert(n.sends == 0 && n.recvs == 0);
}

Test(channel, only_aligned_ranges_inside_both_regions_reach_the_transport)
{
    struct note n = note_make();
    struct mr mr = {.region = {.size = 8192}, .access = REGION_LOCAL_WRITE};
    struct mr readable = {.region = {.size = 8192}, .access = REGION_LOCAL};
    struct remote remote = {.size = 4096};
    cr_assert_eq(channel_get(&n.base, &readable, 0, &remote, 0, 512), GODWIT_ERR_INVALID, "nothing may write it");
    cr_assert_eq(channel_put(&n.base, &mr, 4096, &remote, 0, 4096), GODWIT_OK);
    cr_assert_eq(channel_get(&n.base, &mr, 7680, &remote, 3584, 512), GODWIT_OK);
    cr_assert_eq(channel_put(&n.base, &mr, 0, &remote, 0, 0), GODWIT_OK, "nothing to do");
    cr_assert(n.puts == 1 && n.gets == 1);
    cr_assert_eq(channel_put(&n.base, &mr, 0, &remote, 512, 4096), GODWIT_ERR_INVALID);
    cr_assert_eq(channel_put(&n.base, &mr, 8192, &remote, 0, 512), GODWIT_ERR_INVALID);
    cr_assert_eq(channel_put(&n.base, &mr, UINT64_MAX - 511, &remote, 0, 512), GODWIT_ERR_INVALID);
    cr_assert_eq(channel_put(&n.base, &mr, 0, &remote, 0, 8192), GODWIT_ERR_TOO_BIG);
    cr_assert_eq(channel_put(&n.base, &mr, 1, &remote, 0, 512), GODWIT_ERR_INVALID, "alignment");
    cr_assert_eq(channel_get(&n.base, &mr, 0, &remote, 1, 512), GODWIT_ERR_INVALID, "alignment");
    cr_assert_eq(channel_get(&n.base, &mr, 0, &remote, 0, 100), GODWIT_ERR_INVALID, "alignment");
    cr_assert(n.puts == 1 && n.gets == 1);
}

Test(channel, free_shuts_down_first_and_takes_null)
{
    struct note n = note_make();
    channel_free(&n.base);
    cr_assert(n.shutdowns == 1 && n.frees == 1);
    channel_free(NULL);
    listener_free(NULL);
    domain_free(NULL);
    mr_free(NULL);
    remote_free(NULL);
}

Test(channel, unsupported_functions_say_so)
{
    struct address address = {.scheme = "tcp"};
    struct domain *domain = NULL;
    struct godwit_error error;
    cr_assert_eq(channel_put_unsupported(NULL, NULL, 0, NULL, 0, 0), GODWIT_ERR_UNSUPPORTED);
    cr_assert_eq(channel_get_unsupported(NULL, NULL, 0, NULL, 0, 0), GODWIT_ERR_UNSUPPORTED);
    cr_assert_eq(channel_flush_nothing(NULL, 0), GODWIT_OK);
    cr_assert_eq(transport_domain_unsupported(NULL, &address, &domain, &error), GODWIT_ERR_UNSUPPORTED);
    cr_assert(strstr(error.text, "tcp"), "%s", error.text);
}
