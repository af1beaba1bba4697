/* Migrations inside TLS: that nothing else changes, what is refused before anybody connects, and what is left behind. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <string.h>

#include <godwit/pki.h>

#include "engine/destination.h"
#include "tcp/tcp.h"
#include "tests/engine/expect.h"
#include "tests/lib/pki.h"
#include "transport/clock.h"
#include "transport/error.h"

TestSuite(tls, .timeout = 60);

/* Credentials in a directory of their own, `name` in `parent`. */
static void make_psk(const char *parent, const char *name, char path[PKI_PATH_MAX])
{
    struct godwit_error error;
    snprintf(path, PKI_PATH_MAX, "%.200s/%s", parent, name);
    cr_assert_eq(godwit_pki_make_psk(path, "qemu", &error), GODWIT_OK, "%s", error.text);
}

static void make_x509(const char *parent, const char *name, char path[PKI_PATH_MAX])
{
    struct godwit_error error;
    struct godwit_pki pki;
    godwit_pki_init(&pki);
    pki.host = "localhost,127.0.0.1";
    snprintf(path, PKI_PATH_MAX, "%.200s/%s", parent, name);
    cr_assert_eq(godwit_pki_make(path, &pki, NULL, &error), GODWIT_OK, "%s", error.text);
}

static void expect_protected(const struct godwit_info *info)
{
    cr_assert_gt(info->channel_count, 0);
    for (unsigned i = 0; i < info->channel_count; i++)
        cr_assert_str_eq(info->channels[i].tls_version, "TLS1.3");
}

/* ---- whole migrations ---- */

struct net_row {
    enum scene_net net;
    bool psk;
};

ParameterizedTestParameters(tls, a_migration_leaves_nothing_behind)
{
    static struct net_row rows[] = {{SCENE_TCP, true}, {SCENE_TCP, false}, {SCENE_UNIX, true}, {SCENE_UNIX, false}};
    return cr_make_param_array(struct net_row, rows, 4);
}

ParameterizedTest(struct net_row *row, tls, a_migration_leaves_nothing_behind)
{
    char parent[PKI_PATH_MAX], creds[PKI_PATH_MAX];
    pki_directory_new(parent);
    (row->psk ? make_psk : make_x509)(parent, "creds", creds);
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct scene scene;
    scene_init(&scene, row->net, 3, 2);
    scene_set(&scene, "multifd-channels", "4");
    scene_set(&scene, "tls-creds", creds);
    scene_set_source(&scene, "tls-hostname", "localhost");
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    expect_protected(&scene.source_info);
    expect_protected(&scene.destination_info);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
    pki_directory_remove(creds);
    pki_directory_remove(parent);
}

static void count_warning(struct scene *scene, const struct godwit_event *event)
{
    if (event->kind == GODWIT_EVENT_WARNING && strstr(event->text, "pages over RDMA are not encrypted"))
        ++*(unsigned *)scene->opaque;
}

Test(tls, over_rdma_the_control_connection_alone_is_protected_and_both_sides_say_so)
{
    char parent[PKI_PATH_MAX], creds[PKI_PATH_MAX];
    unsigned warnings = 0;
    struct scene scene;
    pki_directory_new(parent);
    make_psk(parent, "creds", creds);
    scene_init(&scene, SCENE_RDMA, 3, 2);
    scene_set(&scene, "multifd-channels", "2");
    scene_set(&scene, "tls-creds", creds);
    scene.on_source = scene.on_destination = count_warning;
    scene.opaque = &warnings;
    scene_open(&scene);
    scene_run(&scene);
    expect_completed(&scene);
    cr_assert_eq(warnings, 2, "%u warnings", warnings);
    cr_assert_str_eq(scene.source_info.channels[0].tls_version, "");
    cr_assert_eq(scene.rdma.made, 2);
    scene_close(&scene);
    pki_directory_remove(creds);
    pki_directory_remove(parent);
}

Test(tls, a_source_that_was_refused_can_migrate_once_its_key_is_right)
{
    char parent[PKI_PATH_MAX], good[PKI_PATH_MAX], bad[PKI_PATH_MAX], from[2 * PKI_PATH_MAX], to[2 * PKI_PATH_MAX];
    pki_directory_new(parent);
    make_psk(parent, "good", good);
    make_psk(parent, "bad", bad);
    unsigned descriptors = count_descriptors(), threads = count_threads();
    struct scene scene;
    scene_init(&scene, SCENE_TCP, 3, 1);
    scene_set_destination(&scene, "tls-creds", good);
    scene_set_source(&scene, "tls-creds", bad);
    scene_open(&scene);
    for (unsigned i = 0; i < 3; i++) {
        scene_run(&scene);
        expect_stayed(&scene);
        cr_assert_eq(scene.source_err, GODWIT_ERR_NOT_ADMITTED, "%s", scene.source_error.text);
        cr_assert_not_null(strstr(scene.source_error.text, "keys.psk"), "%s", scene.source_error.text);
    }
    snprintf(from, sizeof from, "%s/keys.psk", good);
    snprintf(to, sizeof to, "%s/keys.psk", bad);
    cr_assert_eq(rename(from, to), 0); /* the destination has read its own */
    scene_run(&scene);
    expect_completed(&scene);
    expect_protected(&scene.source_info);
    scene_close(&scene);
    cr_assert_eq(count_descriptors(), descriptors);
    cr_assert_eq(count_threads(), threads);
    pki_directory_remove(good);
    pki_directory_remove(bad);
    pki_directory_remove(parent);
}

/* ---- strangers ---- */

struct heard {
    unsigned warnings;
    char last[1024];
};

static void hear(struct scene *scene, const struct godwit_event *event)
{
    struct heard *heard = scene->opaque;
    if (event->kind != GODWIT_EVENT_WARNING)
        return;
    heard->warnings++;
    snprintf(heard->last, sizeof heard->last, "%s", event->text);
}

static void turn_away(struct scene *scene, uint64_t since_last_warning_ms)
{
    struct godwit_error error;
    error_set(&error, GODWIT_ERR_PROTOCOL, "it babbles");
    scene->destination->turned_away_ms = clock_now_ms() - since_last_warning_ms;
    door_turned_away(scene->destination, "tcp 192.0.2.9:7", &error);
}

Test(tls, of_strangers_by_the_thousand_one_in_a_second_is_told_with_their_number)
{
    struct heard heard = {0};
    struct scene scene;
    scene_init(&scene, SCENE_TCP, 3, 1);
    scene.on_destination = hear;
    scene.opaque = &heard;
    scene_open(&scene);
    for (unsigned i = 0; i < 1000; i++)
        turn_away(&scene, 0);
    cr_assert_eq(heard.warnings, 1);
    cr_assert_str_eq(heard.last, "turned away tcp 192.0.2.9:7: it babbles");
    turn_away(&scene, 2000);
    cr_assert_eq(heard.warnings, 2);
    cr_assert_str_eq(heard.last, "turned away tcp 192.0.2.9:7 (and 999 more before it): it babbles");
    turn_away(&scene, 2000);
    cr_assert_str_eq(heard.last, "turned away tcp 192.0.2.9:7: it babbles", "they are counted once");
    scene_close(&scene);
}

/* ---- before anybody connects ---- */

struct request {
    const char *uri, *creds, *hostname, *required;
    bool split;
};

static enum godwit_err protect(const struct request *request, enum godwit_option_side side, struct transports *out,
                               struct godwit_error *error)
{
    struct address address;
    struct godwit_options *options = godwit_options_new();
    cr_assert_eq(address_parse(request->uri, &address, NULL), GODWIT_OK);
    transports_use(&tcp_transport, request->split ? &unix_transport : &tcp_transport, &address, out);
    cr_assert_eq(godwit_options_set(options, "tls-creds", request->creds, error), GODWIT_OK);
    cr_assert_eq(godwit_options_set(options, "tls-hostname", request->hostname, error), GODWIT_OK);
    if (request->required != NULL)
        cr_assert_eq(godwit_options_set(options, "tls-required", request->required, error), GODWIT_OK);
    enum godwit_err err = transports_protect(out, options, side, error);
    godwit_options_free(options);
    return err;
}

static void expect_refused(const struct request *request, const char *words)
{
    for (enum godwit_option_side side = GODWIT_SIDE_SOURCE; side <= GODWIT_SIDE_DESTINATION; side++) {
        struct transports transports;
        struct godwit_error error = {0};
        cr_assert_eq(protect(request, side, &transports, &error), GODWIT_ERR_INVALID, "%s", error.text);
        cr_assert_not_null(strstr(error.text, words), "%s", error.text);
        cr_assert_eq(transports.control, &tcp_transport, "nothing was wrapped");
        transports_release(&transports);
        cr_assert_null(transports.tls);
    }
}

Test(tls, what_cannot_be_protected_as_asked_is_refused)
{
    char parent[PKI_PATH_MAX], creds[PKI_PATH_MAX];
    pki_directory_new(parent);
    make_x509(parent, "creds", creds);
    expect_refused(&(struct request){.uri = "tcp:a:1", .required = "on"}, "set tls-creds");
    expect_refused(&(struct request){.uri = "tcp:a:1", .creds = "", .required = "on"}, "set tls-creds");
    expect_refused(&(struct request){.uri = "tcp:a:1", .creds = creds, .required = "on", .split = true},
                   "are not encrypted");
    expect_refused(&(struct request){.uri = "tcp:a:1", .creds = parent}, "holds no TLS credentials");
    expect_refused(&(struct request){.uri = "tcp:a:1", .creds = "/nowhere"}, "/nowhere");
    pki_directory_remove(creds);
    pki_directory_remove(parent);
}

Test(tls, a_name_to_verify_is_needed_where_the_address_has_none_and_there_are_certificates)
{
    char parent[PKI_PATH_MAX], x509[PKI_PATH_MAX], psk[PKI_PATH_MAX];
    struct transports transports;
    struct godwit_error error;
    pki_directory_new(parent);
    make_x509(parent, "x509", x509);
    make_psk(parent, "psk", psk);
    struct request request = {.uri = "unix:/run/socket", .creds = x509};
    cr_assert_eq(protect(&request, GODWIT_SIDE_SOURCE, &transports, &error), GODWIT_ERR_INVALID);
    cr_assert_not_null(strstr(error.text, "set tls-hostname"), "%s", error.text);
    transports_release(&transports);
    request.hostname = "destination.example";
    cr_assert_eq(protect(&request, GODWIT_SIDE_SOURCE, &transports, &error), GODWIT_OK, "%s", error.text);
    transports_release(&transports);
    request = (struct request){.uri = "unix:/run/socket", .creds = psk};
    cr_assert_eq(protect(&request, GODWIT_SIDE_SOURCE, &transports, &error), GODWIT_OK, "%s", error.text);
    transports_release(&transports);
    pki_directory_remove(x509);
    pki_directory_remove(psk);
    pki_directory_remove(parent);
}

Test(tls, what_is_a_stream_is_wrapped_and_nothing_else)
{
    char parent[PKI_PATH_MAX], creds[PKI_PATH_MAX];
    struct transports transports;
    struct godwit_error error;
    pki_directory_new(parent);
    make_psk(parent, "creds", creds);
    cr_assert_eq(protect(&(struct request){.uri = "tcp:a:1"}, GODWIT_SIDE_SOURCE, &transports, &error), GODWIT_OK);
    cr_assert(transports.control == &tcp_transport && transports.data == &tcp_transport && !transports.tls);

    struct request request = {.uri = "tcp:a:1", .creds = creds, .required = "on"};
    cr_assert_eq(protect(&request, GODWIT_SIDE_SOURCE, &transports, &error), GODWIT_OK, "%s", error.text);
    cr_assert(transports.control != &tcp_transport && transports.control == transports.data);
    cr_assert(!transports_split(&transports) && !transports_unprotected(&transports));
    transports_release(&transports);

    request = (struct request){.uri = "tcp:a:1", .creds = creds, .split = true};
    cr_assert_eq(protect(&request, GODWIT_SIDE_SOURCE, &transports, &error), GODWIT_OK, "%s", error.text);
    cr_assert(transports.control != &tcp_transport && transports.data == &unix_transport);
    cr_assert_not_null(transports_unprotected(&transports));
    transports_release(&transports);
    pki_directory_remove(creds);
    pki_directory_remove(parent);
}
