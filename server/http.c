// DESIGN. We listen ourselves and hand each accepted socket to libmicrohttpd, which gives every
// connection a thread: so at a stop we can empty the backlog before we close it, and count work
// from the moment a client was accepted. The library calls on_request() first with the headers,
// then with each piece of the body, then once more when the body is complete; only the first and
// the last call may queue a reply.
//
// A server's counts are atomics: connection threads bump them, http_stop() watches them.

#include "http.h"
#include "clock.h"
#include "intake.h"
#include "listener.h"
#include "log.h"
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

enum { THREAD_STACK_BYTES = 512 * 1024, MAX_DESCRIPTORS = 1 << 20 };

// What we know of the connection with a descriptor. The library says when it closes one, but not if
// it had no memory to begin with it: that is seen when its descriptor comes back with another.
enum peer { PEER_NONE, PEER_FRESH, PEER_USED }; // no request yet, and one at least

struct http_server {
    struct http_options options;
    struct MHD_Daemon *daemon;
    struct listener *listener;
    uint64_t id_seed;
    atomic_uint_fast64_t next_id;
    atomic_int connections; // accepted and not yet closed
    atomic_int fresh;       // of these, the ones that have not sent a request yet
    atomic_bool draining;
    int n_peers;
    atomic_char peers[]; // enum peer, by descriptor
};

// One request while it arrives.
struct exchange {
    struct http_server *server;
    char id[129];
    int64_t arrived_ns;
    struct intake intake;
    bool late; // the body was not there in time: what is left of it is thrown away
};

const char *http_header(const struct http_request *request, const char *name)
{
    const char *value = NULL;
    MHD_lookup_connection_value_n(request->connection, MHD_HEADER_KIND, name, strlen(name), &value,
                                  NULL);
    return value;
}

const char *http_query(const struct http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND, name);
}

static int descriptor(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
}

// A client that has closed one direction only looks the same as one that has closed both.
bool http_client_gone(void *connection)
{
    char byte;
    ssize_t got = recv(descriptor(connection), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

void http_add_header(struct http_response *response, const char *name, const char *format, ...)
{
    if (response->n_headers == HTTP_MAX_HEADERS)
        return;
    va_list args;
    va_start(args, format);
    char *value = response->headers[response->n_headers].value;
    vsnprintf(value, sizeof response->headers->value, format, args);
    va_end(args);
    response->headers[response->n_headers++].name = name;
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

static enum MHD_Result queue_response(struct exchange *exchange, struct MHD_Connection *connection,
                                      enum status status, struct http_response *response)
{
    struct MHD_Response *reply =
        MHD_create_response_from_buffer(response->length, response->body, MHD_RESPMEM_MUST_FREE);
    if (!reply) {
        free(response->body);
        return MHD_NO;
    }
    bool complete = !response->content_type ||
                    MHD_add_response_header(reply, "Content-Type", response->content_type);
    complete = MHD_add_response_header(reply, "X-Request-Id", exchange->id) && complete;
    for (int i = 0; i < response->n_headers; i++)
        complete =
            MHD_add_response_header(reply, response->headers[i].name, response->headers[i].value) &&
            complete;
    if (atomic_load(&exchange->server->draining))
        complete = MHD_add_response_header(reply, "Connection", "close") && complete;
    // Better no answer than one that lacks a header for want of memory.
    enum MHD_Result result =
        complete ? MHD_queue_response(connection, (unsigned)status_http(status), reply) : MHD_NO;
    MHD_destroy_response(reply);
    return result;
}

static int64_t deadline(const struct exchange *exchange)
{
    return exchange->arrived_ns + exchange->server->options.request_timeout_ms * 1000000;
}

static struct http_request describe(struct exchange *exchange, struct MHD_Connection *connection,
                                    const char *method, const char *path)
{
    return (struct http_request){.method = method,
                                 .path = path,
                                 .body = exchange->intake.bytes,
                                 .body_length = exchange->intake.length,
                                 .id = exchange->id,
                                 .arrived_ns = exchange->arrived_ns,
                                 .deadline_ns = deadline(exchange),
                                 .budget = &exchange->server->options.load->bytes,
                                 .connection = connection};
}

// The library closes a connection that is silent for so long; it counts whole seconds.
static void allow_silence(struct MHD_Connection *connection, int64_t ms)
{
    unsigned seconds = (unsigned)((ms + 999) / 1000);
    MHD_set_connection_option(connection, MHD_CONNECTION_OPTION_TIMEOUT, seconds);
}

static enum MHD_Result answer(struct exchange *exchange, struct MHD_Connection *connection,
                              const char *method, const char *path, enum status refused)
{
    const struct http_options *options = &exchange->server->options;
    struct http_request request = describe(exchange, connection, method, path);
    struct http_response response = {0};
    request.refused = refused;
    allow_silence(connection, options->idle_timeout_ms);
    enum status status = options->handler(options->context, &request, &response);
    return queue_response(exchange, connection, status, &response);
}

static enum MHD_Result note_header(void *context, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    (void)kind;
    intake_header(context, name, value);
    return MHD_YES;
}

// The headers have arrived: a body that we will not take is refused before it is sent.
static enum status begin_body(struct exchange *exchange, struct MHD_Connection *connection,
                              const char *method, const char *path, const char *version)
{
    const struct http_options *options = &exchange->server->options;
    struct http_request request = describe(exchange, connection, method, path);
    MHD_get_connection_values(connection, MHD_HEADER_KIND, note_header, &exchange->intake);
    // The library closes after what is refused here: where the next request would begin is not
    // known.
    TRY(intake_check(&exchange->intake, strcmp(version, "HTTP/1.0") != 0));
    TRY(options->admit(options->context, &request));
    return intake_begin(&exchange->intake);
}

static enum MHD_Result begin_request(struct http_server *server, struct MHD_Connection *connection,
                                     const char *method, const char *path, const char *version,
                                     void **state)
{
    struct exchange *exchange = calloc(1, sizeof *exchange);
    if (!exchange)
        return MHD_NO;
    exchange->server = server;
    exchange->arrived_ns = clock_ns();
    exchange->intake = (struct intake){.budget = &server->options.load->bytes,
                                       .max_bytes = server->options.max_body_bytes};
    choose_id(exchange, connection);
    *state = exchange;
    atomic_fetch_add(&server->options.load->requests, 1);
    if (atomic_exchange(&server->peers[descriptor(connection)], PEER_USED) == PEER_FRESH)
        atomic_fetch_sub(&server->fresh, 1);
    // A body that was promised holds its part of the budget: not for longer than it has time.
    if (server->options.request_timeout_ms < server->options.idle_timeout_ms)
        allow_silence(connection, server->options.request_timeout_ms);
    enum status status = begin_body(exchange, connection, method, path, version);
    return status == STATUS_OK ? MHD_YES : answer(exchange, connection, method, path, status);
}

static enum status body_late(const struct http_server *server)
{
    return status_fail(STATUS_BODY_TIMEOUT, "the body was not there within %lld ms",
                       (long long)server->options.request_timeout_ms);
}

// No reply can be queued while the body still arrives. So one that is late is taken to its end,
// but not kept, for as long again.
static enum status take_piece(struct exchange *exchange, const char *data, size_t length)
{
    int64_t now = clock_ns(), end = deadline(exchange);
    if (now <= end)
        return intake_append(&exchange->intake, data, length);
    if (!exchange->late)
        intake_release(&exchange->intake);
    exchange->late = true;
    return now - end <= end - exchange->arrived_ns ? STATUS_OK : body_late(exchange->server);
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection,
                                  const char *path, const char *method, const char *version,
                                  const char *data, size_t *data_length, void **state)
{
    struct http_server *server = context;
    struct exchange *exchange = *state;
    path = intake_path(method, path);
    if (!exchange)
        return begin_request(server, connection, method, path, version, state);
    if (*data_length == 0)
        return answer(exchange, connection, method, path,
                      exchange->late ? body_late(server) : STATUS_OK);
    enum status status = take_piece(exchange, data, *data_length);
    if (status != STATUS_OK) {
        log_info("%s %s %s: connection closed: %s", exchange->id, method, path,
                 status_detail(status));
        return MHD_NO;
    }
    *data_length = 0;
    return MHD_YES;
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
                         enum MHD_RequestTerminationCode code)
{
    (void)connection, (void)code;
    const struct http_server *server = context;
    struct exchange *exchange = *state;
    if (!exchange)
        return;
    intake_release(&exchange->intake);
    atomic_fetch_sub(&server->options.load->requests, 1);
    free(exchange);
    *state = NULL;
}

static void forget(struct http_server *server, int fd)
{
    char peer = atomic_exchange(&server->peers[fd], PEER_NONE);
    if (peer == PEER_FRESH)
        atomic_fetch_sub(&server->fresh, 1);
    if (peer != PEER_NONE)
        atomic_fetch_sub(&server->connections, 1);
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

// The library takes the connection up on a thread of its own, later: it is counted here, where a
// stop cannot miss it.
static void on_accept(void *context, int fd, const struct sockaddr *address, socklen_t length)
{
    struct http_server *server = context;
    if (fd < server->n_peers)
        forget(server, fd);
    if (fd >= server->n_peers ||
        atomic_load(&server->connections) >= server->options.max_connections) {
        log_debug("connection refused: there are %d already", atomic_load(&server->connections));
        close(fd);
        return;
    }
    atomic_store(&server->peers[fd], PEER_FRESH);
    atomic_fetch_add(&server->connections, 1);
    atomic_fetch_add(&server->fresh, 1);
    if (MHD_add_connection(server->daemon, fd, address, length) != MHD_YES) {
        log_debug("connection refused: %s", strerror(errno));
        forget(server, fd);
    }
}

static enum status start(struct http_server *server)
{
    if (getrandom(&server->id_seed, sizeof server->id_seed, 0) < 0)
        return status_fail(STATUS_IO, "no random numbers: %s", strerror(errno));
    const struct http_options *options = &server->options;
    unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_USE_POLL | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    // Without TLS the list of its options ends where it begins. The library reads both texts in
    // MHD_start_daemon() and keeps what it made of them, not the texts.
    struct MHD_OptionItem tls[] = {
        {options->tls_key ? MHD_OPTION_HTTPS_MEM_KEY : MHD_OPTION_END, 0,
         (void *)(uintptr_t)options->tls_key},
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)options->tls_cert},
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
    return listener_start(options->listen, options->port, on_accept, server, &server->listener);
}

static void release(struct http_server *server)
{
    if (server->daemon)
        MHD_stop_daemon(server->daemon);
    free(server);
}

enum status http_start(const struct http_options *options, struct http_server **out)
{
    const long limit = sysconf(_SC_OPEN_MAX);
    const int n_peers = limit > 0 && limit < MAX_DESCRIPTORS ? (int)limit : MAX_DESCRIPTORS;
    struct http_server *server =
        calloc(1, sizeof *server + sizeof *server->peers * (size_t)n_peers);
    if (!server)
        return status_fail(STATUS_OUT_OF_MEMORY, "http: out of memory");
    server->n_peers = n_peers;
    server->options = *options;
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
    return listener_address(server->listener);
}

// Until every request in work is answered. A connection that was accepted but has not sent its
// request yet counts for a second: longer, and an idle client could hold the stop.
static void drain(struct http_server *server, int64_t timeout_ms, bool (*hurry)(void))
{
    const int64_t fresh_ms = 1000;
    int64_t start = clock_ns();
    for (;;) {
        int64_t elapsed_ms = (clock_ns() - start) / 1000000;
        bool fresh = atomic_load(&server->fresh) > 0 && elapsed_ms < fresh_ms;
        int requests = atomic_load(&server->options.load->requests);
        if (requests == 0 && !fresh)
            return;
        if (elapsed_ms >= timeout_ms || hurry()) {
            log_warning("stopping with %d requests unanswered", requests);
            return;
        }
        poll(NULL, 0, 5);
    }
}

void http_stop(struct http_server *server, int64_t timeout_ms, bool (*hurry)(void))
{
    if (!server)
        return;
    atomic_store(&server->draining, true);
    listener_stop(server->listener);
    drain(server, timeout_ms, hurry);
    release(server);
}
