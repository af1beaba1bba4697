/* What only the loop promises: the conformance list has the rest. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/pair.h"

TestSuite(loop, .timeout = 20);

static struct address named(const char *name)
{
    struct address address;
    cr_assert_eq(address_parse(name, &address, NULL), GODWIT_OK);
    return address;
}

Test(loop, payload_is_not_read_before_it_must_be)
{
    struct pair pair;
    cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
    char memory[] = "early", got[6] = "";
    struct iovec iov = {memory, 5};
    cr_assert_eq(channel_send(pair.a, NULL, 0, &iov, 1, 0), GODWIT_OK);
    memcpy(memory, "late!", 5);
    cr_assert_eq(channel_recv_exact(pair.b, got, 5, 0), GODWIT_OK);
    cr_assert_str_eq(got, "late!", "a sender that reuses memory before flush is found out");
    pair_close(&pair);
}

Test(loop, free_takes_a_copy_of_what_is_unread)
{
    struct pair pair;
    cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
    char memory[] = "early", got[6] = "";
    struct iovec iov = {memory, 5};
    cr_assert_eq(channel_send(pair.a, NULL, 0, &iov, 1, 0), GODWIT_OK);
    channel_free(pair.a);
    pair.a = NULL;
    memcpy(memory, "late!", 5);
    cr_assert_eq(channel_recv_exact(pair.b, got, 5, 0), GODWIT_OK);
    cr_assert_str_eq(got, "early");
    pair_close(&pair);
}

/* The local and far memory of one put of the byte 'e' that is 'l' by the time of the receive. */
static char put_raced(uint64_t seed)
{
    struct loop_net *net = loop_net_new(seed);
    const struct transport *transport = loop_net_transport(net);
    struct address address = named("loop:race");
    struct listener *listener;
    struct channel *a, *b;
    struct domain *domain;
    struct mr *from, *to;
    struct remote *remote;
    struct region_key key;
    char local = 'e', far = 0, byte;
    cr_assert_eq(transport_listen(transport, &address, 1, &listener, NULL, NULL), GODWIT_OK);
    cr_assert_eq(transport_connect(transport, &address, NULL, 0, NULL, &a, NULL), GODWIT_OK);
    cr_assert_eq(listener_accept(listener, 0, &b, NULL), GODWIT_OK);
    cr_assert_eq(transport_domain(transport, &address, &domain, NULL), GODWIT_OK);
    domain_register(domain, &(struct region){&local, 1, -1, 0}, REGION_LOCAL, &from, NULL);
    domain_register(domain, &(struct region){&far, 1, -1, 0}, REGION_REMOTE_WRITE, &to, NULL);
    mr_export(to, &key);
    cr_assert_eq(domain_import(domain, &key, &remote, NULL), GODWIT_OK);
    cr_assert_eq(channel_put(a, from, 0, remote, 0, 1), GODWIT_OK);
    local = 'l';
    cr_assert_eq(channel_send(a, "!", 1, NULL, 0, 0), GODWIT_OK);
    cr_assert_eq(channel_recv_exact(b, &byte, 1, 0), GODWIT_OK);
    channel_free(a);
    channel_free(b);
    remote_free(remote);
    mr_free(from);
    mr_free(to);
    domain_free(domain);
    listener_free(listener);
    loop_net_free(net);
    return far;
}

Test(loop, put_memory_is_read_early_or_late_as_the_seed_will_have_it)
{
    unsigned early = 0, late = 0;
    for (uint64_t seed = 0; seed < 64; seed++) {
        char got = put_raced(seed);
        early += got == 'e';
        late += got == 'l';
        cr_assert_eq(put_raced(seed), got, "one seed, one choice");
    }
    cr_assert_eq(early + late, 64);
    cr_assert(early > 8 && late > 8, "%u early, %u late", early, late);
}

Test(loop, names_of_one_net_mean_nothing_in_another)
{
    struct loop_net *here = loop_net_new(1), *there = loop_net_new(1);
    struct address address = named("loop:x");
    struct listener *listener, *other;
    struct channel *channel;
    cr_assert_eq(transport_listen(loop_net_transport(here), &address, 1, &listener, NULL, NULL), GODWIT_OK);
    cr_assert_eq(transport_connect(loop_net_transport(there), &address, NULL, 0, NULL, &channel, NULL),
                 GODWIT_ERR_REFUSED);
    cr_assert_eq(transport_listen(loop_net_transport(there), &address, 1, &other, NULL, NULL), GODWIT_OK);
    listener_free(listener);
    listener_free(other);
    loop_net_free(here);
    loop_net_free(there);
    loop_net_free(NULL);
}

Test(loop, full_backlog_is_unreachable)
{
    struct loop_net *net = loop_net_new(1);
    const struct transport *transport = loop_net_transport(net);
    struct address address = named("loop:x");
    struct listener *listener;
    struct channel *ends[3] = {0};
    struct godwit_error error;
    cr_assert_eq(transport_listen(transport, &address, 2, &listener, NULL, NULL), GODWIT_OK);
    cr_assert_eq(transport_connect(transport, &address, NULL, 0, NULL, &ends[0], NULL), GODWIT_OK);
    cr_assert_eq(transport_connect(transport, &address, NULL, 0, NULL, &ends[1], NULL), GODWIT_OK);
    cr_assert_eq(transport_connect(transport, &address, NULL, 10, NULL, &ends[2], &error), GODWIT_ERR_UNREACHABLE);
    cr_assert(strstr(error.text, "backlog"), "%s", error.text);
    for (unsigned i = 0; i < 3; i++)
        channel_free(ends[i]);
    listener_free(listener);
    loop_net_free(net);
}

Test(loop, puts_without_sends_never_block_and_sends_count_their_bytes)
{
    struct pair pair;
    cr_assert_eq(pair_open(&pair, PAIR_LOOP), GODWIT_OK);
    enum { SIZE = 1 << 20 };
    uint8_t *memory = calloc(2, SIZE);
    struct domain *domain;
    struct mr *from, *to;
    struct remote *remote;
    struct region_key key;
    cr_assert_eq(transport_domain(pair.transport, &pair.address, &domain, NULL), GODWIT_OK);
    domain_register(domain, &(struct region){memory, SIZE, -1, 0}, REGION_LOCAL, &from, NULL);
    domain_register(domain, &(struct region){memory + SIZE, SIZE, -1, 0}, REGION_REMOTE_WRITE, &to, NULL);
    mr_export(to, &key);
    cr_assert_eq(domain_import(domain, &key, &remote, NULL), GODWIT_OK);
    for (unsigned i = 0; i < 8; i++)
        cr_assert_eq(channel_put(pair.a, from, 0, remote, 0, SIZE), GODWIT_OK);
    cr_assert_eq(channel_send(pair.a, "!", 1, NULL, 0, 0), GODWIT_OK, "8 MiB of puts, nothing to wait for");
    cr_assert_eq(channel_send(pair.a, "!", 1, NULL, 0, 0), GODWIT_ERR_TIMEOUT, "now there is");
    char byte;
    cr_assert_eq(channel_recv_exact(pair.b, &byte, 1, 0), GODWIT_OK);
    cr_assert_eq(channel_send(pair.a, "!", 1, NULL, 0, 0), GODWIT_OK);
    channel_free(pair.a);
    pair.a = NULL;
    remote_free(remote);
    mr_free(from);
    mr_free(to);
    domain_free(domain);
    free(memory);
    pair_close(&pair);
}
