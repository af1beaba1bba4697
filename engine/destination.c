/*
 * The destination: public calls, and the walk through one session.
 *
 * Happy path: a control connection is let in, its OFFER is checked, the guest gives its memory, ACCEPT goes out with
 * the tokens, the data channels attach, pages arrive; COMMIT: everything is there, receivers end, device state is
 * loaded, LOADED; RUN: the guest is resumed, RUNNING.
 *
 * Failure modes: before RUN is taken anything that goes wrong, here or at the source or in between, decides that the
 * guest never runs here; the source is told, the guest's memory is given back, and serve() may be called again. After
 * it only a guest that cannot be resumed is a failure, and then too it has never run.
 *
 * Teardown: under the lock the session becomes unreachable for the door; then receivers are joined, then the control
 * thread, then who registers memory, and only then any of them is freed; then nobody holds a pointer to the session but
 * the caller. Channels and then registrations go last: after the guest runs, or before one that failed gives its memory
 * back.
 */
#include "engine/destination.h"

#include <stdlib.h>
#include <string.h>

#include "engine/reason.h"
#include "engine/transports.h"
#include "multifd/bitmap.h"
#include "transport/clock.h"
#include "transport/error.h"

enum { PORT_TRIES = 8 };

static void emit(struct godwit_destination *destination, enum godwit_event_kind kind, uint64_t value, const char *text)
{
    struct godwit_event event = {.kind = kind, .value = value, .text = text};
    if (destination->on_event != NULL)
        destination->on_event(destination->opaque, &event);
}

void destination_warn(struct godwit_destination *destination, const char *text)
{
    emit(destination, GODWIT_EVENT_WARNING, 0, text);
}

static void set_status(struct godwit_destination *destination, enum godwit_status status)
{
    pthread_mutex_lock(&destination->lock);
    destination->status = status;
    pthread_mutex_unlock(&destination->lock);
    emit(destination, GODWIT_EVENT_MIGRATION, status, NULL);
}

uint64_t destination_option(struct godwit_destination *destination, const char *name)
{
    pthread_mutex_lock(&destination->lock);
    uint64_t value = godwit_options_get(destination->options, name);
    pthread_mutex_unlock(&destination->lock);
    return value;
}

void session_fail(struct session *session, const struct godwit_error *error)
{
    struct godwit_destination *destination = session->destination;
    pthread_mutex_lock(&destination->lock);
    if (reason_is_better(error->code, session->failure.code))
        session->failure = *error;
    pthread_cond_broadcast(&destination->changed);
    pthread_mutex_unlock(&destination->lock);
}

/* ---- waiting ---- */

static bool is_offered(const struct session *session)
{
    return session->offered;
}

static bool is_attached(const struct session *session)
{
    return session->attached == session->offer.channels;
}

static bool is_committed(const struct session *session)
{
    return session->committed;
}

static bool is_told_to_run(const struct session *session)
{
    return session->past->fate == FATE_RUN_TAKEN;
}

/* Under the lock. */
static enum godwit_err check_locked(struct session *session, struct godwit_error *error)
{
    if (session->failure.code != GODWIT_OK) {
        *error = session->failure;
        return error->code;
    }
    if (atomic_load(&session->destination->cancel))
        return error_set(error, GODWIT_ERR_CANCELLED, "cancelled at the destination");
    return GODWIT_OK;
}

enum godwit_err session_check(struct session *session, struct godwit_error *error)
{
    pthread_mutex_lock(&session->destination->lock);
    enum godwit_err err = check_locked(session, error);
    pthread_mutex_unlock(&session->destination->lock);
    return err;
}

/* Waits until `ready`, a failure, a cancel, or the deadline; 0: the heartbeat alone bounds it. */
static enum godwit_err wait_for(struct session *session, bool (*ready)(const struct session *), int timeout_ms,
                                const char *what, struct godwit_error *error)
{
    struct godwit_destination *destination = session->destination;
    uint64_t deadline = clock_now_ms() + (uint64_t)timeout_ms;
    enum godwit_err err = GODWIT_OK;
    pthread_mutex_lock(&destination->lock);
    while (err == GODWIT_OK && !ready(session)) {
        err = check_locked(session, error);
        if (err == GODWIT_OK && timeout_ms > 0 && clock_left_ms(deadline) == 0)
            err = error_set(error, GODWIT_ERR_TIMEOUT, "the source did not %s within %d ms", what, timeout_ms);
        if (err == GODWIT_OK) {
            struct timespec until = clock_timespec(clock_now_ns() + DESTINATION_TICK_MS * UINT64_C(1000000));
            pthread_cond_clockwait(&destination->changed, &destination->lock, CLOCK_MONOTONIC, &until);
        }
    }
    pthread_mutex_unlock(&destination->lock);
    return err;
}

/* ---- the steps of a session, once its memory is there ---- */

static enum godwit_err check_all_received(struct session *session, struct godwit_error *error)
{
    if (session->commit_epoch != session->acked)
        return error_set(error, GODWIT_ERR_PROTOCOL, "COMMIT of epoch %u, of which only %u have arrived",
                         session->commit_epoch, session->acked);
    if (session->commit_streams != session->states.count || !state_set_complete(&session->states))
        return error_set(error, GODWIT_ERR_PROTOCOL, "COMMIT with device state missing");
    for (unsigned i = 0; i < session->ram->count; i++) {
        const struct ram_block *block = &session->ram->blocks[i];
        if (!bitmap_all_atomic(block->received, 0, block->pages))
            return error_set(error, GODWIT_ERR_PROTOCOL, "COMMIT with pages of block %s never announced", block->id);
    }
    return GODWIT_OK;
}

static void set_closing(struct session *session, uint64_t since_ms)
{
    pthread_mutex_lock(&session->destination->lock);
    session->closing_ms = since_ms;
    pthread_mutex_unlock(&session->destination->lock);
}

/*
 * Everything is placed: what was put lies before a marker that has come, so no put is under way; and on channels that
 * are shut down the source has no way to begin another with the keys it holds. From here on nobody but this side writes
 * guest memory. To free the channels and the registrations takes long, and can wait until the guest runs.
 */
static enum godwit_err finish_memory(struct session *session, struct godwit_error *error)
{
    set_closing(session, clock_now_ms());
    if (session->registrar != NULL)
        registrar_stop(session->registrar);
    multifd_recv_stop(session->recv);
    set_closing(session, 0);
    return check_all_received(session, error);
}

static enum godwit_err load(struct session *session, struct godwit_error *error)
{
    const struct guest *guest = &session->destination->guest;
    for (unsigned i = 0; i < session->states.count; i++) {
        const struct state_stream *stream = &session->states.streams[i];
        enum godwit_err err = guest_checked(
            guest->ops.load(guest->self, stream->name, stream->data.bytes, stream->data.size, error), error,
            "cannot load device state %s", stream->name);
        if (err != GODWIT_OK)
            return err;
    }
    pthread_mutex_lock(&session->destination->lock);
    session->loaded = true;
    session->destination->owes_answer = true;
    pthread_mutex_unlock(&session->destination->lock);
    return control_send(session->control, RECORD_LOADED, NULL, 0, error);
}

static void settle(struct session *session, enum fate fate)
{
    struct godwit_destination *destination = session->destination;
    pthread_mutex_lock(&destination->lock);
    session->past->fate = fate;
    pthread_cond_broadcast(&destination->changed);
    pthread_mutex_unlock(&destination->lock);
}

static enum godwit_err run_guest(struct session *session, struct godwit_error *error)
{
    const struct guest *guest = &session->destination->guest;
    enum godwit_err err = guest->ops.reclaim(guest->self, error);
    if (err == GODWIT_OK)
        err = guest->ops.resume(guest->self, error);
    struct godwit_error ignored = {0};
    if (err != GODWIT_OK) /* before the source is promised that it may have them back */
        guest->ops.release(guest->self, &ignored);
    settle(session, err == GODWIT_OK ? FATE_RUNNING : FATE_NEVER);
    if (err != GODWIT_OK)
        return guest_checked(err, error, "cannot run the guest at the destination");
    control_send(session->control, RECORD_RUNNING, NULL, 0, NULL); /* lost: the source will ask */
    return GODWIT_OK;
}

/* Decides that the guest never runs here, unless it was decided otherwise: true when it really never will. */
static bool rule_out(struct session *session)
{
    pthread_mutex_lock(&session->destination->lock);
    bool decided = session->past != NULL && session->past->fate == FATE_RUN_TAKEN;
    if (session->past != NULL && session->past->fate == FATE_UNDECIDED)
        session->past->fate = FATE_NEVER;
    pthread_mutex_unlock(&session->destination->lock);
    return !decided;
}

static enum godwit_err walk(struct session *session, struct godwit_error *error)
{
    struct godwit_destination *destination = session->destination;
    set_status(destination, GODWIT_STATUS_SETUP);
    enum godwit_err err = session_start_control(session, error);
    if (err == GODWIT_OK)
        err = wait_for(session, is_offered, (int)destination_option(destination, "setup-timeout"), "offer a guest",
                       error);
    if (err == GODWIT_OK)
        err = session_answer_offer(session, error);
    if (err == GODWIT_OK)
        err = wait_for(session, is_attached, (int)destination_option(destination, "connect-timeout"),
                       "connect all data channels", error);
    if (err != GODWIT_OK)
        return err;
    pthread_mutex_lock(&destination->lock);
    destination->info.setup_time_ms = clock_now_ms() - session->start_ms;
    destination->info.ram.total = session->ram->pages << PAGE_SHIFT;
    pthread_mutex_unlock(&destination->lock);
    set_status(destination, GODWIT_STATUS_ACTIVE);
    err = wait_for(session, is_committed, 0, "commit", error);
    if (err != GODWIT_OK)
        return err;
    set_status(destination, GODWIT_STATUS_DEVICE);
    err = finish_memory(session, error);
    if (err == GODWIT_OK)
        err = load(session, error);
    if (err == GODWIT_OK)
        err = wait_for(session, is_told_to_run, 0, "say RUN", error);
    if (err != GODWIT_OK && rule_out(session))
        return err;
    return run_guest(session, error); /* RUN was taken, perhaps in the same moment: it is carried out */
}

/* ---- the end of a session ---- */

static void wait_goodbye(struct session *session)
{
    struct godwit_destination *destination = session->destination;
    uint64_t deadline = clock_now_ms() + destination_option(destination, "peer-timeout");
    struct timespec until = clock_timespec(deadline * 1000000u);
    pthread_mutex_lock(&destination->lock);
    while (!session->bye && session->failure.code == GODWIT_OK && clock_left_ms(deadline) > 0)
        pthread_cond_clockwait(&destination->changed, &destination->lock, CLOCK_MONOTONIC, &until);
    destination->goodbye = destination->goodbye || session->bye; /* it may have been told the outcome meanwhile */
    pthread_mutex_unlock(&destination->lock);
}

/* What the receivers counted, into info. Under the lock. */
static void sum_channels(const struct session *session, struct godwit_info *info)
{
    if (session == NULL || session->recv == NULL)
        return;
    info->pinned_bytes = session->registrar != NULL ? registrar_info(session->registrar).bytes : 0;
    struct godwit_ram_info *ram = &info->ram;
    info->channel_count = session->offer.channels;
    ram->page_size = GODWIT_PAGE_SIZE;
    ram->multifd_bytes = ram->duplicate = ram->normal = 0;
    for (unsigned i = 0; i < info->channel_count; i++) {
        multifd_recv_info(session->recv, i, &info->channels[i]);
        ram->multifd_bytes += info->channels[i].bytes;
        ram->duplicate += info->channels[i].duplicate;
        ram->normal += info->channels[i].normal;
    }
    ram->normal_bytes = ram->normal << PAGE_SHIFT;
    ram->transferred = ram->multifd_bytes;
}

static void tear_down(struct session *session)
{
    struct godwit_destination *destination = session->destination;
    pthread_mutex_lock(&destination->lock);
    sum_channels(session, &destination->info);
    destination->info.total_time_ms = clock_now_ms() - session->start_ms;
    destination->session = NULL; /* the door finds it no more */
    pthread_mutex_unlock(&destination->lock);
    set_closing(session, clock_now_ms());
    if (session->recv != NULL)
        multifd_recv_stop(session->recv); /* they acknowledge by the control connection */
    if (session->control != NULL)
        control_stop(session->control);   /* which counts their progress, and asks for slices */
    registrar_free(session->registrar);   /* which sends keys */
    control_free(session->control);
    multifd_recv_free(session->recv);     /* before the registrations: no put finds its memory gone */
    ram_free(session->ram);
    domain_free(session->domain);
    session_free(session);
}

/* The control connection may be about to say why: give it a moment. */
static void await_reason(struct session *session, struct godwit_error *error)
{
    struct godwit_destination *destination = session->destination;
    uint64_t deadline = clock_now_ms() + REASON_WAIT_MS;
    struct timespec until = clock_timespec(deadline * 1000000u);
    pthread_mutex_lock(&destination->lock);
    while (reason_is_lost_channel(error->code) && session->control != NULL && clock_left_ms(deadline) > 0) {
        pthread_cond_clockwait(&destination->changed, &destination->lock, CLOCK_MONOTONIC, &until);
        if (reason_is_better(session->failure.code, error->code))
            *error = session->failure;
    }
    pthread_mutex_unlock(&destination->lock);
}

static enum godwit_err fail_session(struct session *session, struct godwit_error *error)
{
    struct godwit_destination *destination = session->destination;
    const struct guest *guest = &destination->guest;
    bool accepted = session->accepted_memory;
    rule_out(session); /* before the control connection is let go */
    await_reason(session, error);
    if (session->control != NULL)
        control_send_error(session->control, error);
    tear_down(session);
    if (accepted)
        guest->ops.discard(guest->self);
    pthread_mutex_lock(&destination->lock);
    destination->info.error = *error;
    pthread_mutex_unlock(&destination->lock);
    set_status(destination, error->code == GODWIT_ERR_CANCELLED ? GODWIT_STATUS_CANCELLED : GODWIT_STATUS_FAILED);
    return error->code;
}

/* ---- public ---- */

static struct session *await_session(struct godwit_destination *destination)
{
    struct session *session = NULL;
    pthread_mutex_lock(&destination->lock);
    destination->waiting = true;
    pthread_cond_broadcast(&destination->changed);
    while (session == NULL && !atomic_load(&destination->cancel)) {
        struct timespec until = clock_timespec(clock_now_ns() + DESTINATION_TICK_MS * UINT64_C(1000000));
        pthread_cond_clockwait(&destination->changed, &destination->lock, CLOCK_MONOTONIC, &until);
        if (destination->session != NULL && destination->session->channel != NULL)
            session = destination->session;
    }
    destination->waiting = false;
    struct session *nobodys = session == NULL ? destination->session : NULL; /* came as we were cancelled */
    if (nobodys != NULL)
        destination->session = NULL;
    if (session != NULL) {
        memset(&destination->info, 0, sizeof destination->info);
        destination->goodbye = destination->owes_answer = false;
    }
    pthread_mutex_unlock(&destination->lock);
    if (nobodys != NULL)
        session_free(nobodys);
    return session;
}

enum godwit_err godwit_destination_serve(struct godwit_destination *destination, struct godwit_error *error)
{
    struct godwit_error local = {0};
    if (destination->admission == NULL)
        return error_set(error, GODWIT_ERR_INVALID, "the destination does not listen yet");
    struct session *session = await_session(destination);
    if (session == NULL) {
        atomic_store(&destination->cancel, false);
        return error_set(error, GODWIT_ERR_CANCELLED, "cancelled while waiting for a migration");
    }
    enum godwit_err err = walk(session, &local);
    if (err == GODWIT_OK) {
        wait_goodbye(session);
        tear_down(session);
        atomic_store(&destination->cancel, false); /* it came too late */
        set_status(destination, GODWIT_STATUS_COMPLETED);
        return GODWIT_OK;
    }
    err = fail_session(session, &local);
    atomic_store(&destination->cancel, false);
    if (error != NULL)
        *error = local;
    return err;
}

enum godwit_err godwit_destination_new(const struct godwit_guest *guest, const struct godwit_options *options,
                                       godwit_event_fn *on_event, void *opaque, struct godwit_destination **out,
                                       struct godwit_error *error)
{
    struct godwit_destination *destination = calloc(1, sizeof *destination);
    if (destination == NULL)
        return error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a destination");
    destination->on_event = on_event;
    destination->opaque = opaque;
    pthread_mutex_init(&destination->lock, NULL);
    pthread_cond_init(&destination->changed, NULL);
    destination->options = options_copy(options);
    enum godwit_err err = destination->options != NULL
                              ? guest_resolve(guest, &destination->guest, error)
                              : error_set(error, GODWIT_ERR_NO_MEMORY, "no memory for a destination");
    if (err != GODWIT_OK) {
        godwit_destination_free(destination);
        return err;
    }
    *out = destination;
    return GODWIT_OK;
}

/* Listens on *address, which becomes the real one, and admits these roles. */
static enum godwit_err open_door(struct godwit_destination *destination, const struct transport *transport,
                                 struct address *address, unsigned roles, struct admission **out,
                                 struct backlog_warning *warning, struct godwit_error *error)
{
    bool known = godwit_options_is_set(destination->options, "multifd-channels");
    unsigned channels = known ? (unsigned)godwit_options_get(destination->options, "multifd-channels") : 0;
    struct listener *listener;
    /* A listener for queue pairs drops requests beyond its backlog, and each costs seconds until it is repeated. */
    bool drops = roles == 1u << HELLO_DATA;
    enum godwit_err err = transport_listen(transport, address, admission_backlog(drops ? 2 * channels : channels),
                                           &listener, warning, error);
    if (err != GODWIT_OK)
        return err;
    const struct ticket_check tickets = {.check = door_check_ticket, .opaque = destination};
    listener_check_tickets(listener, &tickets);
    *address = *listener_address(listener);
    struct admission_config config = {
        .listener = listener,
        .handshake_ms = options_ms(destination->options, "handshake-timeout"),
        .roles = roles,
        .turned_away = door_turned_away,
        .reserve = door_reserve,
        .attach = door_attach,
        .release = door_release,
        .opaque = destination,
    };
    err = admission_start(&config, out, error);
    if (err != GODWIT_OK)
        listener_free(listener);
    return err;
}

/*
 * Where the planes differ both doors have one port number. One that the kernel chose for the first may be a stranger's
 * on the other: then it chooses again.
 */
static enum godwit_err open_doors(struct godwit_destination *destination, struct backlog_warning warnings[2],
                                  struct godwit_error *error)
{
    struct transports *transports = &destination->transports;
    bool split = transports_split(transports);
    const struct address wanted = transports->control_address;
    enum godwit_err err;
    for (unsigned tries = split && wanted.port == 0 ? PORT_TRIES : 1; tries > 0; tries--) {
        transports->control_address = wanted;
        err = open_door(destination, transports->control, &transports->control_address,
                        split ? 1u << HELLO_CONTROL : 0, &destination->admission, &warnings[0], error);
        if (err != GODWIT_OK || !split)
            return err;
        transports->data_address.port = transports->control_address.port;
        err = open_door(destination, transports->data, &transports->data_address, 1u << HELLO_DATA,
                        &destination->data_admission, &warnings[1], error);
        if (err == GODWIT_OK)
            return err;
        admission_free(destination->admission);
        destination->admission = NULL;
        if (err != GODWIT_ERR_BUSY)
            return err;
    }
    return err;
}

enum godwit_err godwit_destination_listen(struct godwit_destination *destination, const char *uri, char *bound,
                                          size_t bound_size, struct godwit_error *error)
{
    if (destination->admission != NULL)
        return error_set(error, GODWIT_ERR_BUSY, "the destination listens already");
    struct address address;
    struct transports *transports = &destination->transports;
    enum godwit_err err = address_parse(uri, &address, error);
    if (err == GODWIT_OK && destination->control_override == NULL)
        err = transports_find(&address, transports, error);
    if (err != GODWIT_OK)
        return err;
    if (destination->control_override != NULL)
        transports_use(destination->control_override, destination->data_override, &address, transports);

    struct backlog_warning warnings[2] = {0};
    err = transports_protect(transports, destination->options, GODWIT_SIDE_DESTINATION, error);
    if (err == GODWIT_OK)
        err = open_doors(destination, warnings, error);
    if (err != GODWIT_OK) {
        transports_release(transports);
        return err;
    }
    address.port = transports->control_address.port;
    char text[ADDRESS_TEXT_MAX];
    address_format(&address, text);
    if (bound != NULL && bound_size > 0)
        strncpy(bound, text, bound_size - 1)[bound_size - 1] = 0;
    for (unsigned i = 0; i < 2; i++)
        if (warnings[i].text[0] != 0)
            destination_warn(destination, warnings[i].text);
    if (transports_unprotected(transports) != NULL)
        destination_warn(destination, transports_unprotected(transports));
    return GODWIT_OK;
}

void godwit_destination_cancel(struct godwit_destination *destination)
{
    atomic_store(&destination->cancel, true);
}

enum godwit_err godwit_destination_set(struct godwit_destination *destination, const char *name, const char *value,
                                       struct godwit_error *error)
{
    const struct godwit_option *option = options_find(name);
    if (destination->admission != NULL && strcmp(name, "multifd-channels") == 0)
        return error_set(
            error, GODWIT_ERR_BUSY,
            "multifd-channels sizes the listen backlog: set it before the destination listens, or not at all "
            "to adopt the source's");
    if (destination->admission != NULL && option != NULL && option->when != GODWIT_SET_LIVE)
        return error_set(error, GODWIT_ERR_BUSY, "%s must be set before the destination listens", name);
    pthread_mutex_lock(&destination->lock);
    enum godwit_err err = godwit_options_set(destination->options, name, value, error);
    pthread_mutex_unlock(&destination->lock);
    return err;
}

void godwit_destination_query(struct godwit_destination *destination, struct godwit_info *info)
{
    pthread_mutex_lock(&destination->lock);
    *info = destination->info;
    info->status = destination->status;
    sum_channels(destination->session, info);
    if (destination->session != NULL)
        info->total_time_ms = clock_now_ms() - destination->session->start_ms;
    pthread_mutex_unlock(&destination->lock);
}

bool godwit_destination_linger(struct godwit_destination *destination, int timeout_ms)
{
    uint64_t deadline = clock_now_ms() + (uint64_t)timeout_ms;
    pthread_mutex_lock(&destination->lock);
    while (destination->owes_answer && !destination->goodbye && clock_left_ms(deadline) > 0 &&
           !atomic_load(&destination->cancel)) {
        struct timespec until = clock_timespec(clock_now_ns() + DESTINATION_TICK_MS * UINT64_C(1000000));
        pthread_cond_clockwait(&destination->changed, &destination->lock, CLOCK_MONOTONIC, &until);
    }
    bool answered = !destination->owes_answer || destination->goodbye;
    pthread_mutex_unlock(&destination->lock);
    return answered;
}

void godwit_destination_free(struct godwit_destination *destination)
{
    if (destination == NULL)
        return;
    admission_free(destination->admission);
    admission_free(destination->data_admission);
    if (destination->session != NULL) /* let in after the last serve() */
        session_free(destination->session);
    transports_release(&destination->transports);
    godwit_options_free(destination->options);
    pthread_cond_destroy(&destination->changed);
    pthread_mutex_destroy(&destination->lock);
    free(destination);
}

void destination_use_transport(struct godwit_destination *destination, const struct transport *control,
                               const struct transport *data)
{
    destination->control_override = control;
    destination->data_override = data;
}
