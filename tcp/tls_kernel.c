/*
 * Kernel TLS: after the handshake the keys of both directions go to the kernel, and the channel sends and receives
 * plaintext through the socket again: whole batches from guest memory in one call. GnuTLS did the handshake and is out
 * of it then.
 *
 * Used where tls-kernel is on, the administrator has turned it on in GnuTLS's system-wide configuration
 * ([global], ktls = true), and the kernel has the module and the cipher: else nothing has happened, and GnuTLS goes on.
 * Many kernels cannot change keys: the sender must not renew them, which the two sides agree on by ALPN
 * (tls_handshake.c), and the channel is replaced when they have been used for long enough (limits.lifetime).
 *
 * Failure modes: a record that is no data ends the plain call; what it says is read then: the closing notify is the end
 * of the stream, any other alert, or new keys, breaks the channel with words. Accepted: taking one direction's keys and
 * refusing the other's breaks the channel; no kernel is known that does.
 */
#include <assert.h>
#include <errno.h>
#include <linux/tls.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "tcp/stream.h"
#include "tcp/tls_private.h"
#include "transport/error.h"

enum { RECORD_ALERT = 21, ALERT_WARNING = 1, CLOSE_NOTIFY = 0 };

/* Does a line of GnuTLS's configuration say `ktls = true`? */
static bool says_so(const char *line)
{
    char name[16], value[16];
    return sscanf(line, " %15[a-z] = %15[a-z]", name, value) == 2 && !strcmp(name, "ktls") && !strcmp(value, "true");
}

bool tls_kernel_configured(void)
{
    const char *path = gnutls_get_system_config_file();
    FILE *file = path ? fopen(path, "re") : NULL;
    if (!file)
        return false;
    char line[512], section[32] = "";
    bool on = false;
    while (fgets(line, sizeof line, file)) {
        sscanf(line, " [%31[a-z]]", section);
        if (!strcmp(section, "global"))
            on |= says_so(line);
    }
    fclose(file);
    return on;
}

/* ---- keys ---- */

union crypto_info {
    struct tls_crypto_info info;
    struct tls12_crypto_info_aes_gcm_128 aes_128;
    struct tls12_crypto_info_aes_gcm_256 aes_256;
    struct tls12_crypto_info_chacha20_poly1305 chacha;
};

static_assert(TLS_CIPHER_AES_GCM_128_SALT_SIZE == TLS_CIPHER_AES_GCM_256_SALT_SIZE, "one way to split the IV");

/* Fills *info; returns its size, or 0 for a cipher that is not the kernel's. */
static socklen_t fill(gnutls_cipher_algorithm_t cipher, const gnutls_datum_t *key, const gnutls_datum_t *iv,
                      const unsigned char sequence[8], union crypto_info *info)
{
    const unsigned salt = TLS_CIPHER_AES_GCM_128_SALT_SIZE;
    *info = (union crypto_info){.info.version = TLS_1_3_VERSION};
    if (cipher == GNUTLS_CIPHER_AES_128_GCM && key->size == sizeof info->aes_128.key && iv->size == 12) {
        info->info.cipher_type = TLS_CIPHER_AES_GCM_128;
        memcpy(info->aes_128.key, key->data, key->size);
        memcpy(info->aes_128.salt, iv->data, salt);
        memcpy(info->aes_128.iv, iv->data + salt, iv->size - salt);
        memcpy(info->aes_128.rec_seq, sequence, 8);
        return sizeof info->aes_128;
    }
    if (cipher == GNUTLS_CIPHER_AES_256_GCM && key->size == sizeof info->aes_256.key && iv->size == 12) {
        info->info.cipher_type = TLS_CIPHER_AES_GCM_256;
        memcpy(info->aes_256.key, key->data, key->size);
        memcpy(info->aes_256.salt, iv->data, salt);
        memcpy(info->aes_256.iv, iv->data + salt, iv->size - salt);
        memcpy(info->aes_256.rec_seq, sequence, 8);
        return sizeof info->aes_256;
    }
    if (cipher == GNUTLS_CIPHER_CHACHA20_POLY1305 && key->size == sizeof info->chacha.key && iv->size == 12) {
        info->info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
        memcpy(info->chacha.key, key->data, key->size);
        memcpy(info->chacha.iv, iv->data, iv->size);
        memcpy(info->chacha.rec_seq, sequence, 8);
        return sizeof info->chacha;
    }
    return 0;
}

/* direction: TLS_RX or TLS_TX. */
static bool hand_over(const struct tls_channel *channel, int fd, int direction)
{
    gnutls_datum_t mac, iv, key;
    unsigned char sequence[8];
    union crypto_info info;
    if (gnutls_record_get_state(channel->session, direction == TLS_RX, &mac, &iv, &key, sequence) < 0)
        return false;
    socklen_t size = fill(gnutls_cipher_get(channel->session), &key, &iv, sequence, &info);
    bool taken = size && setsockopt(fd, SOL_TLS, direction, &info, size) == 0;
    gnutls_memset(&info, 0, sizeof info);
    return taken;
}

enum godwit_err tls_kernel_take(struct tls_channel *channel, struct godwit_error *error)
{
    int fd = stream_socket(channel->base.wrapped);
    bool between = channel->in_at == channel->in_end && !channel->out_size;
    if (!channel->tls->kernel || !channel->fixed_keys || fd < 0 || !between ||
        gnutls_protocol_get_version(channel->session) != GNUTLS_TLS1_3 ||
        setsockopt(fd, SOL_TCP, TCP_ULP, "tls", sizeof "tls") != 0 || !hand_over(channel, fd, TLS_RX))
        return GODWIT_OK;
    if (!hand_over(channel, fd, TLS_TX))
        return error_set_sys(error, GODWIT_ERR_SYSTEM, errno,
                             "the kernel takes TLS keys to receive with and none to send with: set tls-kernel off");
    channel->base.security.kernel = true;
    return GODWIT_OK;
}

/* ---- records that are no data ---- */

/* What the record says that the plain call stumbled over. */
static enum godwit_err read_control(struct tls_channel *channel, enum godwit_err err)
{
    unsigned char body[64] = {0};
    _Alignas(struct cmsghdr) unsigned char type[CMSG_SPACE(1)];
    struct iovec iov = {body, sizeof body};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = type, .msg_controllen = sizeof type};
    ssize_t n = recvmsg(stream_socket(channel->base.wrapped), &msg, MSG_DONTWAIT);
    const struct cmsghdr *header = n > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    if (!header || header->cmsg_level != SOL_TLS || header->cmsg_type != TLS_GET_RECORD_TYPE) {
        if (n < 0 && errno == EBADMSG)
            channel_set_detail(&channel->base, "what arrived is not what the peer sent: the connection was tampered "
                                               "with, or damaged");
        return err;
    }
    unsigned char kind = *CMSG_DATA(header);
    if (kind == RECORD_ALERT && n >= 2 && body[1] == CLOSE_NOTIFY)
        return GODWIT_ERR_PEER_CLOSED;
    struct godwit_error words;
    if (kind == RECORD_ALERT && n >= 2)
        err = tls_words(channel->tls->side, false, GNUTLS_E_FATAL_ALERT_RECEIVED,
                        (gnutls_alert_description_t)body[1], &words);
    else
        err = error_set(&words, GODWIT_ERR_PROTOCOL, "a record of type %u, which the kernel's TLS cannot follow", kind);
    channel_set_detail(&channel->base, words.text);
    return err;
}

enum godwit_err tls_kernel_recv(struct tls_channel *channel, struct iovec *iov, unsigned count, int timeout_ms)
{
    size_t before = 0, after = 0;
    for (unsigned i = 0; i < count; i++)
        before += iov[i].iov_len;
    enum godwit_err err = channel_recv(channel->base.wrapped, iov, count, timeout_ms);
    if (err == GODWIT_ERR_PEER_CLOSED)
        return tls_cut_off(channel);
    if (err != GODWIT_ERR_RESET)
        return err;
    for (unsigned i = 0; i < count; i++)
        after += iov[i].iov_len;
    err = read_control(channel, err);
    return err == GODWIT_ERR_PEER_CLOSED && after != before ? GODWIT_ERR_RESET : err;
}

void tls_kernel_bye(struct tls_channel *channel)
{
    unsigned char body[2] = {ALERT_WARNING, CLOSE_NOTIFY};
    _Alignas(struct cmsghdr) unsigned char control[CMSG_SPACE(1)] = {0};
    struct iovec iov = {body, sizeof body};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
    header->cmsg_level = SOL_TLS;
    header->cmsg_type = TLS_SET_RECORD_TYPE;
    header->cmsg_len = CMSG_LEN(1);
    *CMSG_DATA(header) = RECORD_ALERT;
    msg.msg_controllen = header->cmsg_len;
    /* Into a full socket it does not go: the peer then reads a cut, as from GnuTLS. */
    ssize_t sent = sendmsg(stream_socket(channel->base.wrapped), &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)sent;
}
