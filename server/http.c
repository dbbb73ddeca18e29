// DESIGN. We listen ourselves and hand each accepted socket to libmicrohttpd, which gives every
// connection a thread: so at a stop we can empty the backlog before we close it, and count work
// from the moment a client was accepted. The library calls on_request() first with the headers,
// then with each piece of the body, then once more when the body is complete; only the first and
// the last call may queue a reply. A reply in the first call goes out at once, and the library
// closes the connection after it: on_completed() then reads what the client still sends.

#include "http.h"
#include "arrival.h"
#include "clock.h"
#include "hosts.h"
#include "log.h"
#include "peers.h"
#include "reception.h"
#include <errno.h>
#include <limits.h>
#include <microhttpd.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    HEAD_MS = 10 * 1000, // for the headers of a request
    THREAD_STACK_BYTES = 512 * 1024,
    SMALL_ANSWER_BYTES = 64 * 1024, // what a connection may cost unasked
};

// As GnuTLS has it: nothing before TLS 1.2, and no keys sent under RSA, which whoever gets the
// certificate's key could read later.
static const char TLS_PRIORITIES[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA";

struct http_server {
    struct http_options options;
    struct MHD_Daemon *daemon;
    struct reception *reception;
    struct host_rules hosts;
    struct watch *watch;
    bool tls;
    uint64_t id_seed;
    atomic_uint_fast64_t next_id;
    struct peers *peers;
    atomic_int leaving; // connections that are answered, but may still send
    atomic_bool draining;
};

// One request while it arrives.
struct exchange {
    struct http_server *server;
    char id[129], name[256]; // "POST /classify", or its beginning
    int64_t arrived_ns;
    struct arrival arrival;
    int64_t answer_bytes; // that wait to be sent
    bool absolute;        // the form of its target
    bool last;            // the connection closes after the reply
    bool unread;          // and its client may still be sending a body
};

static int descriptor(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

static void choose_id(struct exchange *exchange, struct MHD_Connection *connection)
{
    const char *id = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "X-Request-Id");
    size_t length = id ? strlen(id) : 0;
    bool visible = length > 0 && length < sizeof exchange->id;
    for (size_t i = 0; visible && i < length; i++)
        visible = id[i] > ' ' && id[i] <= '~';
    if (visible)
        memcpy(exchange->id, id, length + 1);
    else
        snprintf(exchange->id, sizeof exchange->id, "%016llx",
                 (unsigned long long)(exchange->server->id_seed +
                                      atomic_fetch_add(&exchange->server->next_id, 1)));
}

static struct http_request describe(struct exchange *exchange, struct MHD_Connection *connection,
                                    const char *method, const char *path)
{
    const int64_t time_ns = exchange->server->options.request_timeout_ms * 1000000;
    return (struct http_request){.method = method,
                                 .path = path,
                                 .body = exchange->arrival.intake.bytes,
                                 .body_length = exchange->arrival.intake.length,
                                 .id = exchange->id,
                                 .arrived_ns = exchange->arrived_ns,
                                 .deadline_ns = exchange->arrived_ns + time_ns,
                                 .budget = &exchange->server->options.load->bytes,
                                 .connection = connection};
}

static enum MHD_Result answer(struct exchange *exchange, struct MHD_Connection *connection,
                              const char *method, const char *path, enum status refused)
{
    const struct http_options *options = &exchange->server->options;
    struct http_request request = describe(exchange, connection, method, path);
    struct http_response response = {0};
    request.refused = refused;
    enum status status = options->handler(options->context, &request, &response);
    intake_release(&exchange->arrival.intake); // before the client knows that it may send the next
    exchange->answer_bytes = response.length > SMALL_ANSWER_BYTES ? (int64_t)response.length : 0;
    budget_charge(&options->load->bytes, exchange->answer_bytes);
    exchange->unread = refused != STATUS_OK;
    exchange->last = exchange->unread || atomic_load(&exchange->server->draining);
    const unsigned code = (unsigned)status_http(status);
    return http_reply(connection, exchange->id, code, &response, exchange->last) ? MHD_YES : MHD_NO;
}

static enum MHD_Result note_header(void *context, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    (void)kind;
    intake_header(context, name, value);
    return MHD_YES;
}

// Who sends no Host is no browser, nor is who sends a target with a host in it.
static enum status check_host(const struct exchange *exchange)
{
    const char *host = exchange->arrival.intake.framing.host;
    if (!host || exchange->absolute || hosts_allow(&exchange->server->hosts, host))
        return STATUS_OK;
    return status_fail(STATUS_MISDIRECTED, "Host: \"%.64s\" is not ours (--allowed-hosts)", host);
}

// The headers have arrived: a body that we will not take is refused before it is sent.
static enum status begin_body(struct exchange *exchange, struct MHD_Connection *connection,
                              const char *method, const char *path, const char *version)
{
    const struct http_options *options = &exchange->server->options;
    struct http_request request = describe(exchange, connection, method, path);
    MHD_get_connection_values(connection, MHD_HEADER_KIND, note_header, &exchange->arrival.intake);
    TRY(intake_check(&exchange->arrival.intake, strcmp(version, "HTTP/1.0") != 0));
    TRY(check_host(exchange));
    TRY(options->admit(options->context, &request));
    return arrival_begin(&exchange->arrival);
}

static enum MHD_Result begin_request(struct http_server *server, struct MHD_Connection *connection,
                                     const char *method, const char *path, const char *version,
                                     bool absolute, void **state)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange)
        return MHD_NO;
    exchange->server = server;
    exchange->absolute = absolute;
    snprintf(exchange->name, sizeof exchange->name, "%s %s", method, path);
    exchange->arrived_ns = clock_ns();
    exchange->arrival = (struct arrival){.watch = server->watch,
                                         .fd = descriptor(connection),
                                         .timeout_ms = server->options.request_timeout_ms,
                                         .intake = {.budget = &server->options.load->bytes,
                                                    .max_bytes = server->options.max_body_bytes}};
    arrival_init(&exchange->arrival);
    choose_id(exchange, connection);
    *state = exchange;
    atomic_fetch_add(&server->options.load->requests, 1);
    peers_keep(server->peers, descriptor(connection), exchange);
    enum status status = begin_body(exchange, connection, method, path, version);
    return status == STATUS_OK ? MHD_YES : answer(exchange, connection, method, path, status);
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection,
                                  const char *path, const char *method, const char *version,
                                  const char *data, size_t *data_length, void **state)
{
    struct http_server *server = context;
    struct exchange *exchange = *state;
    const char *target = path;
    path = intake_path(method, target);
    if (!exchange)
        return begin_request(server, connection, method, path, version, path != target, state);
    if (*data_length == 0)
        return answer(exchange, connection, method, path, arrival_end(&exchange->arrival));
    enum status status = arrival_append(&exchange->arrival, data, *data_length);
    *data_length = 0;
    return status == STATUS_OK ? MHD_YES : MHD_NO;
}

// The reply has been sent and the library is about to close. A refused client is told that nothing
// follows and given time to close its end; under TLS the library tells it, after a silence. One
// whose body was taken has sent requests ahead, if anything.
static void leave(struct exchange *exchange)
{
    const int64_t quiet_ms = !exchange->unread ? 0 : exchange->server->tls ? 500 : LEAVINGS_MS;
    if (!exchange->server->tls)
        shutdown(exchange->arrival.fd, SHUT_WR);
    leavings_read(&exchange->arrival.leavings, exchange->arrival.fd, quiet_ms);
}

static void end_request(struct exchange *exchange)
{
    struct http_load *load = exchange->server->options.load;
    arrival_release(&exchange->arrival);
    budget_give(&load->bytes, exchange->answer_bytes);
    atomic_fetch_sub(&load->requests, 1);
}

// On the connection's thread. A drain must miss neither its request nor its leaving.
static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    struct http_server *server = context;
    struct exchange *exchange = peers_take(server->peers, descriptor(connection));
    if (!exchange)
        return;
    const bool answered = code == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    const bool leaves = exchange->last && answered;
    const enum status refused = arrival_end(&exchange->arrival);
    if (refused != STATUS_OK && !answered)
        log_info("%s %s: connection closed: %s", exchange->id, exchange->name,
                 status_detail(refused));
    atomic_fetch_add(&server->leaving, leaves);
    end_request(exchange);
    if (leaves)
        leave(exchange);
    atomic_fetch_sub(&server->leaving, leaves);
    free(exchange);
    *state = NULL;
}

// Version 1.0.1 never completes a request for whose error it has no memory (a chunk's line that is
// too long), which a stop would then wait for: what is left of a connection ends with it.
static void forget(void *context, int fd)
{
    struct http_server *server = context;
    struct exchange *left = peers_take(server->peers, fd);
    if (left)
        end_request(left);
    free(left);
    peers_remove(server->peers, fd);
}

// Comes before the descriptor is closed.
static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    (void)socket_context;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED)
        forget(context, descriptor(connection));
}

// A zero byte would end the text early: what holds one is left as it is.
static size_t unescape(void *context, struct MHD_Connection *connection, char *text)
{
    (void)context, (void)connection;
    return strstr(text, "%00") ? strlen(text) : MHD_http_unescape(text);
}

static void on_library_message(void *context, const char *format, va_list args)
{
    (void)context;
    char text[512];
    vsnprintf(text, sizeof text, format, args);
    text[strcspn(text, "\n")] = '\0';
    log_debug("http: %s", text);
}

// The library takes the connection up on a thread of its own, later.
static void on_accepted(void *context, int fd, const struct sockaddr *address, socklen_t length)
{
    struct http_server *server = context;
    if (MHD_add_connection(server->daemon, fd, address, length) == MHD_YES)
        return;
    log_debug("connection refused: %s", strerror(errno));
    forget(server, fd);
}

static enum status open_reception(struct http_server *server)
{
    const struct http_options *options = &server->options;
    return reception_open(&(struct reception_options){.listen = options->listen,
                                                      .port = options->port,
                                                      .max_connections = options->max_connections,
                                                      .max_of_client = options->max_of_client,
                                                      .trusted = options->trusted,
                                                      .replaces = options->replaces,
                                                      .head_ms = HEAD_MS,
                                                      .idle_ms = options->idle_timeout_ms + HEAD_MS,
                                                      .peers = server->peers,
                                                      .watch = server->watch,
                                                      .accepted = on_accepted,
                                                      .forget = forget,
                                                      .context = server},
                          &server->reception);
}

static enum status start(struct http_server *server)
{
    if (getrandom(&server->id_seed, sizeof server->id_seed, 0) < 0)
        return status_fail(STATUS_IO, "no random numbers: %s", strerror(errno));
    TRY(peers_create(&server->peers));
    TRY(watch_start(&server->watch));
    const struct http_options *options = &server->options;
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_USE_POLL | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    // Without TLS the list of its options ends where it begins. The library reads the texts in
    // MHD_start_daemon() and keeps what it made of them, not the texts.
    struct MHD_OptionItem tls[] = {
        {options->tls_key ? MHD_OPTION_HTTPS_MEM_KEY : MHD_OPTION_END, 0,
         (void *)(uintptr_t)options->tls_key},
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)options->tls_cert},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)TLS_PRIORITIES},
        {MHD_OPTION_END, 0, NULL}};
    // The connection limit is ours: at its own, version 0.9.75 keeps a mutex locked for ever.
    server->daemon = MHD_start_daemon(
        flags | (options->tls_key ? MHD_USE_TLS : 0), 0, NULL, NULL, on_request, server,
        MHD_OPTION_EXTERNAL_LOGGER, on_library_message, NULL, MHD_OPTION_UNESCAPE_CALLBACK,
        unescape, NULL, MHD_OPTION_NOTIFY_COMPLETED, on_completed, server,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_CONNECTION_LIMIT, UINT_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)((options->idle_timeout_ms + 999) / 1000),
        MHD_OPTION_THREAD_STACK_SIZE, (size_t)THREAD_STACK_BYTES, MHD_OPTION_ARRAY, tls,
        MHD_OPTION_END);
    if (!server->daemon && options->tls_key)
        return status_fail(STATUS_USAGE,
                           "HTTPS does not start: --tls-key is not the key of --tls-cert, or one "
                           "of them is broken (--log-level debug says more)");
    if (!server->daemon)
        return status_fail(STATUS_INTERNAL, "the HTTP library does not start: %s", strerror(errno));
    TRY(open_reception(server));
    server->hosts = (struct host_rules){options->listen, options->allowed_hosts,
                                        reception_is_local(server->reception)};
    return reception_begin(server->reception);
}

static void release(struct http_server *server)
{
    if (server->daemon)
        MHD_stop_daemon(server->daemon);
    reception_free(server->reception);
    watch_stop(server->watch);
    peers_free(server->peers);
    free(server);
}

enum status http_start(const struct http_options *options, struct http_server **out)
{
    struct http_server *server = calloc(1, sizeof *server);
    if (!server)
        return status_fail(STATUS_OUT_OF_MEMORY, "http: out of memory");
    server->options = *options;
    server->tls = options->tls_key;
    enum status status = start(server);
    if (status != STATUS_OK) {
        release(server);
        return status;
    }
    *out = server;
    return STATUS_OK;
}

const char *http_address(const struct http_server *server)
{
    return reception_address(server->reception);
}

// Until every request in work is answered and its client has what it was sent. A connection that
// was accepted but has not sent its request yet counts for a second: longer, and an idle client
// could hold the stop. It is a second of looks, not of the clock: a machine that stood still
// meanwhile may hold requests that nobody has read.
static void drain(struct http_server *server, int64_t timeout_ms, bool (*hurry)(void))
{
    enum { LOOK_MS = 5, FRESH_LOOKS = 1000 / LOOK_MS };
    const int64_t start = clock_ns();
    for (int looks = 0;; looks++) {
        bool fresh = peers_fresh(server->peers) > 0 && looks < FRESH_LOOKS;
        int requests = atomic_load(&server->options.load->requests);
        if (requests == 0 && !fresh && atomic_load(&server->leaving) == 0)
            return;
        if (clock_ns() - start >= timeout_ms * 1000000 || hurry()) {
            if (requests > 0)
                log_warning("stopping with %d requests unanswered", requests);
            return;
        }
        poll(NULL, 0, LOOK_MS);
    }
}

void http_stop(struct http_server *server, int64_t timeout_ms, bool (*hurry)(void))
{
    if (!server)
        return;
    atomic_store(&server->draining, true);
    reception_close(server->reception);
    drain(server, timeout_ms, hurry);
    release(server);
}
