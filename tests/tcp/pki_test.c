/* Certificates and keys: GnuTLS's own verification judges what was made. Long, because every refusal is a case here. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <godwit/pki.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DAY = 24 * 3600, PEM_MAX = 8192 };

static char scratch[64];

static const char *const set_files[] = {"ca-cert.pem",    "ca-key.pem",      "client-cert.pem",
                                        "client-key.pem", "server-cert.pem", "server-key.pem"};
enum { SET_FILES = sizeof set_files / sizeof *set_files };

static void make_scratch(void)
{
    strcpy(scratch, "/tmp/godwit-pki-XXXXXX");
    cr_assert(mkdtemp(scratch));
}

static void remove_scratch(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", scratch);
    cr_expect_eq(system(command), 0);
}

TestSuite(pki, .init = make_scratch, .fini = remove_scratch, .timeout = 60);

/* Static buffers in turn: to be used at once, or copied. */
static const char *in_scratch(const char *name)
{
    static char paths[8][256];
    static unsigned turn;
    char *path = paths[turn++ % 8];
    snprintf(path, 256, "%s/%s", scratch, name);
    return path;
}

static struct godwit_pki request(void)
{
    struct godwit_pki pki;
    godwit_pki_init(&pki);
    pki.host = "dest,dest.example,192.0.2.7,2001:db8::7";
    return pki;
}

static void make(const char *name, const struct godwit_pki *pki, struct godwit_pki_set *set)
{
    struct godwit_error error = {0};
    cr_assert_eq(godwit_pki_make(in_scratch(name), pki, set, &error), GODWIT_OK, "%s", error.text);
}

/* The code, and that the text has these words. */
static void refused(enum godwit_err code, const char *words, const char *directory, const struct godwit_pki *pki)
{
    struct godwit_error error = {0};
    struct godwit_pki_set set = {.host = "untouched"};
    cr_expect_eq(godwit_pki_make(directory, pki, &set, &error), code, "%s: %d %s", words, error.code, error.text);
    cr_expect(strstr(error.text, words), "'%s' lacks '%s'", error.text, words);
    cr_expect_str_eq(set.host, "untouched");
}

static unsigned count_files(const char *directory)
{
    unsigned count = 0;
    DIR *dir = opendir(directory);
    cr_assert(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static gnutls_datum_t slurp(const char *path)
{
    static unsigned char buffers[4][PEM_MAX];
    static unsigned turn;
    unsigned char *buffer = buffers[turn++ % 4];
    FILE *file = fopen(path, "r");
    cr_assert(file, "%s", path);
    gnutls_datum_t datum = {buffer, (unsigned)fread(buffer, 1, PEM_MAX - 1, file)};
    buffer[datum.size] = '\0';
    fclose(file);
    return datum;
}

static void write_file(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && fchmod(fd, mode) == 0);
    close(fd);
}

static gnutls_x509_crt_t certificate(const char *path)
{
    gnutls_x509_crt_t out;
    gnutls_datum_t pem = slurp(path);
    cr_assert_eq(gnutls_x509_crt_init(&out), 0);
    cr_assert_eq(gnutls_x509_crt_import(out, &pem, GNUTLS_X509_FMT_PEM), 0, "%s", path);
    return out;
}

static gnutls_x509_privkey_t key(const char *path)
{
    gnutls_x509_privkey_t out;
    gnutls_datum_t pem = slurp(path);
    cr_assert_eq(gnutls_x509_privkey_init(&out), 0);
    cr_assert_eq(gnutls_x509_privkey_import_pkcs8(out, &pem, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN), 0);
    return out;
}

/* Does somebody who trusts ca, and heeds a list of revoked certificates beside it, accept it for this purpose, now, and
 * under this name (NULL: any)? */
static bool accepted(const char *ca, const char *path, const char *purpose, const char *name)
{
    gnutls_x509_trust_list_t list;
    gnutls_x509_crt_t authority = certificate(ca), leaf = certificate(path);
    cr_assert_eq(gnutls_x509_trust_list_init(&list, 0), 0);
    cr_assert_eq(gnutls_x509_trust_list_add_cas(list, &authority, 1, 0), 1);
    static const char crl_name[] = "/ca-crl.pem";
    char crl[256];
    snprintf(crl, sizeof crl, "%.*s%s", (int)(strrchr(ca, '/') - ca), ca, crl_name);
    if (access(crl, F_OK) == 0)
        cr_assert_eq(gnutls_x509_trust_list_add_trust_file(list, NULL, crl, GNUTLS_X509_FMT_PEM, 0, 0), 1);
    gnutls_typed_vdata_st data[] = {{.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)(uintptr_t)purpose},
                                    {.type = GNUTLS_DT_DNS_HOSTNAME, .data = (unsigned char *)(uintptr_t)name}};
    unsigned status = 0;
    cr_assert_eq(gnutls_x509_trust_list_verify_crt2(list, &leaf, 1, data, name ? 2 : 1,
                                                    GNUTLS_PROFILE_TO_VFLAGS(GNUTLS_PROFILE_MEDIUM), &status, NULL),
                 0);
    gnutls_x509_trust_list_deinit(list, 1);
    gnutls_x509_crt_deinit(leaf);
    return status == 0;
}

Test(pki, each_certificate_is_accepted_for_its_purpose_and_names_only)
{
    struct godwit_pki pki = request();
    make("a", &pki, NULL);
    const char *server = GNUTLS_KP_TLS_WWW_SERVER, *client = GNUTLS_KP_TLS_WWW_CLIENT;
    char ca[256], server_cert[256], client_cert[256];
    strcpy(ca, in_scratch("a/ca-cert.pem"));
    strcpy(server_cert, in_scratch("a/server-cert.pem"));
    strcpy(client_cert, in_scratch("a/client-cert.pem"));
    const char *const names[] = {"dest", "dest.example", "192.0.2.7", "2001:db8::7"};
    for (unsigned i = 0; i < 4; i++)
        cr_expect(accepted(ca, server_cert, server, names[i]), "%s", names[i]);
    const char *const others[] = {"other", "localhost", "127.0.0.1", "x.dest.example", "192.0.2.8"};
    for (unsigned i = 0; i < 5; i++)
        cr_expect_not(accepted(ca, server_cert, server, others[i]), "%s", others[i]);
    cr_expect_not(accepted(ca, server_cert, client, NULL));
    cr_expect(accepted(ca, client_cert, client, NULL));
    cr_expect_not(accepted(ca, client_cert, server, NULL));
    make("other", &pki, NULL);
    cr_expect_not(accepted(in_scratch("other/ca-cert.pem"), server_cert, server, NULL));
}

static void check_dates(const char *path, int64_t from, int64_t until)
{
    gnutls_x509_crt_t crt = certificate(path);
    cr_expect_eq(gnutls_x509_crt_get_activation_time(crt), from, "%s", path);
    cr_expect_eq(gnutls_x509_crt_get_expiration_time(crt), until, "%s", path);
    gnutls_x509_crt_deinit(crt);
}

Test(pki, lifetimes_are_as_asked_for_and_begin_an_hour_ago)
{
    struct godwit_pki pki = request();
    struct godwit_pki_set set;
    pki.now = 1800000000;
    cr_expect_eq(pki.days, 825);
    cr_expect_eq(pki.authority_days, 3650);
    pki.days = 3;
    make("a", &pki, &set);
    check_dates(in_scratch("a/ca-cert.pem"), pki.now - 3600, pki.now + 3650LL * DAY);
    check_dates(in_scratch("a/server-cert.pem"), pki.now - 3600, pki.now + 3LL * DAY);
    check_dates(in_scratch("a/client-cert.pem"), pki.now - 3600, pki.now + 3LL * DAY);
    cr_expect_eq(set.until, pki.now + 3LL * DAY);
    cr_expect_eq(set.authority_until, pki.now + 3650LL * DAY);
    cr_expect(set.new_authority);
    cr_expect_str_eq(set.host, pki.host);
    cr_expect_str_eq(set.client, "dest");
}

Test(pki, no_certificate_outlives_or_precedes_its_authority)
{
    struct godwit_pki pki = request();
    struct godwit_pki_set set;
    pki.now = 1800000000;
    pki.authority_days = 10;
    make("a", &pki, &set);
    cr_expect_eq(set.until, pki.now + 10LL * DAY);
    check_dates(in_scratch("a/server-cert.pem"), pki.now - 3600, set.authority_until);

    struct godwit_pki later = request();
    later.authority = in_scratch("a");
    later.now = pki.now - 600;
    make("b", &later, &set);
    check_dates(in_scratch("b/client-cert.pem"), pki.now - 3600, set.authority_until);
}

/* The identifier that names a public key. */
static void key_id(gnutls_x509_crt_t crt, unsigned char id[32])
{
    size_t size = 32;
    cr_assert_eq(gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, id, &size), 0);
}

static void check_pair(const char *certificate_path, const char *key_path, unsigned char authority_id[32],
                       unsigned char serial[32])
{
    gnutls_x509_crt_t crt = certificate(certificate_path);
    gnutls_x509_privkey_t private = key(key_path);
    unsigned char id[32], other[64];
    size_t size = sizeof other;
    key_id(crt, id);
    cr_expect_eq(gnutls_x509_privkey_get_key_id(private, GNUTLS_KEYID_USE_SHA256, other, &size), 0);
    cr_expect_arr_eq(id, other, 32);
    size = sizeof other;
    cr_expect_eq(gnutls_x509_crt_get_subject_key_id(crt, other, &size, NULL), 0);
    cr_expect_arr_eq(id, other, 32);
    size = sizeof other;
    cr_expect_eq(gnutls_x509_crt_get_authority_key_id(crt, other, &size, NULL), 0);
    cr_expect_arr_eq(authority_id, other, 32);

    gnutls_ecc_curve_t curve;
    cr_expect_eq(gnutls_x509_crt_get_pk_ecc_raw(crt, &curve, NULL, NULL), 0);
    cr_expect_eq(curve, GNUTLS_ECC_CURVE_SECP256R1);
    cr_expect_eq(gnutls_x509_crt_get_signature_algorithm(crt), GNUTLS_SIGN_ECDSA_SHA256);
    size = 32;
    cr_expect_eq(gnutls_x509_crt_get_serial(crt, serial, &size), 0);
    cr_expect(size == 16 && serial[0] >= 0x40 && serial[0] < 0x80, "positive, 16 bytes");
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_privkey_deinit(private);
}

Test(pki, keys_belong_to_certificates_and_serial_numbers_differ)
{
    struct godwit_pki pki = request();
    make("a", &pki, NULL);
    gnutls_x509_crt_t authority = certificate(in_scratch("a/ca-cert.pem"));
    unsigned char id[32], serials[3][32] = {{0}};
    key_id(authority, id);
    gnutls_x509_crt_deinit(authority);
    check_pair(in_scratch("a/ca-cert.pem"), in_scratch("a/ca-key.pem"), id, serials[0]);
    check_pair(in_scratch("a/server-cert.pem"), in_scratch("a/server-key.pem"), id, serials[1]);
    check_pair(in_scratch("a/client-cert.pem"), in_scratch("a/client-key.pem"), id, serials[2]);
    cr_expect(memcmp(serials[0], serials[1], 16) && memcmp(serials[1], serials[2], 16) &&
              memcmp(serials[0], serials[2], 16));
}

Test(pki, an_authority_may_sign_and_a_host_may_not)
{
    struct godwit_pki pki = request();
    make("a", &pki, NULL);
    gnutls_x509_crt_t authority = certificate(in_scratch("a/ca-cert.pem"));
    unsigned critical = 0, ca = 0, usage = 0;
    int depth = -1;
    cr_expect_geq(gnutls_x509_crt_get_basic_constraints(authority, &critical, &ca, &depth), 0);
    cr_expect(critical && ca && depth == 0);
    cr_expect_eq(gnutls_x509_crt_get_key_usage(authority, &usage, &critical), 0);
    cr_expect(critical && usage == (GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN));
    gnutls_x509_crt_deinit(authority);
    for (unsigned i = 0; i < 2; i++) {
        gnutls_x509_crt_t host = certificate(in_scratch(i ? "a/server-cert.pem" : "a/client-cert.pem"));
        cr_expect_geq(gnutls_x509_crt_get_basic_constraints(host, &critical, &ca, &depth), 0);
        cr_expect(critical && !ca);
        cr_expect_eq(gnutls_x509_crt_get_key_usage(host, &usage, &critical), 0);
        cr_expect(usage == GNUTLS_KEY_DIGITAL_SIGNATURE, "%u", usage);
        cr_expect_not(critical, "older QEMU and libvirt would refuse it");
        gnutls_x509_crt_deinit(host);
    }
}

static void check_mode(const char *path, mode_t mode)
{
    struct stat status;
    cr_assert_eq(stat(path, &status), 0, "%s", path);
    cr_expect_eq(status.st_mode & 07777, mode, "%s: %o", path, status.st_mode);
}

Test(pki, modes_do_not_depend_on_the_umask)
{
    struct godwit_pki pki = request();
    const mode_t masks[] = {0, 022, 077};
    for (unsigned i = 0; i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        umask(masks[i]);
        make(name, &pki, NULL);
        check_mode(in_scratch(name), 0700);
        for (unsigned f = 0; f < SET_FILES; f++) {
            char path[64];
            snprintf(path, sizeof path, "%s/%s", name, set_files[f]);
            check_mode(in_scratch(path), strstr(path, "-key") ? 0600 : 0644);
        }
        cr_expect_eq(count_files(in_scratch(name)), SET_FILES);
    }
}

Test(pki, a_further_host_gets_the_authority_without_its_key)
{
    struct godwit_pki pki = request();
    struct godwit_pki_set first, second;
    make("a", &pki, &first);
    pki.authority = in_scratch("a");
    pki.host = "second";
    pki.client = "mover two";
    make("b", &pki, &second);
    cr_expect_eq(count_files(in_scratch("b")), SET_FILES - 1);
    cr_expect_eq(access(in_scratch("b/ca-key.pem"), F_OK), -1);
    cr_expect_str_eq((char *)slurp(in_scratch("b/ca-cert.pem")).data, (char *)slurp(in_scratch("a/ca-cert.pem")).data);
    const char *purpose = GNUTLS_KP_TLS_WWW_SERVER;
    cr_expect(accepted(in_scratch("a/ca-cert.pem"), in_scratch("b/server-cert.pem"), purpose, "second"));
    cr_expect_not(second.new_authority);
    cr_expect_str_eq(second.authority, first.authority);
    cr_expect_eq(second.authority_until, first.authority_until);

    gnutls_x509_crt_t client = certificate(in_scratch("b/client-cert.pem"));
    char name[128];
    size_t size = sizeof name;
    cr_expect_eq(gnutls_x509_crt_get_dn(client, name, &size), 0);
    cr_expect_str_eq(name, "CN=mover two");
    gnutls_x509_crt_deinit(client);
}

Test(pki, an_authority_that_cannot_sign_is_refused)
{
    struct godwit_pki pki = request();
    pki.authority_days = 30;
    make("a", &pki, NULL);
    make("other", &pki, NULL);
    char a[256], b[256];
    strcpy(a, in_scratch("a"));
    strcpy(b, in_scratch("b"));
    pki.authority = a;
    struct godwit_pki at = pki;
    at.now = pki.now + 31 * DAY;
    refused(GODWIT_ERR_INVALID, "a/ca-cert.pem expired on ", b, &at);
    at.now = pki.now - 2 * 3600;
    refused(GODWIT_ERR_INVALID, "a/ca-cert.pem is not valid before ", b, &at);

    chmod(in_scratch("a/ca-key.pem"), 0640);
    refused(GODWIT_ERR_INVALID, "(mode 0640): chmod 600", b, &pki);
    chmod(in_scratch("a/ca-key.pem"), 0600);
    rename(in_scratch("a/ca-key.pem"), in_scratch("key"));
    refused(GODWIT_ERR_INVALID, "a/ca-key.pem, which has to be there: No such file", b, &pki);
    write_file(in_scratch("a/ca-key.pem"), (char *)slurp(in_scratch("other/ca-key.pem")).data, 0600);
    refused(GODWIT_ERR_INVALID, "a/ca-key.pem is not the key of ca-cert.pem", b, &pki);
    write_file(in_scratch("a/ca-key.pem"), "-----BEGIN", 0600);
    refused(GODWIT_ERR_INVALID, "a/ca-key.pem is no key in PEM form", b, &pki);

    write_file(in_scratch("a/ca-cert.pem"), (char *)slurp(in_scratch("other/server-cert.pem")).data, 0644);
    write_file(in_scratch("a/ca-key.pem"), (char *)slurp(in_scratch("other/server-key.pem")).data, 0600);
    refused(GODWIT_ERR_INVALID, "a/ca-cert.pem is not the certificate of an authority", b, &pki);
    write_file(in_scratch("a/ca-cert.pem"), "", 0644);
    refused(GODWIT_ERR_INVALID, "a/ca-cert.pem is empty", b, &pki);
    unlink(in_scratch("a/ca-cert.pem"));
    cr_assert_eq(mkfifo(in_scratch("a/ca-cert.pem"), 0600), 0);
    refused(GODWIT_ERR_INVALID, "a/ca-cert.pem is not a file", b, &pki);
    pki.authority = in_scratch("nowhere");
    refused(GODWIT_ERR_INVALID, "nowhere/ca-cert.pem, which has to be there: No such file", b, &pki);
    cr_expect_eq(access(b, F_OK), -1);
}

Test(pki, no_file_is_replaced_and_a_set_is_made_whole_or_not_at_all)
{
    struct godwit_pki pki = request();
    for (unsigned i = 0; i < SET_FILES; i++) {
        cr_assert_eq(mkdir(in_scratch("a"), 0750), 0);
        char path[64], words[128];
        snprintf(path, sizeof path, "a/%s", set_files[i]);
        snprintf(words, sizeof words, "%s exists and is not replaced", path);
        write_file(in_scratch(path), "mine", 0640);
        refused(GODWIT_ERR_BUSY, words, in_scratch("a"), &pki);
        cr_expect_str_eq((char *)slurp(in_scratch(path)).data, "mine");
        check_mode(in_scratch(path), 0640);
        cr_expect_eq(count_files(in_scratch("a")), 1, "%s", path);
        cr_assert_eq(unlink(in_scratch(path)), 0);
        cr_assert_eq(rmdir(in_scratch("a")), 0);
    }
}

Test(pki, another_run_in_the_same_directory_is_left_alone)
{
    struct godwit_pki pki = request();
    cr_assert_eq(mkdir(in_scratch("a"), 0700), 0);
    write_file(in_scratch("a/client-key.pem.partial"), "theirs", 0600);
    refused(GODWIT_ERR_BUSY, "client-key.pem.partial is left of a run that was killed", in_scratch("a"), &pki);
    cr_expect_str_eq((char *)slurp(in_scratch("a/client-key.pem.partial")).data, "theirs");
    cr_expect_eq(count_files(in_scratch("a")), 1);
    unlink(in_scratch("a/client-key.pem.partial"));

    int other = open(in_scratch("a"), O_RDONLY | O_DIRECTORY);
    cr_assert_eq(flock(other, LOCK_EX), 0);
    refused(GODWIT_ERR_BUSY, "another run is at work in ", in_scratch("a"), &pki);
    cr_expect_eq(count_files(in_scratch("a")), 0);
    close(other);
    make("a", &pki, NULL);
}

Test(pki, a_disk_that_is_full_leaves_nothing)
{
    struct godwit_pki pki = request();
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    signal(SIGXFSZ, SIG_IGN);
    /* The keys have 250 bytes, the certificates 650 to 800: each kind is met, from the first byte to the last. */
    for (rlim_t size = 0; size <= 640; size += 80) {
        limit.rlim_cur = size;
        setrlimit(RLIMIT_FSIZE, &limit);
        struct godwit_error error = {0};
        enum godwit_err err = godwit_pki_make(in_scratch("a"), &pki, NULL, &error);
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_FSIZE, &limit);
        cr_expect_eq(err, GODWIT_ERR_SYSTEM, "%zu: %s", (size_t)size, error.text);
        cr_expect_eq(error.sys_errno, EFBIG, "%s", error.text);
        cr_expect_eq(access(in_scratch("a"), F_OK), -1, "%zu", (size_t)size);
    }
    make("a", &pki, NULL);
}

Test(pki, descriptors_that_run_out_leave_nothing)
{
    struct godwit_pki pki = request();
    char authority[256];
    make("ca", &pki, NULL);
    strcpy(authority, in_scratch("ca"));
    pki.authority = authority;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    int free_one = open("/dev/null", O_RDONLY), failures = 0;
    close(free_one);
    for (int spare = 0; spare < 8; spare++) {
        struct rlimit tight = {.rlim_cur = (rlim_t)(free_one + spare), .rlim_max = limit.rlim_max};
        setrlimit(RLIMIT_NOFILE, &tight);
        struct godwit_error error = {0};
        enum godwit_err err = godwit_pki_make(in_scratch("a"), &pki, NULL, &error);
        setrlimit(RLIMIT_NOFILE, &limit);
        if (err == GODWIT_OK)
            break;
        failures++;
        cr_expect_eq(error.sys_errno, EMFILE, "%s", error.text);
        cr_expect_eq(access(in_scratch("a"), F_OK), -1);
    }
    cr_expect_geq(failures, 2);
    cr_expect_eq(count_files(in_scratch("a")), SET_FILES - 1);
    int next = open("/dev/null", O_RDONLY);
    cr_expect_eq(next, free_one, "no descriptor is left open");
    close(next);
}

Test(pki, a_directory_that_cannot_be_used_is_named)
{
    struct godwit_pki pki = request();
    refused(GODWIT_ERR_INVALID, "directory", "", &pki);
    refused(GODWIT_ERR_INVALID, "directory", NULL, &pki);
    refused(GODWIT_ERR_SYSTEM, "no/such: No such file", in_scratch("no/such"), &pki);
    write_file(in_scratch("file"), "", 0600);
    refused(GODWIT_ERR_SYSTEM, "file: Not a directory", in_scratch("file"), &pki);
    mkdir(in_scratch("open"), 0700);
    chmod(in_scratch("open"), 0777);
    refused(GODWIT_ERR_INVALID, "anybody may write", in_scratch("open"), &pki);
    mkdir(in_scratch("closed"), 0500);
    if (geteuid() == 0) {
        chmod(scratch, 0755);
        cr_assert_eq(chown(in_scratch("closed"), 65534, 65534), 0);
        cr_assert_eq(seteuid(65534), 0);
    }
    refused(GODWIT_ERR_SYSTEM, "closed/server-key.pem: Permission denied", in_scratch("closed"), &pki);
    if (getuid() == 0)
        cr_assert_eq(seteuid(0), 0);
    cr_expect_eq(count_files(in_scratch("closed")), 0);
}

Test(pki, names_that_no_peer_could_find_are_refused)
{
    char label[70], longest[1100], many[256] = "a";
    memset(label, 'a', 64);
    label[64] = '\0';
    memset(longest, 'a', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    for (unsigned i = 0; i < 16; i++)
        strcat(many, ",a");
    const char *const wrong[] = {"",      ",",      "a,",  "a,,b",     "a b",          "*.example",  "a.",
                                 ".a",    "-a",     "a-",  "a..b",     "10.0.0",       "10.0.0.256", "[::1]",
                                 "::1::", "a:4444", "a/b", "\xc3\xa9", "fe80::1%eth0", "1.2.3.4.5",  label,
                                 longest, many};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct godwit_pki pki = request();
        pki.host = wrong[i];
        refused(GODWIT_ERR_INVALID, "host: ", in_scratch("a"), &pki);
    }
    char first[80]; /* good as a name, too long as a common name */
    memset(first, 'b', sizeof first);
    memcpy(first + 40, ".c", 2);
    first[70] = '\0';
    struct godwit_pki pki = request();
    pki.host = first;
    refused(GODWIT_ERR_INVALID, "common name", in_scratch("a"), &pki);
    cr_expect_eq(access(in_scratch("a"), F_OK), -1);

    char second[100];
    snprintf(second, sizeof second, "x9_-y.3com,%s", first);
    pki.host = second;
    make("a", &pki, NULL);
}

Test(pki, clients_and_lifetimes_that_make_no_sense_are_refused)
{
    char too_long[66];
    memset(too_long, 'c', 65);
    too_long[65] = '\0';
    const char *const wrong[] = {"", " a", "a ", "a,b", "a=b", "a;b", "a*", "a\n", too_long};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct godwit_pki pki = request();
        pki.client = wrong[i];
        refused(GODWIT_ERR_INVALID, "client: ", in_scratch("a"), &pki);
    }
    struct godwit_pki pki = request();
    pki.days = 0;
    refused(GODWIT_ERR_INVALID, "days: 0; use 1 to 36500", in_scratch("a"), &pki);
    pki = request();
    pki.authority_days = 36501;
    refused(GODWIT_ERR_INVALID, "authority-days: 36501", in_scratch("a"), &pki);
    cr_expect_eq(access(in_scratch("a"), F_OK), -1);
    pki = request();
    pki.client = too_long + 1;
    pki.days = pki.authority_days = GODWIT_PKI_DAYS_MAX;
    make("a", &pki, NULL);
    cr_expect(accepted(in_scratch("a/ca-cert.pem"), in_scratch("a/client-cert.pem"), GNUTLS_KP_TLS_WWW_CLIENT, NULL));
}

Test(pki, a_host_is_never_called_localhost_unless_asked_for)
{
    struct godwit_pki pki = request();
    pki.host = "localhost,127.0.0.1,::1";
    make("asked", &pki, NULL);
    cr_expect(accepted(in_scratch("asked/ca-cert.pem"), in_scratch("asked/server-cert.pem"), GNUTLS_KP_TLS_WWW_SERVER,
                       "::1"));
    if (unshare(CLONE_NEWUTS)) {
        remove_scratch(); /* a skip leaves .fini out */
        cr_skip("a host name of its own takes a privilege");
    }
    pki.host = NULL;
    const char *const names[] = {"localhost", "localhost.localdomain", "LocalHost", "127.0.0.1", "", "(none)"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        cr_assert_eq(sethostname(names[i], strlen(names[i])), 0);
        refused(GODWIT_ERR_INVALID, "this host calls itself '", in_scratch("a"), &pki);
    }
}

static void psk(const char *name, const char *user)
{
    struct godwit_error error = {0};
    cr_assert_eq(godwit_pki_make_psk(in_scratch(name), user, &error), GODWIT_OK, "%s", error.text);
}

Test(pki, a_shared_key_is_one_line_of_256_random_bits)
{
    psk("a", "qemu");
    psk("b", "qemu");
    const char *first = (char *)slurp(in_scratch("a/keys.psk")).data;
    cr_expect_eq(strlen(first), strlen("qemu:") + 64 + 1);
    cr_expect_eq(strncmp(first, "qemu:", 5), 0);
    cr_expect_eq(strspn(first + 5, "0123456789abcdef"), 64);
    cr_expect_str_eq(first + 69, "\n");
    cr_expect_str_neq(first, (char *)slurp(in_scratch("b/keys.psk")).data);
    check_mode(in_scratch("a/keys.psk"), 0600);
    check_mode(in_scratch("a"), 0700);
    cr_expect_eq(count_files(in_scratch("a")), 1);
}

static void psk_refused(enum godwit_err code, const char *words, const char *name, const char *user)
{
    struct godwit_error error = {0};
    cr_expect_eq(godwit_pki_make_psk(in_scratch(name), user, &error), code, "%s", error.text);
    cr_expect(strstr(error.text, words), "'%s' lacks '%s'", error.text, words);
}

Test(pki, a_shared_key_is_not_replaced_and_not_mixed_with_certificates)
{
    struct godwit_pki pki = request();
    char longest[66];
    memset(longest, 'u', 65);
    longest[65] = '\0';
    psk("a", longest + 1);
    psk_refused(GODWIT_ERR_BUSY, "keys.psk exists and is not replaced", "a", "qemu");
    refused(GODWIT_ERR_INVALID, "a holds keys.psk", in_scratch("a"), &pki);
    cr_expect_eq(count_files(in_scratch("a")), 1);
    make("b", &pki, NULL);
    psk_refused(GODWIT_ERR_INVALID, "b holds ca-cert.pem", "b", "qemu");
    cr_expect_eq(count_files(in_scratch("b")), SET_FILES);
    const char *const wrong[] = {NULL, "", "a:b", "a b", "#61", "a\n", longest};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++)
        psk_refused(GODWIT_ERR_INVALID, "user: ", "c", wrong[i]);
    cr_expect_eq(access(in_scratch("c"), F_OK), -1);
}

static void take_back(const char *authority, const char *path, int64_t now)
{
    struct godwit_error error = {0};
    cr_assert_eq(godwit_pki_revoke(in_scratch(authority), in_scratch(path), now, &error), GODWIT_OK, "%s", error.text);
}

static void revoke_refused(const char *words, const char *authority, const char *path)
{
    struct godwit_pki pki = request();
    struct godwit_error error = {0};
    cr_expect_eq(godwit_pki_revoke(in_scratch(authority), in_scratch(path), pki.now, &error), GODWIT_ERR_INVALID);
    cr_expect(strstr(error.text, words), "'%s' lacks '%s'", error.text, words);
}

/* Two hosts of the authority "a", the second in "b". */
static struct godwit_pki two_hosts(char authority[256])
{
    struct godwit_pki pki = request();
    make("a", &pki, NULL);
    strcpy(authority, in_scratch("a"));
    pki.authority = authority;
    make("b", &pki, NULL);
    return pki;
}

Test(pki, revoked_certificates_are_refused_and_the_others_are_not)
{
    const char *server = GNUTLS_KP_TLS_WWW_SERVER, *client = GNUTLS_KP_TLS_WWW_CLIENT;
    char authority[256];
    struct godwit_pki pki = two_hosts(authority);
    const char *const certs[] = {"a/client-cert.pem", "a/server-cert.pem", "b/client-cert.pem", "b/server-cert.pem"};
    for (unsigned revoked = 0; revoked < 4; revoked++) {
        for (unsigned i = 0; i < 4; i++) /* as long as nobody took the list there, b knows nothing */
            cr_expect_eq(accepted(in_scratch("a/ca-cert.pem"), in_scratch(certs[i]), i % 2 ? server : client, NULL),
                         i >= revoked, "%u of %u", i, revoked);
        take_back("a", certs[revoked], pki.now);
        take_back("a", certs[revoked], pki.now);
        check_mode(in_scratch("a/ca-crl.pem"), 0644);
    }
    cr_expect(accepted(in_scratch("b/ca-cert.pem"), in_scratch("b/server-cert.pem"), server, NULL));
    cr_expect_eq(count_files(in_scratch("a")), SET_FILES + 1);
    make("c", &pki, NULL);
    cr_expect_not(accepted(in_scratch("c/ca-cert.pem"), in_scratch("b/server-cert.pem"), server, NULL));
    cr_expect(accepted(in_scratch("c/ca-cert.pem"), in_scratch("c/server-cert.pem"), server, NULL));
}

Test(pki, a_list_grows_in_number_once_each_and_lasts_as_long_as_its_authority)
{
    char authority[256];
    struct godwit_pki pki = two_hosts(authority);
    gnutls_x509_crt_t ca = certificate(in_scratch("a/ca-cert.pem"));
    for (int round = 1; round <= 260; round += round < 3 ? 1 : 64) {
        gnutls_x509_crl_t list;
        unsigned char number[32];
        size_t size = sizeof number;
        static int made;
        for (; made < round; made++)
            take_back("a", "b/client-cert.pem", pki.now);
        gnutls_datum_t pem = slurp(in_scratch("a/ca-crl.pem"));
        cr_assert_eq(gnutls_x509_crl_init(&list), 0);
        cr_assert_eq(gnutls_x509_crl_import(list, &pem, GNUTLS_X509_FMT_PEM), 0);
        cr_expect_eq(gnutls_x509_crl_get_number(list, number, &size, NULL), 0);
        cr_expect_lt(number[0], 0x80, "negative");
        unsigned value = 0;
        for (size_t i = 0; i < size; i++)
            value = value << 8 | number[i];
        cr_expect_eq(value, (unsigned)round);
        cr_expect_eq(gnutls_x509_crl_get_crt_count(list), 1);
        cr_expect_eq(gnutls_x509_crl_get_next_update(list), gnutls_x509_crt_get_expiration_time(ca));
        gnutls_x509_crl_deinit(list);
    }
    gnutls_x509_crt_deinit(ca);
}

Test(pki, only_certificates_and_lists_of_the_authority_are_taken)
{
    char authority[256];
    struct godwit_pki pki = two_hosts(authority), own = request();
    make("other", &own, NULL);
    revoke_refused("other/client-cert.pem is no certificate that the authority signed", "a", "other/client-cert.pem");
    revoke_refused("a/ca-cert.pem is no certificate that the authority signed", "a", "a/ca-cert.pem");
    revoke_refused("a/ca-key.pem is no certificate in PEM form", "a", "a/ca-key.pem");
    revoke_refused("nothing, which has to be there: No such file", "a", "nothing");
    revoke_refused("b/ca-key.pem, which has to be there: No such file", "b", "b/client-cert.pem");
    cr_expect_eq(access(in_scratch("a/ca-crl.pem"), F_OK), -1);

    take_back("other", "other/client-cert.pem", pki.now);
    write_file(in_scratch("a/ca-crl.pem"), (char *)slurp(in_scratch("other/ca-crl.pem")).data, 0644);
    revoke_refused("a/ca-crl.pem is not signed by ca-cert.pem", "a", "b/client-cert.pem");
    write_file(in_scratch("a/ca-crl.pem"), "broken", 0644);
    revoke_refused("a/ca-crl.pem is no list of revoked certificates", "a", "b/client-cert.pem");
    cr_expect_str_eq((char *)slurp(in_scratch("a/ca-crl.pem")).data, "broken");
    cr_expect_eq(count_files(in_scratch("a")), SET_FILES + 1);

    mkdir(in_scratch("c"), 0700);
    write_file(in_scratch("c/ca-crl.pem"), "of an older set", 0644);
    refused(GODWIT_ERR_INVALID, "c holds ca-crl.pem", in_scratch("c"), &own);
    cr_expect_eq(count_files(in_scratch("c")), 1);
}
